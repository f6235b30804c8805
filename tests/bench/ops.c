// Each op by itself on the device that is measured, at the shapes of real models: its time against the least that must be read, written and
// multiplied, by the ceilings of the same run (a copy, the library's product). An op that the backend lacks, or that fails, is a row that
// says so, and the next one is measured.
#include "kernels/ops.h"

#include "kernels/cuda/cuda.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct device dev;
static double copy_speed, gemm_speed[2]; // bytes and FLOPs a second

static int64_t sized(int64_t n, int64_t least) // a size of a shape; with --small a token of it
{
    return bench_small ? least : n;
}

// Runs the statement as the step would: planned, once to warm up, then timed in groups. bytes, flops: what it must do at least.
#define MEASURE(what, type, bytes, flops, ...)                                                                                             \
    do {                                                                                                                                   \
        struct err err_ = {0};                                                                                                             \
        double s_[5];                                                                                                                      \
        int n_ = 1;                                                                                                                        \
        dev_measure(&dev);                                                                                                                 \
        __VA_ARGS__;                                                                                                                       \
        const size_t peak_ = dev.arena.peak;                                                                                               \
        if (dev_check(&dev, &err_) || dev_reserve(&dev, peak_, &err_)) {                                                                   \
            tell(what, &err_);                                                                                                             \
            break;                                                                                                                         \
        }                                                                                                                                  \
        __VA_ARGS__;                                                                                                                       \
        for (int i_ = -1; i_ < 5; i_++) {                                                                                                  \
            const double begin_ = device_now_s(&dev);                                                                                      \
            for (int k_ = 0; k_ < n_; k_++) {                                                                                              \
                __VA_ARGS__;                                                                                                               \
            }                                                                                                                              \
            const double each_ = (device_now_s(&dev) - begin_) / n_;                                                                       \
            if (i_ < 0)                                                                                                                    \
                n_ = calls(each_);                                                                                                         \
            else                                                                                                                           \
                s_[i_] = each_;                                                                                                            \
        }                                                                                                                                  \
        if (dev_check(&dev, &err_))                                                                                                        \
            tell(what, &err_);                                                                                                             \
        else                                                                                                                               \
            report(what, type, bytes, flops, median(s_, 5));                                                                               \
    } while (0)

static int calls(double each) // in about 20 ms
{
    const double n = bench_small ? 1 : 0.02 / (each > 1e-7 ? each : 1e-7);
    return n < 1 ? 1 : n > 500 ? 500 : (int)n;
}

static void tell(const char *what, const struct err *err)
{
    row(what, text("not measured: %.160s", err->text), "", -1);
}

static void report(const char *what, enum dtype t, double bytes, double flops, double s)
{
    const double by_bytes = bytes / copy_speed, by_flops = flops / gemm_speed[t == DT_BF16];
    const bool reads = by_bytes > by_flops;
    row(what, text("%.1f µs, %s", s * 1e6, reads ? bytes_text(bytes / s) : flops_text(flops / s)),
        reads ? text("%.1f MB at %s", bytes / 1e6, bytes_text(copy_speed))
              : text("%.1f GFLOP at %s", flops / 1e9, flops_text(gemm_speed[t == DT_BF16])),
        (reads ? by_bytes : by_flops) / s);
}

static double size_of(struct tensor t)
{
    return (double)tensor_bytes(t);
}

static struct tensor made(enum dtype t, int64_t a, int64_t b)
{
    return place_random(&dev, t, 2, a, b, 0);
}

static struct tensor random_ints(int64_t n, int64_t below)
{
    int32_t *host = NEW_N(int32_t, n);
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)(rng_uniform(2, (uint64_t)below, (uint64_t)i) * (double)below);
    struct tensor t = place_ints(&dev, host, n);
    mem_free(host);
    return t;
}

