// One decision of each kind.
#include <cmath>
#include <vector>

#include "check.hpp"
#include "ops.hpp"

using namespace adacache;

namespace {

struct Case {
  std::vector<float> sums;  // of one location and one batch element
  bool has_previous = true;
  Moreg moreg{false, false, 0.5, 2, 1, 10};
  std::int64_t step = 2;
  Metric metric = Metric::kL1;
};

std::vector<float> decided(const Case& c) {
  const float codebook[] = {0.1f, 0.2f, 6, 4};
  std::vector<float> state{0, 0, NAN, 1, 1, 1, 1, 0, NAN, 0};
  decide(state.data(), {c.sums.data(), 1, 1, 1, static_cast<std::int64_t>(c.sums.size())},
         {codebook, 2}, c.step, c.metric, c.has_previous, c.moreg, 7);
  return state;
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

  const auto l2 = decided({{4, 64, 0}, true, {}, 1, Metric::kL2});
  CHECK(l2[kDistance] == 0.25f);
  const auto cosine = decided({{3, 4, 4}, true, {}, 1, Metric::kCosine});
  CHECK(cosine[kDistance] == 0.25f);

  // motion 0.25, score 0.25, gradient 10 * (0.25 - 1) / 2
  const auto moving = decided({{1, 8, 0, 1, 4}, true, {true, true, 0.5, 2, 1, 10}});
  CHECK(moving[kMotion] == 0.25f && moving[kPreviousMotion] == 0.25f);
  CHECK(moving[kRawDistance] == 0.0625f && moving[kDistance] == 0.0625f * 4);

  const auto first = decided({{1, 8, 0}, false});
  CHECK(first[kFlags] == kNoPrevious && first[kRate] == 1 && std::isnan(first[kDistance]));
  const auto zero = decided({{1, 0, 0}});
  CHECK(zero[kFlags] == kZeroDenominator && zero[kRate] == 1 && std::isnan(zero[kDistance]));
  const auto same_step = decided({{1, 8, 0}, true, {}, 0});
  CHECK(same_step[kFlags] == kZeroDenominator && same_step[kRate] == 1);
  const auto infinite = decided({{INFINITY, 8, 0}});
  CHECK(infinite[kFlags] == kNotFinite && infinite[kRate] == 1 && infinite[kNextStep] == 3);
  return failures() > 0;
}
