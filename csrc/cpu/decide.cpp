#include <cmath>
#include <cstdlib>
#include <limits>

#include "../ops.hpp"

namespace adacache {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Returns base^exponent by repeated squaring: std::pow would need libm.
double power(double base, int exponent) {
  double result = 1;
  for (unsigned n = std::abs(exponent); n != 0; n >>= 1, base *= base)
    if (n & 1u) result *= base;
  return exponent < 0 ? 1 / result : result;
}

bool is_finite(double value) { return std::isfinite(static_cast<float>(value)); }

// The sums of one video of the batch, and what follows from them.
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

  // Adds up a column over the rows of the video and their partial sums.
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

// The decision of one video by itself. Its score becomes the previous one of the next decision.
Outcome outcome_of(Video video, double gap, const Moreg& moreg, bool in_window,
                   float& previous_motion) {
  Outcome outcome;
  outcome.raw = gap > 0 ? video.raw_distance(gap) : kNaN;
  if (moreg.apply && in_window) outcome.score = power(video.motion() / moreg.a, moreg.b) / moreg.d;
  outcome.distance = outcome.raw;
  if (moreg.apply) {
    const double gradient = moreg.gradient_factor * (outcome.score - previous_motion) / gap;
    outcome.distance = outcome.raw * (outcome.score + std::fabs(gradient));
    if (is_finite(outcome.score)) previous_motion = static_cast<float>(outcome.score);
  }
  outcome.is_undefined = video.has_zero_denominator() || !(gap > 0);
  if (outcome.is_undefined) outcome.distance = kNaN;
  return outcome;
}

// The first video whose distance is not finite decides; without one, the largest distance decides.
bool replaces(const Outcome& now, const Outcome& before) {
  if (!is_finite(before.distance)) return false;
  return !is_finite(now.distance) || now.distance > before.distance;
}

struct BatchOutcome {
  Outcome outcome;
  int flags = 0;
};

BatchOutcome outcome_of_batch(float* state, const PartialSums& sums, const DecideSettings& settings,
                              const DecideStep& step) {
  const double gap = static_cast<double>(step.step) - state[kStep];
  BatchOutcome batch;
  bool is_undefined = false, is_bad = false;
  Outcome total{0, 0, 0};
  for (std::int64_t v = 0; v < step.videos; ++v) {
    float& motion = step.motions == nullptr ? state[kPreviousMotion] : step.motions[v];
    const Video video(sums, settings.metric, v, step.videos);
    const Outcome now = outcome_of(video, gap, settings.moreg, step.in_window, motion);
    if (v == 0 || replaces(now, batch.outcome)) batch.outcome = now;
    total.raw += now.raw;
    total.distance += now.distance;
    total.score += now.score;
    is_undefined |= now.is_undefined;
    is_bad |= !is_finite(now.distance);
  }
  const auto videos = static_cast<double>(step.videos);
  if (settings.uses_mean)
    batch.outcome = {total.raw / videos, total.distance / videos, total.score / videos};
  batch.flags = is_undefined ? kZeroDenominator : is_bad ? kNotFinite : 0;
  return batch;
}

// Compares in float32, because the state records the distance in float32.
float rate_of(float distance, const Codebook& codebook) {
  const float* rates = codebook.data + codebook.entries;
  for (std::int64_t i = 0; i < codebook.entries; ++i)
    if (distance < codebook.data[i]) return rates[i];
  return rates[codebook.entries - 1];
}

}  // namespace

void decide(float* state, const PartialSums& sums, const Codebook& codebook,
            const DecideSettings& settings, const DecideStep& step) {
  BatchOutcome batch{{}, kNoPrevious};
  if (step.has_previous) batch = outcome_of_batch(state, sums, settings, step);
  state[kSequence] = state[kSequenceAgain] = static_cast<float>(step.sequence);
  state[kStep] = static_cast<float>(step.step);
  state[kRawDistance] = static_cast<float>(batch.outcome.raw);
  state[kDistance] = static_cast<float>(batch.outcome.distance);
  state[kMotion] = static_cast<float>(batch.outcome.score);
  state[kRate] = batch.flags == 0 ? rate_of(state[kDistance], codebook) : 1;
  state[kNextStep] = state[kStep] + state[kRate];
  state[kFlags] = static_cast<float>(batch.flags);
}

}  // namespace adacache