static struct tensor counted(int64_t n, int64_t modulo, int64_t step)
{
    int32_t *host = NEW_N(int32_t, n);
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)(i * step % modulo);
    struct tensor t = place_ints(&dev, host, n);
    mem_free(host);
    return t;
}

static struct tensor made_panel(int64_t n, int64_t k, enum dtype t)
{
    struct tensor w = made(t, n, k), p = w;
    if (t == DT_E4M3) p.dtype = dev.backend->fp8_weight;
    p.data = place(&dev, op_pack_bytes(&dev, p.dtype, n, k));
    p.layout = LAYOUT_PANEL;
    op_pack(&dev, p, w, TENSOR_NONE);
    return p;
}

// ---- rows ---------------------------------------------------------------------------------------------------------------------------

static void rows_of_a_layer(enum dtype t)
{
    const int64_t n = sized(8192, 5), d = sized(4096, 48), ff = sized(14336, 96), heads = sized(32, 2);
    const char *type = dtype_name(t);
    struct tensor x = made(t, n, d), y = made(t, n, d), z = made(t, n, d), w = place_random(&dev, DT_F32, 1, d, 0, 0),
                  rstd = place_random(&dev, DT_F32, 1, n, 0, 0), dw = place_random(&dev, DT_F32, 1, d, 0, 0);
    MEASURE(text("rmsnorm %d × %d %s", (int)n, (int)d, type), t, 2 * size_of(x), 0, op_rmsnorm(&dev, y, x, w, 1e-6f, rstd));
    MEASURE(text("rmsnorm backward %d × %d %s", (int)n, (int)d, type), t, 3 * size_of(x), 0,
            op_rmsnorm_bwd(&dev, z, dw, y, x, w, rstd, false));
    MEASURE(text("add %d × %d %s", (int)n, (int)d, type), t, 3 * size_of(x), 0, op_add(&dev, z, x, y));
    struct tensor gate = made(t, n, ff), up = made(t, n, ff), out = made(t, n, ff), dgate = made(t, n, ff), dup = made(t, n, ff);
    MEASURE(text("SwiGLU %d × %d %s", (int)n, (int)ff, type), t, 3 * size_of(gate), 0, op_silu_mul(&dev, out, gate, up));
    MEASURE(text("SwiGLU backward %d × %d %s", (int)n, (int)ff, type), t, 5 * size_of(gate), 0,
            op_silu_mul_bwd(&dev, dgate, dup, out, gate, up));
    struct tensor pos = counted(n, n, 1), freq = place_random(&dev, DT_F32, 1, d / heads / 2, 0, 0);
    struct tensor start = place_ints(&dev, (int32_t[]){0, (int32_t)n}, 2);
    struct segments seg = {.n_seg = 1, .n_tok = (int)n, .max_len = (int)n, .max_pos = (int)n, .start = start.data, .pos = pos.data};
    MEASURE(text("rotary %d × %d heads %s", (int)n, (int)heads, type), t, 2 * size_of(x), 0,
            op_rope(&dev, tensor_heads(x, heads), &seg, freq, 1, ROPE_HALF, false));
    place_free();
}

static void rows_of_a_table(enum dtype t)
{
    const int64_t n = sized(8192, 6), d = sized(4096, 48), v = sized(131072, 40);
    struct tensor table = made(t, v, d), out = made(t, n, d), ids = random_ints(n, v), grad = made(DT_F32, v, d);
    MEASURE(text("embedding, %d of %d rows of %d %s", (int)n, (int)v, (int)d, dtype_name(t)), t, 2 * size_of(out), 0,
            op_embed(&dev, out, table, ids));
    MEASURE(text("embedding backward, %d of %d rows of %d %s", (int)n, (int)v, (int)d, dtype_name(t)), t,
            size_of(out) + 8.0 * (double)n * (double)d, 0, op_embed_bwd(&dev, grad, out, ids));
    struct tensor bias = place_random(&dev, DT_F32, 1, d, 0, 0);
    MEASURE(text("bias gradient %d × %d %s", (int)n, (int)d, dtype_name(t)), t, size_of(out), 0, op_bias_bwd(&dev, bias, out));
    MEASURE(text("cast %d × %d f32 to %s", (int)n, (int)d, dtype_name(t)), t, size_of(out) + 4.0 * (double)n * (double)d, 0,
            op_copy(&dev, out, tensor_rows(grad, 0, n < v ? n : v)));
    place_free();
}

