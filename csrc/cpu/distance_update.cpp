#include <cmath>

#include "../ops.hpp"
#include "row.hpp"

namespace adacache {
namespace {

// A float64 sum in an order that depends on nothing but the shape. Several lanes, because the
// compiler may not reorder a sum and could not vectorise a single one.
class Sum {
 public:
  template <typename Term>
  void add(std::int64_t count, const Term& term) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) lanes_[lane] += term(i + lane);
    for (; i < count; ++i) lanes_[i % kLanes] += term(i);
  }

  double total() const {
    double total = 0;
    for (double lane : lanes_) total += lane;
    return total;
  }

 private:
  static constexpr int kLanes = 8;
  double lanes_[kLanes] = {};
};

struct DistanceSums {
  Sum first, second, third;

  void add(Metric metric, std::int64_t count, const float* c, const float* p) {
    switch (metric) {
      case Metric::kL1:
        first.add(count, [=](auto i) { return std::fabs(c[i] - p[i]); });
        second.add(count, [=](auto i) { return std::fabs(c[i]); });
        break;
      case Metric::kL2:
        first.add(count, [=](auto i) { return (c[i] - p[i]) * (c[i] - p[i]); });
        second.add(count, [=](auto i) { return c[i] * c[i]; });
        break;
      case Metric::kCosine:
        first.add(count, [=](auto i) { return c[i] * p[i]; });
        second.add(count, [=](auto i) { return c[i] * c[i]; });
        third.add(count, [=](auto i) { return p[i] * p[i]; });
        break;
    }
  }
};

// The sums of one batch element.
class Row {
 public:
  Row(std::int64_t frames, const std::vector<std::int64_t>& frame_strides)
      : strides_(frame_strides), changes_(frame_strides.size()), sizes_(frames) {}

  DistanceSums distance;

  // The residual p of `frame`. The slot already holds those of the earlier frames.
  void add_motion(const View& slot, std::int64_t offset, std::int64_t frame, std::int64_t count,
                  const float* p) {
    if (strides_.empty()) return;
    sizes_[frame].add(count, [=](auto i) { return std::fabs(p[i]); });
    for (std::size_t s = 0; s < strides_.size(); ++s) {
      if (strides_[s] > frame) continue;
      Buffer earlier;
      load(slot, offset - strides_[s] * slot.stride[1], count, earlier);
      changes_[s].add(count, [&](auto i) { return std::fabs(p[i] - earlier[i]); });
    }
  }

  void write(float* sums) const {
    *sums++ = static_cast<float>(distance.first.total());
    *sums++ = static_cast<float>(distance.second.total());
    *sums++ = static_cast<float>(distance.third.total());
    for (std::size_t s = 0; s < strides_.size(); ++s) {
      *sums++ = static_cast<float>(changes_[s].total());
      *sums++ = static_cast<float>(size_of_shifted(strides_[s]));
    }
  }

 private:
  // sum|p[stride:]| + sum|p[:-stride]|
  double size_of_shifted(std::int64_t stride) const {
    const auto frames = static_cast<std::int64_t>(sizes_.size());
    double total = 0;
    for (std::int64_t f = stride; f < frames; ++f)
      total += sizes_[f].total() + sizes_[f - stride].total();
    return total;
  }

  const std::vector<std::int64_t>& strides_;
  std::vector<Sum> changes_;  // by stride
  std::vector<Sum> sizes_;    // by frame
};

void round_to(DType dtype, std::int64_t count, float* values) {
  if (dtype == DType::kBFloat16) {
    for (std::int64_t i = 0; i < count; ++i)
      values[i] = bfloat16_to_float(float_to_bfloat16(values[i]));
  } else if (dtype == DType::kFloat16) {
    for (std::int64_t i = 0; i < count; ++i)
      values[i] = float16_to_float(float_to_float16(values[i]));
  }
}

}  // namespace

void distance_update(const View& slot, const View& x_out, const std::optional<View>& x_in,
                     const std::vector<std::int64_t>& frame_strides, Metric metric,
                     bool has_previous, float* sums) {
  const auto [batch, frames, tokens, channels] = slot.size;
  for (std::int64_t b = 0; b < batch; ++b) {
    Row row(frames, frame_strides);
    for (std::int64_t token = 0; token < tokens; ++token)
      for (std::int64_t first = 0; first < channels; first += kChunk)
        // Frames innermost: the earlier frames of this column are still in the cache.
        for (std::int64_t frame = 0; frame < frames; ++frame) {
          const std::int64_t count = std::min(kChunk, channels - first);
          const std::int64_t offset = slot.offset(b, frame, token) + first;
          Buffer p, in, c;
          load(x_out, x_out.offset(b, frame, token) + first, count, p);
          if (x_in) {
            load(*x_in, x_in->offset(b, frame, token) + first, count, in);
            for (std::int64_t i = 0; i < count; ++i) p[i] -= in[i];
          }
          round_to(slot.dtype, count, p);
          if (has_previous) {
            load(slot, offset, count, c);
            row.distance.add(metric, count, c, p);
          }
          store(slot, offset, count, p);
          row.add_motion(slot, offset, frame, count, p);
        }
    row.write(sums + b * (3 + 2 * frame_strides.size()));
  }
}

}  // namespace adacache
