// The dispatchers: each op checks its arguments once and calls the backend. Losses, sampling and the optimizer are in ops_loss.c.
#include "kernels/ops_check.h"

#include <stdio.h>

// "bf16|f32 (12, ?)"
static void describe_want(char *buf, size_t n, int types, int flags, int rank, const int64_t shape[4])
{
    size_t at = 0;
    buf[0] = 0;
    for (int t = 0; t < N_DTYPE && at < n; t++)
        if (types & (1 << t)) at += (size_t)snprintf(buf + at, n - at, at ? "|%s" : "%s", dtype_name((enum dtype)t));
    for (int i = 0; i < rank && at < n; i++) {
        at += (size_t)snprintf(buf + at, n - at, i ? ", " : " (");
        if (at < n)
            at += (size_t)(shape[i] < 0 ? snprintf(buf + at, n - at, "?") : snprintf(buf + at, n - at, "%lld", (long long)shape[i]));
    }
    if (at < n)
        snprintf(buf + at, n - at, ")%s%s", flags & (STRIDED | FREE | PANEL) ? "" : " contiguous",
                 flags & STRIDED ? " with contiguous rows" : "");
}

bool op_want(struct device *dev, const char *op, const char *arg, struct tensor t, int types, int flags, int rank, const int64_t shape[4])
{
    if (dev->error.code) return false;
    if (dev->op != op || dev->seen_all) dev->n_seen = 0;
    dev->op = op;
    dev->seen_all = false;
    if (dev->n_seen < (int)(sizeof dev->seen / sizeof *dev->seen)) dev->seen[dev->n_seen++] = t;
    if (tensor_none(t) && t.rank == 0 && (flags & OPT)) return true;
    bool ok = t.rank == rank && ((types >> t.dtype) & 1), empty = false;
    for (int i = 0; i < rank && ok; i++) {
        ok = shape[i] < 0 || t.shape[i] == shape[i];
        empty |= t.shape[i] == 0;
    }
    if (ok && !empty && tensor_none(t)) ok = false;
    if (ok && t.layout == LAYOUT_PANEL)
        ok = flags & PANEL;
    else if (ok && !empty && (flags & STRIDED))
        ok = t.stride[rank - 1] == 1 || t.shape[rank - 1] == 1;
    else if (ok && !empty && !(flags & FREE))
        ok = tensor_contiguous(t);
    if (ok) return true;
    char want[160], found[160];
    describe_want(want, sizeof want, types, flags, rank, shape);
    tensor_describe(t, found, sizeof found);
    dev_fail(dev, op, "%s: wanted %s, found %s%s", arg, want, found, tensor_none(t) && t.rank ? " without memory" : "");
    return false;
}

bool op_ready(struct device *dev, const char *op, bool entry_there)
{
    dev->seen_all = true;
    if (dev->error.code) return false;
    if (!entry_there) dev_fail(dev, op, "this backend does not have it");
    return entry_there;
}

void op_done(struct device *dev)
{
    if (dev->sync && dev->backend->sync) dev->backend->sync(dev);
}

// ---- memory -------------------------------------------------------------------------------------------------------------------------

void op_upload(struct device *dev, struct tensor out, const void *host)
{
    if (out.rank) WANT(out, T_ANY | T_E4M3, 0, out.rank, ANY_N, ANY_N, ANY_N, ANY_N);
    if (!tensor_numel(out)) return;
    RUN(upload, out, host);
}

void op_download(struct device *dev, void *host, struct tensor x)
{
    if (x.rank) WANT(x, T_ANY, 0, x.rank, ANY_N, ANY_N, ANY_N, ANY_N);
    if (!tensor_numel(x)) return;
    RUN(download, host, x);
}

void op_zero(struct device *dev, struct tensor out)
{
    if (out.rank) WANT(out, T_ANY, 0, out.rank, ANY_N, ANY_N, ANY_N, ANY_N);
    if (!tensor_numel(out)) return;
    RUN(zero, out);
}

void op_copy(struct device *dev, struct tensor out, struct tensor x)
{
    WANT(x, T_ANY, FREE, x.rank, ANY_N, ANY_N, ANY_N, ANY_N);
    WANT(out, x.dtype == DT_I32 || x.dtype == DT_U8 ? 1 << x.dtype : T_A | 1 << x.dtype, FREE, x.rank, x.shape[0], x.shape[1], x.shape[2],
         x.shape[3]);
    REQUIRE(x.rank >= 1 && x.rank <= 3, "rank %d: wanted 1 to 3", x.rank);
    if (!tensor_numel(out)) return;
    RUN(copy, out, x);
}

