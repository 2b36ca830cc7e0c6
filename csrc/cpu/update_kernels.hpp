// The kernels in terms of Block, thirty-two floats. Include a block_*.hpp first. Everything is in
// an anonymous namespace, so that each instruction set has its own copy.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.hpp"

#ifdef __GNUC__
#define ADACACHE_PREFETCH(address) __builtin_prefetch(address)
#else
#define ADACACHE_PREFETCH(address) static_cast<void>(address)
#endif

namespace adacache {
namespace {

// The format of runs with different dtypes: the code looks at the dtype of each run.
constexpr int kAnyFormat = -1;

template <int kFormat>
constexpr DType format_of(const Run& run) {
  return kFormat == kAnyFormat ? run.dtype : static_cast<DType>(kFormat);
}

[[gnu::always_inline]] inline Block load_as(DType dtype, const Run& run, std::int64_t i) {
  const void* in = static_cast<const char*>(run.data) + i * size_of(dtype);
  switch (dtype) {
    case DType::kFloat32:
      return load_float32(in);
    case DType::kBFloat16:
      return load_bfloat16(in);
    case DType::kFloat16:
      return load_float16(in);
    case DType::kInt8:
      return load_int8(in);
    case DType::kFloat8:
      return load_float8(in);
  }
  return zero_block();
}

// Not inlined: five dtypes for each of five operands made a megabyte of code.
[[gnu::noinline]] Block load_any(const Run& run, std::int64_t i) {
  return load_as(run.dtype, run, i);
}

constexpr int kBFloat16Format = static_cast<int>(DType::kBFloat16);
constexpr int kInt8Format = static_cast<int>(DType::kInt8);
constexpr int kFloat8Format = static_cast<int>(DType::kFloat8);

template <int kFormat>
[[gnu::always_inline]] inline Block load(const Run& run, std::int64_t i) {
  if (kFormat == kAnyFormat) return load_any(run, i);
  if (kFormat == kBFloat16Format)
    return load_bfloat16_pairs(static_cast<const std::uint16_t*>(run.data) + i);
  return load_as(format_of<kFormat>(run), run, i);
}

// Like load(), but always in the order of memory, for use with other formats.
template <int kFormat>
[[gnu::always_inline]] inline Block load_in_order(const Run& run, std::int64_t i) {
  return kFormat == kAnyFormat ? load_any(run, i) : load_as(format_of<kFormat>(run), run, i);
}

// Rounds to the dtype of the run, stores, and returns what was stored.
template <int kFormat>
[[gnu::always_inline]] inline Block store_in_order(const Run& run, std::int64_t i, Block value) {
  const DType dtype = format_of<kFormat>(run);
  void* out = static_cast<char*>(run.data) + i * size_of(dtype);
  if (dtype == DType::kBFloat16) {
    value = round_bfloat16(value);
    store_rounded_bfloat16(out, value);
  } else if (dtype == DType::kFloat16) {
    value = round_float16(value);
    store_rounded_float16(out, value);
  } else {
    store_float32(out, value);
  }
  return value;
}

// Like store_in_order(), in the order of load(). `kIsSum`: the value is a sum of numbers of that
// format.
template <int kFormat, bool kIsSum>
[[gnu::always_inline]] inline Block store(const Run& run, std::int64_t i, Block value) {
  if (kFormat != kBFloat16Format) return store_in_order<kFormat>(run, i, value);
  value = kIsSum ? round_bfloat16_sum(value) : round_bfloat16(value);
  store_rounded_bfloat16_pairs(static_cast<std::uint16_t*>(run.data) + i, value);
  return value;
}

// Returns the prefetch distance. The processor's own prefetching starts again on each page, and the
// arithmetic leaves it little time: without this, bfloat16 from memory was 2.7 times slower.
// bfloat16 needs more time for each byte, and is 3 % faster with twice the distance of float32.
constexpr std::int64_t bytes_ahead(std::int64_t width) { return width == 2 ? 2048 : 1024; }

template <int kFormat>
[[gnu::always_inline]] inline void prefetch(const Run& run, std::int64_t i) {
  if (kFormat == kAnyFormat || run.data == nullptr) return;
  const std::int64_t width = size_of(format_of<kFormat>(run));
  const char* ahead = static_cast<const char*>(run.data) + i * width + bytes_ahead(width);
  for (std::int64_t line = 0; line < kBlock * width; line += 64) ADACACHE_PREFETCH(ahead + line);
}

// Moves the prefetching from element `i` on to the next run: the rest of this one is prefetched.
template <int kFormat>
[[gnu::always_inline]] inline void go_to_next(Run& run, std::int64_t i) {
  if (run.next == nullptr) return;
  const std::int64_t width = size_of(format_of<kFormat>(run));
  run.data = static_cast<char*>(run.next) - i * width - bytes_ahead(width);
}

// A copy of the last, fewer than kBlock, elements of a run, followed by zeros.
class Tail {
 public:
  Tail(Run& run, std::int64_t first, std::int64_t count)
      : origin_(static_cast<char*>(run.data) + first * size_of(run.dtype)),
        bytes_(run.data == nullptr ? 0 : count * size_of(run.dtype)) {
    if (bytes_ == 0) return;
    std::memcpy(memory_, origin_, bytes_);
    run.data = memory_;
  }

