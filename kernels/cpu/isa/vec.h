// A tiny SIMD layer: `vf` holds VL floats (16 with AVX-512, 8 with AVX2, 4 in plain C). The instruction set follows from the compiler's
// flags, so this header belongs only in files that are compiled once per ISA.
//
// + - * / work on vf directly. A lane's result never depends on its place or on the other lanes, so a tail handled with the _n forms is
// bit for bit what a full vector gives, and exp_f32(x) is what vf_exp gives. Reductions add in one fixed order.
// bf16 stores round as half.h does on every ISA.
#pragma once
#include "kernels/base/half.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF // gcc: off by -std=c11. Sums must not change with how the compiler pairs a multiply and an add
#endif

#define VEC_FN static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define VEC_512 1
enum { VL = 16 };
typedef __m512 vf;
typedef uint32_t vu __attribute__((vector_size(64)));

VEC_FN __mmask16 vec_mask(int n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}
VEC_FN vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
VEC_FN vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
VEC_FN vf vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), p);
} // the other lanes are 0
VEC_FN void vf_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
VEC_FN void vf_store_n(float *p, vf a, int n)
{
    _mm512_mask_storeu_ps(p, vec_mask(n), a);
}
VEC_FN vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
} // a*b + c
VEC_FN vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
} // a > b ? a : b, so b if either is NaN
VEC_FN vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
} // a < b ? a : b
VEC_FN vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
VEC_FN vf vf_select_n(int n, vf a, vf b)
{
    return _mm512_mask_blend_ps(vec_mask(n), b, a);
} // a in lanes < n, else b
VEC_FN float vf_sum(vf a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN float vf_hmax(vf a)
{
    return _mm512_reduce_max_ps(a);
} // largest lane
VEC_FN vf vec_widen(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
VEC_FN vf vf_load_bf16(const bf16 *p)
{
    return vec_widen(_mm256_loadu_si256((const __m256i *)p));
}
VEC_FN vf vf_load_bf16_n(const bf16 *p, int n)
{
    return vec_widen(_mm256_maskz_loadu_epi16(vec_mask(n), p));
}
VEC_FN vf vf_load_f16(const f16 *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
VEC_FN __m256i vec_narrow(vf a)
{
    __m512i u = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(r);
}
VEC_FN void vf_store_bf16(bf16 *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, vec_narrow(a));
}
VEC_FN void vf_store_bf16_n(bf16 *p, vf a, int n)
{
    _mm256_mask_storeu_epi16(p, vec_mask(n), vec_narrow(a));
}

#elif defined(__AVX2__) && defined(__FMA__)
enum { VL = 8 };
typedef __m256 vf;
typedef uint32_t vu __attribute__((vector_size(32)));

VEC_FN __m256i vec_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC_FN vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}
VEC_FN vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
VEC_FN vf vf_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, vec_mask(n));
}
VEC_FN void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
VEC_FN void vf_store_n(float *p, vf a, int n)
{
    _mm256_maskstore_ps(p, vec_mask(n), a);
}
VEC_FN vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
VEC_FN vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
VEC_FN vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
VEC_FN vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}
VEC_FN vf vf_select_n(int n, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(vec_mask(n)));
}
VEC_FN float vf_sum(vf a)
{
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN float vf_hmax(vf a)
{
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN vf vec_widen(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
VEC_FN vf vf_load_bf16(const bf16 *p)
{
    return vec_widen(_mm_loadu_si128((const __m128i *)p));
}
VEC_FN vf vf_load_bf16_n(const bf16 *p, int n)
{
    bf16 t[8] = {0};
    for (int i = 0; i < n && i < 8; i++) t[i] = p[i];
    return vf_load_bf16(t);
}
VEC_FN vf vf_load_f16(const f16 *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
VEC_FN __m128i vec_narrow(vf a)
{
    __m256i u = _mm256_castps_si256(a), hi = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(hi, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(hi, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
VEC_FN void vf_store_bf16(bf16 *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, vec_narrow(a));
}
VEC_FN void vf_store_bf16_n(bf16 *p, vf a, int n)
{
    bf16 t[8];
    vf_store_bf16(t, a);
    for (int i = 0; i < n && i < 8; i++) p[i] = t[i];
}

#else // plain C: four lanes in the compiler's own vectors
enum { VL = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));

VEC_FN vf vf_set1(float x)
{
    return (vf){x, x, x, x};
}
VEC_FN vf vf_load(const float *p)
{
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
VEC_FN vf vf_load_n(const float *p, int n)
{
    vf a = {0};
    for (int i = 0; i < n && i < VL; i++) a[i] = p[i];
    return a;
}
VEC_FN void vf_store(float *p, vf a)
{
    memcpy(p, &a, sizeof a);
}
VEC_FN void vf_store_n(float *p, vf a, int n)
{
    for (int i = 0; i < n && i < VL; i++) p[i] = a[i];
}
VEC_FN vf vf_fma(vf a, vf b, vf c)
{
    return a * b + c;
}
VEC_FN vf vf_max(vf a, vf b)
{
    vf r;
    for (int i = 0; i < VL; i++) r[i] = a[i] > b[i] ? a[i] : b[i];
    return r;
}
VEC_FN vf vf_min(vf a, vf b)
{
    vf r;
    for (int i = 0; i < VL; i++) r[i] = a[i] < b[i] ? a[i] : b[i];
    return r;
}
VEC_FN vf vf_sqrt(vf a)
{
    vf r;
    for (int i = 0; i < VL; i++) r[i] = sqrtf(a[i]);
    return r;
}
VEC_FN vf vf_select_n(int n, vf a, vf b)
{
    for (int i = 0; i < VL; i++) b[i] = i < n ? a[i] : b[i];
    return b;
}
VEC_FN float vf_sum(vf a)
{
    return (a[0] + a[2]) + (a[1] + a[3]);
}
VEC_FN float vf_hmax(vf a)
{
    float r = a[0];
    for (int i = 1; i < VL; i++) r = a[i] > r ? a[i] : r;
    return r;
}
VEC_FN vf vf_load_bf16_n(const bf16 *p, int n)
{
    vf a = {0};
    for (int i = 0; i < n && i < VL; i++) a[i] = bf16_to_f32(p[i]);
    return a;
}
VEC_FN vf vf_load_bf16(const bf16 *p)
{
    return vf_load_bf16_n(p, VL);
}
VEC_FN vf vf_load_f16(const f16 *p)
{
    vf a;
    for (int i = 0; i < VL; i++) a[i] = f16_to_f32(p[i]);
    return a;
}
VEC_FN void vf_store_bf16_n(bf16 *p, vf a, int n)
{
    for (int i = 0; i < n && i < VL; i++) p[i] = f32_to_bf16(a[i]);
}
VEC_FN void vf_store_bf16(bf16 *p, vf a)
{
    vf_store_bf16_n(p, a, VL);
}
#endif

VEC_FN float fma_f32(float a, float b, float c) // as a lane of vf_fma
{
    float r[VL];
    vf_store(r, vf_fma(vf_set1(a), vf_set1(b), vf_set1(c)));
    return r[0];
}
VEC_FN vf vf_zero(void)
{
    return vf_set1(0.0f);
}
// Elements i .. of an array that is bf16 or f32.
VEC_FN vf vf_load_any(const void *p, bool is_bf16, int64_t i)
{
    return is_bf16 ? vf_load_bf16((const bf16 *)p + i) : vf_load((const float *)p + i);
}
VEC_FN vf vf_load_any_n(const void *p, bool is_bf16, int64_t i, int n)
{
    return is_bf16 ? vf_load_bf16_n((const bf16 *)p + i, n) : vf_load_n((const float *)p + i, n);
}
VEC_FN void vf_store_any(void *p, bool is_bf16, int64_t i, vf a)
{
    if (is_bf16)
        vf_store_bf16((bf16 *)p + i, a);
    else
        vf_store((float *)p + i, a);
}
VEC_FN void vf_store_any_n(void *p, bool is_bf16, int64_t i, vf a, int n)
{
    if (is_bf16)
        vf_store_bf16_n((bf16 *)p + i, a, n);
    else
        vf_store_n((float *)p + i, a, n);
}

// e^x within 2 ulp; inf above 88.73, subnormals and 0 below -87.3, NaN stays NaN. x = n ln2 + r with |r| ≤ ln2 / 2;
// e^r = 1 + r + r² q(r), q of degree 4 fitted to the smallest relative error (3e-9); 2^n in two factors, so that subnormals round once.
VEC_FN vf vf_exp(vf x)
{
    const vf magic = vf_set1(0x1.8p23f);                     // adding it rounds to an integer, which then stands in the low bits
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-104.0f), x)); // x second: a NaN passes
    vf t = vf_fma(x, vf_set1(0x1.715476p+0f), magic);
    vf n = t - magic;
    vf r = vf_fma(n, vf_set1(-0x1.63p-1f), x);  // ln2's upper 9 bits: n times it is exact
    r = vf_fma(n, vf_set1(0x1.bd0106p-13f), r); // ln2 - 0x1.63p-1 is negative
    vf q = vf_fma(vf_set1(0x1.6a23d0p-10f), r, vf_set1(0x1.123a20p-7f));
    q = vf_fma(q, r, vf_set1(0x1.5558f2p-5f));
    q = vf_fma(q, r, vf_set1(0x1.555492p-3f));
    q = vf_fma(q, r, vf_set1(0x1.fffffcp-2f));
    vf p = vf_fma(r * r, q, r) + vf_set1(1.0f);
#ifdef VEC_512
    return _mm512_scalef_ps(p, n);
#else
    vu e = (vu)t - (vu)magic;                          // n as an integer, two's complement
    vu e1 = (vu)(((e + 512) >> 1) - 256), e2 = e - e1; // halves that each fit an exponent
    return p * (vf)((e1 + 127) << 23) * (vf)((e2 + 127) << 23);
#endif
}
VEC_FN float exp_f32(float x)
{
    float r[VL];
    vf_store(r, vf_exp(vf_set1(x)));
    return r[0];
}