void op_pack(struct device *dev, struct tensor out, struct tensor w, struct tensor nonfinite)
{
    WANT(w, T_A | T_F16 | T_E4M3, STRIDED, 2, ANY_N, ANY_N);
    WANT(out, w.dtype == DT_E4M3 ? 1 << dev->backend->fp8_weight : T_A, PANEL, 2, w.shape[0], w.shape[1]);
    REQUIRE(out.layout == LAYOUT_PANEL, "out must be a panel");
    WANT(nonfinite, T_I32, OPT, 1, 1);
    if (!tensor_numel(out)) return;
    RUN(pack, out, w, nonfinite);
}

void op_nonfinite(struct device *dev, struct tensor count, struct tensor x)
{
    if (x.rank) WANT(x, T_A | T_F16, 0, x.rank, ANY_N, ANY_N, ANY_N, ANY_N);
    WANT(count, T_I32, 0, 1, 1);
    if (!tensor_numel(x)) return;
    RUN(nonfinite, count, x);
}

size_t op_pack_bytes(const struct device *dev, enum dtype t, int64_t n, int64_t k)
{
    return dev->backend->pack_bytes(dev, t, n, k);
}

// ---- element-wise and row-wise --------------------------------------------------------------------------------------------------------

void op_add(struct device *dev, struct tensor out, struct tensor a, struct tensor b)
{
    WANT(a, T_A, 0, 2, ANY_N, ANY_N);
    WANT(b, 1 << a.dtype, 0, 2, a.shape[0], a.shape[1]);
    WANT(out, 1 << a.dtype, 0, 2, a.shape[0], a.shape[1]);
    if (!tensor_numel(out)) return;
    RUN(add, out, a, b);
}

void op_embed(struct device *dev, struct tensor out, struct tensor table, struct tensor ids)
{
    WANT(ids, T_I32, 0, 1, ANY_N);
    WANT(table, T_A, PANEL, 2, ANY_N, ANY_N);
    WANT(out, T_A, 0, 2, ids.shape[0], table.shape[1]);
    if (!tensor_numel(out)) return;
    RUN(embed, out, table, ids);
}

void op_embed_bwd(struct device *dev, struct tensor dtable, struct tensor dout, struct tensor ids)
{
    WANT(ids, T_I32, 0, 1, ANY_N);
    WANT(dtable, T_F32, 0, 2, ANY_N, ANY_N);
    WANT(dout, T_A, 0, 2, ids.shape[0], dtable.shape[1]);
    if (!tensor_numel(dout)) return;
    RUN_SCRATCH(embed_bwd, dtable, dout, ids);
}

static int64_t n_row(struct tensor x)
{
    return x.rank == 3 ? x.shape[0] * x.shape[1] : x.shape[0];
}

void op_rmsnorm(struct device *dev, struct tensor out, struct tensor x, struct tensor w, float eps, struct tensor rstd)
{
    WANT(x, T_A, STRIDED, x.rank == 3 ? 3 : 2, ANY_N, ANY_N, ANY_N);
    WANT(out, 1 << x.dtype, STRIDED, x.rank, x.shape[0], x.shape[1], x.shape[2]);
    WANT(w, T_F32, 0, 1, x.shape[x.rank - 1]);
    WANT(rstd, T_F32, OPT, 1, n_row(x));
    if (!tensor_numel(out)) return;
    RUN(rmsnorm, out, x, w, eps, rstd);
}

void op_rmsnorm_bwd(struct device *dev, struct tensor dx, struct tensor dw, struct tensor dout, struct tensor x, struct tensor w,
                    struct tensor rstd, bool accumulate)
{
    WANT(x, T_A, STRIDED, x.rank == 3 ? 3 : 2, ANY_N, ANY_N, ANY_N);
    WANT(dout, 1 << x.dtype, STRIDED, x.rank, x.shape[0], x.shape[1], x.shape[2]);
    WANT(dx, 1 << x.dtype, STRIDED, x.rank, x.shape[0], x.shape[1], x.shape[2]);
    WANT(w, T_F32, 0, 1, x.shape[x.rank - 1]);
    WANT(dw, T_F32, OPT, 1, x.shape[x.rank - 1]);
    WANT(rstd, T_F32, 0, 1, n_row(x));
    if (!tensor_numel(x)) return;
    RUN_SCRATCH(rmsnorm_bwd, dx, dw, dout, x, w, rstd, accumulate);
}

