// The kernels on numbers small enough to be exact, in strided memory with guards.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.hpp"
#include "cpu/instruction_set.hpp"
#include "ops.hpp"

using namespace adacache;

namespace {

constexpr float kGuard = -99;

// An array [size] with `gap` guard elements after each row and one before the first.
class Array {
 public:
  Array(std::array<std::int64_t, 4> size, std::int64_t gap) : gap_(gap) {
    const std::int64_t row = size[3] + gap;
    const std::int64_t plane = size[2] * row, volume = size[1] * plane;
    values_.assign(1 + size[0] * volume, kGuard);
    view_ = {values_.data() + 1, DType::kFloat32, size, {volume, plane, row, 1}};
  }

  View view() const { return view_; }
  View with_frames_and_tokens_exchanged() const {
    View view = view_;
    std::swap(view.size[1], view.size[2]);
    std::swap(view.stride[1], view.stride[2]);
    return view;
  }

  // Calls `body(value, n)` for the n-th element in the order of the view.
  template <typename Body>
  static void each(const View& view, const Body& body) {
    std::int64_t n = 0;
    for (std::int64_t i = 0; i < view.size[0]; ++i)
      for (std::int64_t j = 0; j < view.size[1]; ++j)
        for (std::int64_t k = 0; k < view.size[2]; ++k)
          for (std::int64_t l = 0; l < view.size[3]; ++l)
            body(static_cast<float*>(view.data)[view.offset(i, j, k) + l], n++);
  }

  bool guards_hold() const {
    const std::int64_t row = view_.size[3] + gap_;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const bool is_guard = i == 0 || static_cast<std::int64_t>(i - 1) % row >= view_.size[3];
      if (is_guard && values_[i] != kGuard) return false;
    }
    return true;
  }

 private:
  std::int64_t gap_;
  std::vector<float> values_;
  View view_;
};

void fill(const View& view, int factor) {
  Array::each(view, [=](float& value, std::int64_t n) {
    value = static_cast<float>((n * factor) % 13 - 6);
  });
}

std::vector<float> values_of(const View& view) {
  std::vector<float> values;
  Array::each(view, [&](float& value, std::int64_t) { values.push_back(value); });
  return values;
}

// Returns the sums of distance_update for one sample with L1 and the frame stride 1.
std::vector<float> expected_sums(const std::vector<float>& c, const std::vector<float>& p,
                                 std::size_t frame_size) {
  std::vector<float> sums(5, 0.0f);
  for (std::size_t i = 0; i < p.size(); ++i) {
    sums[0] += std::fabs(c[i] - p[i]);
    sums[1] += std::fabs(c[i]);
    if (i < frame_size) continue;
    sums[3] += std::fabs(p[i] - p[i - frame_size]);
    sums[4] += std::fabs(p[i]) + std::fabs(p[i - frame_size]);
  }
  return sums;
}

void check_distance_update(std::int64_t channels, std::int64_t gap, bool exchanged) {
  Array slot({1, 3, 5, channels}, gap), out({1, 3, 5, channels}, gap), in({1, 3, 5, channels}, gap);
  const auto view = [=](const Array& array) {
    return exchanged ? array.with_frames_and_tokens_exchanged() : array.view();
  };
  fill(view(slot), 5);
  fill(view(out), 7);
  fill(view(in), 3);
  const auto c = values_of(view(slot)), minuend = values_of(view(out));
  auto p = values_of(view(in));
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = minuend[i] - p[i];

  std::vector<float> sums(5, kGuard);
  const DistanceUpdate operands{view(slot),           view(out), view(in),   {}, nullptr,
                                SlotHolds::kPrevious, {1},       Metric::kL1};
  distance_update(operands, sums.data(), 2);
  CHECK(values_of(view(slot)) == p);
  CHECK(slot.guards_hold());
  CHECK(sums == expected_sums(c, p, view(slot).size[2] * channels));
}

void check_residual_update_and_add() {
  Array slot({2, 2, 2, 600}, 1), out({2, 2, 2, 600}, 0), in({2, 2, 2, 600}, 2);
  fill(slot.view(), 5);
  fill(out.view(), 7);
  fill(in.view(), 3);
  auto expected = values_of(slot.view());
  const auto minuend = values_of(out.view()), subtrahend = values_of(in.view());
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = minuend[i] - subtrahend[i];
  residual_update(slot.view(), out.view(), in.view(), 2);
  CHECK(values_of(slot.view()) == expected);

  const float coefficients[] = {2, -1};
  const std::int32_t off = 0, on = 1;
  const std::vector<Term> terms{{out.view(), {}}, {in.view(), {}}};
  Array result({2, 2, 2, 600}, 3);
  const auto start = expected;
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += 2 * minuend[i] - subtrahend[i];
  conditional_add(result.view(), slot.view(), terms, coefficients, &off, 2);
  CHECK(values_of(result.view()) == start);
  conditional_add(result.view(), slot.view(), terms, coefficients, &on, 2);
  CHECK(values_of(result.view()) == expected);
  CHECK(values_of(slot.view()) == start);
  for (const std::int32_t* flag : {&off, &on}) {
    conditional_add(slot.view(), slot.view(), terms, coefficients, flag, 2);
    CHECK(values_of(slot.view()) == (*flag == 0 ? start : expected));
  }
  CHECK(slot.guards_hold() && out.guards_hold() && in.guards_hold() && result.guards_hold());
}

// Only the sums are written.
void check_empty(std::array<std::int64_t, 4> size) {
  Array slot(size, 0), out(size, 0);
  std::vector<float> sums(5 * size[0] + 1, kGuard);
  distance_update(
      {slot.view(), out.view(), {}, {}, nullptr, SlotHolds::kPrevious, {1}, Metric::kL2},
      sums.data(), 2);
  CHECK(std::count(sums.begin(), sums.end(), 0.0f) == 5 * size[0]);
  CHECK(sums.back() == kGuard);
  residual_update(slot.view(), out.view(), out.view(), 2);
  const float coefficient = 1;
  for (std::int32_t flag : {0, 1})
    conditional_add(slot.view(), out.view(), {{out.view(), {}}}, &coefficient, &flag, 2);
  CHECK(slot.guards_hold() && out.guards_hold());
}

void check_all() {
  for (std::int64_t channels : {1, 8, 32, 511, 512, 513, 5000})
    for (std::int64_t gap : {0, 3})
      for (bool exchanged : {false, true}) check_distance_update(channels, gap, exchanged);
  check_residual_update_and_add();
  for (int dimension = 0; dimension < 4; ++dimension) {
    std::array<std::int64_t, 4> size{2, 3, 4, 5};
    size[dimension] = 0;
    check_empty(size);
  }
}

}  // namespace

int main() {
  for (const std::string& name : instruction_sets()) {
    set_instruction_set(name);
    check_all();
  }
  return failures() > 0;
}
