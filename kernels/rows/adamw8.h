// AdamW with states of 8 bits and no f32 master (states quantised by blocks: Dettmers et al. 2022, arXiv 2110.02861): the codes, and the
// rounding of everything that is kept.
//
// A code is a small float of three bits of mantissa, in units of its block: m a sign and 4 bits of exponent, v 5 bits of exponent. The
// block's unit is its largest magnitude divided by the largest code's value, so the range below the largest is 2^18 for m and 2^34, its
// square as it were, for v: where |m| ≤ sqrt(v) elements vanish from both alike. A v that is not zero is never rounded to zero: with the
// smallest code, m / sqrt(v) stays about as large as the block's other updates.
//
// TRAP: rounding to nearest would hold still what moves less than half a gap at a step: v by 1 - beta2 of itself, a thousandth, with codes
// up to an eighth apart (it would only ever fall with its block's unit), a bf16 weight by its learning rate, with 2^-8 between neighbours.
// So all three are rounded stochastically, up with the probability that makes the mean right. The draws are a function of seed, parameter,
// step and element alone.
#pragma once
#include "kernels/base/half.h"
#include "kernels/base/rng.h"
#include "kernels/rows/adamw.h"

enum { ROW_M_LAST = 127, ROW_V_LAST = 255 }; // the largest codes; m's sign is bit 7

#define ROW_M_MOST 0x1.ep17f // their values, in units of the block
#define ROW_V_MOST 0x1.ep33f

// The draws of elements 2 * pair and 2 * pair + 1 of the parameter: two words each, of which the weight takes the lower half of the first,
// m its upper half, v the lower half of the second.
ROW_FN struct rng_block row_adamw8_draw(const struct adamw8 *a, uint64_t pair)
{
    return rng_block(a->seed, a->stream, (uint64_t)a->adamw.step << 40 | pair);
}

// The value of code c ≥ 0: c up to 15, then eight codes for each doubling.
ROW_FN float row_small_value(int c)
{
    const int up = c < 16 ? 0 : (c >> 3) - 1;
    const uint32_t power = (uint32_t)(127 + up) << 23;
    float p;
    memcpy(&p, &power, 4);
    return (float)(c - 8 * up) * p;
}
// One of the two codes about x ≥ 0, by 16 random bits. An f32 has 20 bits of mantissa below a code's three: a random number added there
// carries with the right probability. Below 8 codes are evenly spaced, as they are from 8 to 16.
ROW_FN int row_small_code(float x, int last, uint32_t random)
{
    const float y = x < 8 ? x + 8 : x;
    uint32_t u;
    memcpy(&u, &y, 4);
    const int c = (int)((u + (random << 4)) >> 20) - 1032 - (x < 8 ? 8 : 0); // 8.0f has 1040 there
    return c < last ? c : last;
}
ROW_FN float row_m_value(uint8_t code, float unit)
{
    const float x = row_small_value(code & 127) * unit;
    return code & 128 ? -x : x;
}
ROW_FN float row_v_value(uint8_t code, float unit)
{
    return row_small_value(code) * unit;
}
ROW_FN uint8_t row_m_code(float m, float unit, uint32_t random)
{
    const int c = row_small_code(fabsf(m) / unit, ROW_M_LAST, random) | (m < 0 ? 128 : 0);
    return (uint8_t)(unit > 0 ? c : 0);
}
ROW_FN uint8_t row_v_code(float v, float unit, uint32_t random)
{
    const int c = row_small_code(v / unit, ROW_V_LAST, random);
    return (uint8_t)(unit > 0 ? c == 0 && v > 0 ? 1 : c : 0);
}
// One of the two bf16 about x. Infinities and NaN stay what they are.
ROW_FN bf16 row_bf16_by_chance(float x, uint32_t random)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (u & 0x7f800000u) == 0x7f800000u ? f32_to_bf16(x) : (bf16)((u + random) >> 16);
}
