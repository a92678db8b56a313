// Vectors of one register, and the few operations GNU vector extensions lack.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "contract.h"

#define LHM_INLINE static inline __attribute__((always_inline))

namespace lhm {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vu __attribute__((vector_size(kLanes * 4))); // where bits may wrap

LHM_INLINE vf splat(float x) { return x - (vf){}; }
LHM_INLINE vf load(const float* p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
LHM_INLINE void store(float* p, vf v) { memcpy(p, &v, sizeof v); }

// All with the semantics of minps/maxps: the second operand where the first is NaN.
#if defined(__AVX512F__)
LHM_INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
LHM_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
LHM_INLINE vf zero_unless_greater(vf a, float t, vf x) {
  return (vf)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(t), _CMP_GT_OQ), (__m512)x);
}
LHM_INLINE vf keep_unless_greater(vf a, float t, vf kept, vf x) {
  return (vf)_mm512_mask_mov_ps((__m512)kept, _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(t), _CMP_GT_OQ), (__m512)x);
}
LHM_INLINE bool any_greater(vf a, float t) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(t), _CMP_GT_OQ) != 0;
}
LHM_INLINE uint32_t mask_bits(vi m) { return _mm512_movepi32_mask((__m512i)m); }
#else
LHM_INLINE vf select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
#if defined(__AVX2__)
LHM_INLINE vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
LHM_INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
LHM_INLINE uint32_t mask_bits(vi m) { return (uint32_t)_mm256_movemask_ps((__m256)m); }
#elif defined(__SSE2__)
LHM_INLINE vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
LHM_INLINE vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
LHM_INLINE uint32_t mask_bits(vi m) { return (uint32_t)_mm_movemask_ps((__m128)m); }
#else
LHM_INLINE vf vmin(vf a, vf b) { return select(a < b, a, b); }
LHM_INLINE vf vmax(vf a, vf b) { return select(a > b, a, b); }
LHM_INLINE uint32_t mask_bits(vi m) {
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; i++) bits |= (uint32_t)(m[i] & 1) << i;
  return bits;
}
#endif
LHM_INLINE vf zero_unless_greater(vf a, float t, vf x) { return (vf)((vi)x & (a > splat(t))); }
LHM_INLINE vf keep_unless_greater(vf a, float t, vf kept, vf x) { return select(a > splat(t), x, kept); }
LHM_INLINE bool any_greater(vf a, float t) { return mask_bits(a > splat(t)) != 0; }
#endif

// alpha = min(2^x, kAlphaMax), or 0 where 2^x is below kAlphaMin or x is NaN. 2^fraction is a minimax polynomial of
// degree 4 on [-1/2, 1/2], relative error 4e-6.
constexpr float kP4 = 9.6725865e-3f, kP3 = 5.5875093e-2f, kP2 = 2.4022353e-1f, kP1 = 6.9314314e-1f;
constexpr float kLog2AlphaMin = -7.99435344f; // log2(1/255)
LHM_INLINE vf alpha_from_log2(vf x) {
#if defined(__AVX512F__)
  const __m512 whole = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const vf f = x - (vf)whole;
  const vf p = (((f * kP4 + kP3) * f + kP2) * f + kP1) * f + 1.f;
  const __mmask16 seen = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(kLog2AlphaMin), _CMP_GE_OQ);
  return (vf)_mm512_maskz_min_ps(seen, _mm512_scalef_ps((__m512)p, whole), _mm512_set1_ps(kAlphaMax));
#else
  constexpr float kMagic = 12582912.f; // 1.5 * 2^23: adding it rounds to the nearest integer, left in the low bits
  const vf m = x + kMagic;
  const vf f = x - (m - kMagic);
  const vf p = (((f * kP4 + kP3) * f + kP2) * f + kP1) * f + 1.f;
  const vf alpha = (vf)((vu)p + ((vu)m << 23)); // nonsense for x < -126, and masked there
  return (vf)((vi)vmin(alpha, splat(kAlphaMax)) & (x >= splat(kLog2AlphaMin)));
#endif
}

// Flush denormals for the time of a frame: they are invisible and cost a hundred cycles each.
class FlushDenormals {
#if defined(__SSE__)
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
 public:
  FlushDenormals() {}
#endif
};

} // namespace lhm
