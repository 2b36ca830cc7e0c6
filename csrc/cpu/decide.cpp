#include <cmath>
#include <cstdlib>
#include <limits>

#include "../ops.hpp"

namespace adacache {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// base^exponent by repeated squaring: std::pow would make the extension need libm.
double power(double base, int exponent) {
  double result = 1;
  for (unsigned n = std::abs(exponent); n != 0; n >>= 1, base *= base)
    if (n & 1u) result *= base;
  return exponent < 0 ? 1 / result : result;
}

bool is_finite(double value) { return std::isfinite(static_cast<float>(value)); }

// The sums of one video of the batch.
class Video {
 public:
  Video(const PartialSums& sums, Metric metric, std::int64_t video, std::int64_t videos)
      : sums_(sums), metric_(metric), video_(video), videos_(videos) {}

  double raw_distance(double gap) {
    double total = 0;
    for (std::int64_t location = 0; location < sums_.locations; ++location)
      total += distance(location) / gap;
    return total / static_cast<double>(sums_.locations);
  }

  double motion() {
    const std::int64_t strides = (sums_.columns - 3) / 2;
    double total = 0;
    for (std::int64_t s = 0; s < strides; ++s)
      total +=
          ratio(column(sums_.locations - 1, 3 + 2 * s), column(sums_.locations - 1, 4 + 2 * s));
    return total / static_cast<double>(strides);
  }

  bool has_zero_denominator() const { return has_zero_denominator_; }

 private:
  double distance(std::int64_t location) {
    const double first = column(location, 0);
    const double second = column(location, 1);
    switch (metric_) {
      case Metric::kL1:
        return ratio(first, second);
      case Metric::kL2:
        return ratio(std::sqrt(first), std::sqrt(second));
      case Metric::kCosine:
        return 1 - ratio(first, std::sqrt(second * column(location, 2)));
    }
    return kNaN;
  }

  // Over the rows of the video and the partial sums of each.
  double column(std::int64_t location, std::int64_t index) const {
    double total = 0;
    for (std::int64_t row = video_; row < sums_.batch; row += videos_) {
      const std::int64_t first = (location * sums_.batch + row) * sums_.partials;
      for (std::int64_t partial = first; partial < first + sums_.partials; ++partial)
        total += sums_.data[partial * sums_.columns + index];
    }
    return total;
  }

  double ratio(double numerator, double denominator) {
    if (denominator != 0) return numerator / denominator;
    has_zero_denominator_ = true;
    return kNaN;
  }

  const PartialSums& sums_;
  Metric metric_;
  std::int64_t video_, videos_;
  bool has_zero_denominator_ = false;
};

struct Outcome {
  double raw = kNaN, distance = kNaN, score = 1;
  bool is_undefined = false;
};

Outcome compared(Video video, double gap, const Moreg& moreg, float& previous_motion) {
  Outcome found;
  found.raw = gap > 0 ? video.raw_distance(gap) : kNaN;
  if (moreg.apply && moreg.in_window)
    found.score = power(video.motion() / moreg.a, moreg.b) / moreg.d;
  found.distance = found.raw;
  if (moreg.apply) {
    const double gradient = moreg.gradient_factor * (found.score - previous_motion) / gap;
    found.distance = found.raw * (found.score + std::fabs(gradient));
    if (is_finite(found.score)) previous_motion = static_cast<float>(found.score);
  }
  found.is_undefined = video.has_zero_denominator() || !(gap > 0);
  if (found.is_undefined) found.distance = kNaN;
  return found;
}

// The video that decides: the first whose distance is not finite, else that of the largest.
bool decides(const Outcome& now, const Outcome& before) {
  if (!is_finite(before.distance)) return false;
  return !is_finite(now.distance) || now.distance > before.distance;
}

struct Pooled {
  Outcome outcome;
  int flags = 0;
};

Pooled pooled(const PartialSums& sums, Metric metric, double gap, const Moreg& moreg,
              const Batch& batch, float* state) {
  Pooled found;
  bool is_undefined = false, is_bad = false;
  Outcome total{0, 0, 0};
  for (std::int64_t v = 0; v < batch.videos; ++v) {
    float& motion = batch.motions == nullptr ? state[kPreviousMotion] : batch.motions[v];
    const Outcome now = compared({sums, metric, v, batch.videos}, gap, moreg, motion);
    if (v == 0 || decides(now, found.outcome)) found.outcome = now;
    total.raw += now.raw;
    total.distance += now.distance;
    total.score += now.score;
    is_undefined |= now.is_undefined;
    is_bad |= !is_finite(now.distance);
  }
  const auto videos = static_cast<double>(batch.videos);
  if (batch.mean)
    found.outcome = {total.raw / videos, total.distance / videos, total.score / videos};
  found.flags = is_undefined ? kZeroDenominator : is_bad ? kNotFinite : 0;
  return found;
}

// Compared in float32, as the distance is recorded: the record explains the decision.
float rate_of(float distance, const Codebook& codebook) {
  const float* rates = codebook.data + codebook.entries;
  for (std::int64_t i = 0; i < codebook.entries; ++i)
    if (distance < codebook.data[i]) return rates[i];
  return rates[codebook.entries - 1];
}

}  // namespace

void decide(float* state, const PartialSums& sums, const Codebook& codebook, std::int64_t step,
            Metric metric, bool has_previous, const Moreg& moreg, std::int64_t sequence,
            const Batch& batch) {
  Pooled found{{}, kNoPrevious};
  if (has_previous) {
    const double gap = static_cast<double>(step) - state[kStep];
    found = pooled(sums, metric, gap, moreg, batch, state);
  }
  state[kSequence] = state[kSequenceAgain] = static_cast<float>(sequence);
  state[kStep] = static_cast<float>(step);
  state[kRawDistance] = static_cast<float>(found.outcome.raw);
  state[kDistance] = static_cast<float>(found.outcome.distance);
  state[kMotion] = static_cast<float>(found.outcome.score);
  state[kRate] = found.flags == 0 ? rate_of(state[kDistance], codebook) : 1;
  state[kNextStep] = state[kStep] + state[kRate];
  state[kFlags] = static_cast<float>(found.flags);
}

}  // namespace adacache
