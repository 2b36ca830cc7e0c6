#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

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

class Decision {
 public:
  Decision(const PartialSums& sums, Metric metric) : sums_(sums), metric_(metric) {}

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

  // Over the batch and the partial sums of each of its elements.
  double column(std::int64_t location, std::int64_t index) const {
    const std::int64_t rows = sums_.batch * sums_.partials;
    double total = 0;
    for (std::int64_t row = 0; row < rows; ++row)
      total += sums_.data[(location * rows + row) * sums_.columns + index];
    return total;
  }

  double ratio(double numerator, double denominator) {
    if (denominator != 0) return numerator / denominator;
    has_zero_denominator_ = true;
    return kNaN;
  }

  const PartialSums& sums_;
  Metric metric_;
  bool has_zero_denominator_ = false;
};

// Compared in float32, as the distance is recorded: the record explains the decision.
float rate_of(float distance, const Codebook& codebook) {
  const float* rates = codebook.data + codebook.entries;
  for (std::int64_t i = 0; i < codebook.entries; ++i)
    if (distance < codebook.data[i]) return rates[i];
  return rates[codebook.entries - 1];
}

}  // namespace

void decide(float* state, const PartialSums& sums, const Codebook& codebook, std::int64_t step,
            Metric metric, bool has_previous, const Moreg& moreg, std::int64_t sequence) {
  double raw = kNaN, distance = kNaN, score = 1;
  int flags = kNoPrevious;
  if (has_previous) {
    Decision decision(sums, metric);
    const double gap = static_cast<double>(step) - state[kStep];
    raw = gap > 0 ? decision.raw_distance(gap) : kNaN;
    if (moreg.apply && moreg.in_window)
      score = power(decision.motion() / moreg.a, moreg.b) / moreg.d;
    distance = raw;
    if (moreg.apply) {
      const double gradient = moreg.gradient_factor * (score - state[kPreviousMotion]) / gap;
      distance = raw * (score + std::fabs(gradient));
      const auto motion = static_cast<float>(score);
      if (std::isfinite(motion)) state[kPreviousMotion] = motion;
    }
    const bool undefined = decision.has_zero_denominator() || !(gap > 0);
    if (undefined) distance = kNaN;
    flags = undefined                                      ? kZeroDenominator
            : !std::isfinite(static_cast<float>(distance)) ? kNotFinite
                                                           : 0;
  }
  state[kSequence] = state[kSequenceAgain] = static_cast<float>(sequence);
  state[kStep] = static_cast<float>(step);
  state[kRawDistance] = static_cast<float>(raw);
  state[kDistance] = static_cast<float>(distance);
  state[kMotion] = static_cast<float>(score);
  state[kRate] = flags == 0 ? rate_of(state[kDistance], codebook) : 1;
  state[kNextStep] = state[kStep] + state[kRate];
  state[kFlags] = static_cast<float>(flags);
}

}  // namespace adacache
