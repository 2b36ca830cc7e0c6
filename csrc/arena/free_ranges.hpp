// The free addresses of a reservation.
#pragma once

#include <cstddef>
#include <map>

#include "memory.hpp"

namespace adacache::arena {

class FreeRanges {
 public:
  // Frees a range, and merges it with free neighbours.
  void give(Address address, std::size_t bytes);

  // Takes the lowest free range with room for `bytes`; returns 0 if there is none.
  Address take(std::size_t bytes);

 private:
  std::map<Address, std::size_t> free_;
};

}  // namespace adacache::arena
