// Block, thirty-two floats, and its operations in plain C++. Compilers turn them into the vector
// instructions that every machine of an architecture has. block_avx2.hpp and block_avx512.hpp have
// the same functions with the same results.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../narrow_floats.hpp"

namespace adacache {
namespace {

struct Block {
  float v[32];
};

// Float32 sums of few terms. Adding a Block adds the sum of its two halves.
struct Narrow {
  float v[16];
};

// Float64 sums.
struct Wide {
  double v[16];
};

template <typename Value>
Block block_of(const Value& value) {
  Block block;
  for (int i = 0; i < 32; ++i) block.v[i] = value(i);
  return block;
}

inline Block zero_block() { return {}; }
inline Block broadcast(float value) {
  return block_of([=](int) { return value; });
}
inline Block operator+(const Block& a, const Block& b) {
  return block_of([&](int i) { return a.v[i] + b.v[i]; });
}
inline Block operator-(const Block& a, const Block& b) {
  return block_of([&](int i) { return a.v[i] - b.v[i]; });
}
inline Block operator*(const Block& a, const Block& b) {
  return block_of([&](int i) { return a.v[i] * b.v[i]; });
}
inline Block absolute(const Block& a) {
  return block_of([&](int i) { return std::fabs(a.v[i]); });
}
// Returns the larger elements of numbers without a sign; NaN if one of the two is NaN.
inline Block larger(const Block& a, const Block& b) {
  return block_of([&](int i) { return bits_of(a.v[i]) > bits_of(b.v[i]) ? a.v[i] : b.v[i]; });
}
// Returns zero where the mask is zero.
inline Block keep_where(const Block& a, const Block& mask) {
  return block_of([&](int i) { return mask.v[i] != 0 ? a.v[i] : 0.0f; });
}

inline Wide load_wide(const double* in) {
  Wide wide;
  std::memcpy(wide.v, in, sizeof wide.v);
  return wide;
}

inline Narrow zero_narrow() { return {}; }
inline void add_to(Narrow& sum, const Block& terms) {
  for (int i = 0; i < 16; ++i) sum.v[i] += terms.v[i] + terms.v[i + 16];
}
inline void add_to(Wide& total, const Narrow& sum) {
  for (int i = 0; i < 16; ++i) total.v[i] += static_cast<double>(sum.v[i]);
}
inline void store_wide(double* out, const Wide& a) { std::memcpy(out, a.v, sizeof a.v); }

inline Block load_float32(const void* in) {
  Block block;
  std::memcpy(block.v, in, sizeof block.v);
  return block;
}
inline void store_float32(void* out, const Block& a) { std::memcpy(out, a.v, sizeof a.v); }

template <typename Element, typename Convert>
Block convert_from(const void* in, const Convert& convert) {
  Element elements[32];
  std::memcpy(elements, in, sizeof elements);
  return block_of([&](int i) { return convert(elements[i]); });
}

template <typename Convert>
void convert_to_halves(void* out, const Block& a, const Convert& convert) {
  std::uint16_t halves[32];
  for (int i = 0; i < 32; ++i) halves[i] = convert(a.v[i]);
  std::memcpy(out, halves, sizeof halves);
}

[[gnu::noinline]] Block load_bfloat16(const void* in) {
  return convert_from<std::uint16_t>(in, [](std::uint16_t x) { return bfloat16_to_float(x); });
}
[[gnu::noinline]] Block round_bfloat16(const Block& a) {
  return block_of([&](int i) { return bfloat16_to_float(float_to_bfloat16(a.v[i])); });
}
// Does the same for sums of bfloat16: the lower half of their NaN is zero and cannot carry.
inline Block round_bfloat16_sum(const Block& a) { return round_bfloat16(a); }
// Stores rounded numbers: their upper halves.
[[gnu::noinline]] void store_rounded_bfloat16(void* out, const Block& a) {
  convert_to_halves(out, a, [](float x) { return static_cast<std::uint16_t>(bits_of(x) >> 16); });
}

// Loads the elements with even indices first, then the odd ones: two instructions instead of four.
// It serves all code that treats every element alike.
[[gnu::noinline]] Block load_bfloat16_pairs(const void* in) {
  std::uint32_t pairs[16];
  std::memcpy(pairs, in, sizeof pairs);
  Block block;
  for (int i = 0; i < 16; ++i) block.v[i] = float_of(pairs[i] << 16);
  for (int i = 0; i < 16; ++i) block.v[i + 16] = float_of(pairs[i] & 0xffff0000u);
  return block;
}
[[gnu::noinline]] void store_rounded_bfloat16_pairs(void* out, const Block& a) {
  std::uint32_t pairs[16];
  for (int i = 0; i < 16; ++i) pairs[i] = bits_of(a.v[i]) >> 16 | bits_of(a.v[i + 16]);
  std::memcpy(out, pairs, sizeof pairs);
}

[[gnu::noinline]] Block load_float16(const void* in) {
  return convert_from<std::uint16_t>(in, [](std::uint16_t x) { return float16_to_float(x); });
}
[[gnu::noinline]] Block round_float16(const Block& a) {
  return block_of([&](int i) { return float16_to_float(float_to_float16(a.v[i])); });
}
[[gnu::noinline]] void store_rounded_float16(void* out, const Block& a) {
  convert_to_halves(out, a, [](float x) { return float_to_float16(x); });
}

[[gnu::noinline]] Block load_int8(const void* in) {
  return convert_from<std::int8_t>(in, [](std::int8_t x) { return static_cast<float>(x); });
}
[[gnu::noinline]] Block load_float8(const void* in) {
  return convert_from<std::uint8_t>(in, [](std::uint8_t x) { return float8_to_float(x); });
}

// These two round to nearest, ties to even, store, and return the stored numbers. They take numbers
// that round to at most 127 and 448.
[[gnu::noinline]] Block store_int8(void* out, const Block& a) {
  // At this size, the last bit of a float has the value 1: adding it rounds.
  const Block rounded = block_of([&](int i) { return a.v[i] + 0x1.8p23f; });
  std::int8_t bytes[32];
  for (int i = 0; i < 32; ++i) bytes[i] = static_cast<std::int8_t>(bits_of(rounded.v[i]));
  std::memcpy(out, bytes, sizeof bytes);
  return rounded - broadcast(0x1.8p23f);
}
[[gnu::noinline]] Block store_float8(void* out, const Block& a) {
  std::uint8_t bytes[32];
  for (int i = 0; i < 32; ++i) bytes[i] = float_to_float8(a.v[i]);
  std::memcpy(out, bytes, sizeof bytes);
  return load_float8(bytes);
}

}  // namespace
}  // namespace adacache
