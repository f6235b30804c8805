// Products: packed weights, plain rows through oneDNN, heads, experts, and the backward ones; against sums in double. And that a row's bits
// do not depend on its company, on every instruction set this machine runs.
#include "tests/kernels/devices.h"
#include "tests/kernels/on_device.h"
#include "tests/simt/simt_state.h"

static const struct backend *isa[N_CPU_ISA + 2]; // and the GPU, as sm_90 and, for the experts' products, as sm_80
static int sm_80 = -1;
static void choose_arch(int i)
{
    if (i == sm_80) simt_fail("arch", 1, 80);
}

// w packed, where the device reads it.
static struct tensor packed(struct lent *l, struct tensor w)
{
    struct device *dev = l->dev;
    const enum dtype t = w.dtype == DT_E4M3 ? dev->backend->fp8_weight : w.dtype;
    const size_t size = op_pack_bytes(dev, t, w.shape[0], w.shape[1]);
    struct tensor p = tensor_2d(lend(l, keep(size), size), t, w.shape[0], w.shape[1]);
    p.layout = LAYOUT_PANEL;
    op_pack(dev, p, lend_tensor(l, w), TENSOR_NONE);
    return p;
}

// out (m, n) against x · wᵀ + bias.
static void check_product(const char *what, struct tensor out, struct tensor x, struct tensor w, struct tensor bias, struct tensor before)
{
    const int64_t m = out.shape[0], n = out.shape[1], k = x.shape[1];
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = tensor_none(bias) ? 0 : at(bias, j), size = fabs(sum);
            if (!tensor_none(before)) sum += at(before, i * n + j), size += fabs(at(before, i * n + j));
            for (int64_t l = 0; l < k; l++) {
                double p = at(x, i * k + l) * at(w, j * k + l);
                sum += p;
                size += fabs(p);
            }
            double got = at(out, i * n + j);
            want(fabs(got - sum) <= sum_slack((double)k, size, sum, out.dtype), "%s (%d,%d,%d) x %s w %s out %s: [%d,%d] %g, wanted %g",
                 what, (int)m, (int)n, (int)k, dtype_name(x.dtype), dtype_name(w.dtype), dtype_name(out.dtype), (int)i, (int)j, got, sum);
        }
}
static struct tensor swapped(struct tensor t)
{
    int64_t s = t.shape[0], st = t.stride[0];
    t.shape[0] = t.shape[1], t.stride[0] = t.stride[1], t.shape[1] = s, t.stride[1] = st;
    return t;
}

static const struct {
    int64_t m, n, k;
} shape[] = {{1, 1, 1},  {2, 3, 5},     {3, 33, 7},   {5, 64, 64},   {1, 200, 129}, {6, 65, 40},
             {7, 31, 1}, {13, 32, 300}, {16, 97, 63}, {29, 130, 48}, {64, 40, 160}};

