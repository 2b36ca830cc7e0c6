#include "slot_placement.hpp"

#include <algorithm>

namespace adacache::arena {

Placement place(const std::vector<std::size_t>& sizes, std::vector<Extent> free,
                std::size_t new_chunk) {
  Placement result;
  result.slots.reserve(sizes.size());
  for (const std::size_t size : sizes) {
    const std::size_t bytes = round_up(size, kAlignment);
    result.taken = add(result.taken, bytes);
    const auto room = std::find_if(free.begin(), free.end(),
                                   [&](const Extent& extent) { return extent.bytes >= bytes; });
    if (room != free.end()) {
      result.slots.push_back({room->chunk, room->offset, bytes});
      room->offset += bytes;
      room->bytes -= bytes;
    } else {
      result.slots.push_back({new_chunk, result.in_new, bytes});
      result.in_new = add(result.in_new, bytes);
    }
  }
  free.erase(std::remove_if(free.begin(), free.end(),
                            [](const Extent& extent) { return extent.bytes == 0; }),
             free.end());
  result.free = std::move(free);
  return result;
}

std::size_t planned_bytes(const std::vector<std::size_t>& sizes, std::size_t granularity) {
  return round_up(place(sizes, {}, 0).in_new, granularity);
}

}  // namespace adacache::arena
