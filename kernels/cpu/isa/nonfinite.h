// NaN and infinity: values whose exponent bits are all ones. Adding one to the exponent then carries into the sign's bit.
#pragma once
#include "kernels/base/fp8.h"
#include "kernels/cpu/isa/vec.h"
#include "kernels/tensor.h"

// Bits of the exponent, and the sum's telling bit, of the 32-bit words in which values of t lie.
VEC_FN uint32_t exponent_bits(enum dtype t)
{
    return t == DT_F32 ? 0x7f800000u : t == DT_BF16 ? 0x7f807f80u : 0x7c007c00u;
}
VEC_FN uint32_t exponent_one(enum dtype t)
{
    return t == DT_F32 ? 0x00800000u : t == DT_BF16 ? 0x00800080u : 0x04000400u;
}
VEC_FN uint32_t exponent_carry(enum dtype t)
{
    return t == DT_F32 ? 0x80000000u : 0x80008000u;
}

VEC_FN uint32_t nonfinite_word(const void *x, int64_t i) // at any byte
{
    uint32_t w;
    memcpy(&w, (const char *)x + 4 * i, 4);
    return w;
}

// How many of n values. First whether there is one at all, which a vector tells quickly.
static inline __attribute__((unused)) int64_t nonfinite_values(const void *x, enum dtype t, int64_t n)
{
    if (t == DT_E4M3) { // NaN alone
        int64_t bad = 0;
        for (int64_t i = 0; i < n; i++) bad += (((const e4m3 *)x)[i] & 0x7f) == 0x7f;
        return bad;
    }
    const uint32_t bits = exponent_bits(t), one = exponent_one(t), carry = exponent_carry(t);
    const int64_t n_word = t == DT_F32 ? n : n / 2;
    uint32_t any = 0;
    for (int64_t i = 0; i < n_word; i++) any |= (nonfinite_word(x, i) & bits) + one;
    uint16_t last_half = 0;
    if (t != DT_F32 && n % 2) memcpy(&last_half, (const char *)x + 2 * (n - 1), 2);
    const bool last = (last_half & bits & 0xffff) == (bits & 0xffff) && t != DT_F32;
    if (!(any & carry)) return last;
    int64_t bad = last;
    for (int64_t i = 0; i < n_word; i++) {
        const uint32_t told = ((nonfinite_word(x, i) & bits) + one) & carry;
        bad += (told >> 31) + (told >> 15 & 1);
    }
    return bad;
}