// A weight packed whole, and the same packed in parts, against its rows converted one value at a time.
START_TEST(packing_converts_and_moves_every_value)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {31, 33}, {32, 32}, {64, 65}, {130, 257}, {200, 96}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int types = 0; types < 7; types++) { // e4m3 to bf16 alone
            const int64_t n = sizes[s][0], k = sizes[s][1];
            const enum dtype from = types == 6 ? DT_E4M3 : (enum dtype)(types / 2), to = types == 6 || types % 2 ? DT_BF16 : DT_F32;
            struct tensor w = make(from == DT_F16 ? DT_BF16 : from, n, 0, k, 3, 7), p = w, whole, row;
            if (from == DT_F16) // any bits that are no NaN
                for (int64_t i = 0; i < n * w.stride[0]; i++) ((f16 *)w.data)[i] &= 0xbfff;
            w.dtype = from;
            const size_t bytes = op_pack_bytes(&dev, to, n, k);
            p = whole = tensor_2d(keep(bytes), to, n, k);
            p.data = keep(bytes);
            p.layout = whole.layout = LAYOUT_PANEL;
            op_pack(&dev, whole, w, TENSOR_NONE);
            for (int64_t first = 0; first < n; first += OP_PACK_ROWS) {
                struct tensor part = p;
                part.data = (char *)p.data + op_pack_bytes(&dev, to, first, k);
                part.shape[0] = n - first < OP_PACK_ROWS ? n - first : OP_PACK_ROWS;
                op_pack(&dev, part, tensor_rows(w, first, part.shape[0]), TENSOR_NONE);
            }
            want(!memcmp(whole.data, p.data, bytes), "%d x %d, %s to %s: in parts it is packed otherwise", (int)n, (int)k, dtype_name(from),
                 dtype_name(to));
            int32_t count = 5;
            op_pack(&dev, whole, w, tensor_1d(&count, DT_I32, 1));
            want(count == 5, "%s to %s: %d values are not finite, none is", dtype_name(from), dtype_name(to), count - 5);
            row = tensor_2d(keep((size_t)k * 4), DT_F32, 1, k);
            for (int32_t i = 0; i < n; i++) {
                op_embed(&dev, row, whole, tensor_1d(&i, DT_I32, 1));
                for (int64_t j = 0; j < k; j++) {
                    const int64_t at_ = i * w.stride[0] + j;
                    const float x = from == DT_F16 ? f16_to_f32(((f16 *)w.data)[at_]) : (float)at(w, i * k + j);
                    const float y = to == DT_BF16 ? bf16_to_f32(f32_to_bf16(x)) : x;
                    want(((float *)row.data)[j] == y, "%s to %s: (%d, %d) of %d x %d is %g, wanted %g", dtype_name(from), dtype_name(to), i,
                         (int)j, (int)n, (int)k, ((float *)row.data)[j], y);
                }
            }
            // Every fifth value NaN or infinite: all of them are counted, wherever they stand.
            int32_t n_bad = 0;
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < k; j++) {
                    if ((i + j) % 5) continue;
                    const int64_t at_ = i * w.stride[0] + j;
                    n_bad++;
                    if (from == DT_F32)
                        ((float *)w.data)[at_] = j % 2 ? NAN : -INFINITY;
                    else if (from == DT_E4M3)
                        ((e4m3 *)w.data)[at_] = j % 2 ? 0x7f : 0xff;
                    else
                        ((uint16_t *)w.data)[at_] = (uint16_t)((from == DT_F16 ? 0x7c00 : 0x7f80) + (j % 2));
                }
            count = 5;
            op_pack(&dev, whole, w, tensor_1d(&count, DT_I32, 1));
            want(count == 5 + n_bad, "%s to %s, %d x %d: %d values are not finite, %d are", dtype_name(from), dtype_name(to), (int)n,
                 (int)k, count - 5, n_bad);
        }
    dev_close(&dev);
}
END_TEST

START_TEST(linear_is_the_sum_of_products)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    for (int panel = !dev.backend->host_memory; panel < 2; panel++) // the GPU's library: in the suite ops
        for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
            for (int types = 0; types < 8; types++)
                for (int with = 0; with < 2; with++) {
                    const enum dtype xt = types & 1 ? DT_BF16 : DT_F32, wt = types & 2 ? DT_BF16 : DT_F32,
                                     ot = types & 4 ? DT_BF16 : DT_F32;
                    if (ot == DT_BF16 && xt == DT_F32) continue;
                    const int64_t m = shape[s].m, n = shape[s].n, k = shape[s].k;
                    struct tensor x = make(xt, m, 0, k, 3, 1), w = make(wt, n, 0, k, panel ? 5 : 0, 2), bias = make(DT_F32, 1, 0, n, 0, 3),
                                  out = make(ot, m, 0, n, 1, 4);
                    bias = tensor_1d(bias.data, DT_F32, n);
                    if (!with) bias = TENSOR_NONE;
                    struct lent l = {.dev = &dev};
                    struct tensor p = panel ? packed(&l, w) : w, there = lend_out(&l, out), dx = lend_tensor(&l, x),
                                  db = lend_tensor(&l, bias);
                    PLANNED(&dev, op_linear(&dev, there, dx, p, db));
                    lent_back(&l);
                    check_product(panel ? "packed" : "rows", out, x, w, bias, TENSOR_NONE);
                }
    dev_close(&dev);
}
END_TEST

