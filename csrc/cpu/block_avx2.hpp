// Block, thirty-two floats, in four AVX registers; see block_baseline.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace adacache {
namespace {

struct Block {
  __m256 quarter[4];
};

struct Narrow {
  __m256 half[2];
};

struct Wide {
  __m256d quarter[4];
};

template <typename Value>
[[gnu::always_inline]] inline Block block_of(const Value& value) {
  return {{value(0), value(1), value(2), value(3)}};
}

inline Block zero_block() {
  return block_of([](int) { return _mm256_setzero_ps(); });
}
inline Block broadcast(float value) {
  return block_of([=](int) { return _mm256_set1_ps(value); });
}
inline Block operator+(const Block& a, const Block& b) {
  return block_of([&](int i) { return _mm256_add_ps(a.quarter[i], b.quarter[i]); });
}
inline Block operator-(const Block& a, const Block& b) {
  return block_of([&](int i) { return _mm256_sub_ps(a.quarter[i], b.quarter[i]); });
}
inline Block operator*(const Block& a, const Block& b) {
  return block_of([&](int i) { return _mm256_mul_ps(a.quarter[i], b.quarter[i]); });
}
inline Block absolute(const Block& a) {
  return block_of([&](int i) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.quarter[i]); });
}

inline Block larger(const Block& a, const Block& b) {
  return block_of([&](int i) {
    return _mm256_castsi256_ps(
        _mm256_max_epi32(_mm256_castps_si256(a.quarter[i]), _mm256_castps_si256(b.quarter[i])));
  });
}

inline Block keep_where(const Block& a, const Block& mask) {
  return block_of([&](int i) {
    const __m256 kept = _mm256_cmp_ps(mask.quarter[i], _mm256_setzero_ps(), _CMP_NEQ_UQ);
    return _mm256_and_ps(a.quarter[i], kept);
  });
}

inline Wide load_wide(const double* in) {
  return {{_mm256_loadu_pd(in), _mm256_loadu_pd(in + 4), _mm256_loadu_pd(in + 8),
           _mm256_loadu_pd(in + 12)}};
}

inline Narrow zero_narrow() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
inline void add_to(Narrow& sum, const Block& terms) {
  for (int i = 0; i < 2; ++i)
    sum.half[i] = _mm256_add_ps(sum.half[i], _mm256_add_ps(terms.quarter[i], terms.quarter[i + 2]));
}

inline void add_to(Wide& total, const Narrow& sum) {
  for (int i = 0; i < 2; ++i) {
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(sum.half[i]));
    const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(sum.half[i], 1));
    total.quarter[2 * i] = _mm256_add_pd(total.quarter[2 * i], low);
    total.quarter[2 * i + 1] = _mm256_add_pd(total.quarter[2 * i + 1], high);
  }
}

inline void store_wide(double* out, const Wide& a) {
  for (int i = 0; i < 4; ++i) _mm256_storeu_pd(out + 4 * i, a.quarter[i]);
}

inline Block load_float32(const void* in) {
  return block_of([=](int i) { return _mm256_loadu_ps(static_cast<const float*>(in) + 8 * i); });
}

inline void store_float32(void* out, const Block& a) {
  for (int i = 0; i < 4; ++i) _mm256_storeu_ps(static_cast<float*>(out) + 8 * i, a.quarter[i]);
}

inline __m128i eight_halves(const void* in, int part) {
  return _mm_loadu_si128(static_cast<const __m128i*>(in) + part);
}

inline Block load_bfloat16(const void* in) {
  return block_of([=](int i) {
    const __m256i wide = _mm256_cvtepu16_epi32(eight_halves(in, i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  });
}

inline Block load_bfloat16_pairs(const void* in) {
  return block_of([=](int i) {
    const __m256i pairs = _mm256_loadu_si256(static_cast<const __m256i*>(in) + i % 2);
    return _mm256_castsi256_ps(i < 2 ? _mm256_slli_epi32(pairs, 16)
                                     : _mm256_and_si256(pairs, _mm256_set1_epi32(~0xffff)));
  });
}

inline __m256 round_bfloat16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i rounded = _mm256_and_si256(sum, _mm256_set1_epi32(~0xffff));
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  return _mm256_blendv_ps(_mm256_castsi256_ps(rounded), nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline Block round_bfloat16(const Block& a) {
  return block_of([&](int i) { return round_bfloat16(a.quarter[i]); });
}

inline __m256 round_bfloat16_sum(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(~0xffff)));
}

inline Block round_bfloat16_sum(const Block& a) {
  return block_of([&](int i) { return round_bfloat16_sum(a.quarter[i]); });
}

inline __m256i high_halves(__m256 a) { return _mm256_srli_epi32(_mm256_castps_si256(a), 16); }

inline void store_rounded_bfloat16(void* out, const Block& a) {
  for (int i = 0; i < 2; ++i) {
    const __m256i packed =
        _mm256_packus_epi32(high_halves(a.quarter[2 * i]), high_halves(a.quarter[2 * i + 1]));
    // Packing works within the 128-bit halves of a register; this puts the halves in order.
    _mm256_storeu_si256(static_cast<__m256i*>(out) + i, _mm256_permute4x64_epi64(packed, 0xd8));
  }
}

inline void store_rounded_bfloat16_pairs(void* out, const Block& a) {
  for (int i = 0; i < 2; ++i) {
    const __m256i second = _mm256_castps_si256(a.quarter[i + 2]);
    _mm256_storeu_si256(static_cast<__m256i*>(out) + i,
                        _mm256_or_si256(high_halves(a.quarter[i]), second));
  }
}

inline Block load_float16(const void* in) {
  return block_of([=](int i) { return _mm256_cvtph_ps(eight_halves(in, i)); });
}

inline __m128i narrow_float16(__m256 a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

inline Block round_float16(const Block& a) {
  return block_of([&](int i) { return _mm256_cvtph_ps(narrow_float16(a.quarter[i])); });
}

inline void store_rounded_float16(void* out, const Block& a) {
  for (int i = 0; i < 4; ++i)
    _mm_storeu_si128(static_cast<__m128i*>(out) + i, narrow_float16(a.quarter[i]));
}

inline __m128i eight_bytes(const void* in, int part) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const char*>(in) + 8 * part));
}

