// What can go wrong on the machine.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace adacache {

// A call to the machine that failed.
struct Failure {
  std::string call;            // "cuMemCreate", "mmap"
  int code = 0;                // CUresult or errno
  std::string name;            // "CUDA_ERROR_OUT_OF_MEMORY", "ENOMEM"
  bool out_of_memory = false;  // whether the code says so
};

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// There is less memory than was asked for.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// What was asked for must not happen while a stream is being captured.
class CaptureError : public Error {
 public:
  using Error::Error;
};

class CallFailed : public Error {
 public:
  explicit CallFailed(Failure what)
      : Error(what.call + " failed: " + what.name + " (" + std::to_string(what.code) + ")"),
        failure(std::move(what)) {}
  Failure failure;
};

}  // namespace adacache