// ---- products -------------------------------------------------------------------------------------------------------------------------

static void products(int64_t m, int64_t n, int64_t k, enum dtype t)
{
    const char *shape = text("%d × %d × %d %s", (int)m, (int)n, (int)k, dtype_name(t));
    struct tensor x = made(t, m, k), w = made(t, n, k), out = made(t, m, n), dw = made(DT_F32, n, k);
    const double flops = 2.0 * (double)(m * n) * (double)k, bytes = size_of(x) + size_of(w) + size_of(out);
    MEASURE(text("product %s", shape), t, bytes, flops, op_linear(&dev, out, x, w, TENSOR_NONE));
    MEASURE(text("product, gradient of x %s", shape), t, bytes, flops, op_linear_bwd_x(&dev, x, out, w, false));
    MEASURE(text("product, gradient of w, f32, added %s", shape), t, size_of(x) + size_of(out) + 2 * size_of(dw), flops,
            op_linear_bwd_w(&dev, dw, out, x));
    place_free();
}

// Weights are packed, and as many copies go round as the cache cannot hold.
static void packed_products(int64_t n, int64_t k, enum dtype t)
{
    enum { N_COPY = 4 };
    static const int64_t batch[] = {1, 16, 64, 256, 4096};
    struct tensor w[N_COPY];
    for (int i = 0; i < N_COPY; i++) w[i] = made_panel(n, k, t);
    for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
        const int64_t m = sized(batch[b], (int64_t)b + 1);
        struct tensor x = made(t, m, k), out = made(t, m, n);
        int turn = 0;
        MEASURE(text("packed product %d × %d × %d %s", (int)m, (int)n, (int)k, dtype_name(t)), t, size_of(w[0]) + size_of(x) + size_of(out),
                2.0 * (double)(m * n) * (double)k, op_linear(&dev, out, x, w[turn++ % N_COPY], TENSOR_NONE));
    }
    place_free();
}

