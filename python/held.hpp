// Python drops its objects with the GIL; what they own may wait for the device when it goes.
#pragma once

#include <memory>

#include "without_gil.hpp"

namespace adacache {

struct DeleteWithoutGil {
  template <typename T>
  void operator()(T* owner) const {
    without_gil([owner] { delete owner; });
  }
};

template <typename T>
using Owner = std::unique_ptr<T, DeleteWithoutGil>;

}  // namespace adacache
