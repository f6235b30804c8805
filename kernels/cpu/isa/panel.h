// How op_pack lays a weight (n, k) out: panels of PANEL_N weight rows side by side, one after the other, so that a product reads memory
// strictly forward and the lanes of a vector are neighbouring outputs.
//   f32:  [n / PANEL_N][k][PANEL_N]
//   bf16: [n / PANEL_N][(k + 1) / 2][PANEL_N][2]: pairs along k share a 32-bit lane, what vdpbf16ps reads; elsewhere one shift or one
//         mask gives either half as an f32
// Rows past n and the odd half past k are 0. A stack of matrices (h, n, k) is packed one matrix after the other.
#pragma once
#include "kernels/cpu/isa/vec.h"
#include "kernels/ops.h"

enum { PANEL_N = 2 * VL };
_Static_assert(OP_PACK_ROWS % PANEL_N == 0, "a part of a weight begins with a panel");

VEC_FN int64_t panel_count(int64_t n)
{
    return (n + PANEL_N - 1) / PANEL_N;
}
// 32-bit words of one panel.
VEC_FN int64_t panel_words(enum dtype t, int64_t k)
{
    return (t == DT_BF16 ? (k + 1) / 2 : k) * PANEL_N;
}

// Weight row `row`, unpacked: out f32 or bf16 (k).
VEC_FN void panel_read_row(void *out, bool out_bf16, const void *panels, enum dtype t, int64_t k, int64_t row)
{
    const int64_t lane = row % PANEL_N, first = row / PANEL_N * panel_words(t, k);
    for (int64_t i = 0; i < k; i++) {
        float x = t == DT_BF16 ? bf16_to_f32(((const bf16 *)panels)[2 * (first + i / 2 * PANEL_N + lane) + i % 2])
                               : ((const float *)panels)[first + i * PANEL_N + lane];
        if (out_bf16)
            ((bf16 *)out)[i] = f32_to_bf16(x);
        else
            ((float *)out)[i] = x;
    }
}