  void write_back() const { std::memcpy(origin_, memory_, bytes_); }

 private:
  char* origin_;
  std::int64_t bytes_;
  char memory_[kBlock * 4] = {};
};

// A sum: the terms of kGroup elements in float32, the sums of the groups in float64.
class Sum {
 public:
  explicit Sum(const Lanes& lanes) : total_(load_wide(lanes.part)) {}

  [[gnu::always_inline]] void add(const Block& terms) { add_to(group_, terms); }
  [[gnu::always_inline]] void end_group() {
    add_to(total_, group_);
    group_ = zero_narrow();
  }
  void write(Lanes& lanes) const { store_wide(lanes.part, total_); }

 private:
  Narrow group_ = zero_narrow();
  Wide total_;
};

template <Sums kSums>
[[gnu::always_inline]] inline void add_distance_terms(const Block& c, const Block& p, Sum& first,
                                                      Sum& second, Sum& third) {
  const Block difference = c - p;
  if (kSums == Sums::kL1) {
    first.add(absolute(difference));
    second.add(absolute(c));
  } else if (kSums == Sums::kL2) {
    first.add(difference * difference);
    second.add(c * c);
  } else {
    first.add(c * p);
    second.add(c * c);
    third.add(p * p);
  }
}

template <int kFormat, Sums kSums, bool kMotion>
class Updater {
 public:
  static void run(const Update& update, std::int64_t count, UpdateSums* sums) {
    Updater updater(*sums);
    updater.add_all(update, count);
    updater.write(*sums);
  }

 private:
  explicit Updater(const UpdateSums& sums)
      : first_(sums.first),
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

  [[gnu::always_inline]] void add_all(Update update, std::int64_t count) {
    const std::int64_t width = size_of(update.slot.dtype);
    const std::int64_t near_end = count - bytes_ahead(width) / width;
    Update ahead = update;
    std::int64_t i = add_groups(update, ahead, 0, near_end);
    all_go_to_next(ahead, i);
    i = add_groups(update, ahead, i, count);
    for (; i + kBlock <= count; i += kBlock) step(update, i, nullptr);
    if (i < count) step_tail(update, i, count - i);
    end_group();
  }

