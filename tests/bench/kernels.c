// Products over packed weights and attention, against what this machine can do, measured in turn in the same run: memory reads, and
// oneDNN's plain product.
#include "kernels/ops.h"
#include "tests/bench/bench.h"

enum { N_REP = 15 };

static struct device dev;

static struct tensor random_tensor(enum dtype t, int rank, int64_t a, int64_t b, int64_t c)
{
    const int64_t n = a * b * (rank == 3 ? c : 1);
    void *p = aligned_alloc(64, ((size_t)n * dtype_size(t) + 63) / 64 * 64);
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)rng_uniform(1, (uint64_t)n, (uint64_t)i) - 0.5f;
        if (t == DT_BF16)
            ((bf16 *)p)[i] = f32_to_bf16(x);
        else
            ((float *)p)[i] = x;
    }
    return rank == 3 ? tensor_3d(p, t, a, b, c) : tensor_2d(p, t, a, b);
}
static struct tensor packed(struct tensor w)
{
    struct tensor p = w;
    p.data = aligned_alloc(64, (op_pack_bytes(&dev, w.dtype, w.shape[0], w.shape[1]) + 63) / 64 * 64);
    p.layout = LAYOUT_PANEL;
    op_pack(&dev, p, w, TENSOR_NONE);
    return p;
}
struct linear {
    struct tensor out, x, w[8];
    int n_w, turn; // copies of the weight, so that none is in the cache when its turn comes
};
static struct linear linear_of(int64_t m, int64_t n, int64_t k, enum dtype t, bool panel, bool cold)
{
    struct linear l = {.out = random_tensor(t, 2, m, n, 0), .x = random_tensor(t, 2, m, k, 0)};
    const int64_t bytes = n * k * (int64_t)dtype_size(t);
    l.n_w = cold ? 8 : 1;
    while (cold && l.n_w > 2 && bytes * (l.n_w - 1) > (128 << 20)) l.n_w--;
    for (int i = 0; i < l.n_w; i++) {
        struct tensor w = random_tensor(t, 2, n, k, 0);
        l.w[i] = panel ? packed(w) : w;
        if (panel) free(w.data);
    }
    return l;
}
static void linear_free(struct linear *l)
{
    for (int i = 0; i < l->n_w; i++) free(l->w[i].data);
    free(l->out.data), free(l->x.data);
}
static double linear_s(struct linear *l, int n_call) // seconds a call
{
    double t = now_s();
    for (int i = 0; i < n_call; i++) op_linear(&dev, l->out, l->x, l->w[l->turn++ % l->n_w], TENSOR_NONE);
    return (now_s() - t) / n_call;
}

static void bench_decode(int64_t m, int64_t n, int64_t k, enum dtype t)
{
    struct linear ours = linear_of(m, n, k, t, true, true), wide = linear_of(512, n, k, t, false, false);
    double read[N_REP], mine[N_REP], gemm[N_REP], share[N_REP];
    linear_s(&ours, 4), linear_s(&wide, 1);
    const double bytes = (double)n * (double)k * (double)dtype_size(t), flops = 2.0 * (double)(m * n) * (double)k;
    for (int i = 0; i < N_REP; i++) {
        read[i] = ceiling_bytes() / 1e9;
        mine[i] = linear_s(&ours, 16);
        gemm[i] = 2.0 * 512 * (double)n * (double)k / linear_s(&wide, 2) / 1e9;
        const double floor_s = bytes / read[i] / 1e9 > flops / gemm[i] / 1e9 ? bytes / read[i] / 1e9 : flops / gemm[i] / 1e9;
        share[i] = floor_s / mine[i];
    }
    const double s = median(mine, N_REP);
    row(text("packed product %s m=%d (%d, %d), weights from memory", dtype_name(t), (int)m, (int)n, (int)k),
        text("%.0f µs, %.1f GB/s, %.0f GFLOP/s", s * 1e6, bytes / s / 1e9, flops / s / 1e9),
        text("reads %.1f GB/s, oneDNN at 512 rows %.0f GFLOP/s", median(read, N_REP), median(gemm, N_REP)), median(share, N_REP));
    linear_free(&ours), linear_free(&wide);
}

static void bench_rows(int64_t m, int64_t n, int64_t k, enum dtype t)
{
    struct linear ours = linear_of(m, n, k, t, true, false), theirs = linear_of(m, n, k, t, false, false);
    double mine[N_REP], their[N_REP], share[N_REP];
    const double flops = 2.0 * (double)(m * n) * (double)k;
    const int n_call = (int)(2e9 / flops) + 1;
    linear_s(&ours, n_call), linear_s(&theirs, n_call);
    for (int i = 0; i < N_REP; i++) {
        mine[i] = linear_s(&ours, n_call);
        their[i] = linear_s(&theirs, n_call);
        share[i] = their[i] / mine[i];
    }
    row(text("packed product %s m=%d (%d, %d)", dtype_name(t), (int)m, (int)n, (int)k),
        text("%.1f µs, %.0f GFLOP/s", median(mine, N_REP) * 1e6, flops / median(mine, N_REP) / 1e9),
        text("oneDNN, plain rows: %.0f GFLOP/s", flops / median(their, N_REP) / 1e9), median(share, N_REP));
    linear_free(&ours), linear_free(&theirs);
}