START_TEST(backward_products_add_up)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int types = 0; types < 8; types++)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                const enum dtype gt = types & 1 ? DT_BF16 : DT_F32, wt = types & 2 ? DT_BF16 : DT_F32, ot = types & 4 ? DT_BF16 : DT_F32;
                const int64_t m = shape[s].m, n = shape[s].n, k = shape[s].k;
                struct tensor dout = make(gt, m, 0, n, 1, 1), w = make(wt, n, 0, k, 0, 2), dx = make(ot, m, 0, k, 2, 3),
                              dx0 = make(ot, m, 0, k, 2, 3);
                PLANNED(&dev, op_linear_bwd_x(&dev, dx, dout, w, accumulate));
                check_product("bwd_x", dx, dout, swapped(w), TENSOR_NONE, accumulate ? dx0 : TENSOR_NONE);
                struct tensor x = make(gt, m, 0, k, 3, 5), dw = make(DT_F32, n, 0, k, 0, 6), dw0 = make(DT_F32, n, 0, k, 0, 6);
                PLANNED(&dev, op_linear_bwd_w(&dev, dw, dout, x));
                check_product("bwd_w", dw, swapped(dout), swapped(x), TENSOR_NONE, dw0);
            }
    dev_close(&dev);
}
END_TEST

START_TEST(head_linear_is_a_product_a_head)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    const int64_t h = 3;
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int types = 0; types < 8; types++) {
            const enum dtype xt = types & 1 ? DT_BF16 : DT_F32, wt = types & 2 ? DT_BF16 : DT_F32, ot = types & 4 ? DT_BF16 : DT_F32;
            if (ot == DT_BF16 && xt == DT_F32) continue;
            const int64_t m = shape[s].m, n = shape[s].n, k = shape[s].k, bytes = (int64_t)op_pack_bytes(&dev, wt, n, k);
            struct tensor x = make(xt, m, h, k, 3, 1), w = make(wt, h, n, k, 0, 2), out = make(ot, m, h, n, 1, 4),
                          again = make(ot, m, h, n, 1, 4);
            struct lent l = {.dev = &dev};
            struct tensor dx = lend_tensor(&l, x), dw = lend_tensor(&l, w), there = lend_out(&l, out), there2 = lend_out(&l, again),
                          p = tensor_3d(lend(&l, keep((size_t)(h * bytes)), (size_t)(h * bytes)), wt, h, n, k);
            p.layout = LAYOUT_PANEL;
            for (int i = 0; i < h; i++) {
                struct tensor one = tensor_2d((char *)dw.data + (size_t)(i * n * k) * dtype_size(wt), wt, n, k), to = one;
                to.data = (char *)p.data + i * bytes;
                to.layout = LAYOUT_PANEL;
                op_pack(&dev, to, one, TENSOR_NONE);
            }
            PLANNED(&dev, op_head_linear(&dev, there, dx, p));
            PLANNED(&dev, op_head_linear(&dev, there2, dx, dw));
            lent_back(&l);
            for (int64_t i = 0; i < m * h * n; i++) want(at(out, i) == at(again, i), "packed and plain heads differ at %d", (int)i);
            for (int i = 0; i < h; i++) {
                struct tensor xi = tensor_2d((char *)x.data + (size_t)(i * x.stride[1]) * dtype_size(xt), xt, m, k), oi = xi;
                xi.stride[0] = x.stride[0];
                oi = tensor_2d((char *)out.data + (size_t)(i * out.stride[1]) * dtype_size(ot), ot, m, n);
                oi.stride[0] = out.stride[0];
                check_product("head", oi, xi, tensor_2d((char *)w.data + (size_t)(i * n * k) * dtype_size(wt), wt, n, k), TENSOR_NONE,
                              TENSOR_NONE);
            }
        }
    dev_close(&dev);
}
END_TEST

