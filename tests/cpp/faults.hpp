// Failing calls of the driver, and the objects that they may leak.
#pragma once

#include <cstdio>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "fake_driver.hpp"

struct Fault {
  std::string function;
  int call = 0;
  int code = 0;

  std::string text() const {
    return function + ":" + std::to_string(call) + "=" + std::to_string(code);
  }
};

inline std::string message(const std::string& what, const Fault& fault) {
  return "with " + fault.text() + ": " + what + "\n";
}

// A failed call that frees an object leaks it, because it must not be repeated: the driver may have
// reused the handle. cuMemUnmap is repeated: the addresses stay reserved.
inline long may_be_left(const Fault& fault, const std::string& kind) {
  const std::pair<const char*, const char*> table[] = {
      {"cuMemAddressFree", "reservations"},
      {"cuMemRelease", "phys"},
      {"cuMemFree", "allocs"},
      {"cuEventDestroy", "events"},
      {"cuMemFreeHost", "pinned"},
      {"cuModuleUnload", "modules"},
      {"cuGraphDestroy", "graphs"},
      {"cuGraphExecDestroy", "execs"},
      {"cuDevicePrimaryCtxRelease", "contexts"},
      {"cuCtxPopCurrent", "current"},
  };
  for (const auto& [function, left] : table)
    if (fault.function == function && kind == left) return 1;
  return 0;
}

struct Count {
  std::string kind;
  long before;
};

inline std::vector<Count> count_all() {
  std::vector<Count> counts;
  for (const char* kind : {"phys", "maps", "reservations", "allocs", "pinned", "events", "modules",
                           "graphs", "execs", "contexts", "current"})
    counts.push_back({kind, fake::live(kind)});
  return counts;
}

// `also` is a kind of which one more object may be leaked.
inline void check_left(const std::vector<Count>& before, const Fault& fault,
                       const std::string& also = {}) {
  for (const Count& count : before) {
    const long left = fake::live(count.kind.c_str()) - count.before;
    if (left < 0 || left > may_be_left(fault, count.kind) + has(also, count.kind)) {
      std::printf("%s", message(std::to_string(left) + " " + count.kind + " left", fault).c_str());
      CHECK(false);
    }
  }
  if (fake::errors() > 0) {
    std::printf("%s", message("misuse: " + fake::last_error(), fault).c_str());
    CHECK(false);
  }
}

// Undoes the effect of a failed pop, or of a failed change of the mode, on this thread.
inline void tidy_thread() {
  adacache::cu::Context context = nullptr;
  int mode = adacache::cu::kGlobal;
  fake::get<int(int*)>("cuThreadExchangeStreamCaptureMode")(&mode);
  while (fake::live("current") > 0)
    fake::get<int(adacache::cu::Context*)>("cuCtxPopCurrent_v2")(&context);
}

// Returns each of these calls, "cuInit:1,cuMemMap:3", as a fault without a code; `not_ours` names
// the functions that the test itself calls.
inline std::vector<Fault> faults_of(const std::string& called, const std::string& not_ours) {
  std::vector<Fault> faults;
  std::istringstream list(called);
  for (std::string entry; std::getline(list, entry, ',');) {
    const std::size_t colon = entry.find(':');
    const std::string function = entry.substr(0, colon);
    const bool ours = !has(not_ours + " cuGetErrorName", function);
    for (int call = 1; ours && call <= std::stoi(entry.substr(colon + 1)); ++call)
      faults.push_back({function, call, 0});
  }
  return faults;
}