static void fp8_products(int64_t n, int64_t k)
{
    const int64_t batch[] = {1, sized(64, 3), sized(4096, 7), sized(4096, 130)};
    struct tensor w = made_panel(n, k, DT_E4M3), scale = made(DT_F32, (n + 127) / 128, (k + 127) / 128);
    for (int i = 0; i < 4; i++) {
        struct tensor x = made(DT_BF16, batch[i], k), out = made(DT_BF16, batch[i], n);
        dev.batch_invariant = i < 3;
        MEASURE(text("FP8 block product %d × %d × %d%s", (int)batch[i], (int)n, (int)k, i < 3 ? "" : ", in any order of sums"), DT_BF16,
                (double)(n * k) + size_of(x) + size_of(out), 2.0 * (double)(batch[i] * n) * (double)k,
                op_fp8_linear(&dev, out, x, w, scale, TENSOR_NONE, false));
    }
    dev.batch_invariant = true;
    place_free();
}
// Experts with m rows each.
static void fp8_experts(int64_t n_expert, int64_t m, int64_t n, int64_t k)
{
    struct tensor x = made(DT_BF16, n_expert * m, k), out = made(DT_BF16, n_expert * m, n), first = counted(n_expert + 1, 1 << 30, m);
    struct tensor scale = made(DT_F32, (n + 127) / 128, (k + 127) / 128), all = made(DT_E4M3, n_expert * n, k);
    const enum dtype t = dev.backend->fp8_weight;
    const size_t each = op_pack_bytes(&dev, t, n, k), size = sizeof(void *) * (size_t)n_expert;
    char *packed = place(&dev, each * (size_t)n_expert);
    const void **table = NEW_N(const void *, 2 * n_expert);
    for (int64_t e = 0; e < n_expert; e++) {
        struct tensor p = tensor_2d(packed + each * (size_t)e, t, n, k);
        p.layout = LAYOUT_PANEL;
        op_pack(&dev, p, tensor_rows(all, e * n, n), TENSOR_NONE);
        table[e] = p.data;
        table[n_expert + e] = scale.data; // all the same
    }
    struct tensor there = tensor_1d(place(&dev, 2 * size), DT_U8, (int64_t)(2 * size));
    op_upload(&dev, there, table);
    mem_free(table);
    struct expert_weights w = {.n_expert = (int)n_expert, .n = n, .k = k, .dtype = t, .slot = there.data};
    w.scale = (const float *const *)((const void *const *)there.data + n_expert);
    for (int i = 0; i < (m < 64 ? 1 : 2); i++) { // few rows have one kernel
        dev.batch_invariant = i == 0;
        MEASURE(text("FP8 grouped product, %d experts × %d rows × %d × %d%s", (int)n_expert, (int)m, (int)n, (int)k,
                     i ? ", in any order of sums" : ""),
                DT_BF16, size_of(all) + size_of(x) + size_of(out), 2.0 * (double)(n_expert * m) * (double)(n * k),
                op_grouped_linear(&dev, out, x, &w, first));
    }
    dev.batch_invariant = true;
    place_free();
}

// The two sides of absorbed MLA.
static void head_products(void)
{
    const int64_t n = sized(64, 2), h = sized(128, 2), k = sized(128, 32), r = sized(512, 48);
    struct tensor x = place_random(&dev, DT_BF16, 3, n, h, k), out = place_random(&dev, DT_BF16, 3, n, h, r);
    struct tensor w = tensor_3d(NULL, DT_BF16, h, r, k), flat = made(DT_BF16, h * r, k);
    w.data = flat.data;
    MEASURE(text("product a head %d × %d heads × %d × %d bf16", (int)n, (int)h, (int)r, (int)k), DT_BF16,
            size_of(flat) + size_of(x) + size_of(out), 2.0 * (double)(n * h) * (double)(r * k), op_head_linear(&dev, out, x, w));
    place_free();
}

// ---- attention ------------------------------------------------------------------------------------------------------------------------

static int64_t library_attentions(void)
{
    return dev.backend->host_memory || !cuda_library_attentions ? 0 : cuda_library_attentions(&dev);
}
// Whether the library does it, found out by a call.
#define BY_LIBRARY(...)                                                                                                                    \
    ({                                                                                                                                     \
        struct err err_ = {0};                                                                                                             \
        const int64_t before_ = library_attentions();                                                                                      \
        dev_measure(&dev);                                                                                                                 \
        __VA_ARGS__;                                                                                                                       \
        const size_t peak_ = dev.arena.peak;                                                                                               \
        if (!dev_check(&dev, &err_) && !dev_reserve(&dev, peak_, &err_)) __VA_ARGS__;                                                      \
        !dev_check(&dev, &err_) && library_attentions() > before_;                                                                         \
    })

