// FP8 as DeepSeek uses it (Micikevicius et al. 2022, without infinities): e4m3 values, e8m0 scales, and how a block of activations gets its
// scale. Both CPU and CUDA compile this text; branch-free, so that loops over it become vectors.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FP8_FN static inline __host__ __device__
#else
#define FP8_FN static inline
#endif

typedef uint8_t e4m3; // 1 sign, 4 exponent, 3 mantissa bits: ±448 at most, 2^-9 at least; 0x7f and 0xff are NaN
typedef uint8_t e8m0; // 2^(code - 127); 255 is NaN
enum { FP8_BLOCK = 128 };

FP8_FN uint32_t fp8_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
FP8_FN float fp8_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

FP8_FN float e4m3_to_f32(e4m3 c)
{
    // The exponent fields differ by a factor of 2^120, for subnormals too.
    const uint32_t size = fp8_bits(fp8_float((uint32_t)(c & 0x7f) << 20) * 0x1p120f), sign = (uint32_t)(c & 0x80) << 24;
    return fp8_float(sign | ((c & 0x7f) == 0x7f ? 0x7fc00000u : size));
}

// The e4m3 value nearest to f, ties to even, ±448 beyond; NaN stays NaN.
FP8_FN float f32_round_e4m3(float f)
{
    const uint32_t u = fp8_bits(f), a = u & 0x7fffffffu;
    const float normal = fp8_float((a + 0x7ffffu + ((a >> 20) & 1)) & 0xfff00000u); // four significant bits
    const float small = (fp8_float(a) + 0x1p14f) - 0x1p14f;                         // below 2^-6: a multiple of 2^-9
    float r = a < 0x3c800000u ? small : normal;
    r = a > 0x43e00000u ? 448.0f : r;
    return a > 0x7f800000u ? f : fp8_float(fp8_bits(r) | (u & 0x80000000u));
}
FP8_FN e4m3 f32_to_e4m3(float f)
{
    const uint32_t u = fp8_bits(f32_round_e4m3(f)), a = u & 0x7fffffffu;
    const uint32_t small = fp8_bits(fp8_float(a) + 0x1p14f) - 0x46800000u, normal = (a >> 20) - (120u << 3);
    const uint32_t code = a > 0x7f800000u ? 0x7f : a < 0x3c800000u ? small : normal;
    return (e4m3)(code | (u >> 24 & 0x80));
}

FP8_FN float e8m0_to_f32(e8m0 c)
{
    return fp8_float(c == 255 ? 0x7fc00000u : c == 0 ? 0x00400000u : (uint32_t)c << 23);
}

// The scale of a block of activations whose largest magnitude is amax (DeepSeek-V3, inference/kernel.py: act_quant): amax / 448, amax taken
// as 1e-4 at least; ue8m0: rounded up to a power of two, exactly (theirs goes through an f32 log2, which near a power may give the one
// below).
FP8_FN float fp8_scale(float amax, bool ue8m0)
{
    const float s = (amax < 1e-4f ? 1e-4f : amax) / 448.0f;
    const uint32_t u = fp8_bits(s);
    return ue8m0 ? fp8_float((u + 0x7fffffu) & 0xff800000u) : s;
}
#undef FP8_FN
