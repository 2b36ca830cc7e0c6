// What the parts of the fake driver share.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "cuda/driver.hpp"

namespace fakecuda {

namespace cu = adacache::cu;
using cu::Result;

// Guards everything but what a thread has for itself.
std::recursive_mutex& mutex();

// What FAKECUDA_<name> says, or what fakecuda_set() has said since.
std::string setting(const char* name, const char* otherwise = "");
std::uint64_t number(const char* name, std::uint64_t otherwise);

// Counts a call; says what it has to return at once: an injected fault, or that nothing is
// initialized.
Result enter(const char* function);

// Something that a program must not do: remembered for fakecuda_errors().
void misuse(const std::string& what);

struct Context {
  int device = 0;
  int retained = 0;
  std::uint64_t bytes = 0;        // of memory in use
  Result failure = cu::kSuccess;  // of a kernel
};

bool is_device(int device);
Context& primary(int device);

// The context of this thread, or null.
Context* current();

long pushed_contexts();  // of this thread

// Of the device's memory: takes bytes if there are as many.
bool take_memory(int device, std::uint64_t bytes);
void give_memory(int device, std::uint64_t bytes);

// For a call that the documentation names unsafe during a capture in the modes that forbid it:
// invalidates those captures.
Result unsafe_call(const char* function);

// Whether the device may read and write there.
bool is_allocated(cu::DevicePtr address, std::uint64_t bytes);
bool is_accessible(cu::DevicePtr address, std::uint64_t bytes);

// Lets streams go on where the pace is random.
void at_each_call();

// How often the host has waited for the device.
long waits();
void forget_waits();

// The device's streams have done all that was asked of them.
bool all_done(int device);

// Of the parts, for fakecuda_live(): -1 for a kind that is another part's.
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