static void flat_attention(int n_seg, int64_t len, int64_t h, int64_t kv, int64_t d, enum dtype t)
{
    const int64_t n = n_seg * len;
    struct tensor start = counted(n_seg + 1, 1 << 30, len);
    struct attention a = {n_seg, (int)len, start.data, start.data, 1 / sqrtf((float)d), 0};
    struct tensor q = place_random(&dev, t, 3, n, h, d), k = place_random(&dev, t, 3, n, kv, d), v = place_random(&dev, t, 3, n, kv, d),
                  out = place_random(&dev, t, 3, n, h, d), g = place_random(&dev, t, 3, n, h, d), dq = place_random(&dev, t, 3, n, h, d),
                  dk = place_random(&dev, t, 3, n, kv, d), dv = place_random(&dev, t, 3, n, kv, d), lse = made(DT_F32, n, h);
    const double flops = 4.0 * n_seg * 0.5 * (double)len * ((double)len + 1) * (double)(h * d);
    const char *shape = text("%d × %d, heads %d/%d of %d %s", n_seg, (int)len, (int)h, (int)kv, (int)d, dtype_name(t));
    MEASURE(text("attention %s", shape), t, 0, flops, op_attention(&dev, out, lse, q, k, v, &a));
    MEASURE(text("attention backward %s", shape), t, 0, 2.5 * flops, op_attention_bwd(&dev, dq, dk, dv, g, q, k, v, out, lse, &a));
    dev.batch_invariant = false; // the same by cuDNN, where it is and has a plan
    setenv("DISTILL_CUDNN", "1", 0);
    if (BY_LIBRARY(op_attention(&dev, out, lse, q, k, v, &a)))
        MEASURE(text("attention %s, cuDNN's", shape), t, 0, flops, op_attention(&dev, out, lse, q, k, v, &a));
    if (BY_LIBRARY(op_attention_bwd(&dev, dq, dk, dv, g, q, k, v, out, lse, &a)))
        MEASURE(text("attention backward %s, cuDNN's", shape), t, 0, 2.5 * flops,
                op_attention_bwd(&dev, dq, dk, dv, g, q, k, v, out, lse, &a));
    dev.batch_invariant = true;
    place_free();
}

// dv < dk: values are the first columns of keys, as in absorbed MLA.
static void paged_attention(int64_t n, int64_t len, int64_t h, int64_t kv, int64_t dk, int64_t dv)
{
    enum { PAGE = 32 };
    const int64_t max_page = (len + PAGE - 1) / PAGE, n_page = n * max_page;
    struct tensor flat = made(DT_BF16, n_page * PAGE, kv * dk), other = dv == dk ? made(DT_BF16, n_page * PAGE, kv * dk) : flat;
    struct tensor keys = tensor_4d(flat.data, DT_BF16, n_page, PAGE, kv, dk), values = tensor_4d(other.data, DT_BF16, n_page, PAGE, kv, dk);
    values.shape[3] = dv;
    int32_t *last = NEW_N(int32_t, n);
    for (int64_t i = 0; i < n; i++) last[i] = (int32_t)len - 1;
    struct tensor page = counted(n_page, n_page, n_page - 1), start = counted(n + 1, n + 1, 1), pos = place_ints(&dev, last, n);
    struct segments seg = {.n_seg = (int)n,
                           .n_tok = (int)n,
                           .max_len = 1,
                           .max_pos = (int)len,
                           .start = start.data,
                           .pos = pos.data,
                           .page = page.data,
                           .max_page = (int)max_page,
                           .page_len = PAGE};
    struct tensor q = place_random(&dev, DT_BF16, 3, n, h, dk), out = place_random(&dev, DT_BF16, 3, n, h, dv);
    MEASURE(text("paged attention %d × %d, heads %d/%d of %d/%d bf16", (int)n, (int)len, (int)h, (int)kv, (int)dk, (int)dv), DT_BF16,
            (double)(n * len * kv) * (double)(dv == dk ? 2 * dk : dk) * 2, 2.0 * (double)(n * len * h) * (double)(dk + dv),
            op_attention_paged(&dev, out, q, keys, values, &seg, 0.1f, 0));
    mem_free(last);
    place_free();
}

// ---- mixture of experts -----------------------------------------------------------------------------------------------------------------

