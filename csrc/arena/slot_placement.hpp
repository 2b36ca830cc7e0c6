// Where slots go. Pure functions of sizes.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace adacache::arena {

constexpr std::size_t kAlignment = 256;

// More than any budget: what does not fit a std::size_t.
constexpr std::size_t kTooMany = std::numeric_limits<std::size_t>::max();

constexpr std::size_t round_down(std::size_t bytes, std::size_t unit) {
  return bytes - bytes % unit;
}

// The least multiple of `unit` that is not less; kTooMany where that does not fit.
constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return bytes > kTooMany - (unit - 1) ? kTooMany : round_down(bytes + unit - 1, unit);
}

constexpr std::size_t add(std::size_t a, std::size_t b) {
  return a > kTooMany - b ? kTooMany : a + b;
}

// Bytes from `offset` of the `chunk`-th chunk of a lease.
struct Extent {
  std::size_t chunk = 0, offset = 0, bytes = 0;
};

struct Placement {
  std::vector<Extent> slots;  // as many as there are sizes, rounded up to the alignment
  std::vector<Extent> free;   // what is left of the free extents
  std::size_t in_new = 0;  // bytes from the start of the new chunk; kTooMany: more than there are
  std::size_t taken = 0;   // by all slots; kTooMany likewise
};

// Each size in turn into the first free extent that has room for it, else into the chunk
// `new_chunk`, one after the other.
Placement place(const std::vector<std::size_t>& sizes, std::vector<Extent> free,
                std::size_t new_chunk);

// Bytes that slots of these sizes take on `granularity`: what grow() maps in an empty lease.
std::size_t planned_bytes(const std::vector<std::size_t>& sizes, std::size_t granularity);

}  // namespace adacache::arena
