// One decision of each kind: metrics, motion, flags, several videos.
#include <cmath>
#include <vector>

#include "check.hpp"
#include "ops.hpp"

using namespace adacache;

namespace {

struct Case {
  std::vector<float> sums;  // of one location and one row
  bool has_previous = true;
  bool in_window = false;
  std::int64_t step = 2;
  DecideSettings settings{};
};

Moreg moreg(bool apply) { return {apply, 0.5, 2, 1, 10}; }

const float kCodebook[] = {0.1f, 0.2f, 6, 4};

std::vector<float> new_state() { return {0, 0, NAN, 1, 1, 1, 1, 0, NAN, 0}; }

std::vector<float> decided(const Case& c) {
  std::vector<float> state = new_state();
  decide(state.data(), {c.sums.data(), 1, 1, 1, static_cast<std::int64_t>(c.sums.size())},
         {kCodebook, 2}, c.settings, {c.step, c.has_previous, c.in_window, 7});
  return state;
}

// Two videos with two rows each. Rows 0 and 2 belong to the first video.
std::vector<float> of_two(std::vector<float> distances, bool uses_mean, float* motions = nullptr) {
  const bool moves = motions != nullptr;
  std::vector<float> state = new_state(), sums;
  for (const float distance : distances) sums.insert(sums.end(), {distance, 1, 0, distance, 0.5f});
  decide(state.data(), {sums.data(), 1, 4, 1, 5}, {kCodebook, 2},
         {Metric::kL1, moreg(moves), uses_mean}, {1, true, moves, 7, 2, motions});
  return state;
}

void check_two_videos() {
  const auto largest = of_two({0.25f, 0.5f, 0.25f, 1}, false);
  CHECK(largest[kDistance] == 0.75f && largest[kRawDistance] == 0.75f && largest[kRate] == 4);
  const auto mean = of_two({0.25f, 0.5f, 0.25f, 1}, true);
  CHECK(mean[kDistance] == 0.5f && mean[kRawDistance] == 0.5f && mean[kFlags] == 0);

  // Motions 1/8 and 1/2, scores 1/16 and 1; gradients 10 * (1/16 - 1/4) and 10 * (1 - 5).
  float motions[] = {0.25f, 5};
  const auto moving = of_two({0.0625f, 0.25f, 0.0625f, 0.25f}, false, motions);
  CHECK(moving[kMotion] == 1 && moving[kDistance] == 0.25f * (1 + 40));
  CHECK(motions[0] == 0.0625f && motions[1] == 1 && moving[kPreviousMotion] == 1);

  for (const bool is_mean : {false, true}) {
    const auto not_finite = of_two({NAN, 1, 1, 1}, is_mean);
    CHECK(not_finite[kFlags] == kNotFinite && not_finite[kRate] == 1);
    const auto infinite = of_two({1, 1, 1, INFINITY}, is_mean);
    CHECK(infinite[kFlags] == kNotFinite && infinite[kDistance] == INFINITY);
  }
}

}  // namespace

int main() {
  const auto low = decided({{1, 8, 0}});
  CHECK(low[kDistance] == 0.0625f && low[kRate] == 6 && low[kNextStep] == 8 && low[kFlags] == 0);
  CHECK(low[kSequence] == 7 && low[kSequenceAgain] == 7 && low[kStep] == 2);
  const auto middle = decided({{3, 10, 0}});
  CHECK(middle[kDistance] == 0.15f && middle[kRate] == 4);
  const auto high = decided({{8, 8, 0}});
  CHECK(high[kDistance] == 0.5f && high[kRate] == 4);

  const auto l2 = decided({{4, 64, 0}, true, false, 1, {Metric::kL2}});
  CHECK(l2[kDistance] == 0.25f);
  const auto cosine = decided({{3, 4, 4}, true, false, 1, {Metric::kCosine}});
  CHECK(cosine[kDistance] == 0.25f);

  // motion 0.25, score 0.25, gradient 10 * (0.25 - 1) / 2
  const auto moving = decided({{1, 8, 0, 1, 4}, true, true, 2, {Metric::kL1, moreg(true)}});
  CHECK(moving[kMotion] == 0.25f && moving[kPreviousMotion] == 0.25f);
  CHECK(moving[kRawDistance] == 0.0625f && moving[kDistance] == 0.0625f * 4);

  const auto first = decided({{1, 8, 0}, false});
  CHECK(first[kFlags] == kNoPrevious && first[kRate] == 1 && std::isnan(first[kDistance]));
  const auto zero = decided({{1, 0, 0}});
  CHECK(zero[kFlags] == kZeroDenominator && zero[kRate] == 1 && std::isnan(zero[kDistance]));
  const auto same_step = decided({{1, 8, 0}, true, false, 0});
  CHECK(same_step[kFlags] == kZeroDenominator && same_step[kRate] == 1);
  const auto infinite = decided({{INFINITY, 8, 0}});
  CHECK(infinite[kFlags] == kNotFinite && infinite[kRate] == 1 && infinite[kNextStep] == 3);
  check_two_videos();
  return failures() > 0;
}
