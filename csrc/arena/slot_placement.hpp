// The placement of slots in chunks. All functions depend on sizes only.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace adacache::arena {

constexpr std::size_t kAlignment = 256;

// More bytes than any budget; a result that does not fit a std::size_t.
constexpr std::size_t kTooMany = std::numeric_limits<std::size_t>::max();

constexpr std::size_t round_down(std::size_t bytes, std::size_t unit) {
  return bytes - bytes % unit;
}

// Returns the least multiple of `unit` that is not less, or kTooMany if it does not fit.
constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return bytes > kTooMany - (unit - 1) ? kTooMany : round_down(bytes + unit - 1, unit);
}

constexpr std::size_t add(std::size_t a, std::size_t b) {
  return a > kTooMany - b ? kTooMany : a + b;
}

// A range of bytes in the `chunk`-th chunk of a lease.
struct Extent {
  std::size_t chunk = 0, offset = 0, bytes = 0;
};

struct Placement {
  std::vector<Extent> slots;  // one for each size, rounded up to the alignment
  std::vector<Extent> free;   // the rest of the free extents
  std::size_t in_new = 0;     // bytes at the start of the new chunk, or kTooMany
  std::size_t taken = 0;      // bytes of all slots, or kTooMany
};

// Places each size in the first free extent with enough room, or next in the chunk `new_chunk`.
Placement place(const std::vector<std::size_t>& sizes, std::vector<Extent> free,
                std::size_t new_chunk);

// Returns the bytes that grow() maps for these sizes in an empty lease.
std::size_t planned_bytes(const std::vector<std::size_t>& sizes, std::size_t granularity);

}  // namespace adacache::arena
