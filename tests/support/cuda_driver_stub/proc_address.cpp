// cuGetProcAddress.
#include <dlfcn.h>

#include <sstream>

#include "fake.hpp"

namespace fakecuda {
namespace {

bool listed(const char* setting_name, const std::string& name) {
  std::istringstream names(setting(setting_name));
  for (std::string one; std::getline(names, one, ',');)
    if (one == name) return true;
  return false;
}

// Returns the exported name of a function: the newest version that a program of `version` knows.
void* exported(const std::string& name) {
  static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void* function = dlsym(self, (name + "_v2").c_str());
  return function != nullptr ? function : dlsym(self, name.c_str());
}

}  // namespace
}  // namespace fakecuda

using namespace fakecuda;

// FAKECUDA_WITHOUT="cuMemCreate,cuEventRecord" removes these functions.
FAKECUDA_API int cuGetProcAddress_v2(const char* name, void** function, int, std::uint64_t,
                                     int* status) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  *function = listed("WITHOUT", name) ? nullptr : exported(name);
  if (status != nullptr) *status = *function == nullptr ? 1 : 0;
  return *function == nullptr ? cu::kNotFound : cu::kSuccess;
}
