// The additions from the kernels' lanes to the sums of distance_update, in a fixed order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.hpp"
#include "kernels.hpp"

namespace adacache {

inline double total(const Lanes& lanes) {
  double part[kLanes];
  std::copy_n(lanes.part, kLanes, part);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

inline Sums sums_of(Metric metric) {
  switch (metric) {
    case Metric::kL1:
      return Sums::kL1;
    case Metric::kL2:
      return Sums::kL2;
    case Metric::kCosine:
      return Sums::kCosine;
  }
  return Sums::kNone;
}

// Adds up the parts of each sample, of `width` sums each.
inline void write_sums(const std::vector<double>& partial, std::int64_t batch, std::int64_t parts,
                       std::int64_t width, float* sums) {
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t column = 0; column < width; ++column) {
      double sum = 0;
      for (std::int64_t p = 0; p < parts; ++p) sum += partial[(b * parts + p) * width + column];
      sums[b * width + column] = static_cast<float>(sum);
    }
}

}  // namespace adacache