START_TEST(grouped_linear_is_a_product_an_expert)
{
    choose_arch(_i);
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    static const int32_t first[] = {0, 0, 1, 14, 14, 16, 40, 41};
    enum { E = sizeof first / sizeof *first - 1 };
    for (int types = 0; types < 8; types++)
        for (int odd = 0; odd < 2; odd++) {
            const enum dtype xt = types & 1 ? DT_BF16 : DT_F32, wt = types & 2 ? DT_BF16 : DT_F32, ot = types & 4 ? DT_BF16 : DT_F32;
            if (ot == DT_BF16 && xt == DT_F32) continue;
            const int64_t n = 70, k = 48 + odd, m = first[E];
            struct tensor x = make(xt, m, 0, k, 0, 1), out = make(ot, m, 0, n, 0, 2), w[E];
            const void *slot[E];
            struct lent l = {.dev = &dev}, result = {.dev = &dev};
            for (int e = 0; e < E; e++) {
                w[e] = make(wt, n, 0, k, 0, 10 + (uint64_t)e);
                slot[e] = first[e] == first[e + 1] ? NULL : packed(&l, w[e]).data;
            }
            struct tensor dx = lend_tensor(&l, x), f = tensor_1d(lend(&l, first, sizeof first), DT_I32, E + 1),
                          there = lend_out(&result, out);
            struct expert_weights ew = {.n_expert = E, .n = n, .k = k, .dtype = wt, .slot = lend(&l, slot, sizeof slot)};
            PLANNED(&dev, op_grouped_linear(&dev, there, dx, &ew, f));
            lent_back(&result);
            for (int e = 0; e < E; e++)
                check_product("expert", tensor_rows(out, first[e], first[e + 1] - first[e]),
                              tensor_rows(x, first[e], first[e + 1] - first[e]), w[e], TENSOR_NONE, TENSOR_NONE);
            slot[2] = NULL;
            ew.slot = lend(&l, slot, sizeof slot);
            op_grouped_linear(&dev, lend_out(&result, out), dx, &ew, f);
            lent_back(&result); // waits: the GPU looks for itself
            struct err err = {0};
            ck_assert_int_ne(dev_check(&dev, &err), ST_OK);
            ck_assert_msg(strstr(err.text, "expert 2 has 13 rows but no weights on this device") != NULL, "%s", err.text);
            lent_back(&l);
        }
    dev_close(&dev);
}
END_TEST

// Rows [at, at + b) of a batch of 100 recomputed in batches of b, on 1 and 2 threads: equal bytes. On the GPU they take its different
// kernels.
START_TEST(rows_do_not_see_their_company)
{
    choose_arch(_i);
    static const int batch[] = {1, 2, 3, 5, 16, 17, 64, 100};
    for (int types = 0; types < 4; types++)
        for (int odd = 0; odd < 2; odd++) {
            const bool host = isa[_i]->host_memory;
            const enum dtype xt = types & 1 ? DT_BF16 : DT_F32, wt = types & 2 ? DT_BF16 : DT_F32;
            const int64_t m = 100, n = host ? 333 : 150, k = 512 + odd;
            struct tensor x = make(xt, m, 0, k, 0, 1), w = make(wt, n, 0, k, 0, 2), out = make(xt, m, 0, n, 0, 3),
                          part = make(xt, m, 0, n, 0, 4), by_expert = make(xt, m, 0, n, 0, 5);
            for (int n_thread = 1; n_thread < (host ? 4 : 2); n_thread++) {
                struct device dev;
                device_open(&dev, isa[_i]->name, n_thread);
                struct lent l = {.dev = &dev}, result = {.dev = &dev};
                struct tensor p = packed(&l, w), dx = lend_tensor(&l, x);
                if (n_thread == 1) RESERVED(&dev, op_linear(&dev, lend_out(&result, out), dx, p, TENSOR_NONE); lent_back(&result));
                for (size_t b = 0; b < sizeof batch / sizeof *batch; b++)
                    for (int64_t i = 0; i < m; i += 7 * batch[b]) {
                        const int64_t rows = m - i < batch[b] ? m - i : batch[b];
                        struct tensor there = lend_out(&result, tensor_rows(part, 0, rows));
                        RESERVED(&dev, op_linear(&dev, there, tensor_rows(dx, i, rows), p, TENSOR_NONE); lent_back(&result));
                        ck_assert_mem_eq(part.data, tensor_rows(out, i, rows).data, (size_t)(rows * n) * dtype_size(xt));
                    }
                // And among experts that happen to share the weights. On the GPU one expert's rows are the reference: its grouped products
                // may be other instructions than its linear ones.
                static const int32_t first[3][15] = {
                    {0, 100},
                    {0, 1, 4, 64, 64, 100},
                    {0, 3, 3, 5, 30, 31, 40, 48, 57, 57, 66, 75, 80, 99, 100},
                };
                static const int n_expert[3] = {1, 5, 14};
                const void *slot[14];
                for (int e = 0; e < 14; e++) slot[e] = p.data;
                struct expert_weights ew = {.n = n, .k = k, .dtype = wt, .slot = lend(&l, slot, sizeof slot)};
                for (int i = 0; i < 3; i++) {
                    ew.n_expert = n_expert[i];
                    struct tensor starts = tensor_1d((void *)(uintptr_t)first[i], DT_I32, n_expert[i] + 1);
                    struct tensor there = lend_out(&result, by_expert), f = lend_tensor(&l, starts);
                    RESERVED(&dev, op_grouped_linear(&dev, there, dx, &ew, f); lent_back(&result));
                    if (!host && i == 0) memcpy(out.data, by_expert.data, (size_t)(m * n) * dtype_size(xt));
                    ck_assert_msg(!memcmp(by_expert.data, out.data, (size_t)(m * n) * dtype_size(xt)), "x %s w %s: %d experts",
                                  dtype_name(xt), dtype_name(wt), n_expert[i]);
                }
                lent_back(&l);
                dev_close(&dev);
            }
        }
}
END_TEST

