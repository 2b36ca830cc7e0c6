// The interface for tests: faults, counts, leaks.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

#include "fake.hpp"

namespace fakecuda {
namespace {

struct State {
  std::map<std::string, std::string> settings;
  std::map<std::string, long> calls;
  std::string names;  // all called functions, for fakecuda_called()
  long errors = 0;
  std::string last_error;
};

// Never destroyed: a program may call the driver at any time.
State& state() {
  static State* const made = new State;
  return *made;
}

bool initialized(const char* function) {
  static bool done = false;
  if (std::strcmp(function, "cuInit") == 0) done = true;
  return done || std::strcmp(function, "cuGetErrorName") == 0;
}

// FAKECUDA_FAIL="cuMemMap:2,cuMemCreate:5=800,cuInit:*": the call of that number, or every call,
// fails with that code, or with out of memory.
Result injected(const char* function, long call) {
  std::istringstream faults(setting("FAIL"));
  for (std::string fault; std::getline(faults, fault, ',');) {
    const auto colon = fault.find(':'), equals = fault.find('=');
    if (colon == std::string::npos || fault.substr(0, colon) != function) continue;
    const std::string which = fault.substr(colon + 1, equals - colon - 1);
    if (which != "*" && std::atol(which.c_str()) != call) continue;
    return equals == std::string::npos ? cu::kOutOfMemory : std::atoi(fault.c_str() + equals + 1);
  }
  return cu::kSuccess;
}

}  // namespace

std::recursive_mutex& mutex() {
  static auto* const made = new std::recursive_mutex;
  return *made;
}

std::string setting(const char* name, const char* otherwise) {
  const auto found = state().settings.find(name);
  if (found != state().settings.end()) return found->second;
  const char* value = std::getenv((std::string("FAKECUDA_") + name).c_str());
  return value == nullptr ? otherwise : value;
}

std::uint64_t number(const char* name, std::uint64_t otherwise) {
  const std::string value = setting(name);
  return value.empty() ? otherwise : std::strtoull(value.c_str(), nullptr, 0);
}

Result enter(const char* function) {
  at_each_call();
  const Result fault = injected(function, ++state().calls[function]);
  if (fault != cu::kSuccess) return fault;
  return initialized(function) ? cu::kSuccess : cu::kNotInitialized;
}

void misuse(const std::string& what) {
  ++state().errors;
  state().last_error = what;
}

}  // namespace fakecuda

using namespace fakecuda;
using Lock = std::lock_guard<std::recursive_mutex>;

// Sets FAKECUDA_<name> instead of the environment; null restores the environment's value.
FAKECUDA_API void fakecuda_set(const char* name, const char* value) {
  const Lock lock(mutex());
  if (value == nullptr)
    state().settings.erase(name);
  else
    state().settings[name] = value;
}

// Resets counts and errors, but keeps all objects.
FAKECUDA_API void fakecuda_reset() {
  const Lock lock(mutex());
  state().calls.clear();
  state().errors = 0;
  state().last_error.clear();
  forget_waits();
}

// Returns the calls of a function since the last reset; null: of all functions.
FAKECUDA_API long fakecuda_calls(const char* function) {
  const Lock lock(mutex());
  if (function != nullptr) return state().calls[function];
  long sum = 0;
  for (const auto& [name, count] : state().calls) sum += count;
  return sum;
}

// Returns the calls of all functions since the last reset: "cuInit:1,cuMemMap:3".
FAKECUDA_API const char* fakecuda_called() {
  const Lock lock(mutex());
  state().names.clear();
  for (const auto& [name, count] : state().calls)
    if (count > 0)
      state().names += (state().names.empty() ? "" : ",") + name + ":" + std::to_string(count);
  return state().names.c_str();
}

// Returns the number of "phys", "maps", "reservations", "allocs", "bytes", "pinned", "events",
// "streams", "modules", "graphs", "execs", "contexts" (retained); "current": contexts pushed by
// this thread. -1 for anything else.
FAKECUDA_API long fakecuda_live(const char* kind) {
  const Lock lock(mutex());
  if (std::strcmp(kind, "contexts") == 0) return live_contexts();
  return std::max({live_memory(kind), live_virtual_memory(kind), live_streams(kind),
                   live_graphs(kind), live_modules(kind), live_copies(kind)});
}

// Misuse since the last reset: unknown or dead handles, memory unmapped under running work,
// captures broken.
FAKECUDA_API long fakecuda_errors() {
  const Lock lock(mutex());
  return state().errors;
}

FAKECUDA_API const char* fakecuda_last_error() {
  const Lock lock(mutex());
  return state().last_error.c_str();
}
