// The functions of an old driver, without virtual memory management and cuGetProcAddress.
#include "fake.hpp"

namespace fakecuda {

bool is_accessible(cu::DevicePtr, std::uint64_t) { return false; }

long live_virtual_memory(const std::string& kind) {
  return kind == "phys" || kind == "maps" || kind == "reservations" ? 0 : -1;
}

}  // namespace fakecuda
