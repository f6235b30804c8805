// Rotary position embedding (Su et al. 2021), in place. The angles of a token are made once for all its heads.
#include "kernels/cpu/isa/rowvec.h"
#include "kernels/rows/rope.h"

struct angles {
    float c[OP_ROPE_MAX / 2], s[OP_ROPE_MAX / 2];
};

static void make_angles(struct angles *a, int32_t pos, const float *inv_freq, int half, float mscale, bool inverse)
{
    float sign = inverse ? -mscale : mscale, p = (float)pos;
#pragma omp simd
    for (int i = 0; i < half; i++) {
        float s, c;
        row_sincos(p * inv_freq[i], &s, &c);
        a->c[i] = c * mscale;
        a->s[i] = s * sign;
    }
}

static void rotate(float *x, const struct angles *a, int half, enum rope_order order)
{
    if (order == ROPE_HALF) {
        for (int i = 0; i < half; i += VL) {
            int n = half - i < VL ? half - i : VL;
            vf c = vf_load_n(a->c + i, n), s = vf_load_n(a->s + i, n), p = vf_load_n(x + i, n), q = vf_load_n(x + half + i, n);
            vf_store_n(x + i, p * c - q * s, n);
            vf_store_n(x + half + i, q * c + p * s, n);
        }
    } else {
        for (int i = 0; i < half; i++) row_rotate(x + 2 * i, x + 2 * i + 1, a->c[i], a->s[i]);
    }
}

void ISA_NAME(rope)(struct device *dev, struct tensor x, const struct segments *seg, struct tensor inv_freq, float mscale,
                    enum rope_order order, bool inverse)
{
    int64_t n_tok = x.shape[0], n_head = x.shape[1];
    int d = (int)x.shape[2];
    CPU_FOR(dev, (double)(n_tok * (n_head + 2) * d) * 0.4, t, n_tok, {
        struct angles a;
        make_angles(&a, seg->pos[t], inv_freq.data, d / 2, mscale, inverse);
        for (int64_t h = 0; h < n_head; h++) {
            int64_t at = t * x.stride[0] + h * x.stride[1];
            if (x.dtype == DT_F32) {
                rotate((float *)x.data + at, &a, d / 2, order);
                continue;
            }
            bf16 *p = (bf16 *)x.data + at;
            float row[OP_ROPE_MAX];
            for (int i = 0; i < d; i += VL) vf_store_n(row + i, vf_load_bf16_n(p + i, d - i < VL ? d - i : VL), d - i < VL ? d - i : VL);
            rotate(row, &a, d / 2, order);
            for (int i = 0; i < d; i += VL) vf_store_bf16_n(p + i, vf_load_n(row + i, d - i < VL ? d - i : VL), d - i < VL ? d - i : VL);
        }
    });
}
