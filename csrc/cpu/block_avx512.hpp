// Block, thirty-two floats, in two AVX-512 registers; see block_baseline.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace adacache {
namespace {

struct Block {
  __m512 first, second;
};

struct Narrow {
  __m512 v;
};

struct Wide {
  __m512d low, high;
};

inline Block zero_block() { return {_mm512_setzero_ps(), _mm512_setzero_ps()}; }
inline Block broadcast(float value) { return {_mm512_set1_ps(value), _mm512_set1_ps(value)}; }
inline Block operator+(Block a, Block b) {
  return {_mm512_add_ps(a.first, b.first), _mm512_add_ps(a.second, b.second)};
}
inline Block operator-(Block a, Block b) {
  return {_mm512_sub_ps(a.first, b.first), _mm512_sub_ps(a.second, b.second)};
}
inline Block operator*(Block a, Block b) {
  return {_mm512_mul_ps(a.first, b.first), _mm512_mul_ps(a.second, b.second)};
}
inline Block absolute(Block a) { return {_mm512_abs_ps(a.first), _mm512_abs_ps(a.second)}; }

inline __m512 larger(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

inline Block larger(Block a, Block b) {
  return {larger(a.first, b.first), larger(a.second, b.second)};
}

inline __m512 keep_where(__m512 a, __m512 mask) {
  const __mmask16 kept = _mm512_cmp_ps_mask(mask, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  return _mm512_maskz_mov_ps(kept, a);
}

inline Block keep_where(Block a, Block mask) {
  return {keep_where(a.first, mask.first), keep_where(a.second, mask.second)};
}

inline Wide load_wide(const double* in) { return {_mm512_loadu_pd(in), _mm512_loadu_pd(in + 8)}; }

inline Narrow zero_narrow() { return {_mm512_setzero_ps()}; }
inline void add_to(Narrow& sum, Block terms) {
  sum.v = _mm512_add_ps(sum.v, _mm512_add_ps(terms.first, terms.second));
}
inline void add_to(Wide& total, Narrow sum) {
  total.low = _mm512_add_pd(total.low, _mm512_cvtps_pd(_mm512_castps512_ps256(sum.v)));
  total.high = _mm512_add_pd(total.high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(sum.v, 1)));
}

inline void store_wide(double* out, Wide a) {
  _mm512_storeu_pd(out, a.low);
  _mm512_storeu_pd(out + 8, a.high);
}

inline Block load_float32(const void* in) {
  const auto* values = static_cast<const float*>(in);
  return {_mm512_loadu_ps(values), _mm512_loadu_ps(values + 16)};
}

inline void store_float32(void* out, Block a) {
  auto* values = static_cast<float*>(out);
  _mm512_storeu_ps(values, a.first);
  _mm512_storeu_ps(values + 16, a.second);
}

inline __m256i sixteen_halves(const void* in, int part) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(in) + part);
}

inline __m512 widen_bfloat16(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

inline Block load_bfloat16(const void* in) {
  return {widen_bfloat16(sixteen_halves(in, 0)), widen_bfloat16(sixteen_halves(in, 1))};
}

inline Block load_bfloat16_pairs(const void* in) {
  const __m512i pairs = _mm512_loadu_si512(in);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff)))};
}

inline __m512 round_bfloat16(__m512 a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 is_number = _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
  return _mm512_castsi512_ps(_mm512_mask_and_epi32(_mm512_set1_epi32(0x7fc00000), is_number, sum,
                                                   _mm512_set1_epi32(~0xffff)));
}

inline Block round_bfloat16(Block a) { return {round_bfloat16(a.first), round_bfloat16(a.second)}; }

inline __m512 round_bfloat16_sum(__m512 a) {
  const __m512i bits = _mm512_castps_si512(a);
  // -0x7fff, or -0x8000 if the number rounded down is odd: one instruction instead of two.
  const __m512i half = _mm512_ternarylogic_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1),
                                                 _mm512_set1_epi32(-0x8000), 0x2e);
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_sub_epi32(bits, half), _mm512_set1_epi32(~0xffff)));
}

inline Block round_bfloat16_sum(Block a) {
  return {round_bfloat16_sum(a.first), round_bfloat16_sum(a.second)};
}

