// Sixteen floats in one AVX-512 register: see block_baseline.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace adacache {
namespace {

struct Block {
  __m512 v;
};

struct Wide {
  __m512d low, high;
};

inline Block zero_block() { return {_mm512_setzero_ps()}; }
inline Block broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline Block operator+(Block a, Block b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Block operator-(Block a, Block b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Block operator*(Block a, Block b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Block absolute(Block a) { return {_mm512_abs_ps(a.v)}; }

inline Block keep_first(Block a, std::int64_t count) {
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1), a.v)};
}

inline Wide load_wide(const double* in) { return {_mm512_loadu_pd(in), _mm512_loadu_pd(in + 8)}; }

inline void add_to(Wide& total, Block part) {
  total.low = _mm512_add_pd(total.low, _mm512_cvtps_pd(_mm512_castps512_ps256(part.v)));
  total.high = _mm512_add_pd(total.high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(part.v, 1)));
}

inline void store_wide(double* out, Wide a) {
  _mm512_storeu_pd(out, a.low);
  _mm512_storeu_pd(out + 8, a.high);
}

inline Block load_float32(const void* in) { return {_mm512_loadu_ps(in)}; }
inline void store_float32(void* out, Block a) { _mm512_storeu_ps(out, a.v); }

inline Block load_bfloat16(const void* in) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(in)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

inline Block round_bfloat16(Block a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i rounded = _mm512_and_si512(sum, _mm512_set1_epi32(~0xffff));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return {
      _mm512_castsi512_ps(_mm512_mask_mov_epi32(rounded, is_nan, _mm512_set1_epi32(0x7fc00000)))};
}

inline void store_rounded_bfloat16(void* out, Block a) {
  const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(a.v), 16);
  _mm256_storeu_si256(static_cast<__m256i*>(out), _mm512_cvtepi32_epi16(high));
}

inline Block load_float16(const void* in) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(in)))};
}

inline Block round_float16(Block a) {
  return {_mm512_cvtph_ps(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT))};
}

inline void store_rounded_float16(void* out, Block a) {
  const __m256i halves = _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(static_cast<__m256i*>(out), halves);
}

inline Block load_int8(const void* in) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}

inline Block load_float8(const void* in) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(in)));
  const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(bytes, 7), 31);
  const __m512i code = _mm512_and_si512(bytes, _mm512_set1_epi32(0x7f));
  const __m512i magnitude = _mm512_slli_epi32(code, 20);
  const __m512i normal = _mm512_add_epi32(magnitude, _mm512_set1_epi32(120 << 23));
  const __m512 shifted =
      _mm512_castsi512_ps(_mm512_add_epi32(magnitude, _mm512_set1_epi32(121 << 23)));
  const __m512 subnormal = _mm512_sub_ps(shifted, _mm512_set1_ps(0x1p-6f));
  const __mmask16 is_subnormal = _mm512_cmplt_epi32_mask(code, _mm512_set1_epi32(8));
  const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(code, _mm512_set1_epi32(0x7f));
  __m512i value = _mm512_mask_mov_epi32(normal, is_subnormal, _mm512_castps_si512(subnormal));
  value = _mm512_mask_mov_epi32(value, is_nan, _mm512_set1_epi32(0x7fc00000));
  return {_mm512_castsi512_ps(_mm512_or_si512(value, sign))};
}

}  // namespace
}  // namespace adacache