static void bench_attention(int n_seg, int len, int n_head, int n_kv, int d, enum dtype t)
{
    const int n = n_seg * len;
    int32_t start[65];
    for (int i = 0; i <= n_seg; i++) start[i] = i * len;
    struct attention a = {n_seg, len, start, start, 0.125f, 0};
    struct tensor q = random_tensor(t, 3, n, n_head, d), k = random_tensor(t, 3, n, n_kv, d), v = random_tensor(t, 3, n, n_kv, d),
                  out = random_tensor(t, 3, n, n_head, d), lse = random_tensor(DT_F32, 2, n, n_head, 0),
                  g = random_tensor(t, 3, n, n_head, d), dq = random_tensor(t, 3, n, n_head, d), dk = random_tensor(t, 3, n, n_kv, d),
                  dv = random_tensor(t, 3, n, n_kv, d);
    struct linear gemm = linear_of(512, 1024, 1024, t, false, false);
    const double flops = 4.0 * n_seg * (0.5 * len * (len + 1.0)) * n_head * d, gemm_flops = 2.0 * 512 * 1024 * 1024;
    double fwd[N_REP], bwd[N_REP], fwd_share[N_REP], bwd_share[N_REP];
    const int n_call = (int)(3e8 / flops) + 1;
    for (int i = -1; i < N_REP; i++) {
        double s = now_s(), f, b;
        for (int c = 0; c < n_call; c++) op_attention(&dev, out, lse, q, k, v, &a);
        f = (now_s() - s) / n_call;
        s = now_s();
        for (int c = 0; c < n_call; c++) op_attention_bwd(&dev, dq, dk, dv, g, q, k, v, out, lse, &a);
        b = (now_s() - s) / n_call;
        s = linear_s(&gemm, 2);
        if (i < 0) continue;
        fwd[i] = f, bwd[i] = b, fwd_share[i] = flops / f / (gemm_flops / s), bwd_share[i] = 2.5 * flops / b / (gemm_flops / s);
    }
    const char *what = text("attention %s %d × %d, heads %d/%d of %d", dtype_name(t), n_seg, len, n_head, n_kv, d);
    row(text("%s, forward", what), text("%.0f µs, %.0f GFLOP/s", median(fwd, N_REP) * 1e6, flops / median(fwd, N_REP) / 1e9),
        "oneDNN's product, 512 × 1024 × 1024", median(fwd_share, N_REP));
    row(text("%s, backward", what), text("%.0f µs, %.0f GFLOP/s", median(bwd, N_REP) * 1e6, 2.5 * flops / median(bwd, N_REP) / 1e9),
        "oneDNN's product, 512 × 1024 × 1024", median(bwd_share, N_REP));
    linear_free(&gemm);
    free(q.data), free(k.data), free(v.data), free(out.data), free(lse.data), free(g.data), free(dq.data), free(dk.data), free(dv.data);
}

static void bench_paged(int n_seq, int len, int n_head, int n_kv, int d, enum dtype t)
{
    const int page_len = 16, max_page = (len + 15) / 16, n_page = n_seq * max_page;
    int32_t *page = NEW_N(int32_t, n_page), start[65], pos[65];
    for (int i = 0; i < n_page; i++) page[i] = n_page - 1 - i;
    for (int i = 0; i <= n_seq; i++) start[i] = i, pos[i] = len - 1;
    struct tensor flat_k = random_tensor(t, 3, n_page * page_len, n_kv, d), flat_v = random_tensor(t, 3, n_page * page_len, n_kv, d);
    struct tensor keys = tensor_4d(flat_k.data, t, n_page, page_len, n_kv, d),
                  values = tensor_4d(flat_v.data, t, n_page, page_len, n_kv, d);
    struct tensor q = random_tensor(t, 3, n_seq, n_head, d), out = random_tensor(t, 3, n_seq, n_head, d);
    struct segments seg = {n_seq, n_seq, 1, len, start, pos, page, max_page, page_len};
    const double bytes = 2.0 * n_seq * len * n_kv * d * (double)dtype_size(t);
    const int n_call = (int)(1e8 / bytes) + 1;
    double mine[N_REP], share[N_REP];
    for (int i = -1; i < N_REP; i++) {
        const double gbs = ceiling_bytes() / 1e9;
        double s = now_s();
        for (int c = 0; c < n_call; c++) op_attention_paged(&dev, out, q, keys, values, &seg, 0.125f, 0);
        s = (now_s() - s) / n_call;
        if (i >= 0) mine[i] = s, share[i] = bytes / s / 1e9 / gbs;
    }
    row(text("paged attention %s %d × %d, heads %d/%d of %d", dtype_name(t), n_seq, len, n_head, n_kv, d),
        text("%.0f µs, %.1f GB/s of cache", median(mine, N_REP) * 1e6, bytes / median(mine, N_REP) / 1e9), "memory reads",
        median(share, N_REP));
    mem_free(page);
    free(flat_k.data), free(flat_v.data), free(q.data), free(out.data);
}

void job_kernels(void)
{
    struct err err = {0};
    ceilings_open();
    must(dev_open(&dev, "cpu", bench_threads, &err), &err);
    must(dev_reserve(&dev, 512 << 20, &err), &err);
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
        bench_decode(1, 4864, 896, t);
        bench_decode(1, 896, 4864, t);
        bench_decode(4, 4864, 896, t);
        bench_decode(16, 4864, 896, t);
        bench_decode(1, 151936 / 4, 896, t);
        bench_rows(64, 4864, 896, t);
        bench_rows(256, 4864, 896, t);
        bench_rows(512, 4864, 896, t);
        bench_rows(512, 896, 4864, t);
        bench_rows(64, 512, 128, t);
        bench_rows(64, 160, 160, t);
        bench_attention(1, 512, 14, 2, 64, t);
        bench_attention(1, 2048, 14, 2, 64, t);
        bench_attention(4, 512, 8, 8, 128, t);
        bench_attention(32, 96, 4, 2, 32, t);
        bench_paged(1, 4096, 14, 2, 64, t);
        bench_paged(16, 1024, 14, 2, 64, t);
        bench_paged(64, 100, 4, 2, 32, t);
    }
    must(dev_check(&dev, &err), &err);
    dev_close(&dev);
}