inline void store_rounded_bfloat16(void* out, Block a) {
  auto* halves = static_cast<__m256i*>(out);
  const __m512i first = _mm512_srli_epi32(_mm512_castps_si512(a.first), 16);
  const __m512i second = _mm512_srli_epi32(_mm512_castps_si512(a.second), 16);
  _mm256_storeu_si256(halves, _mm512_cvtepi32_epi16(first));
  _mm256_storeu_si256(halves + 1, _mm512_cvtepi32_epi16(second));
}

inline void store_rounded_bfloat16_pairs(void* out, Block a) {
  const __m512i first = _mm512_srli_epi32(_mm512_castps_si512(a.first), 16);
  _mm512_storeu_si512(out, _mm512_or_si512(first, _mm512_castps_si512(a.second)));
}

inline Block load_float16(const void* in) {
  return {_mm512_cvtph_ps(sixteen_halves(in, 0)), _mm512_cvtph_ps(sixteen_halves(in, 1))};
}

inline __m256i narrow_float16(__m512 a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

inline Block round_float16(Block a) {
  return {_mm512_cvtph_ps(narrow_float16(a.first)), _mm512_cvtph_ps(narrow_float16(a.second))};
}

inline void store_rounded_float16(void* out, Block a) {
  auto* halves = static_cast<__m256i*>(out);
  _mm256_storeu_si256(halves, narrow_float16(a.first));
  _mm256_storeu_si256(halves + 1, narrow_float16(a.second));
}

inline __m128i sixteen_bytes(const void* in, int part) {
  return _mm_loadu_si128(static_cast<const __m128i*>(in) + part);
}

inline __m512 widen_int8(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

inline Block load_int8(const void* in) {
  return {widen_int8(sixteen_bytes(in, 0)), widen_int8(sixteen_bytes(in, 1))};
}

// Read as float16, the bits are 2^-8 times the number, except for NaN.
inline Block load_float8(const void* in) {
  const __m512i bytes = _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(in)));
  const __m512i magnitude_bits = _mm512_set1_epi16(0x7f << 7);
  const __m512i shifted = _mm512_slli_epi16(bytes, 7);
  const __mmask32 is_nan =
      _mm512_cmpeq_epi16_mask(_mm512_and_si512(shifted, magnitude_bits), magnitude_bits);
  __m512i halves = _mm512_and_si512(shifted, _mm512_set1_epi16(static_cast<short>(0xbf80)));
  halves = _mm512_mask_mov_epi16(halves, is_nan, _mm512_set1_epi16(0x7e00));
  const Block small{_mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
  return small * broadcast(0x1p8f);
}

inline void store_bytes(void* out, __m512i first, __m512i second) {
  auto* bytes = static_cast<__m128i*>(out);
  _mm_storeu_si128(bytes, _mm512_cvtepi32_epi8(first));
  _mm_storeu_si128(bytes + 1, _mm512_cvtepi32_epi8(second));
}

inline Block store_int8(void* out, Block a) {
  const Block rounded = a + broadcast(0x1.8p23f);
  store_bytes(out, _mm512_castps_si512(rounded.first), _mm512_castps_si512(rounded.second));
  return rounded - broadcast(0x1.8p23f);
}

// Rounds like float_to_float8 in narrow_floats.hpp; returns the value.
inline __m512 round_float8(__m512 a, __m512i& code) {
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(1 << 31));
  const __m512 magnitude = _mm512_abs_ps(a);
  const __m512i exponent =
      _mm512_and_si512(_mm512_castps_si512(magnitude), _mm512_set1_epi32(0x7f800000));
  const __m512i large = _mm512_add_epi32(_mm512_max_epi32(exponent, _mm512_set1_epi32(121 << 23)),
                                         _mm512_set1_epi32(20 << 23));
  const __m512 sum = _mm512_add_ps(magnitude, _mm512_castsi512_ps(large));
  const __m512i places = _mm512_sub_epi32(_mm512_castps_si512(sum), large);
  const __m512i above = _mm512_sub_epi32(_mm512_srli_epi32(large, 20), _mm512_set1_epi32(141 << 3));
  code = _mm512_or_si512(_mm512_add_epi32(places, above), _mm512_srli_epi32(sign, 24));
  const __m512 rounded = _mm512_sub_ps(sum, _mm512_castsi512_ps(large));
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(rounded), sign));
}

inline Block store_float8(void* out, Block a) {
  __m512i first, second;
  const Block value{round_float8(a.first, first), round_float8(a.second, second)};
  store_bytes(out, first, second);
  return value;
}

}  // namespace
}  // namespace adacache
