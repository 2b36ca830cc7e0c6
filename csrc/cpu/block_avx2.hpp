// Sixteen floats in two AVX registers: see block_baseline.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace adacache {
namespace {

struct Block {
  __m256 low, high;
};

struct Wide {
  __m256d quarter[4];
};

inline Block zero_block() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Block broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Block operator+(Block a, Block b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Block operator-(Block a, Block b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Block operator*(Block a, Block b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Block absolute(Block a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

inline Block keep_first(Block a, std::int64_t count) {
  const __m256i limit = _mm256_set1_epi32(static_cast<int>(count));
  const __m256i low = _mm256_cmpgt_epi32(limit, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const __m256i high = _mm256_cmpgt_epi32(limit, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
  return {_mm256_and_ps(a.low, _mm256_castsi256_ps(low)),
          _mm256_and_ps(a.high, _mm256_castsi256_ps(high))};
}

inline Wide load_wide(const double* in) {
  return {{_mm256_loadu_pd(in), _mm256_loadu_pd(in + 4), _mm256_loadu_pd(in + 8),
           _mm256_loadu_pd(in + 12)}};
}

inline void add_to(Wide& total, Block part) {
  const __m128 quarters[] = {_mm256_castps256_ps128(part.low), _mm256_extractf128_ps(part.low, 1),
                             _mm256_castps256_ps128(part.high),
                             _mm256_extractf128_ps(part.high, 1)};
  for (int i = 0; i < 4; ++i)
    total.quarter[i] = _mm256_add_pd(total.quarter[i], _mm256_cvtps_pd(quarters[i]));
}

inline void store_wide(double* out, const Wide& a) {
  for (int i = 0; i < 4; ++i) _mm256_storeu_pd(out + 4 * i, a.quarter[i]);
}

inline Block load_float32(const void* in) {
  const auto* values = static_cast<const float*>(in);
  return {_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8)};
}

inline void store_float32(void* out, Block a) {
  auto* values = static_cast<float*>(out);
  _mm256_storeu_ps(values, a.low);
  _mm256_storeu_ps(values + 8, a.high);
}

inline __m128i eight_halves(const void* in, int half) {
  return _mm_loadu_si128(static_cast<const __m128i*>(in) + half);
}

inline __m256 widen_bfloat16(__m128i halves) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

inline Block load_bfloat16(const void* in) {
  return {widen_bfloat16(eight_halves(in, 0)), widen_bfloat16(eight_halves(in, 1))};
}

inline __m256 round_bfloat16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i rounded = _mm256_and_si256(sum, _mm256_set1_epi32(~0xffff));
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  return _mm256_blendv_ps(_mm256_castsi256_ps(rounded), nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline Block round_bfloat16(Block a) { return {round_bfloat16(a.low), round_bfloat16(a.high)}; }

inline void store_rounded_bfloat16(void* out, Block a) {
  const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(a.low), 16);
  const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(a.high), 16);
  // Packing works within the 128-bit halves of a register: their order is put right after it.
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
  _mm256_storeu_si256(static_cast<__m256i*>(out), packed);
}

inline Block load_float16(const void* in) {
  return {_mm256_cvtph_ps(eight_halves(in, 0)), _mm256_cvtph_ps(eight_halves(in, 1))};
}

inline __m128i narrow_float16(__m256 a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

inline Block round_float16(Block a) {
  return {_mm256_cvtph_ps(narrow_float16(a.low)), _mm256_cvtph_ps(narrow_float16(a.high))};
}

inline void store_rounded_float16(void* out, Block a) {
  auto* halves = static_cast<__m128i*>(out);
  _mm_storeu_si128(halves, narrow_float16(a.low));
  _mm_storeu_si128(halves + 1, narrow_float16(a.high));
}

inline Block load_int8(const void* in) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}

inline __m256 widen_float8(__m128i eight_bytes) {
  const __m256i bytes = _mm256_cvtepu8_epi32(eight_bytes);
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(bytes, 7), 31);
  const __m256i code = _mm256_and_si256(bytes, _mm256_set1_epi32(0x7f));
  const __m256i magnitude = _mm256_slli_epi32(code, 20);
  const __m256i normal = _mm256_add_epi32(magnitude, _mm256_set1_epi32(120 << 23));
  const __m256 shifted =
      _mm256_castsi256_ps(_mm256_add_epi32(magnitude, _mm256_set1_epi32(121 << 23)));
  const __m256 subnormal = _mm256_sub_ps(shifted, _mm256_set1_ps(0x1p-6f));
  const __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), code);
  const __m256i is_nan = _mm256_cmpeq_epi32(code, _mm256_set1_epi32(0x7f));
  __m256i value = _mm256_blendv_epi8(normal, _mm256_castps_si256(subnormal), is_subnormal);
  value = _mm256_blendv_epi8(value, _mm256_set1_epi32(0x7fc00000), is_nan);
  return _mm256_castsi256_ps(_mm256_or_si256(value, sign));
}

inline Block load_float8(const void* in) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
  return {widen_float8(bytes), widen_float8(_mm_srli_si128(bytes, 8))};
}

}  // namespace
}  // namespace adacache
