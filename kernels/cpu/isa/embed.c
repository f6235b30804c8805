// Embedding rows and its backward, and the bias's backward: sums over tokens. Each column is summed in the order of the rows, so
// the threads share out columns and the result is the same for any number of them.
#include "kernels/cpu/isa/panel.h"
#include "kernels/cpu/isa/rowvec.h"

VEC_FN void convert_row(void *out, bool out_bf, const void *in, bool in_bf, int64_t n)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store_any(out, out_bf, i, vf_load_any(in, in_bf, i));
    int rest = (int)(n - i);
    if (rest) vf_store_any_n(out, out_bf, i, vf_load_any_n(in, in_bf, i, rest), rest);
}

static bool ids_bad(struct device *dev, const char *op, const int32_t *id, int64_t n, int64_t n_vocab)
{
    for (int64_t i = 0; i < n; i++) {
        if (id[i] >= 0 && id[i] < n_vocab) continue;
        dev_fail(dev, op, "token id %d in row %lld: the vocabulary has %lld", id[i], (long long)i, (long long)n_vocab);
        return true;
    }
    return false;
}

void ISA_NAME(embed)(struct device *dev, struct tensor out, struct tensor table, struct tensor ids)
{
    int64_t n = out.shape[0], d = out.shape[1];
    const int32_t *id = ids.data;
    bool ob = out.dtype == DT_BF16, tb = table.dtype == DT_BF16;
    if (ids_bad(dev, "op_embed", id, n, table.shape[0])) return;
    CPU_FOR(dev, (double)(n * d) * (table.layout == LAYOUT_PANEL ? 2.0 : 0.2), t, n, {
        if (table.layout == LAYOUT_PANEL)
            panel_read_row(row_at(out, t, 0), ob, table.data, table.dtype, d, id[t]);
        else if (ob == tb)
            memcpy(row_at(out, t, 0), row_at(table, id[t], 0), (size_t)d * dtype_size(out.dtype));
        else
            convert_row(row_at(out, t, 0), ob, row_at(table, id[t], 0), tb, d);
    });
}

void ISA_NAME(embed_bwd)(struct device *dev, struct tensor dtable, struct tensor dout, struct tensor ids)
{
    enum { COLS = 32 };
    int64_t n = dout.shape[0], d = dout.shape[1], n_col = (d + COLS - 1) / COLS;
    const int32_t *id = ids.data;
    bool bf = dout.dtype == DT_BF16;
    if (dev->measuring || ids_bad(dev, "op_embed_bwd", id, n, dtable.shape[0])) return;
#pragma omp parallel num_threads(cpu_team(dev, (double)(n * d) * 0.3))
    {
        int64_t begin, end; // columns of this thread
        cpu_slice(n_col, &begin, &end);
        begin *= COLS;
        end = end * COLS < d ? end * COLS : d;
        for (int64_t t = 0; t < n; t++) {
            float *to = (float *)row_at(dtable, id[t], 0);
            const void *from = row_at(dout, t, 0);
            for (int64_t i = begin; i < end; i += VL) {
                int c = (int)(end - i < VL ? end - i : VL);
                vf_store_n(to + i, vf_load_n(to + i, c) + vf_load_any_n(from, bf, i, c), c);
            }
        }
    }
}

// 4 vectors of columns at once; f32 sums of 128 rows go to f64, so that long batches lose nothing.
static void column_sums(float *out, struct tensor x, int64_t col, int64_t n_col)
{
    double sum[4 * VL] = {0};
    bool bf = x.dtype == DT_BF16;
    for (int64_t r = 0; r < x.shape[0];) {
        vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        for (int64_t end = r + 128 < x.shape[0] ? r + 128 : x.shape[0]; r < end; r++) {
            const void *p = row_at(x, r, col);
            if (n_col == 4 * VL) {
                for (int j = 0; j < 4; j++) s[j] = s[j] + (bf ? vf_load_any(p, true, j * VL) : vf_load_any(p, false, j * VL));
            } else {
                for (int j = 0; j < 4 && j * VL < n_col; j++) {
                    int c = (int)(n_col - j * VL < VL ? n_col - j * VL : VL);
                    s[j] = s[j] + vf_load_any_n(p, bf, j * VL, c);
                }
            }
        }
        float part[4 * VL];
        for (int j = 0; j < 4; j++) vf_store(part + j * VL, s[j]);
        for (int j = 0; j < 4 * VL; j++) sum[j] += (double)part[j];
    }
    for (int64_t j = 0; j < n_col; j++) out[j] += (float)sum[j];
}

void ISA_NAME(bias_bwd)(struct device *dev, struct tensor dbias, struct tensor dout)
{
    if (dev->measuring) return;
    int64_t d = dout.shape[1], n_block = (d + 4 * VL - 1) / (4 * VL);
    CPU_FOR(dev, (double)tensor_numel(dout) * 0.2, b, n_block, {
        int64_t col = b * 4 * VL;
        column_sums((float *)dbias.data + col, dout, col, d - col < 4 * VL ? d - col : 4 * VL);
    });
}
