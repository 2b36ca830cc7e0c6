// Divides the elements of several views of one shape into tasks, and tasks into contiguous runs.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../strided_view.hpp"

namespace adacache {

// The elements of a task: enough to justify its start (9 ns), and few enough that the threads
// finish together. It must not depend on the number of threads, because the sums depend on it.
constexpr std::int64_t kTaskSize = 1 << 16;

inline std::int64_t count_of(const std::array<std::int64_t, 4>& size) {
  return size[0] * size[1] * size[2] * size[3];
}

inline std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Some units, columns or tokens, of some frames of a sample.
struct Part {
  std::int64_t batch, first_frame, last_frame, first, last;
};

// Divides each sample into parts. They depend on the shape only, like the order of the sums.
class Partition {
 public:
  Partition() = default;  // of empty samples: no parts
  Partition(std::int64_t frames, std::int64_t frames_per_part, std::int64_t units,
            std::int64_t units_per_part)
      : frames_(frames),
        frames_per_part_(frames_per_part),
        units_(units),
        units_per_part_(units_per_part),
        parts_by_frame_(divided_up(frames, frames_per_part)),
        parts_by_unit_(divided_up(units, units_per_part)) {}

  std::int64_t parts_per_sample() const { return parts_by_unit_ * parts_by_frame_; }

  Part part(std::int64_t index) const {
    const std::int64_t frame = index / parts_by_unit_ % parts_by_frame_ * frames_per_part_;
    const std::int64_t unit = index % parts_by_unit_ * units_per_part_;
    return {index / parts_per_sample(), frame, std::min(frame + frames_per_part_, frames_), unit,
            std::min(unit + units_per_part_, units_)};
  }

 private:
  std::int64_t frames_ = 0, frames_per_part_ = 0, units_ = 0, units_per_part_ = 0;
  std::int64_t parts_by_frame_ = 0, parts_by_unit_ = 0;
};

// Makes the rows of all views as long as possible: [2, 3, 4, 5] becomes [1, 1, 1, 120] if all are
// contiguous.
inline void merge_rows(const std::vector<View*>& views) {
  const auto is_mergeable = [](const View* view) {
    return view->size[2] == 1 || view->stride[2] == view->size[3];
  };
  for (int i = 0; i < 3; ++i) {
    if (!std::all_of(views.begin(), views.end(), is_mergeable)) return;
    for (View* view : views) {
      const auto [first, second, third, row] = view->size;
      view->size = {1, first, second, third * row};
      view->stride = {0, view->stride[0], view->stride[1], 1};
    }
  }
}

// Calls `body(i, j, k, first, count)` for each part of a row among the elements `begin` to `end`.
template <typename Body>
void for_each_piece(const std::array<std::int64_t, 4>& size, std::int64_t begin, std::int64_t end,
                    const Body& body) {
  while (begin < end) {
    const std::int64_t row = begin / size[3], first = begin % size[3];
    const std::int64_t count = std::min(size[3] - first, end - begin);
    body(row / (size[1] * size[2]), row / size[2] % size[1], row % size[2], first, count);
    begin += count;
  }
}

}  // namespace adacache
