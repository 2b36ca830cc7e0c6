// The conversions against double arithmetic that rounds by definition.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "narrow_floats.hpp"

using namespace adacache;

namespace {

struct Format {
  int mantissa_bits, min_exponent;
  double largest;
};

constexpr Format kBFloat16{7, -126, 0x1.fep127};
constexpr Format kFloat16{10, -14, 65504};
constexpr Format kFloat8{3, -6, 448};

// Returns the nearest number of the format, ties to even: a multiple of its last bit.
double nearest(double value, const Format& format) {
  if (value == 0 || std::isinf(value)) return value;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const double last_place = std::ldexp(1.0, exponent - format.mantissa_bits);
  const double rounded = std::nearbyint(value / last_place) * last_place;
  return std::fabs(rounded) > format.largest ? std::copysign(INFINITY, value) : rounded;
}

bool same(double a, double b) { return a == b && std::signbit(a) == std::signbit(b); }

void check_rounding(float value) {
  CHECK(same(float16_to_float(float_to_float16(value)), nearest(value, kFloat16)));
  CHECK(same(bfloat16_to_float(float_to_bfloat16(value)), nearest(value, kBFloat16)));
}

void check_around(float value) {
  for (float sign : {-1.0f, 1.0f}) {
    check_rounding(sign * value);
    check_rounding(std::nextafter(sign * value, 0.0f));
    check_rounding(std::nextafter(sign * value, sign * INFINITY));
  }
}

void check_float8_around(float value) {
  for (float sign : {-1.0f, 1.0f})
    for (float toward : {value, 0.0f, INFINITY}) {
      const float near = sign * std::nextafter(value, toward);
      CHECK(same(float8_to_float(float_to_float8(near)), nearest(near, kFloat8)));
    }
}

// Every number, every midpoint between two of them, and their neighbours; then a sample of all
// others.
void check_float8_rounding() {
  for (int code = 0; code < 0x7f; ++code) {
    const float value = float8_to_float(static_cast<std::uint8_t>(code));
    CHECK(float_to_float8(value) == code && float_to_float8(-value) == (code | 0x80));
    check_float8_around(value);
    if (code < 0x7e)
      check_float8_around((value + float8_to_float(static_cast<std::uint8_t>(code + 1))) / 2);
  }
  for (std::uint32_t bits = 0; bits <= bits_of(448.0f); bits += 4099)
    check_float8_around(float_of(bits));
}

}  // namespace

int main() {
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float value = float16_to_float(static_cast<std::uint16_t>(bits));
    CHECK(float_to_float16(value) == bits);
    check_around(value);
    check_around((value + float16_to_float(static_cast<std::uint16_t>(bits + 1))) / 2);
  }
  for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const float value = bfloat16_to_float(static_cast<std::uint16_t>(bits));
    CHECK(float_to_bfloat16(value) == bits);
    check_around(value);
    check_around(float_of(bits << 16 | 0x8000u));
  }
  for (float value : {65504.0f, 65519.0f, 65520.0f, 65536.0f, 0x1p-24f, 0x1p-25f, 0x1p-149f})
    check_around(value);
  CHECK(float16_to_float(0x7c00) == INFINITY && float16_to_float(0xfc00) == -INFINITY);
  CHECK(float_to_float16(-INFINITY) == 0xfc00 && float_to_bfloat16(-INFINITY) == 0xff80);
  for (std::uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xffc00000u, 0xffffffffu}) {
    CHECK(std::isnan(float16_to_float(float_to_float16(float_of(bits)))));
    CHECK(std::isnan(bfloat16_to_float(float_to_bfloat16(float_of(bits)))));
  }
  CHECK(std::isnan(float16_to_float(0x7c01)) && std::isnan(float16_to_float(0xffff)));
  for (int code = 0; code < 0x7f; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    const double value =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 7 - 3);
    CHECK(same(float8_to_float(static_cast<std::uint8_t>(code)), value));
    CHECK(same(float8_to_float(static_cast<std::uint8_t>(code | 0x80)), -value));
  }
  CHECK(std::isnan(float8_to_float(0x7f)) && std::isnan(float8_to_float(0xff)));
  check_float8_rounding();
  return failures() > 0;
}
