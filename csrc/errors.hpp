// The errors of the operating system and of the CUDA driver.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace adacache {

// A call to the operating system or to the driver that failed.
struct Failure {
  std::string call;            // "cuMemCreate", "mmap"
  int code = 0;                // CUresult or errno
  std::string name;            // "CUDA_ERROR_OUT_OF_MEMORY", "ENOMEM"
  bool out_of_memory = false;  // whether the code means that
};

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Less memory is available than the call needs.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// The call is not allowed while a stream is being captured.
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
