// The ops of the package on the CPU. adacache_kernels/ops/functional.py documents what each op
// computes and checks its arguments. adacache_kernels/ops/reference.py computes the same bits,
// except for the order of the sums.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "strided_view.hpp"

namespace adacache {

// The same order as METRICS in adacache_kernels/ops/checks.py.
enum class Metric { kL1, kL2, kCosine };

// The content of a slot before distance_update: undefined, or the oldest stored residual, which is
// then the last term of the forecast. The same order as SLOT_HOLDS in ops/checks.py.
enum class SlotHolds { kNothing, kPrevious };

struct DistanceUpdate {  // All views are [batch, frames, tokens, channels].
  View slot, x_out;
  std::optional<View> x_in;
  std::vector<View> previous;  // at most 3
  const float* coefficients;   // one for each term; null: 1
  SlotHolds slot_holds;
  std::vector<std::int64_t> frame_strides;
  Metric metric;
  std::optional<View> scale{};  // float32 [..., 1]; given if and only if the slot has eight bits
  std::vector<std::optional<View>> previous_scales{};  // empty, or one for each of `previous`
};

// Stores x_out - x_in in the slot; a slot of eight bits gets its scale as well. Writes one row of
// `3 + 2 * frame_strides.size()` sums for each sample to `sums`. Here and below, up to `threads`
// threads work; the bits do not depend on their number.
void distance_update(const DistanceUpdate& operands, float* sums, int threads);

// slot = x_out - x_in.
void residual_update(View slot, View x_out, View x_in, int threads);

struct Term {
  View residual;
  std::optional<View> scale;  // float32 [..., 1]
};

// out = *flag ? x + sum_i coefficients[i] * (residual_i * scale_i) : x. At most 4 terms. `out` has
// the dtype of x, and is x itself or apart from it.
void conditional_add(View out, View x, std::vector<Term> terms, const float* coefficients,
                     const std::int32_t* flag, int threads);

// The fields of the state of decide(): the same as State in
// adacache_kernels/kernels/state_fields.py.
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

// The same as Flag in adacache_kernels/kernels/state_fields.py.
enum Flag { kNoPrevious = 1, kNotFinite = 2, kZeroDenominator = 4 };

struct PartialSums {  // [locations, batch, partials, columns]
  const float* data;
  std::int64_t locations, batch, partials, columns;
};

struct Codebook {  // The rising thresholds, then their rates.
  const float* data;
  std::int64_t entries;
};

struct Moreg {
  bool apply = false;
  double a = 0.385;
  int b = 8;
  double d = 1, gradient_factor = 10;
};

// What stays the same for all decisions of a generation.
struct DecideSettings {
  Metric metric = Metric::kL1;
  Moreg moreg{};
  bool uses_mean = false;  // of the videos' distances; else the largest distance decides
};

// What belongs to one decision.
struct DecideStep {
  std::int64_t step;
  bool has_previous = true;
  bool in_window = false;
  std::int64_t sequence = 0;
  std::int64_t videos = 1;  // row r of the sums belongs to video r % videos
  // Previous motion scores of the videos; null: there is one, and the state has it.
  float* motions = nullptr;
};

// Writes distance, rate and next computed step to `state`, from the sums of a computed step.
void decide(float* state, const PartialSums& sums, const Codebook& codebook,
            const DecideSettings& settings, const DecideStep& step);

}  // namespace adacache