void op_rope(struct device *dev, struct tensor x, const struct segments *seg, struct tensor inv_freq, float mscale, enum rope_order order,
             bool inverse)
{
    WANT(x, T_A, STRIDED, 3, seg->n_tok, ANY_N, ANY_N);
    REQUIRE(x.shape[2] % 2 == 0 && x.shape[2] <= OP_ROPE_MAX, "d_rope %lld: wanted an even number up to %d", (long long)x.shape[2],
            OP_ROPE_MAX);
    WANT(inv_freq, T_F32, 0, 1, x.shape[2] / 2);
    if (!tensor_numel(x)) return;
    RUN(rope, x, seg, inv_freq, mscale, order, inverse);
}

void op_silu_mul(struct device *dev, struct tensor out, struct tensor gate, struct tensor up)
{
    WANT(gate, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(up, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    WANT(out, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    if (!tensor_numel(out)) return;
    RUN(silu_mul, out, gate, up);
}

void op_silu_mul_bwd(struct device *dev, struct tensor dgate, struct tensor dup, struct tensor dout, struct tensor gate, struct tensor up)
{
    WANT(gate, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(up, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    WANT(dout, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    WANT(dgate, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    WANT(dup, 1 << gate.dtype, STRIDED, 2, gate.shape[0], gate.shape[1]);
    if (!tensor_numel(dgate)) return;
    RUN(silu_mul_bwd, dgate, dup, dout, gate, up);
}

// ---- products -------------------------------------------------------------------------------------------------------------------------

void op_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    WANT(x, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(w, T_A, PANEL, 2, ANY_N, x.shape[1]);
    WANT(out, T_F32 | 1 << x.dtype, STRIDED, 2, x.shape[0], w.shape[0]);
    WANT(bias, T_F32, OPT, 1, w.shape[0]);
    REQUIRE(x.shape[1] > 0, "x has no columns");
    if (!tensor_numel(out)) return;
    RUN_SCRATCH(linear, out, x, w, bias);
}

void op_fp8_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale, struct tensor bias,
                   bool ue8m0)
{
    WANT(x, T_A, 0, 2, ANY_N, ANY_N);
    WANT(w, 1 << dev->backend->fp8_weight, PANEL, 2, ANY_N, x.shape[1]);
    REQUIRE(w.layout == LAYOUT_PANEL, "w must be a panel");
    WANT(w_scale, T_F32, 0, 2, (w.shape[0] + FP8_BLOCK - 1) / FP8_BLOCK, (w.shape[1] + FP8_BLOCK - 1) / FP8_BLOCK);
    WANT(bias, T_F32, OPT, 1, w.shape[0]);
    WANT(out, T_F32 | 1 << x.dtype, 0, 2, x.shape[0], w.shape[0]);
    if (!tensor_numel(out)) return;
    RUN_SCRATCH(fp8_linear, out, x, w, w_scale, bias, ue8m0);
}

void op_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate)
{
    WANT(dout, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(w, T_A, 0, 2, dout.shape[1], ANY_N);
    WANT(dx, T_A, STRIDED, 2, dout.shape[0], w.shape[1]);
    REQUIRE(dout.shape[1] > 0, "dout has no columns");
    if (!tensor_numel(dx)) return;
    RUN_SCRATCH(linear_bwd_x, dx, dout, w, accumulate);
}

void op_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x)
{
    WANT(dout, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(x, 1 << dout.dtype, STRIDED, 2, dout.shape[0], ANY_N);
    WANT(dw, T_F32, 0, 2, dout.shape[1], x.shape[1]);
    if (!tensor_numel(dw) || !dout.shape[0]) return;
    RUN_SCRATCH(linear_bwd_w, dw, dout, x);
}

void op_bias_bwd(struct device *dev, struct tensor dbias, struct tensor dout)
{
    WANT(dout, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(dbias, T_F32, 0, 1, dout.shape[1]);
    if (!tensor_numel(dout)) return;
    RUN_SCRATCH(bias_bwd, dbias, dout);
}

void op_head_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w)
{
    WANT(x, T_A, STRIDED, 3, ANY_N, ANY_N, ANY_N);
    WANT(w, T_A, PANEL | STRIDED, 3, x.shape[1], ANY_N, x.shape[2]);
    WANT(out, T_F32 | 1 << x.dtype, STRIDED, 3, x.shape[0], x.shape[1], w.shape[1]);
    REQUIRE(x.shape[2] > 0, "x has no columns");
    if (!tensor_numel(out)) return;
    RUN_SCRATCH(head_linear, out, x, w);
}

// ---- attention ------------------------------------------------------------------------------------------------------------------------

void op_attention(struct device *dev, struct tensor out, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,
                  const struct attention *a)
{
    WANT(q, T_A, STRIDED, 3, ANY_N, ANY_N, ANY_N);
    WANT(k, 1 << q.dtype, STRIDED, 3, ANY_N, ANY_N, q.shape[2]);
    WANT(v, 1 << q.dtype, STRIDED, 3, k.shape[0], k.shape[1], ANY_N);
    WANT(out, 1 << q.dtype, STRIDED, 3, q.shape[0], q.shape[1], v.shape[2]);
    WANT(lse, T_F32, OPT, 2, q.shape[0], q.shape[1]);
    if (!tensor_numel(q)) return;
    REQUIRE(k.shape[1] > 0 && q.shape[1] % k.shape[1] == 0, "%lld heads over %lld heads of keys", (long long)q.shape[1],
            (long long)k.shape[1]);
    RUN_SCRATCH(attention, out, lse, q, k, v, a);
}

void op_attention_bwd(struct device *dev, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor dout, struct tensor q,
                      struct tensor k, struct tensor v, struct tensor out, struct tensor lse, const struct attention *a)
{
    WANT(q, T_A, STRIDED, 3, ANY_N, ANY_N, ANY_N);
    WANT(k, 1 << q.dtype, STRIDED, 3, ANY_N, ANY_N, q.shape[2]);
    WANT(v, 1 << q.dtype, STRIDED, 3, k.shape[0], k.shape[1], ANY_N);
    WANT(out, 1 << q.dtype, STRIDED, 3, q.shape[0], q.shape[1], v.shape[2]);
    WANT(dout, 1 << q.dtype, STRIDED, 3, q.shape[0], q.shape[1], v.shape[2]);
    WANT(lse, T_F32, 0, 2, q.shape[0], q.shape[1]);
    WANT(dq, 1 << q.dtype, STRIDED, 3, q.shape[0], q.shape[1], q.shape[2]);
    WANT(dk, 1 << q.dtype, STRIDED, 3, k.shape[0], k.shape[1], k.shape[2]);
    WANT(dv, 1 << q.dtype, STRIDED, 3, v.shape[0], v.shape[1], v.shape[2]);
    if (!tensor_numel(k) && !tensor_numel(q)) return;
    REQUIRE(k.shape[1] > 0 && q.shape[1] % k.shape[1] == 0, "%lld heads over %lld heads of keys", (long long)q.shape[1],
            (long long)k.shape[1]);
    RUN_SCRATCH(attention_bwd, dq, dk, dv, dout, q, k, v, out, lse, a);
}

void op_kv_write(struct device *dev, struct tensor pages, struct tensor x, const struct segments *seg)
{
    WANT(x, T_A, STRIDED, 3, seg->n_tok, ANY_N, ANY_N);
    WANT(pages, 1 << x.dtype, STRIDED, 4, ANY_N, seg->page_len, x.shape[1], x.shape[2]);
    REQUIRE(seg->page || dev->measuring || !seg->n_tok, "the segments have no pages");
    if (!tensor_numel(x)) return;
    RUN(kv_write, pages, x, seg);
}

void op_kv_read(struct device *dev, struct tensor out, struct tensor pages, const struct segments *seg, const int32_t *k_start)
{
    WANT(pages, T_A, STRIDED, 4, ANY_N, seg->page_len, ANY_N, ANY_N);
    WANT(out, 1 << pages.dtype, STRIDED, 3, ANY_N, pages.shape[2], pages.shape[3]);
    REQUIRE(seg->page || dev->measuring || !seg->n_tok, "the segments have no pages");
    if (!tensor_numel(out)) return;
    RUN(kv_read, out, pages, seg, k_start);
}

void op_attention_paged(struct device *dev, struct tensor out, struct tensor q, struct tensor keys, struct tensor values,
                        const struct segments *seg, float scale, int window)
{
    WANT(q, T_A, STRIDED, 3, seg->n_tok, ANY_N, ANY_N);
    WANT(keys, 1 << q.dtype, STRIDED, 4, ANY_N, seg->page_len, ANY_N, q.shape[2]);
    WANT(values, 1 << q.dtype, STRIDED, 4, keys.shape[0], seg->page_len, keys.shape[2], ANY_N);
    WANT(out, 1 << q.dtype, STRIDED, 3, q.shape[0], q.shape[1], values.shape[3]);
    REQUIRE(seg->page || dev->measuring || !seg->n_tok, "the segments have no pages");
    if (!tensor_numel(q)) return;
    REQUIRE(keys.shape[2] > 0 && q.shape[1] % keys.shape[2] == 0, "%lld heads over %lld heads of keys", (long long)q.shape[1],
            (long long)keys.shape[2]);
    RUN_SCRATCH(attention_paged, out, q, keys, values, seg, scale, window);
}

// ---- mixture of experts -----------------------------------------------------------------------------------------------------------------

void op_router(struct device *dev, struct tensor expert, struct tensor weight, struct tensor logits, struct tensor bias,
               const struct router *r)
{
    WANT(logits, T_F32, 0, 2, ANY_N, r->n_expert);
    WANT(bias, T_F32, OPT, 1, r->n_expert);
    WANT(expert, T_I32, 0, 2, logits.shape[0], r->top_k);
    WANT(weight, T_F32, 0, 2, logits.shape[0], r->top_k);
    REQUIRE(r->n_expert >= 1 && r->n_expert <= OP_EXPERT_MAX, "%d experts: wanted 1 to %d", r->n_expert, OP_EXPERT_MAX);
    REQUIRE(r->n_group >= 1 && r->n_expert % r->n_group == 0 && r->topk_group >= 1 && r->topk_group <= r->n_group && r->top_k >= 1 &&
                r->top_k <= r->n_expert / r->n_group * r->topk_group,
            "%d of %d experts in %d of %d groups cannot be", r->top_k, r->n_expert, r->topk_group, r->n_group);
    if (!tensor_numel(expert)) return;
    RUN(router, expert, weight, logits, bias, r);
}

void op_moe_sort(struct device *dev, struct tensor first, struct tensor row_token, struct tensor token_row, struct tensor expert,
                 int n_expert)
{
    WANT(expert, T_I32, 0, 2, ANY_N, ANY_N);
    WANT(first, T_I32, 0, 1, n_expert + 1);
    WANT(row_token, T_I32, 0, 1, tensor_numel(expert));
    WANT(token_row, T_I32, 0, 2, expert.shape[0], expert.shape[1]);
    REQUIRE(n_expert >= 1 && n_expert <= OP_EXPERT_MAX, "%d experts: wanted 1 to %d", n_expert, OP_EXPERT_MAX);
    RUN_SCRATCH(moe_sort, first, row_token, token_row, expert, n_expert); // also of nothing: `first` is read by others
}

void op_gather_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    WANT(row, T_I32, 0, 1, ANY_N);
    WANT(x, T_A, STRIDED, 2, ANY_N, ANY_N);
    WANT(out, 1 << x.dtype, STRIDED, 2, row.shape[0], x.shape[1]);
    if (!tensor_numel(out)) return;
    RUN(gather_rows, out, x, row);
}

void op_scatter_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    WANT(row, T_I32, 0, 1, ANY_N);
    WANT(x, T_A, STRIDED, 2, row.shape[0], ANY_N);
    WANT(out, 1 << x.dtype, STRIDED, 2, ANY_N, x.shape[1]);
    if (!tensor_numel(x)) return;
    RUN(scatter_rows, out, x, row);
}

void op_grouped_linear(struct device *dev, struct tensor out, struct tensor x, const struct expert_weights *w, struct tensor first)
{
    WANT(x, T_A, 0, 2, ANY_N, w->k);
    WANT(out, T_F32 | 1 << x.dtype, 0, 2, x.shape[0], w->n);
    WANT(first, T_I32, 0, 1, w->n_expert + 1);
    REQUIRE((w->scale ? 1 << dev->backend->fp8_weight : T_A) >> w->dtype & 1, "experts' weights are %s%s", dtype_name(w->dtype),
            w->scale ? " with scales" : "");
    if (!tensor_numel(out)) return;
    RUN_SCRATCH(grouped_linear, out, x, w, first);
}

void op_moe_combine(struct device *dev, struct tensor out, struct tensor y, struct tensor token_row, struct tensor weight)
{
    WANT(out, T_A, 0, 2, ANY_N, ANY_N);
    WANT(y, T_A, 0, 2, ANY_N, out.shape[1]);
    WANT(token_row, T_I32, 0, 2, out.shape[0], ANY_N);
    WANT(weight, T_F32, 0, 2, out.shape[0], token_row.shape[1]);
    if (!tensor_numel(out) || !token_row.shape[1]) return;
    RUN(moe_combine, out, y, token_row, weight);
}
