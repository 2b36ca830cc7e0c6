#include "free_ranges.hpp"

#include <iterator>

namespace adacache::arena {

void FreeRanges::give(Address address, std::size_t bytes) {
  auto range = free_.emplace(address, bytes).first;
  const auto next = std::next(range);
  if (next != free_.end() && address + bytes == next->first) {
    range->second += next->second;
    free_.erase(next);
  }
  if (range == free_.begin()) return;
  const auto previous = std::prev(range);
  if (previous->first + previous->second != address) return;
  previous->second += range->second;
  free_.erase(range);
}

Address FreeRanges::take(std::size_t bytes) {
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->second < bytes) continue;
    const Address address = range->first;
    const std::size_t left = range->second - bytes;
    if (left == 0) {
      free_.erase(range);
    } else {
      auto node = free_.extract(range);
      node.key() = address + bytes;
      node.mapped() = left;
      free_.insert(std::move(node));
    }
    return address;
  }
  return 0;
}

}  // namespace adacache::arena
