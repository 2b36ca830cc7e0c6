// The ops of the package on the CPU. adacache_kernels/ops.py states what each computes; its
// reference.py computes the same bits (but for the order of the sums).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "strided_view.hpp"

namespace adacache {

enum class Metric { kL1, kL2, kCosine };

// What is in a slot before distance_update: nothing defined, the last term of what the residual is
// compared with, or the sum of residuals that this one is added to.
enum class SlotHolds { kNothing, kPrevious, kSum };

struct DistanceUpdate {  // All views are [batch, frames, tokens, channels].
  View slot, x_out;
  std::optional<View> x_in;
  std::vector<View> previous;  // at most 3
  const float* coefficients;   // one per term, or null: 1
  SlotHolds slot_holds;
  std::vector<std::int64_t> frame_strides;
  Metric metric;
  std::optional<View> scale{};  // of the slot, float32 [..., 1]: it has eight bits
  std::vector<std::optional<View>> previous_scales{};  // empty, or one for each
};

// slot = (slot +) x_out - x_in, or its scale and that in eight bits; writes one row of `3 + 2 *
// frame_strides.size()` sums per batch element to `sums`. Up to `threads` threads work on it, here
// and below; the bits are the same.
void distance_update(const DistanceUpdate& operands, float* sums, int threads);

// slot = (slot +) x_out - x_in.
void residual_update(View slot, View x_out, View x_in, bool accumulate, int threads);

struct Term {
  View residual;
  std::optional<View> scale;  // float32, [..., 1]
};

// if (*flag) x += sum_i coefficients[i] * (residual_i * scale_i). At most 4 terms.
void conditional_add(View x, std::vector<Term> terms, const float* coefficients,
                     const std::int32_t* flag, int threads);

// The layout of `state` in decide(), the same as State in ops.py.
enum StateField {
  kSequence,
  kStep,
  kDistance,
  kMotion,
  kRate,
  kNextStep,
  kPreviousMotion,
  kFlags,
  kRawDistance,
  kSequenceAgain,
};

enum Flag { kNoPrevious = 1, kNotFinite = 2, kZeroDenominator = 4 };

struct PartialSums {  // [locations, batch, partials, columns]
  const float* data;
  std::int64_t locations, batch, partials, columns;
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

struct Batch {  // Row r of the sums is of video r % videos.
  std::int64_t videos = 1;
  bool mean = false;         // of the videos' distances, else the largest
  float* motions = nullptr;  // the videos' previous motion scores; null: the state has the only one
};

// Sums of the residuals -> distance, rate and next computed step; `sequence` numbers the decision.
void decide(float* state, const PartialSums& sums, const Codebook& codebook, std::int64_t step,
            Metric metric, bool has_previous, const Moreg& moreg, std::int64_t sequence,
            const Batch& batch = {});

}  // namespace adacache
