// bf16 and f16 against f32, as the hardware rounds (to nearest, ties to even). Both CPU and CUDA compile this text.
#pragma once
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define HALF_FN static inline __host__ __device__
#else
#define HALF_FN static inline
#endif

typedef uint16_t bf16; // the upper half of an f32
typedef uint16_t f16;  // IEEE binary16

HALF_FN float bf16_to_f32(bf16 h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
HALF_FN bf16 f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16)((u >> 16) | 0x40); // NaN stays a (quiet) NaN
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
HALF_FN float f16_to_f32(f16 h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 0x3ff, u;
    if (exp == 31) {
        u = sign | 0x7f800000u | (man << 13);
    } else if (exp) {
        u = sign | ((exp + 112) << 23) | (man << 13);
    } else if (man) { // subnormal: man * 2^-24
        float f = (float)man * 0x1p-24f;
        memcpy(&u, &f, 4);
        u |= sign;
    } else {
        u = sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}
// What is too large becomes infinite.
HALF_FN f16 f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    const uint32_t sign = (u >> 16) & 0x8000, abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u) return (f16)(sign | 0x7e00);  // NaN
    if (abs >= 0x47800000u) return (f16)(sign | 0x7c00); // 65536 and beyond
    if (abs < 0x38800000u) {                             // below 2^-14: subnormal, a multiple of 2^-24; the sum rounds
        float a, magic = 0.5f;                           // its unit in the last place is 2^-24
        memcpy(&a, &abs, 4);
        a += magic;
        memcpy(&u, &a, 4);
        return (f16)(sign | (u - 0x3f000000u));
    }
    return (f16)(sign | ((abs - 0x38000000u + 0xfffu + ((abs >> 13) & 1)) >> 13));
}
#undef HALF_FN
