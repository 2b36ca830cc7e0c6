// Conversions of bfloat16, float16 and float8 (e4m3fn): exact to float, and from float rounded to
// nearest, ties to even. They use integer arithmetic without branches, so that any C++17 compiler
// can vectorise them.
#pragma once

#include <cstdint>
#include <cstring>

namespace adacache {

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float bfloat16_to_float(std::uint16_t value) {
  return float_of(static_cast<std::uint32_t>(value) << 16);
}

inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<std::uint16_t>(is_nan ? 0x7fc0u : rounded);
}

inline float float16_to_float(std::uint16_t value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value & 0x7fffu) << 13;
  // The exponents are biased by 15 and 127: scaling by 2^112 fixes normal and subnormal numbers.
  const std::uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
  const bool is_special = (value & 0x7c00u) == 0x7c00u;
  return float_of(sign | (is_special ? magnitude | 0x7f800000u : finite));
}

inline std::uint16_t float_to_float16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  // The last bit of 0.5f has the value of the last bit of a subnormal float16: adding it rounds.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const std::uint32_t infinite = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const std::uint32_t result = magnitude >= 0x47800000u ? infinite : finite;
  return static_cast<std::uint16_t>(result | (bits >> 16 & 0x8000u));
}

inline float float8_to_float(std::uint8_t value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value & 0x80u) << 24;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value & 0x7fu) << 20;
  // The exponents are biased by 7 and 127. A subnormal number gets an implicit one, and a
  // subtraction removes it: scaling a subnormal float would cost a hundred cycles.
  const std::uint32_t normal = magnitude + (120u << 23);
  const std::uint32_t subnormal = bits_of(float_of(magnitude + (121u << 23)) - 0x1p-6f);
  const std::uint32_t finite = magnitude < (1u << 23) ? subnormal : normal;
  return float_of(sign | (magnitude == (0x7fu << 20) ? 0x7fc00000u : finite));
}

// Takes numbers that round to at most 448, the largest one: larger numbers would wrap around.
inline std::uint8_t float_to_float8(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t exponent = magnitude & 0x7f800000u;
  const std::uint32_t smallest_normal = 121u << 23;
  // The last bit of a number 2^20 times as large has the value of the last bit of float8: adding it
  // rounds. `places` is the mantissa with its leading one.
  const std::uint32_t large =
      (exponent < smallest_normal ? smallest_normal : exponent) + (20u << 23);
  const std::uint32_t places = bits_of(float_of(magnitude) + float_of(large)) - large;
  const std::uint32_t code = places + (large >> 20) - (141u << 3);
  return static_cast<std::uint8_t>(code | (bits >> 24 & 0x80u));
}

}  // namespace adacache
