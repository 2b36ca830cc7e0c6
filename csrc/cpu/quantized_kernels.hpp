// The kernels of rows with scales, in terms of Block. Include a block_*.hpp first.
//
// They read a row twice: once for p and its maximum, then, from the cache, for everything else.
#pragma once

#include <cmath>
#include <cstring>

#include "update_kernels.hpp"

namespace adacache {
namespace {

constexpr float kSmallestMaximum = 0x1p-100f;  // replaces a smaller maximum

template <int kFormat>
[[gnu::always_inline]] inline void prefetch_next(const Run& run, std::int64_t i) {
  if (run.next == nullptr) return;
  const std::int64_t width = size_of(format_of<kFormat>(run));
  const char* next = static_cast<const char*>(run.next) + i * width;
  for (std::int64_t line = 0; line < kBlock * width; line += 64) ADACACHE_PREFETCH(next + line);
}

// Returns ones for the first `count` elements, then zeros.
inline Block ones_before(std::int64_t count) {
  float mask[kBlock] = {};
  for (std::int64_t i = 0; i < count; ++i) mask[i] = 1;
  return load_float32(mask);
}

// Returns the largest element, or NaN if there is one. No element has a sign, so that their bits
// have the same order as they.
inline float largest_of(const Block& block) {
  std::uint32_t bits[kBlock], largest = 0;
  store_float32(bits, block);
  for (const std::uint32_t each : bits) largest = each > largest ? each : largest;
  float value;
  std::memcpy(&value, &largest, sizeof value);
  return value;
}

// Writes p of a row, and zeros up to the end of the block; returns max|p|.
template <int kFormat>
float difference(const RowUpdate& update, std::int64_t count) {
  Block largest = zero_block();
  const auto step = [&](const Run& x_out, const Run& x_in, std::int64_t i, float* p) {
    Block value = load_in_order<kFormat>(x_out, i);
    if (x_in.data != nullptr) value = value - load_in_order<kFormat>(x_in, i);
    store_float32(p, value);
    largest = larger(largest, absolute(value));
  };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    prefetch_next<kFormat>(update.x_out, i);
    prefetch_next<kFormat>(update.x_in, i);
    step(update.x_out, update.x_in, i, update.p + i);
  }
  if (i < count) {
    Run x_out = update.x_out, x_in = update.x_in;
    const Tail out(x_out, i, count - i), in(x_in, i, count - i);
    step(x_out, x_in, 0, update.p + i);
  }
  return largest_of(largest);
}

float difference_of_row(const RowUpdate& update, std::int64_t count) {
  const DType dtype = update.x_out.dtype;
  if (update.x_in.data != nullptr && update.x_in.dtype != dtype)
    return difference<kAnyFormat>(update, count);
  switch (dtype) {
    case DType::kFloat32:
      return difference<static_cast<int>(DType::kFloat32)>(update, count);
    case DType::kBFloat16:
      return difference<static_cast<int>(DType::kBFloat16)>(update, count);
    case DType::kFloat16:
      return difference<static_cast<int>(DType::kFloat16)>(update, count);
    default:
      return difference<kAnyFormat>(update, count);
  }
}

struct Scaling {
  float factor, scale;
};

// Returns the factor from p to eight bits, and the scale back. Sets p to zeros if it is not finite.
inline Scaling scaling_of_row(const RowUpdate& update, float maximum, std::int64_t count) {
  const float largest = update.slot.dtype == DType::kInt8 ? 127.0f : 448.0f;
  const bool is_finite = maximum < INFINITY;
  if (!is_finite) std::memset(update.p, 0, count * sizeof(float));
  if (!is_finite) return {1, INFINITY};
  if (maximum < kSmallestMaximum) maximum = kSmallestMaximum;
  return {largest / maximum, maximum * (1.0f / largest)};
}

// All runs of eight bits have the format kFormat, if it is not kAnyFormat.
template <int kFormat, Sums kSums, bool kMotion>
class RowUpdater {
 public:
  static void run(const RowUpdate& update, Scaling scaling, std::int64_t count, UpdateSums* sums) {
    RowUpdater updater(scaling, *sums);
    updater.add_all(update, count);
    updater.write(*sums);
  }