inline Block load_int8(const void* in) {
  return block_of(
      [=](int i) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight_bytes(in, i))); });
}

// Read as float16, the bits are 2^-8 times the number, except for NaN.
inline __m256i sixteen_float8(const void* in, int part) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in) + part);
  const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
  const __m256i magnitude_bits = _mm256_set1_epi16(0x7f << 7);
  const __m256i is_nan =
      _mm256_cmpeq_epi16(_mm256_and_si256(shifted, magnitude_bits), magnitude_bits);
  const __m256i halves = _mm256_and_si256(shifted, _mm256_set1_epi16(static_cast<short>(0xbf80)));
  return _mm256_or_si256(halves, _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00)));
}

inline Block load_float8(const void* in) {
  const __m256i halves[2] = {sixteen_float8(in, 0), sixteen_float8(in, 1)};
  const Block small = block_of([&](int i) {
    return _mm256_cvtph_ps(i % 2 == 0 ? _mm256_castsi256_si128(halves[i / 2])
                                      : _mm256_extracti128_si256(halves[i / 2], 1));
  });
  return small * broadcast(0x1p8f);
}

// Returns the lowest byte of each of the 32 integers.
inline void store_bytes(void* out, const __m256i (&a)[4]) {
  const __m256i mask = _mm256_set1_epi32(0xff);
  const auto pair = [&](int i) {
    return _mm256_packus_epi32(_mm256_and_si256(a[i], mask), _mm256_and_si256(a[i + 1], mask));
  };
  // Packing works within the 128-bit halves of a register; this puts the halves in order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(static_cast<__m256i*>(out),
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(pair(0), pair(2)), order));
}

inline Block store_int8(void* out, const Block& a) {
  const Block rounded = a + broadcast(0x1.8p23f);
  __m256i bytes[4];
  for (int i = 0; i < 4; ++i) bytes[i] = _mm256_castps_si256(rounded.quarter[i]);
  store_bytes(out, bytes);
  return rounded - broadcast(0x1.8p23f);
}

// Rounds like float_to_float8 in narrow_floats.hpp; returns the value.
inline __m256 round_float8(__m256 a, __m256i& code) {
  const __m256 sign = _mm256_and_ps(a, _mm256_set1_ps(-0.0f));
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
  const __m256i exponent =
      _mm256_and_si256(_mm256_castps_si256(magnitude), _mm256_set1_epi32(0x7f800000));
  const __m256i large = _mm256_add_epi32(_mm256_max_epi32(exponent, _mm256_set1_epi32(121 << 23)),
                                         _mm256_set1_epi32(20 << 23));
  const __m256 sum = _mm256_add_ps(magnitude, _mm256_castsi256_ps(large));
  const __m256i places = _mm256_sub_epi32(_mm256_castps_si256(sum), large);
  const __m256i above = _mm256_sub_epi32(_mm256_srli_epi32(large, 20), _mm256_set1_epi32(141 << 3));
  code = _mm256_or_si256(_mm256_add_epi32(places, above),
                         _mm256_srli_epi32(_mm256_castps_si256(sign), 24));
  return _mm256_or_ps(_mm256_sub_ps(sum, _mm256_castsi256_ps(large)), sign);
}

inline Block store_float8(void* out, const Block& a) {
  __m256i codes[4];
  const Block value = block_of([&](int i) { return round_float8(a.quarter[i], codes[i]); });
  store_bytes(out, codes);
  return value;
}

}  // namespace
}  // namespace adacache
