// log-sum-exp of a row of logits, read once: blocks of SOFTMAX_BLOCK columns, each with its own maximum, joined in f64. The order of the
// sum depends on the number of columns only.
#pragma once
#include "kernels/cpu/isa/vec.h"
#include "kernels/ops.h"

enum { SOFTMAX_BLOCK = 1024 };

// The largest of n; NaN is passed over.
VEC_FN float row_max(const float *z, int n)
{
    vf a = vf_set1(-INFINITY), b = a, c = a, d = a;
    int i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        a = vf_max(vf_load(z + i), a);
        b = vf_max(vf_load(z + i + VL), b);
        c = vf_max(vf_load(z + i + 2 * VL), c);
        d = vf_max(vf_load(z + i + 3 * VL), d);
    }
    float m = vf_hmax(vf_max(vf_max(a, b), vf_max(c, d)));
    for (; i < n; i++) m = z[i] > m ? z[i] : m;
    return m;
}
// sum of exp((z - m) * inv_t) over n
VEC_FN float row_sumexp(const float *z, int n, float m, float inv_t)
{
    vf a = vf_zero(), b = vf_zero(), mm = vf_set1(m), t = vf_set1(inv_t);
    int i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        a = a + vf_exp((vf_load(z + i) - mm) * t);
        b = b + vf_exp((vf_load(z + i + VL) - mm) * t);
    }
    for (; i < n; i += VL) {
        int c = n - i < VL ? n - i : VL;
        a = a + vf_select_n(c, vf_exp((vf_load_n(z + i, c) - mm) * t), vf_zero());
    }
    return vf_sum(a + b);
}
// lse[j] = log sum exp(z * inv_t[j]) for each of n_t temperatures, n_t ≤ OP_TEMPERATURE_MAX + 1 (T = 1 too). Returns the largest logit.
static inline __attribute__((unused)) float row_logsumexp(const float *z, int n, int n_t, const float *inv_t, double *lse)
{
    double sum[OP_TEMPERATURE_MAX + 1] = {0};
    float m = -INFINITY;
    for (int at = 0; at < n; at += SOFTMAX_BLOCK) {
        int len = n - at < SOFTMAX_BLOCK ? n - at : SOFTMAX_BLOCK;
        float bm = row_max(z + at, len);
        if (bm > m) {
            for (int j = 0; j < n_t; j++) sum[j] *= (double)exp_f32((m - bm) * inv_t[j]); // the first time: 0 * 0
            m = bm;
        }
        float base = m == -INFINITY ? 0.0f : m; // all -inf: sums of 0; a NaN shows
        for (int j = 0; j < n_t; j++) sum[j] += (double)row_sumexp(z + at, len, base, inv_t[j]);
    }
    for (int j = 0; j < n_t; j++) lse[j] = log(sum[j]) + (double)(m == -INFINITY ? 0.0f : m) * (double)inv_t[j];
    return m;
}