 private:
  RowUpdater(Scaling scaling, const UpdateSums& sums)
      : scaling_(scaling),
        first_(sums.first),
        second_(sums.second),
        third_(sums.third),
        size_(sums.size),
        change_(sums.change) {}

  void write(UpdateSums& sums) const {
    first_.write(sums.first);
    second_.write(sums.second);
    third_.write(sums.third);
    size_.write(sums.size);
    change_.write(sums.change);
  }

  [[gnu::always_inline]] void add_all(const RowUpdate& update, std::int64_t count) {
    const std::int64_t whole = count / kBlock * kBlock;
    for (std::int64_t i = 0; i < whole; end_group()) {
      const std::int64_t group_end = i + kGroup < whole ? i + kGroup : whole;
      for (; i < group_end; i += kBlock) {
        prefetch_all(update, i);
        step<kFormat>(update, i, nullptr);
      }
    }
    if (whole < count) step_tail(update, whole, count - whole);
  }

  [[gnu::always_inline]] static void prefetch_all(const RowUpdate& update, std::int64_t i) {
    prefetch_next<kFormat>(update.slot, i);
    if (kSums == Sums::kNone || update.terms == 1) return;
    prefetch_next<kFormat>(update.term[0].run, i);
    if (update.terms > 2) prefetch_next<kFormat>(update.term[1].run, i);
    if (update.terms > 3) prefetch_next<kFormat>(update.term[2].run, i);
  }

  [[gnu::always_inline]] void end_group() {
    if (kSums != Sums::kNone) {
      first_.end_group();
      second_.end_group();
    }
    if (kSums == Sums::kCosine) third_.end_group();
    if (!kMotion) return;
    size_.end_group();
    change_.end_group();
  }

  // A `mask` is zero after the last element.
  template <int kLoaded>
  [[gnu::always_inline]] void step(const RowUpdate& update, std::int64_t i, const Block* mask) {
    Block c = zero_block();
    if (kSums != Sums::kNone) c = combined<kLoaded>(update, i);
    // Zeros times an infinite coefficient are NaN. If p has a NaN, all of the row is NaN.
    if (mask != nullptr) c = keep_where(c, *mask);
    const Block p = stored(update, i);
    if (kSums != Sums::kNone) add_distance(c, p);
    if (!kMotion) return;
    size_.add(absolute(p));
    if (update.earlier.run.data != nullptr)
      change_.add(absolute(p - value<kLoaded>(update.earlier, i)));
  }

  template <int kLoaded>
  [[gnu::always_inline]] static Block value(const ScaledRun& scaled, std::int64_t i) {
    return load_in_order<kLoaded>(scaled.run, i) * broadcast(scaled.scale);
  }

  // Stores p, and returns the stored value.
  [[gnu::always_inline]] Block stored(const RowUpdate& update, std::int64_t i) {
    Block p = load_float32(update.p + i);
    if (kFormat == kAnyFormat && update.slot_scale == nullptr) return store_any(update.slot, i, p);
    p = p * broadcast(scaling_.factor);
    void* out = static_cast<char*>(update.slot.data) + i;
    const bool is_int8 = format_of<kFormat>(update.slot) == DType::kInt8;
    p = is_int8 ? store_int8(out, p) : store_float8(out, p);
    return p * broadcast(scaling_.scale);
  }

  [[gnu::noinline]] static Block store_any(const Run& run, std::int64_t i, Block value) {
    return store_in_order<kAnyFormat>(run, i, value);
  }

  template <int kLoaded>
  [[gnu::always_inline]] static Block combined(const RowUpdate& update, std::int64_t i) {
    if (update.terms == 1 && update.coefficient[0] == 1) return value<kLoaded>(update.term[0], i);
    Block c = term<kLoaded>(update, 0, i);
    if (update.terms > 1) c = c + term<kLoaded>(update, 1, i);
    if (update.terms > 2) c = c + term<kLoaded>(update, 2, i);
    if (update.terms > 3) c = c + term<kLoaded>(update, 3, i);
    return c;
  }