static void experts(int64_t n, int64_t n_expert, int64_t top_k, int64_t d, int64_t ff)
{
    struct router r = {ROUTER_SOFTMAX, (int)n_expert, (int)top_k, 1, 1, true, 1};
    const int64_t m = n * top_k;
    struct tensor logits = made(DT_F32, n, n_expert), weight = made(DT_F32, n, top_k), expert = random_ints(m, n_expert),
                  first = counted(n_expert + 1, 1 << 30, 1), row_token = counted(m, m, 1), token_row = counted(m, m, 1),
                  x = made(DT_BF16, n, d), wide = made(DT_BF16, m, d), y = made(DT_BF16, m, ff);
    expert = tensor_2d(expert.data, DT_I32, n, top_k), token_row = tensor_2d(token_row.data, DT_I32, n, top_k);
    const char *shape = text("%d tokens, %d of %d experts", (int)n, (int)top_k, (int)n_expert);
    MEASURE(text("router, %s", shape), DT_F32, size_of(logits) + size_of(weight) + size_of(expert), 0,
            op_router(&dev, expert, weight, logits, TENSOR_NONE, &r));
    MEASURE(text("sorting tokens, %s", shape), DT_F32, 3 * size_of(expert), 0,
            op_moe_sort(&dev, first, row_token, token_row, expert, (int)n_expert));
    MEASURE(text("gathering rows, %s, %d wide", shape, (int)d), DT_BF16, 2 * size_of(wide), 0, op_gather_rows(&dev, wide, x, row_token));
    const void **slot = NEW_N(const void *, n_expert);
    const size_t each = op_pack_bytes(&dev, DT_BF16, ff, d);
    struct tensor all = made(DT_BF16, n_expert * ff, d), packed = all;
    packed.data = place(&dev, each * (size_t)n_expert);
    for (int64_t e = 0; e < n_expert; e++) {
        struct tensor p = tensor_2d((char *)packed.data + each * (size_t)e, DT_BF16, ff, d);
        p.layout = LAYOUT_PANEL;
        op_pack(&dev, p, tensor_rows(all, e * ff, ff), TENSOR_NONE);
        slot[e] = p.data;
    }
    struct tensor table = tensor_1d(place(&dev, sizeof *slot * (size_t)n_expert), DT_U8, (int64_t)sizeof *slot * n_expert);
    op_upload(&dev, table, slot);
    struct expert_weights w = {.n_expert = (int)n_expert, .n = ff, .k = d, .dtype = DT_BF16, .slot = table.data};
    MEASURE(text("grouped product, %s, %d rows × %d × %d", shape, (int)m, (int)ff, (int)d), DT_BF16,
            size_of(all) + size_of(wide) + size_of(y), 2.0 * (double)m * (double)(ff * d), op_grouped_linear(&dev, y, wide, &w, first));
    MEASURE(text("combining experts, %s, %d wide", shape, (int)d), DT_BF16, size_of(wide) + 2 * size_of(x), 0,
            op_moe_combine(&dev, x, wide, token_row, weight));
    mem_free(slot);
    place_free();
}

// ---- the vocabulary ---------------------------------------------------------------------------------------------------------------------

