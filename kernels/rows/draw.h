// What every backend must do alike when it orders logits and draws tokens.
#pragma once
#include "kernels/base/rng.h"
#include "kernels/ops.h"
#include "kernels/rows/row.h"

// Rising for falling logits; equal for equal ones (-0 and +0 too); NaN is worst of all. With the id below it, ties go to the lower id.
ROW_FN uint32_t row_order(float z)
{
    union {
        float f;
        uint32_t u;
    } bits = {z + 0.0f}; // -0 becomes +0
    if (z != z) return UINT32_MAX;
    return bits.u & 0x80000000u ? bits.u : ~bits.u & 0x7fffffffu;
}
ROW_FN double row_uniform(const struct sample_row *s)
{
    return rng_uniform(s->seed, s->stream, s->counter);
}
// TRAP: draws that are captured must not be the sampler's, or the kept distribution would always contain the token that came next: another
// seed ("captured").
ROW_FN double row_capture_uniform(const struct sample_row *s, int n_draw, int i)
{
    return rng_uniform(s->seed ^ 0x6361707475726564u, s->stream, s->counter * (uint64_t)n_draw + (uint64_t)i);
}