  template <int kLoaded>
  [[gnu::always_inline]] static Block term(const RowUpdate& update, int index, std::int64_t i) {
    return broadcast(update.coefficient[index]) * value<kLoaded>(update.term[index], i);
  }

  [[gnu::always_inline]] void add_distance(const Block& c, const Block& p) {
    add_distance_terms<kSums>(c, p, first_, second_, third_);
  }

  // Not inlined, and small: it would slow down the code of the loop.
  [[gnu::noinline]] void step_tail(RowUpdate update, std::int64_t first, std::int64_t count) {
    Tail term0(update.term[0].run, first, count), term1(update.term[1].run, first, count);
    Tail term2(update.term[2].run, first, count), term3(update.term[3].run, first, count);
    Tail slot(update.slot, first, count), earlier(update.earlier.run, first, count);
    update.p += first;
    const Block mask = ones_before(count);
    step<kAnyFormat>(update, 0, &mask);
    end_group();
    slot.write_back();
  }

  Scaling scaling_;
  Sum first_, second_, third_, size_, change_;
};

template <int kFormat, Sums kSums>
void update_row_with(const RowUpdate& update, Scaling scaling, std::int64_t count,
                     UpdateSums* sums) {
  const auto run = update.with_size ? RowUpdater<kFormat, kSums, true>::run
                                    : RowUpdater<kFormat, kSums, false>::run;
  run(update, scaling, count, sums);
}

template <int kFormat>
void update_row_as(const RowUpdate& update, Scaling scaling, std::int64_t count, UpdateSums* sums) {
  switch (update.sums) {
    case Sums::kNone:
      return update_row_with<kFormat, Sums::kNone>(update, scaling, count, sums);
    case Sums::kL1:
      return update_row_with<kFormat, Sums::kL1>(update, scaling, count, sums);
    case Sums::kL2:
      return update_row_with<kFormat, Sums::kL2>(update, scaling, count, sums);
    case Sums::kCosine:
      return update_row_with<kFormat, Sums::kCosine>(update, scaling, count, sums);
  }
}

int common_format(const RowUpdate& update) {
  bool is_common = update.slot_scale != nullptr;
  for (int i = 0; i < update.terms; ++i) is_common &= update.term[i].run.dtype == update.slot.dtype;
  return is_common ? static_cast<int>(update.slot.dtype) : kAnyFormat;
}

void update_row(const RowUpdate& update, std::int64_t count, UpdateSums* sums) {
  const float maximum = difference_of_row(update, count);
  const bool is_scaled = update.slot_scale != nullptr;
  const Scaling scaling = is_scaled ? scaling_of_row(update, maximum, count) : Scaling{1, 1};
  switch (common_format(update)) {
    case kInt8Format:
      update_row_as<kInt8Format>(update, scaling, count, sums);
      break;
    case kFloat8Format:
      update_row_as<kFloat8Format>(update, scaling, count, sums);
      break;
    default:
      update_row_as<kAnyFormat>(update, scaling, count, sums);
  }
  if (is_scaled) *update.slot_scale = scaling.scale;
}

void change_of_rows(ScaledRun a, ScaledRun b, std::int64_t count, Lanes* sum) {
  Sum total(*sum);
  const auto terms = [&](std::int64_t i) {
    return absolute(load_any(a.run, i) * broadcast(a.scale) -
                    load_any(b.run, i) * broadcast(b.scale));
  };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    total.add(terms(i));
    if ((i + kBlock) % kGroup == 0) total.end_group();
  }
  if (i < count) {
    const Tail tail_a(a.run, i, count - i), tail_b(b.run, i, count - i);
    total.add(terms(0));
  }
  total.end_group();
  total.write(*sum);
}

}  // namespace
}  // namespace adacache