  // Adds whole groups, and returns the end of the last one before `end`.
  [[gnu::always_inline]] std::int64_t add_groups(const Update& update, const Update& ahead,
                                                 std::int64_t i, std::int64_t end) {
    while (i + kGroup <= end) {
      for (const std::int64_t group_end = i + kGroup; i < group_end; i += kBlock) {
        prefetch_all(ahead, i);
        step(update, i, nullptr);
      }
      end_group();
    }
    return i;
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

  [[gnu::always_inline]] static void prefetch_all(const Update& update, std::int64_t i) {
    prefetch<kFormat>(update.slot, i);
    prefetch<kFormat>(update.x_out, i);
    prefetch<kFormat>(update.x_in, i);
    if (kSums == Sums::kNone || update.terms == 1) return;
    prefetch<kFormat>(update.term[0], i);
    if (update.terms > 2) prefetch<kFormat>(update.term[1], i);
    if (update.terms > 3) prefetch<kFormat>(update.term[2], i);
  }

  [[gnu::always_inline]] static void all_go_to_next(Update& ahead, std::int64_t i) {
    go_to_next<kFormat>(ahead.slot, i);
    go_to_next<kFormat>(ahead.x_out, i);
    go_to_next<kFormat>(ahead.x_in, i);
    for (int t = 0; t < ahead.terms; ++t) go_to_next<kFormat>(ahead.term[t], i);
  }

  // A `mask` is zero after the last element.
  [[gnu::always_inline]] void step(const Update& update, std::int64_t i, const Run* mask) {
    Block p = load<kFormat>(update.x_out, i);
    if (update.x_in.data != nullptr) p = p - load<kFormat>(update.x_in, i);
    if (kSums == Sums::kNone) {
      p = store<kFormat, true>(update.slot, i, p);
    } else {
      Block c = combined(update, i);
      // Zeros times an infinite coefficient are NaN.
      if (mask != nullptr) c = keep_where(c, load<kFormat>(*mask, 0));
      p = store<kFormat, true>(update.slot, i, p);
      add_distance(c, p);
    }
    if (!kMotion) return;
    size_.add(absolute(p));
    if (update.earlier.data != nullptr) change_.add(absolute(p - load<kFormat>(update.earlier, i)));
  }

  [[gnu::always_inline]] static Block combined(const Update& update, std::int64_t i) {
    if (update.terms == 1 && update.coefficient[0] == 1) return load<kFormat>(update.term[0], i);
    Block c = term(update, 0, i);
    if (update.terms > 1) c = c + term(update, 1, i);
    if (update.terms > 2) c = c + term(update, 2, i);
    if (update.terms > 3) c = c + term(update, 3, i);
    return c;
  }

  [[gnu::always_inline]] static Block term(const Update& update, int index, std::int64_t i) {
    return broadcast(update.coefficient[index]) * load<kFormat>(update.term[index], i);
  }

  [[gnu::always_inline]] void add_distance(const Block& c, const Block& p) {
    add_distance_terms<kSums>(c, p, first_, second_, third_);
  }

  // Not inlined: it would slow down the code of the loop.
  [[gnu::noinline]] void step_tail(Update update, std::int64_t first, std::int64_t count) {
    Tail term0(update.term[0], first, count), term1(update.term[1], first, count);
    Tail term2(update.term[2], first, count), term3(update.term[3], first, count);
    Tail slot(update.slot, first, count), x_out(update.x_out, first, count);
    Tail x_in(update.x_in, first, count), earlier(update.earlier, first, count);
    char mask_memory[kBlock * 4] = {};
    std::memset(mask_memory, 0x3f, count * size_of(update.slot.dtype));  // no zero in any dtype
    const Run mask{mask_memory, update.slot.dtype};
    step(update, 0, &mask);
    slot.write_back();
  }

  Sum first_, second_, third_, size_, change_;
};

template <int kFormat, Sums kSums>
void update_with(const Update& update, std::int64_t count, UpdateSums* sums) {
  const auto run =
      update.with_size ? Updater<kFormat, kSums, true>::run : Updater<kFormat, kSums, false>::run;
  run(update, count, sums);
}

template <int kFormat>
void update_as(const Update& update, std::int64_t count, UpdateSums* sums) {
  switch (update.sums) {
    case Sums::kNone:
      return update_with<kFormat, Sums::kNone>(update, count, sums);
    case Sums::kL1:
      return update_with<kFormat, Sums::kL1>(update, count, sums);
    case Sums::kL2:
      return update_with<kFormat, Sums::kL2>(update, count, sums);
    case Sums::kCosine:
      return update_with<kFormat, Sums::kCosine>(update, count, sums);
  }
}

int common_format(const Update& update) {
  const DType dtype = update.slot.dtype;
  bool is_common = update.x_out.dtype == dtype;
  is_common &= update.x_in.data == nullptr || update.x_in.dtype == dtype;
  for (int i = 0; i < update.terms; ++i) is_common &= update.term[i].dtype == dtype;
  return is_common ? static_cast<int>(dtype) : kAnyFormat;
}

void update(const Update& update, std::int64_t count, UpdateSums* sums) {
  switch (common_format(update)) {
    case static_cast<int>(DType::kFloat32):
      return update_as<static_cast<int>(DType::kFloat32)>(update, count, sums);
    case static_cast<int>(DType::kBFloat16):
      return update_as<static_cast<int>(DType::kBFloat16)>(update, count, sums);
    case static_cast<int>(DType::kFloat16):
      return update_as<static_cast<int>(DType::kFloat16)>(update, count, sums);
    default:
      return update_as<kAnyFormat>(update, count, sums);
  }
}

void change(Run a, Run b, std::int64_t count, Lanes* sum) {
  Sum total(*sum);
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    total.add(absolute(load<kAnyFormat>(a, i) - load<kAnyFormat>(b, i)));
    if ((i + kBlock) % kGroup == 0) total.end_group();
  }
  if (i < count) {
    Tail tail_a(a, i, count - i), tail_b(b, i, count - i);
    total.add(absolute(load<kAnyFormat>(a, 0) - load<kAnyFormat>(b, 0)));
  }
  total.end_group();
  total.write(*sum);
}

}  // namespace
}  // namespace adacache