// Memory planned for many rows is enough for any fewer: the GPU splits what few rows leave idle, and wants scratch for it.
START_TEST(a_plan_for_many_rows_holds_for_few)
{
    enum { M = 600, N = 24, K = 296 };
    static const int64_t rows[] = {1, 16, 17, 33, 64, 100, 128, 192, 250, 320, M};
    for (int types = 0; types < 4; types++) {
        const enum dtype xt = types & 1 ? DT_BF16 : DT_F32, wt = types == 2 ? DT_BF16 : xt;
        struct device dev;
        struct err err = {0};
        device_open(&dev, isa[_i]->name, 1);
        dev.batch_invariant = types < 3; // else many rows go to the GPU's library
        struct lent l = {.dev = &dev}, result = {.dev = &dev};
        struct tensor w = packed(&l, make(wt, N, 0, K, 0, 2)), x = make(xt, M, 0, K, 0, 1), out = make(DT_F32, M, 0, N, 0, 3),
                      dx = lend_tensor(&l, x), there = lend_out(&result, out);
        dev_measure(&dev);
        op_linear(&dev, there, dx, w, TENSOR_NONE);
        ck_ok(dev_reserve(&dev, dev.arena.peak, &err));
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const size_t mark = dev_mark(&dev);
            op_linear(&dev, tensor_rows(there, 0, rows[i]), tensor_rows(dx, 0, rows[i]), w, TENSOR_NONE);
            dev_release(&dev, mark);
        }
        ck_ok(dev_check(&dev, &err));
        lent_back(&result);
        lent_back(&l);
        dev_close(&dev);
    }
}
END_TEST

// Where a block's shared memory has no room for the table of so many experts beside its tiles: the same bits by another kernel.
START_TEST(a_table_of_experts_that_is_too_long_does_not_show)
{
    enum { E = 20, ROWS = 9, N = 40, K = 72, M = E * ROWS };
    static int32_t first[E + 1];
    static const void *slot[E];
    struct tensor x = make(DT_BF16, M, 0, K, 0, 1), w = make(DT_BF16, N, 0, K, 0, 2), out[2];
    for (int e = 0; e <= E; e++) first[e] = e * ROWS;
    for (int i = 0; i < 2; i++) {
        struct device dev;
        simt_fail("arch", 1, 89);
        if (i) simt_shared_memory(98304 + 4 * E); // what the tiles take; one number less than the table has
        device_open(&dev, isa[_i]->name, 1);
        struct lent l = {.dev = &dev}, result = {.dev = &dev};
        const void *p = packed(&l, w).data;
        for (int e = 0; e < E; e++) slot[e] = p;
        struct expert_weights ew = {.n_expert = E, .n = N, .k = K, .dtype = DT_BF16, .slot = lend(&l, slot, sizeof slot)};
        out[i] = make(DT_F32, M, 0, N, 0, 3);
        struct tensor dx = lend_tensor(&l, x), f = lend_tensor(&l, tensor_1d(first, DT_I32, E + 1)), there = lend_out(&result, out[i]);
        PLANNED(&dev, op_grouped_linear(&dev, there, dx, &ew, f));
        lent_back(&result);
        lent_back(&l);
        dev_close(&dev);
    }
    check_product("experts", out[0], x, w, TENSOR_NONE, TENSOR_NONE);
    ck_assert_mem_eq(out[0].data, out[1].data, sizeof(float) * M * N);
}
END_TEST

