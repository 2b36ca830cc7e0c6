// CHECK(condition) counts and prints failed conditions; main() returns whether there were any.
#pragma once

#include <atomic>
#include <cstdio>
#include <string>

inline std::atomic<int>& failures() {
  static std::atomic<int> count{0};
  return count;
}

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      ++failures();                                                         \
    }                                                                       \
  } while (false)

// Returns the message of the exception that `call` throws, or an empty text. Exceptions of other
// types are not caught.
template <typename Exception, typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return {};
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