static void loss_rows(int64_t n, int64_t v)
{
    const int64_t k = sized(64, 4);
    struct tensor logits = made(DT_F32, n, v), ce = place_random(&dev, DT_F32, 1, n, 0, 0), kd = place_random(&dev, DT_F32, 1, n, 0, 0),
                  label = random_ints(n, v);
    struct loss_mix mix = {.ce_weight = 1, .temperature = 1, .kd_scale = 1, .grad_scale = 1 / (float)n, .n_vocab = (int)v};
    struct loss_targets none = {0}, t = {.ids = counted(n * k, v, v / k),
                                         .logprob = made(DT_F32, n, k),
                                         .tail_logprob = place_random(&dev, DT_F32, 1, n, 0, 0)};
    t.ids = tensor_2d(t.ids.data, DT_I32, n, k);
    float *lp = NEW_N(float, n *k); // half of the mass in the k, evenly
    for (int64_t i = 0; i < n * k; i++) lp[i] = -logf(2 * (float)k);
    op_upload(&dev, t.logprob, lp);
    for (int64_t i = 0; i < n; i++) lp[i] = -logf(2);
    op_upload(&dev, t.tail_logprob, lp);
    mem_free(lp);
    MEASURE(text("loss rows, cross-entropy, %d × %d f32 in place", (int)n, (int)v), DT_F32, 2 * size_of(logits), 0,
            op_loss(&dev, logits, ce, kd, logits, label, &none, &mix));
    mix.kd_weight = 1, mix.divergence = DIV_FKL;
    fill_random(&dev, logits);
    MEASURE(text("loss rows, forward KL of top-%d and tail, %d × %d f32 in place", (int)k, (int)n, (int)v), DT_F32, 2 * size_of(logits), 0,
            op_loss(&dev, logits, ce, kd, logits, label, &t, &mix));
    place_free();
}

static void generation_rows(int64_t n, int64_t v)
{
    enum { MAX_ROW = 256, N_DRAW = 16 };
    const int64_t k = sized(64, 4);
    struct sample_row host[MAX_ROW];
    struct tensor logits = made(DT_F32, n, v), ids = counted(n * k, 1 << 30, 1), logprob = made(DT_F32, n, k),
                  tail = place_random(&dev, DT_F32, 1, n, 0, 0), log_z = made(DT_F32, n, 2), out = counted(n, n, 1),
                  draw = counted(n * N_DRAW, 1 << 30, 1), count = counted(n * N_DRAW, 1 << 30, 1);
    const float temperature[] = {1, 2};
    struct tensor settings = tensor_1d(place(&dev, sizeof host), DT_U8, (int64_t)sizeof *host * n);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n; i++)
            host[i] =
                (struct sample_row){.temperature = 1, .top_p = pass ? 0.9f : 1, .top_k = pass ? 50 : 0, .seed = 1, .stream = (uint64_t)i};
        op_upload(&dev, settings, host);
        MEASURE(text("sampling%s, %d × %d", pass ? ", top-k 50 and top-p 0.9" : "", (int)n, (int)v), DT_F32, size_of(logits), 0,
                op_sample(&dev, out, logits, (int)v, settings.data));
    }
    MEASURE(text("capture of top-%d and log Z at 2 temperatures, %d × %d", (int)k, (int)n, (int)v), DT_F32, size_of(logits), 0,
            op_capture_topk(&dev, tensor_2d(ids.data, DT_I32, n, k), logprob, tail, log_z, logits, (int)v, temperature));
    MEASURE(text("capture of %d draws and log Z, %d × %d", N_DRAW, (int)n, (int)v), DT_F32, size_of(logits), 0,
            op_capture_sampled(&dev, tensor_2d(draw.data, DT_I32, n, N_DRAW), tensor_2d(count.data, DT_I32, n, N_DRAW), log_z, logits,
                               (int)v, temperature, settings.data));
    place_free();
}

static void optimizer_rows(int64_t n)
{
    struct tensor w = place_random(&dev, DT_BF16, 1, n, 0, 0), f[4];
    for (int i = 0; i < 4; i++) f[i] = place_random(&dev, DT_F32, 1, n, 0, 0);
    op_zero(&dev, f[2]); // second moments are not negative
    struct adamw a = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .grad_scale = 1, .step = 10};
    MEASURE(text("AdamW, %.0f million parameters", (double)n / 1e6), DT_F32, 30.0 * (double)n, 0,
            op_adamw(&dev, w, f[0], f[1], f[2], f[3], &a));
    struct tensor sum = tensor_1d(place(&dev, 8), DT_U8, 8);
    op_zero(&dev, sum);
    MEASURE(text("sum of squares, %.0f million", (double)n / 1e6), DT_F32, 4.0 * (double)n, 0, op_sumsq(&dev, sum, f[0]));
    place_free();
}