// Experts in FP8, rows by rows: the bits of op_fp8_linear with each one's weights.
START_TEST(grouped_fp8_is_fp8_linear_an_expert)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    static const int32_t first[] = {0, 3, 3, 24, 90};
    enum { E = sizeof first / sizeof *first - 1 };
    const int64_t n = 140, k = 261, n_scale = (n + 127) / 128 * ((k + 127) / 128);
    for (int few = 0; few < 2; few++) // the GPU takes other kernels for 24 rows than for 90
        for (int types = 0; types < 4; types++) {
            const enum dtype xt = types & 1 ? DT_BF16 : DT_F32;
            const int n_expert = few ? E - 1 : E;
            const int64_t m = first[n_expert];
            struct lent l = {.dev = &dev};
            struct tensor x = make(xt, m, 0, k, 0, 1), out = make(xt, m, 0, n, 0, 2), one = make(xt, m, 0, n, 0, 3),
                          dx = lend_tensor(&l, x), there = lend_out(&l, out), there1 = lend_out(&l, one), p[E], scale[E];
            const void *slot[E] = {NULL}, *scales[E] = {NULL};
            for (int e = 0; e < n_expert; e++) {
                struct tensor w = make(DT_E4M3, n, 0, k, 0, 10 + (uint64_t)e), s = make(DT_F32, 1, 0, n_scale, 0, 20 + (uint64_t)e);
                fill(w, 10 + (uint64_t)e, 50);
                for (int64_t i = 0; i < n_scale; i++) put(s, i, fabs(at(s, i)));
                p[e] = packed(&l, w);
                scale[e] = lend_tensor(&l, tensor_2d(s.data, DT_F32, (n + 127) / 128, (k + 127) / 128));
                slot[e] = p[e].data;
                scales[e] = scale[e].data;
            }
            struct expert_weights ew = {.n_expert = n_expert, .n = n, .k = k, .dtype = dev.backend->fp8_weight, .ue8m0 = types / 2};
            ew.slot = lend(&l, slot, sizeof slot);
            ew.scale = lend(&l, scales, sizeof scales);
            struct tensor f = lend_tensor(&l, tensor_1d((void *)(uintptr_t)first, DT_I32, n_expert + 1));
            PLANNED(&dev, op_grouped_linear(&dev, there, dx, &ew, f));
            for (int e = 0; e < n_expert; e++) {
                const int64_t from = first[e], rows = first[e + 1] - from;
                PLANNED(&dev, op_fp8_linear(&dev, tensor_rows(there1, from, rows), tensor_rows(dx, from, rows), p[e], scale[e], TENSOR_NONE,
                                            ew.ue8m0));
            }
            lent_back(&l);
            ck_assert_mem_eq(out.data, one.data, (size_t)(m * n) * dtype_size(xt));
        }
    dev_close(&dev);
}
END_TEST

// Many rows where batches may matter: the library's product and, of experts, sm_90's own instructions. Both add up at most 128 products in
// what hardware has for FP8, about 14 bits (the emulation has 24).
START_TEST(grouped_fp8_may_take_another_order_of_sums)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    static const int32_t first[] = {0, 0, 131, 134, 200, 330};
    enum { E = sizeof first / sizeof *first - 1, N = 136, K = 450 };
    const int64_t m = first[E];
    struct lent l = {.dev = &dev}, result = {.dev = &dev};
    struct tensor x = make(DT_BF16, m, 0, K, 0, 1), out = make(DT_F32, m, 0, N, 0, 2), again = make(DT_F32, m, 0, N, 0, 2),
                  dx = lend_tensor(&l, x), one, one_scale;
    const void *slot[E] = {NULL}, *scales[E] = {NULL};
    for (int e = 1; e < E; e++) { // the first has no rows, and need not be here
        struct tensor w = make(DT_E4M3, N, 0, K, 0, 10 + (uint64_t)e), s = make(DT_F32, 2, 0, 4, 0, 20 + (uint64_t)e);
        fill(w, 10 + (uint64_t)e, 50);
        slot[e] = (one = packed(&l, w)).data;
        scales[e] = (one_scale = lend_tensor(&l, s)).data;
    }
    struct expert_weights ew = {.n_expert = E, .n = N, .k = K, .dtype = dev.backend->fp8_weight};
    ew.slot = lend(&l, slot, sizeof slot);
    ew.scale = lend(&l, scales, sizeof scales);
    struct tensor f = lend_tensor(&l, tensor_1d((void *)(uintptr_t)first, DT_I32, E + 1));
    for (int grouped = 0; grouped < 2; grouped++) {
        for (int i = 0; i < 2; i++) {
            struct tensor there = lend_out(&result, i ? again : out);
            dev.batch_invariant = i == 0;
            if (grouped)
                PLANNED(&dev, op_grouped_linear(&dev, there, dx, &ew, f));
            else
                PLANNED(&dev, op_fp8_linear(&dev, there, dx, one, one_scale, TENSOR_NONE, false));
            lent_back(&result);
        }
        double most = 0, off = 0;
        for (int64_t i = 0; i < m * N; i++) {
            most = fmax(most, fabs(at(out, i)));
            off = fmax(off, fabs(at(out, i) - at(again, i)));
        }
        ck_assert_msg(off > 0 && off < most * (simt_here() ? 1e-6 : 1e-3), "grouped %d: off by %g of %g", grouped, off, most);
    }
    lent_back(&l);
    dev_close(&dev);
}
END_TEST

