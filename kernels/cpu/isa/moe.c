// What surrounds the experts' products: the router, the sort of choices by expert, gathering rows and adding them up again.
#include "kernels/cpu/isa/rowvec.h"
#undef ROW_T // the router is a row of scalars
#undef ROW_EXP
#undef ROW_SQRT
#undef ROW_SET
#include "kernels/rows/router.h"

void ISA_NAME(router)(struct device *dev, struct tensor expert, struct tensor weight, struct tensor logits, struct tensor bias,
                      const struct router *r)
{
    int64_t n = logits.shape[0], e = r->n_expert;
    CPU_FOR(dev, (double)n * (double)e * (r->top_k + 8), t, n, {
        float score[OP_EXPERT_MAX], choice[OP_EXPERT_MAX];
        memcpy(score, (const float *)logits.data + t * e, (size_t)e * sizeof(float));
        row_router((int32_t *)expert.data + t * r->top_k, (float *)weight.data + t * r->top_k, score, choice, bias.data, r);
    });
}

void ISA_NAME(moe_sort)(struct device *dev, struct tensor first, struct tensor row_token, struct tensor token_row, struct tensor expert,
                        int n_expert)
{
    if (dev->measuring) return;
    int64_t n = tensor_numel(expert), top_k = expert.shape[1];
    int32_t *at = first.data, *tok = row_token.data, *row = token_row.data;
    const int32_t *e = expert.data;
    memset(at, 0, (size_t)(n_expert + 1) * sizeof *at);
    for (int64_t i = 0; i < n; i++) {
        if (e[i] < 0 || e[i] >= n_expert) {
            dev_fail(dev, "op_moe_sort", "expert %d of token %lld: there are %d", e[i], (long long)(i / top_k), n_expert);
            return;
        }
        at[e[i]]++;
    }
    int32_t sum = 0;
    for (int i = 0; i <= n_expert; i++) {
        int32_t c = at[i];
        at[i] = sum;
        sum += c;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t r = at[e[i]]++; // `first` serves as the cursor and is put back below
        row[i] = r;
        tok[r] = (int32_t)(i / top_k);
    }
    for (int i = n_expert; i > 0; i--) at[i] = at[i - 1];
    at[0] = 0;
}

// Whether each of `row` is one of n.
static bool rows_are_there(struct device *dev, const char *op, struct tensor row, int64_t n)
{
    const int32_t *r = row.data;
    for (int64_t i = 0; i < row.shape[0]; i++) {
        if (r[i] >= 0 && r[i] < n) continue;
        dev_fail(dev, op, "row %d: there are %lld", r[i], (long long)n);
        return false;
    }
    return true;
}

void ISA_NAME(gather_rows)(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    int64_t m = out.shape[0];
    size_t size = (size_t)x.shape[1] * dtype_size(x.dtype);
    const int32_t *r = row.data;
    if (!rows_are_there(dev, "op_gather_rows", row, x.shape[0])) return;
    CPU_FOR(dev, (double)m * (double)size * 0.1, i, m, { memcpy(row_at(out, i, 0), row_at(x, r[i], 0), size); });
}

void ISA_NAME(scatter_rows)(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    int64_t m = x.shape[0];
    size_t size = (size_t)x.shape[1] * dtype_size(x.dtype);
    const int32_t *r = row.data;
    if (!rows_are_there(dev, "op_scatter_rows", row, out.shape[0])) return;
    CPU_FOR(dev, (double)m * (double)size * 0.1, i, m, { memcpy(row_at(out, r[i], 0), row_at(x, i, 0), size); });
}

VEC_FN void combine_row(void *out, struct tensor y, const int32_t *row, const float *weight, int64_t top_k, int64_t d, bool out_bf,
                        bool y_bf)
{
    for (int64_t i = 0; i < d; i += VL) {
        int n = (int)(d - i < VL ? d - i : VL);
        vf s = vf_load_any_n(out, out_bf, i, n);
        for (int64_t k = 0; k < top_k; k++) s = vf_fma(vf_set1(weight[k]), vf_load_any_n(row_at(y, row[k], 0), y_bf, i, n), s);
        vf_store_any_n(out, out_bf, i, s, n);
    }
}

void ISA_NAME(moe_combine)(struct device *dev, struct tensor out, struct tensor y, struct tensor token_row, struct tensor weight)
{
    int64_t n = out.shape[0], d = out.shape[1], top_k = token_row.shape[1];
    bool y_bf = y.dtype == DT_BF16;
    CPU_FOR(dev, (double)(n * d * top_k) * 0.2, t, n, {
        const int32_t *row = (const int32_t *)token_row.data + t * top_k;
        const float *w = (const float *)weight.data + t * top_k;
        if (out.dtype == DT_BF16)
            combine_row(row_at(out, t, 0), y, row, w, top_k, d, true, y_bf);
        else
            combine_row(row_at(out, t, 0), y, row, w, top_k, d, false, y_bf);
    });
}
