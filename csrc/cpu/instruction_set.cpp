#include "instruction_set.hpp"

#include <atomic>
#include <stdexcept>

namespace adacache {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool runs;  // on this machine, under this operating system
};

std::vector<Candidate> candidates() {
  std::vector<Candidate> found{{&kBaselineKernels, true}};
#ifdef ADACACHE_X86_KERNELS
  __builtin_cpu_init();
  found.push_back(
      {&kAvx2Kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")});
  found.push_back({&kAvx512Kernels,
                   __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")});
#endif
  return found;
}

const Kernels* best() {
  const Kernels* last = nullptr;
  for (const Candidate& candidate : candidates())
    if (candidate.runs) last = candidate.kernels;
  return last;
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> kernels{best()};
  return kernels;
}

}  // namespace

std::vector<std::string> built_instruction_sets() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) names.emplace_back(candidate.kernels->name);
  return names;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates())
    if (candidate.runs) names.emplace_back(candidate.kernels->name);
  return names;
}

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

void set_instruction_set(const std::string& name) {
  for (const Candidate& candidate : candidates())
    if (candidate.runs && candidate.kernels->name == name) {
      chosen().store(candidate.kernels, std::memory_order_relaxed);
      return;
    }
  throw std::invalid_argument("instruction set " + name + " is not one of instruction_sets()");
}

}  // namespace adacache
