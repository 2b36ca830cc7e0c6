// Which addresses of a reservation are free.
#pragma once

#include <cstddef>
#include <map>

#include "memory.hpp"

namespace adacache::arena {

class Ranges {
 public:
  // Neighbours that are free become one.
  void give(Address address, std::size_t bytes);

  // The lowest addresses that have room; 0 where none has.
  Address take(std::size_t bytes);

 private:
  std::map<Address, std::size_t> free_;
};

}  // namespace adacache::arena
