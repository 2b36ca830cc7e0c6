// What an arena asks of the machine: addresses, and memory to put there. One implementation for
// host memory and one for CUDA devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace adacache::arena {

using Address = std::uintptr_t;
using Stream = std::uintptr_t;  // a CUstream; 0, the legacy stream, for host memory

// A call to the machine that failed.
struct Failure {
  std::string call;  // "cuMemCreate", "mmap"
  int code;          // CUresult or errno
  std::string name;  // "CUDA_ERROR_OUT_OF_MEMORY", "ENOMEM"
};

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// There is less memory, or less of the budget, than was asked for.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// What was asked for must not happen while a stream is being captured.
class CaptureError : public Error {
 public:
  using Error::Error;
};

}  // namespace adacache::arena
