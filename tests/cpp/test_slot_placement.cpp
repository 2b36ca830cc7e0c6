// The placement of slots (A2) and the free addresses, against the simplest bookkeeping.
#include <algorithm>
#include <random>
#include <vector>

#include "arena/free_ranges.hpp"
#include "arena/slot_placement.hpp"
#include "check.hpp"

using namespace adacache;
using namespace adacache::arena;

namespace {

bool overlap(const Extent& a, const Extent& b) {
  return a.chunk == b.chunk && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

std::size_t total(const std::vector<Extent>& extents) {
  std::size_t sum = 0;
  for (const Extent& extent : extents) sum += extent.bytes;
  return sum;
}

void check_examples() {
  const Placement fresh = place({1, 256, 257, 0}, {}, 3);
  CHECK(fresh.in_new == 1024 && fresh.taken == 1024 && fresh.free.empty());
  const std::size_t offsets[] = {0, 256, 512, 1024};
  for (int i = 0; i < 4; ++i)
    CHECK(fresh.slots[i].chunk == 3 && fresh.slots[i].offset == offsets[i]);

  const Placement again = place({300, 200, 300}, {{0, 512, 256}, {1, 0, 512}}, 2);
  CHECK(again.slots[0].chunk == 1 && again.slots[0].offset == 0);
  CHECK(again.slots[1].chunk == 0 && again.slots[1].offset == 512);
  CHECK(again.slots[2].chunk == 2 && again.slots[2].offset == 0);
  CHECK(again.in_new == 512 && again.taken == 1280 && again.free.empty());
}

void check_sizes() {
  CHECK(planned_bytes({}, 4096) == 0);
  CHECK(planned_bytes({0, 0}, 4096) == 0);
  CHECK(planned_bytes({1}, 4096) == 4096);
  CHECK(planned_bytes({4096 - 256, 256}, 4096) == 4096);
  CHECK(planned_bytes({4096 - 256, 257}, 4096) == 8192);
  CHECK(planned_bytes({kTooMany}, 4096) == kTooMany);
  CHECK(planned_bytes({kTooMany / 2, kTooMany / 2, kTooMany / 2}, 4096) == kTooMany);
  CHECK(place({kTooMany, 1}, {{0, 0, 256}}, 1).slots[1].chunk == 0);
}

void check_any_placement(std::mt19937& random) {
  const auto below = [&](std::size_t n) { return random() % n; };
  std::vector<Extent> free;
  for (std::size_t chunk = 0; chunk < 4; ++chunk)
    free.push_back({chunk, 256 * below(8), 256 * (1 + below(40))});
  const std::vector<Extent> before = free;
  std::vector<std::size_t> sizes(below(12));
  for (std::size_t& size : sizes) size = below(3000);
  const Placement result = place(sizes, free, 4);

  CHECK(result.slots.size() == sizes.size());
  std::size_t old = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Extent& slot = result.slots[i];
    CHECK(slot.offset % kAlignment == 0 && slot.bytes >= sizes[i]);
    CHECK(slot.bytes < sizes[i] + kAlignment);
    if (slot.chunk == 4) {
      CHECK(slot.offset + slot.bytes <= result.in_new);
    } else {
      old += slot.bytes;
      CHECK(slot.offset >= before[slot.chunk].offset);
      CHECK(slot.offset + slot.bytes <= before[slot.chunk].offset + before[slot.chunk].bytes);
    }
    for (std::size_t j = 0; j < i; ++j) CHECK(!overlap(slot, result.slots[j]));
    for (const Extent& rest : result.free) CHECK(!overlap(slot, rest));
  }
  CHECK(total(result.free) + old == total(before));
  CHECK(result.taken == old + result.in_new && result.taken == total(result.slots));
}

void check_ranges(std::mt19937& random) {
  constexpr std::size_t kUnits = 64, kBase = 1000;
  std::vector<bool> used(kUnits);
  std::vector<Extent> taken;
  FreeRanges ranges;
  ranges.give(kBase, kUnits);
  const auto first_fit = [&](std::size_t bytes) -> std::size_t {
    for (std::size_t at = 0; at + bytes <= kUnits; ++at)
      if (std::none_of(used.begin() + at, used.begin() + at + bytes, [](bool u) { return u; }))
        return kBase + at;
    return 0;
  };
  for (int step = 0; step < 400; ++step) {
    if (random() % 2 == 0 && !taken.empty()) {
      std::swap(taken[random() % taken.size()], taken.back());
      ranges.give(taken.back().offset, taken.back().bytes);
      std::fill_n(used.begin() + (taken.back().offset - kBase), taken.back().bytes, false);
      taken.pop_back();
      continue;
    }
    const std::size_t bytes = 1 + random() % 12;
    const Address expected = first_fit(bytes);
    CHECK(ranges.take(bytes) == expected);
    if (expected == 0) continue;
    std::fill_n(used.begin() + (expected - kBase), bytes, true);
    taken.push_back({0, expected, bytes});
  }
}

}  // namespace

int main() {
  check_examples();
  check_sizes();
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) check_any_placement(random);
  for (int round = 0; round < 50; ++round) check_ranges(random);
  return failures() > 0;
}
