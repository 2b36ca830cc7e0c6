// The choice of the compiled kernels that run.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace adacache {

// The instruction sets of this build, and those that this machine can run, the best last.
std::vector<std::string> built_instruction_sets();
std::vector<std::string> instruction_sets();

// The chosen kernels, at first the best.
const Kernels& kernels();

// Throws std::invalid_argument for a name that is not one of instruction_sets().
void set_instruction_set(const std::string& name);

}  // namespace adacache
