// Owners of C++ objects whose destructors may wait for a device: they are deleted without the GIL.
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