// What is no number stays none, in its own row.
START_TEST(fp8_tells_what_is_not_finite)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    enum { M = 20, N = 33, K = 150 }; // and the first 3 rows alone: the GPU's other kernel
    struct tensor x = make(DT_F32, M, 0, K, 0, 1), w = make(DT_E4M3, N, 0, K, 0, 2), s = make(DT_F32, 1, 0, 2, 0, 3),
                  out = make(DT_F32, M, 0, N, 0, 4);
    put(x, 1 * K + 149, NAN);
    put(x, 2 * K + 3, -INFINITY);
    struct lent l = {.dev = &dev}, result = {.dev = &dev};
    struct tensor p = packed(&l, w), dx = lend_tensor(&l, x), ds = lend_tensor(&l, s);
    for (int64_t rows = 3; rows <= M; rows += M - 3) {
        struct tensor there = lend_out(&result, tensor_rows(out, 0, rows));
        PLANNED(&dev, op_fp8_linear(&dev, there, tensor_rows(dx, 0, rows), p, ds, TENSOR_NONE, false));
        lent_back(&result);
        for (int64_t i = 0; i < rows * N; i++)
            want(isnan(at(out, i)) == (i / N == 1 || i / N == 2), "row %d of %d: %g", (int)(i / N), (int)rows, at(out, i));
    }
    lent_back(&l);
    dev_close(&dev);
}
END_TEST

START_TEST(no_rows_is_fine)
{
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    struct tensor x = make(DT_F32, 0, 0, 8, 0, 1), w = make(DT_F32, 4, 0, 8, 0, 2), out = make(DT_F32, 0, 0, 4, 0, 3),
                  dw = make(DT_F32, 4, 0, 8, 0, 4);
    PLANNED(&dev, op_linear(&dev, out, x, w, TENSOR_NONE));
    struct lent l = {.dev = &dev};
    struct tensor p = packed(&l, w);
    PLANNED(&dev, op_linear(&dev, out, x, p, TENSOR_NONE));
    PLANNED(&dev, op_linear_bwd_w(&dev, dw, out, x));
    PLANNED(&dev, op_linear_bwd_x(&dev, x, out, w, false));
    dev_close(&dev);
}
END_TEST

Suite *suite_linear(void)
{
    const int n = cpu_backend_list(isa), n_all = device_list(isa), n_gpu = n_all - n;
    if (n_gpu) isa[sm_80 = n_all] = isa[n];
    Suite *s = suite_create("linear");
    TCase *t = tcase_create("products");
    tcase_add_loop_test(t, packing_converts_and_moves_every_value, 0, n);
    tcase_add_loop_test(t, linear_is_the_sum_of_products, 0, n_all);
    tcase_add_loop_test(t, backward_products_add_up, 0, n);
    tcase_add_loop_test(t, head_linear_is_a_product_a_head, 0, n_all);
    tcase_add_loop_test(t, grouped_linear_is_a_product_an_expert, 0, n_all + n_gpu);
    tcase_add_loop_test(t, rows_do_not_see_their_company, 0, n_all + n_gpu);
    tcase_add_loop_test(t, a_plan_for_many_rows_holds_for_few, 0, n_all);
    tcase_add_loop_test(t, a_table_of_experts_that_is_too_long_does_not_show, n, simt_here() ? n_all : n);
    tcase_add_loop_test(t, grouped_fp8_is_fp8_linear_an_expert, 0, n_all);
    tcase_add_loop_test(t, grouped_fp8_may_take_another_order_of_sums, n, n_all);
    tcase_add_loop_test(t, fp8_tells_what_is_not_finite, 0, n_all);
    tcase_add_loop_test(t, no_rows_is_fine, 0, n);
    suite_add_tcase(s, t);
    return s;
}
