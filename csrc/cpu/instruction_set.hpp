// Which of the compiled sets of kernels runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace adacache {

// The names of what this build has, and of those that this machine can run, the best last.
std::vector<std::string> built_instruction_sets();
std::vector<std::string> instruction_sets();

// At first the best.
const Kernels& kernels();

// Throws std::invalid_argument for a name that is not one of instruction_sets().
void set_instruction_set(const std::string& name);

}  // namespace adacache
