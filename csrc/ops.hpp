// The ops of the package on the CPU. adacache_kernels/ops.py states what each computes; its
// reference.py computes the same bits (but for the order of the sums).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "view.hpp"

namespace adacache {

enum class Metric { kL1, kL2, kCosine };

// slot = x_out - x_in; writes one row of `3 + 2 * frame_strides.size()` sums per batch element to
// `sums`. All views are [batch, frames, tokens, channels].
void distance_update(const View& slot, const View& x_out, const std::optional<View>& x_in,
                     const std::vector<std::int64_t>& frame_strides, Metric metric,
                     bool has_previous, float* sums);

// slot = (slot +) x_out - x_in.
void residual_update(const View& slot, const View& x_out, const View& x_in, bool accumulate);

// if (*flag) x += sum_i coefficients[i] * residuals[i].
void conditional_add(const View& x, const std::vector<View>& residuals, const float* coefficients,
                     const std::int32_t* flag);

// The layout of `state` in decide(), the same as State in ops.py.
enum StateField {
  kStep,
  kDistance,
  kMotion,
  kRate,
  kNextStep,
  kPreviousMotion,
  kFlags,
  kRawDistance,
};

enum Flag { kNoPrevious = 1, kNotFinite = 2, kZeroDenominator = 4 };

struct Sums {  // [locations, batch, columns]
  const float* data;
  std::int64_t locations, batch, columns;
};

struct Codebook {  // Rising thresholds, then their rates.
  const float* data;
  std::int64_t entries;
};

struct Moreg {
  bool apply, in_window;
  double a;
  int b;
  double d, gradient_factor;
};

// Sums of the residuals -> distance, rate and next computed step.
void decide(float* state, const Sums& sums, const Codebook& codebook, std::int64_t step,
            Metric metric, bool has_previous, const Moreg& moreg);

}  // namespace adacache