// ---- all of them ------------------------------------------------------------------------------------------------------------------------

static void norms_and_activations(void)
{
    rows_of_a_layer(DT_BF16);
}
static void embeddings(void)
{
    rows_of_a_table(DT_BF16);
}
static void plain_products(void)
{
    products(sized(8192, 9), sized(8960, 24), sized(1536, 40), DT_BF16);
    products(sized(8192, 9), sized(18944, 24), sized(3584, 40), DT_BF16);
}
static void products_of_panels(void)
{
    packed_products(sized(18944, 48), sized(3584, 64), DT_BF16);
}
static void products_in_fp8(void)
{
    fp8_products(sized(7168, 132), sized(16384, 512));
    fp8_experts(sized(128, 3), 4, sized(2048, 48), sized(7168, 150));
    fp8_experts(sized(128, 2), sized(512, 70), sized(2048, 132), sized(7168, 150));
}
static void attention_of_documents(void)
{
    flat_attention(1, sized(8192, 20), sized(32, 4), sized(32, 2), sized(128, 64), DT_BF16);
    flat_attention(4, sized(2048, 7), sized(12, 4), sized(2, 2), sized(128, 64), DT_BF16);
}
static void attention_of_the_cache(void)
{
    paged_attention(1, sized(8192, 40), sized(32, 4), sized(4, 2), sized(128, 64), sized(128, 64));
    paged_attention(sized(64, 3), sized(4096, 40), sized(32, 4), sized(4, 2), sized(128, 64), sized(128, 64));
    paged_attention(sized(64, 3), sized(4096, 40), sized(128, 4), 1, sized(576, 96), sized(512, 64));
}
static void mixture_of_experts(void)
{
    experts(sized(8192, 12), sized(128, 4), sized(8, 2), sized(2048, 64), sized(1536, 48));
    experts(sized(64, 5), sized(128, 4), sized(8, 2), sized(2048, 64), sized(1536, 48));
}
static void loss(void)
{
    loss_rows(sized(8192, 3), sized(131072, 300));
}
static void generation(void)
{
    generation_rows(sized(64, 3), sized(151936, 300));
    generation_rows(1, sized(151936, 300));
}
static void optimizer(void)
{
    optimizer_rows(sized((int64_t)256 << 20, 4096));
}

static const struct family {
    const char *name;
    void (*run)(void);
} families[] = {
    {"norms and activations", norms_and_activations},
    {"embedding", embeddings},
    {"products", plain_products},
    {"packed products", products_of_panels},
    {"FP8 products", products_in_fp8},
    {"products a head", head_products},
    {"attention", attention_of_documents},
    {"paged attention", attention_of_the_cache},
    {"experts", mixture_of_experts},
    {"loss", loss},
    {"sampling and capture", generation},
    {"optimizer", optimizer},
};

static void measure_family(const struct family *f)
{
    struct err err = {0};
    const int n = on_gpu() && !bench_small ? 5 : 1;
    double x[5];
    ceilings_open();
    for (int i = 0; i < n; i++) x[i] = ceiling_bytes();
    copy_speed = median(x, n);
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
        for (int i = 0; i < n; i++) x[i] = ceiling_gemm(t);
        gemm_speed[t] = median(x, n);
    }
    ceilings_close();
    must(dev_open(&dev, bench_device, bench_threads, &err), &err);
    f->run();
    dev_close(&dev);
}

// A process a family: after a fault of a kernel a process can use its GPU no more.
void job_ops(void)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct family *f = &families[i];
        int status = 0;
        fflush(NULL);
        const pid_t pid = fork();
        if (!pid) {
            measure_family(f);
            exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            row(f->name,
                text("cut short: its process ended with %s %d", WIFSIGNALED(status) ? "signal" : "exit code",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
                "", -1);
    }
}
