// The declarations that the parts of the driver stub share.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "cuda/driver.hpp"

namespace fakecuda {

namespace cu = adacache::cu;
using cu::Result;

// Guards all state except that of single threads.
std::recursive_mutex& mutex();

// Returns the value of FAKECUDA_<name>, or of a later fakecuda_set().
std::string setting(const char* name, const char* otherwise = "");
std::uint64_t number(const char* name, std::uint64_t otherwise);

// Counts a call, and returns the error that it has to return at once: an injected fault, or that
// the driver is not initialized.
Result enter(const char* function);

// Records a misuse for fakecuda_errors().
void misuse(const std::string& what);

struct Context {
  int device = 0;
  int retained = 0;
  std::uint64_t bytes = 0;        // of memory in use
  Result failure = cu::kSuccess;  // of a kernel
};

bool is_device(int device);
Context& primary(int device);

// Returns the context of this thread, or null.
Context* current();

long pushed_contexts();  // of this thread

// Takes bytes of the device's memory, if it has as many.
bool take_memory(int device, std::uint64_t bytes);
void give_memory(int device, std::uint64_t bytes);

// For a call that the documentation names unsafe during a capture in the modes that forbid it:
// invalidates those captures.
Result unsafe_call(const char* function);

// Returns whether the device may read and write there.
bool is_allocated(cu::DevicePtr address, std::uint64_t bytes);
bool is_accessible(cu::DevicePtr address, std::uint64_t bytes);

// Lets streams do some work if the pace is random.
void at_each_call();

// Counts the waits of the host for the device.
long waits();
void forget_waits();

// Does all work of the device's streams.
bool all_done(int device);

// The counts of the parts for fakecuda_live(): -1 for a kind of another part.
long live_streams(const std::string& kind);
long live_graphs(const std::string& kind);
long live_modules(const std::string& kind);
long live_copies(const std::string& kind);
long live_memory(const std::string& kind);
long live_virtual_memory(const std::string& kind);
long live_contexts();

}  // namespace fakecuda

#define FAKECUDA_API extern "C" __attribute__((visibility("default")))

#define FAKECUDA_ENTER(function)                                                \
  const std::lock_guard<std::recursive_mutex> fakecuda_lock(fakecuda::mutex()); \
  if (const fakecuda::Result fakecuda_code = fakecuda::enter(#function)) return fakecuda_code
