// Attention: forward against sums in double; backward against finite differences of them; and that a row's bits depend on its own keys
// only: not on how queries are cut into chunks, on the other segments, the other rows of a decode step, or the threads. On every
// instruction set, and on the emulated GPU.
#include "kernels/cuda/cuda.h"
#include "tests/gpu.h"
#include "tests/kernels/devices.h"
#include "tests/kernels/on_device.h"
#include "tests/simt/simt_state.h"

static const struct backend *isa[N_CPU_ISA + 2]; // the last two: the GPU of sm_90, and of sm_80, which takes other kernels
static int sm_80 = -1;
static void open_isa(struct device *dev, int i, int n_thread)
{
    if (i == sm_80) simt_fail("arch", 1, 80);
    device_open(dev, isa[i]->name, n_thread);
}

// With DISTILL_CUDNN=1 the library's results are tested as ours are, but for the promise that it does not make.
static void may_ask_library(struct device *dev)
{
    const char *s = getenv("DISTILL_CUDNN");
    if (s && !strcmp(s, "1")) dev->batch_invariant = false;
}

struct setting {
    int n_head, n_kv, dk, dv, window;
    bool close; // rows lie side by side, so that they begin at 16 bytes
    int n_seg, q_len[4], k_len[4];
};
static const struct setting setting[] = {
    {1, 1, 1, 1, 0, false, 1, {1}, {1}},
    {4, 2, 16, 16, 0, false, 3, {5, 40, 1}, {5, 40, 1}},
    {7, 1, 33, 17, 0, false, 2, {20, 3}, {29, 150}},
    {14, 2, 64, 64, 0, false, 2, {30, 71}, {30, 71}},
    {2, 2, 24, 16, 7, false, 2, {300, 9}, {300, 9}},
    {3, 3, 129, 70, 140, false, 1, {50}, {400}},
    {6, 2, 8, 40, 0, false, 4, {0, 13, 0, 64}, {0, 13, 5, 64}},
    {2, 1, 192, 128, 0, false, 2, {129, 3}, {129, 70}}, // MLA without absorption
    {2, 2, 256, 200, 90, false, 1, {33}, {140}},
    {2, 1, 20, 300, 0, false, 1, {20}, {66}},
    {2, 1, 64, 64, 0, true, 3, {200, 0, 40}, {200, 6, 300}}, // by wgmma: tiles of 192 and 128 queries, blocks of 128 keys
    {2, 2, 128, 128, 90, true, 2, {150, 1}, {420, 5}},
    {1, 1, 192, 128, 0, true, 2, {130, 2}, {260, 2}},
    {3, 1, 24, 40, 0, true, 1, {70}, {129}},
    {2, 1, 64, 64, 0, true, 2, {40, 5}, {40, 5}}, // rows that are their own keys: by cuDNN where DISTILL_CUDNN=1
    {1, 1, 128, 128, 20, true, 1, {33}, {33}},
};
enum { N_SETTING = sizeof setting / sizeof *setting };

struct data {
    struct attention a;
    int32_t q_start[5], k_start[5];
    struct tensor q, k, v, out, lse;
};
static struct data data_make(const struct setting *s, enum dtype t)
{
    struct data d = {.a = {.n_seg = s->n_seg, .scale = 0.7f / sqrtf((float)s->dk), .window = s->window}};
    for (int i = 0; i < s->n_seg; i++) {
        d.q_start[i + 1] = d.q_start[i] + s->q_len[i];
        d.k_start[i + 1] = d.k_start[i] + s->k_len[i];
        if (s->q_len[i] > d.a.max_len) d.a.max_len = s->q_len[i];
    }
    const int n = d.q_start[s->n_seg], m = d.k_start[s->n_seg];
    const int far = !s->close;
    d.q = make(t, n, s->n_head, s->dk, 3 * far, 1), d.k = make(t, m, s->n_kv, s->dk, 5 * far, 2);
    d.v = make(t, m, s->n_kv, s->dv, far, 3);
    d.out = make(t, n, s->n_head, s->dv, far ? 2 : 8, 4), d.lse = make(DT_F32, n, 0, s->n_head, 0, 5);
    return d;
}
static void data_starts(struct data *d)
{
    d->a.q_start = d->q_start, d->a.k_start = d->k_start;
} // the struct has come to rest

// One row of one head in double: o (dv), its scale Σ p |v|, the log-sum-exp.
static double get(struct tensor t, int64_t a, int64_t b, int64_t c) // at(), without its divisions
{
    const int64_t off = a * t.stride[0] + b * t.stride[1] + c;
    return t.dtype == DT_F32 ? (double)((float *)t.data)[off] : (double)bf16_to_f32(((bf16 *)t.data)[off]);
}
static void reference(const struct data *d, int s, int64_t i, int64_t h, double *o, double *size, double *lse)
{
    const int64_t n_head = d->q.shape[1], n_kv = d->k.shape[1], dk = d->q.shape[2], dv = d->v.shape[2];
    const int64_t n_key = d->k_start[s + 1] - d->k_start[s], pos = n_key - (d->q_start[s + 1] - d->q_start[s]) + i,
                  kh = h / (n_head / n_kv);
    const int64_t first = d->a.window && pos - d->a.window + 1 > 0 ? pos - d->a.window + 1 : 0;
    double *score = mem_alloc((size_t)(pos + 1) * sizeof *score), top = -INFINITY, sum = 0;
    for (int64_t j = first; j <= pos; j++) {
        for (int64_t c = 0; c < dk; c++) score[j] += get(d->q, d->q_start[s] + i, h, c) * get(d->k, d->k_start[s] + j, kh, c);
        score[j] *= (double)d->a.scale;
        top = fmax(top, score[j]);
    }
    for (int64_t j = first; j <= pos; j++) sum += exp(score[j] - top);
    *lse = top + log(sum);
    for (int64_t c = 0; c < dv; c++) {
        o[c] = size[c] = 0;
        for (int64_t j = first; j <= pos; j++) {
            const double p = exp(score[j] - *lse), v = get(d->v, d->k_start[s] + j, kh, c);
            o[c] += p * v;
            size[c] += p * fabs(v);
        }
    }
    mem_free(score);
}

// Where segments begin, there. Queries that are their own keys have one list of it, as in training.
static void lend_starts(struct lent *l, struct attention *there, const struct attention *a)
{
    const size_t size = (size_t)(a->n_seg + 1) * 4;
    *there = *a;
    there->q_start = lend(l, a->q_start, size);
    there->k_start = memcmp(a->q_start, a->k_start, size) ? lend(l, a->k_start, size) : there->q_start;
}
// The ops, of tensors on the host.
static void attention(struct device *dev, struct tensor out, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,
                      const struct attention *a)
{
    struct lent l = {.dev = dev};
    struct attention b;
    lend_starts(&l, &b, a);
    op_attention(dev, lend_out(&l, out), lend_out(&l, lse), lend_tensor(&l, q), lend_tensor(&l, k), lend_tensor(&l, v), &b);
    lent_back(&l);
}
static void attention_bwd(struct device *dev, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor dout, struct tensor q,
                          struct tensor k, struct tensor v, struct tensor out, struct tensor lse, const struct attention *a)
{
    struct lent l = {.dev = dev};
    struct attention b;
    lend_starts(&l, &b, a);
    op_attention_bwd(dev, lend_out(&l, dq), lend_out(&l, dk), lend_out(&l, dv), lend_tensor(&l, dout), lend_tensor(&l, q),
                     lend_tensor(&l, k), lend_tensor(&l, v), lend_tensor(&l, out), lend_tensor(&l, lse), &b);
    lent_back(&l);
}
static void attention_paged(struct device *dev, struct tensor out, struct tensor q, struct tensor keys, struct tensor values,
                            const struct segments *seg, float scale, int window)
{
    struct lent l = {.dev = dev};
    struct segments s = *seg;
    s.start = lend(&l, seg->start, (size_t)(seg->n_seg + 1) * 4);
    s.pos = lend(&l, seg->pos, (size_t)seg->n_tok * 4);
    s.page = lend(&l, seg->page, (size_t)(seg->n_seg * seg->max_page) * 4);
    struct tensor k = lend_tensor(&l, keys), v = values;
    if (values.data == keys.data) // a view stays one
        v.data = k.data;
    else
        v = lend_tensor(&l, values);
    op_attention_paged(dev, lend_out(&l, out), lend_tensor(&l, q), k, v, &s, scale, window);
    lent_back(&l);
}

START_TEST(forward_is_softmax_of_scores_times_values)
{
    struct device dev;
    open_isa(&dev, _i, 2);
    may_ask_library(&dev);
    for (int n = 0; n < N_SETTING; n++)
        for (int t = _i == sm_80; t < 2; t++) { // f32 does not differ there
            struct data d = data_make(&setting[n], t ? DT_BF16 : DT_F32);
            data_starts(&d);
            PLANNED(&dev, attention(&dev, d.out, d.lse, d.q, d.k, d.v, &d.a));
            const int64_t n_head = d.q.shape[1], dv = d.v.shape[2];
            double *o = NEW_N(double, dv), *size = NEW_N(double, dv), lse;
            for (int s = 0; s < d.a.n_seg; s++)
                for (int64_t i = 0; i < d.q_start[s + 1] - d.q_start[s]; i++)
                    for (int64_t h = 0; h < n_head; h++) {
                        reference(&d, s, i, h, o, size, &lse);
                        const int64_t row = (d.q_start[s] + i) * n_head + h;
                        // scores are off by about dk * eps * |score|, with |score| below 10 here; e^ turns that into a relative error
                        want(fabs(at(d.lse, row) - lse) < 2e-5, "setting %d %s: lse of row %d head %d: %g, wanted %g", n,
                             dtype_name(d.q.dtype), (int)i, (int)h, at(d.lse, row), lse);
                        for (int64_t c = 0; c < dv; c++)
                            want(fabs(at(d.out, row * dv + c) - o[c]) <
                                     size[c] * (t ? 1.0 / 200 : 2e-5) + (t ? fabs(o[c]) / 256 : 0) + 1e-7,
                                 "setting %d %s: row %d of %d head %d [%d]: %g, wanted %g", n, dtype_name(d.q.dtype), (int)i, s, (int)h,
                                 (int)c, at(d.out, row * dv + c), o[c]);
                    }
            mem_free(o), mem_free(size);
        }
    dev_close(&dev);
}
END_TEST

static double total(const struct data *d, struct tensor dout) // Σ out · dout in double
{
    const int64_t n_head = d->q.shape[1], dv = d->v.shape[2];
    double *o = NEW_N(double, dv), *size = NEW_N(double, dv), lse, sum = 0;
    for (int s = 0; s < d->a.n_seg; s++)
        for (int64_t i = 0; i < d->q_start[s + 1] - d->q_start[s]; i++)
            for (int64_t h = 0; h < n_head; h++) {
                reference(d, s, i, h, o, size, &lse);
                for (int64_t c = 0; c < dv; c++) sum += o[c] * get(dout, d->q_start[s] + i, h, c);
            }
    mem_free(o), mem_free(size);
    return sum;
}

// Along each axis in turn where there are few, else along random directions: (L(x + h u) - L(x - h u)) / 2h = grad · u.
static void check_gradient(int n, const struct data *d, struct tensor dout, struct tensor x, struct tensor grad, const char *name,
                           double rel)
{
    const int64_t count = tensor_numel(x);
    const bool axes = count < 400;
    double *old = NEW_N(double, count), *u = NEW_N(double, count);
    for (int64_t i = 0; i < count; i++) old[i] = at(x, i);
    for (int64_t trial = 0; trial < (axes ? count : 3); trial++) {
        double slope = 0, norm = 0, got[2];
        for (int64_t i = 0; i < count; i++) u[i] = axes ? i == trial : rng_normal(11, (uint64_t)trial, (uint64_t)i);
        const double h = axes ? 1.0 / 256 : 1.0 / 1024;
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < count; i++) put(x, i, old[i] + (side ? h : -h) * u[i]);
            got[side] = total(d, dout);
        }
        for (int64_t i = 0; i < count; i++) { // the step really taken, after rounding to x's type
            put(x, i, old[i] + h * u[i]);
            const double up = at(x, i);
            put(x, i, old[i] - h * u[i]);
            slope += at(grad, i) * (up - at(x, i)), norm += fabs(at(grad, i) * (up - at(x, i)));
            put(x, i, old[i]);
        }
        const double diff = got[1] - got[0];
        want(fabs(diff - slope) <= rel * norm / (axes ? 1 : sqrt((double)count)) + rel * 1e-2 * h + 2e-4 * fabs(diff),
             "setting %d: %s trial %d: difference %g, by the gradient %g (of %g)", n, name, (int)trial, diff, slope, norm);
    }
    mem_free(old), mem_free(u);
}

START_TEST(backward_is_the_gradient_of_forward)
{
    struct device dev;
    open_isa(&dev, _i, 2);
    may_ask_library(&dev);
    for (int n = 0; n < N_SETTING; n++) {
        struct data d = data_make(&setting[n], DT_F32);
        data_starts(&d);
        struct tensor dout = make(DT_F32, d.out.shape[0], d.out.shape[1], d.out.shape[2], 3, 6),
                      dq = make(DT_F32, d.q.shape[0], d.q.shape[1], d.q.shape[2], 1, 7),
                      dk = make(DT_F32, d.k.shape[0], d.k.shape[1], d.k.shape[2], 2, 8),
                      dv = make(DT_F32, d.v.shape[0], d.v.shape[1], d.v.shape[2], 0, 9);
        PLANNED(&dev, attention(&dev, d.out, d.lse, d.q, d.k, d.v, &d.a));
        PLANNED(&dev, attention_bwd(&dev, dq, dk, dv, dout, d.q, d.k, d.v, d.out, d.lse, &d.a));
        check_gradient(n, &d, dout, d.q, dq, "dq", 2e-3);
        check_gradient(n, &d, dout, d.k, dk, "dk", 2e-3);
        check_gradient(n, &d, dout, d.v, dv, "dv", 2e-3);

        // bf16: the same numbers up to the rounding of inputs already rounded, probabilities and results
        struct data e = data_make(&setting[n], DT_BF16), f = data_make(&setting[n], DT_F32);
        data_starts(&e), data_starts(&f);
        struct tensor g16 = make(DT_BF16, dout.shape[0], dout.shape[1], dout.shape[2], 0, 6),
                      q16 = make(DT_BF16, dq.shape[0], dq.shape[1], dq.shape[2], 0, 7),
                      k16 = make(DT_BF16, dk.shape[0], dk.shape[1], dk.shape[2], setting[n].close ? 8 : 2, 8),
                      v16 = make(DT_BF16, dv.shape[0], dv.shape[1], dv.shape[2], 0, 9);
        for (int64_t i = 0; i < tensor_numel(e.q); i++) put(f.q, i, at(e.q, i));
        for (int64_t i = 0; i < tensor_numel(e.k); i++) put(f.k, i, at(e.k, i));
        for (int64_t i = 0; i < tensor_numel(e.v); i++) put(f.v, i, at(e.v, i));
        for (int64_t i = 0; i < tensor_numel(g16); i++) put(dout, i, at(g16, i));
        PLANNED(&dev, attention(&dev, f.out, f.lse, f.q, f.k, f.v, &f.a));
        PLANNED(&dev, attention_bwd(&dev, dq, dk, dv, dout, f.q, f.k, f.v, f.out, f.lse, &f.a));
        PLANNED(&dev, attention(&dev, e.out, e.lse, e.q, e.k, e.v, &e.a));
        PLANNED(&dev, attention_bwd(&dev, q16, k16, v16, g16, e.q, e.k, e.v, e.out, e.lse, &e.a));
        struct tensor pair[3][2] = {{dq, q16}, {dk, k16}, {dv, v16}};
        for (int i = 0; i < 3; i++) {
            double diff = 0, size = 0;
            for (int64_t j = 0; j < tensor_numel(pair[i][0]); j++) {
                diff += pow(at(pair[i][0], j) - at(pair[i][1], j), 2);
                size += pow(at(pair[i][0], j), 2);
            }
            want(sqrt(diff) <= 0.01 * sqrt(size) + 1e-6, "setting %d: bf16 gradient %d is off by %g of %g", n, i, sqrt(diff), sqrt(size));
        }
    }
    dev_close(&dev);
}
END_TEST

static struct tensor rows(struct tensor t, int64_t first, int64_t n)
{
    return tensor_rows(t, first, n);
}
static void same_rows(struct tensor a, struct tensor b, const char *what, int n)
{
    for (int64_t i = 0; i < tensor_numel(a); i++)
        want(at(a, i) == at(b, i), "setting %d %s: %s: element %d: %.9g, %.9g", n, dtype_name(a.dtype), what, (int)i, at(a, i), at(b, i));
}

START_TEST(chunks_company_and_threads_do_not_show)
{
    struct device one, two, three;
    open_isa(&one, _i, 1);
    open_isa(&two, _i, 2);
    open_isa(&three, _i, 3);
    const int skip = isa[_i]->host_memory ? 4 : 16; // an emulated launch takes its time
    for (int n = 0; n < N_SETTING; n++)
        for (int t = _i == sm_80; t < 2; t++) {
            struct data d = data_make(&setting[n], t ? DT_BF16 : DT_F32), e = data_make(&setting[n], t ? DT_BF16 : DT_F32);
            data_starts(&d), data_starts(&e);
            RESERVED(&one, attention(&one, d.out, d.lse, d.q, d.k, d.v, &d.a));
            RESERVED(&three, attention(&three, e.out, e.lse, e.q, e.k, e.v, &e.a));
            same_rows(d.out, e.out, "threads", n);
            for (int s = 0; s < d.a.n_seg; s++)
                for (int chunk = 1; chunk < 1000; chunk = chunk * 5 + 2)
                    for (int q = 0; q < setting[n].q_len[s]; q += chunk * (chunk < 20 ? skip : 1)) {
                        const int len = setting[n].q_len[s] - q < chunk ? setting[n].q_len[s] - q : chunk;
                        const int32_t q_start[2] = {0, len}, k_start[2] = {0, setting[n].k_len[s] - setting[n].q_len[s] + q + len};
                        struct attention a = {1, len, q_start, k_start, d.a.scale, d.a.window};
                        const int64_t at_q = d.q_start[s] + q, at_k = d.k_start[s];
                        RESERVED(&two, attention(&two, rows(e.out, at_q, len), rows(e.lse, at_q, len), rows(d.q, at_q, len),
                                                 rows(d.k, at_k, k_start[1]), rows(d.v, at_k, k_start[1]), &a));
                        same_rows(rows(d.out, at_q, len), rows(e.out, at_q, len), "chunk", n);
                        same_rows(rows(d.lse, at_q, len), rows(e.lse, at_q, len), "chunk's lse", n);
                    }
            if (!isa[_i]->host_memory) continue; // it has no threads of ours
            struct tensor g = make(d.q.dtype, d.out.shape[0], d.out.shape[1], d.out.shape[2], 3, 6), grad[2][3];
            for (int i = 0; i < 2; i++) {
                grad[i][0] = make(d.q.dtype, d.q.shape[0], d.q.shape[1], d.q.shape[2], 1, 7);
                grad[i][1] = make(d.q.dtype, d.k.shape[0], d.k.shape[1], d.k.shape[2], 1, 7);
                grad[i][2] = make(d.q.dtype, d.v.shape[0], d.v.shape[1], d.v.shape[2], 1, 7);
                RESERVED(i ? &three : &one,
                         attention_bwd(i ? &three : &one, grad[i][0], grad[i][1], grad[i][2], g, d.q, d.k, d.v, d.out, d.lse, &d.a));
            }
            for (int i = 0; i < 3; i++) same_rows(grad[0][i], grad[1][i], "gradients on 1 and 3 threads", n);
        }
    dev_close(&one), dev_close(&two), dev_close(&three);
}
END_TEST

// Smaller tiles there, the same sums in the same order.
START_TEST(less_shared_memory_does_not_show)
{
    struct device large, small;
    open_isa(&large, sm_80, 1);
    simt_shared_memory(101376); // an L40's
    open_isa(&small, sm_80, 1);
    for (int n = 0; n < N_SETTING; n++) {
        struct data d[2] = {data_make(&setting[n], DT_BF16), data_make(&setting[n], DT_BF16)};
        struct tensor g = make(DT_BF16, d->out.shape[0], d->out.shape[1], d->out.shape[2], 3, 6), grad[2][3];
        for (int i = 0; i < 2; i++) {
            data_starts(&d[i]);
            grad[i][0] = make(DT_BF16, d->q.shape[0], d->q.shape[1], d->q.shape[2], 1, 7);
            grad[i][1] = make(DT_BF16, d->k.shape[0], d->k.shape[1], d->k.shape[2], 1, 7);
            grad[i][2] = make(DT_BF16, d->v.shape[0], d->v.shape[1], d->v.shape[2], 1, 7);
            simt_shared_memory(i ? 101376 : 232448);
            RESERVED(i ? &small : &large, attention(i ? &small : &large, d[i].out, d[i].lse, d[i].q, d[i].k, d[i].v, &d[i].a));
            RESERVED(i ? &small : &large, attention_bwd(i ? &small : &large, grad[i][0], grad[i][1], grad[i][2], g, d[i].q, d[i].k, d[i].v,
                                                        d[i].out, d[i].lse, &d[i].a));
        }
        same_rows(d[0].out, d[1].out, "less shared memory", n);
        same_rows(d[0].lse, d[1].lse, "less shared memory, lse", n);
        for (int i = 0; i < 3; i++) same_rows(grad[0][i], grad[1][i], "less shared memory, gradients", n);
    }
    dev_close(&large), dev_close(&small);
}
END_TEST

// A paged cache of sequences of the given lengths, its pages in a scattered order; every sequence's last row asks.
START_TEST(paged_is_attention_of_the_last_row)
{
    static const struct {
        int n_head, n_kv, dk, dv, window, page_len;
        bool shared; // values are the first dv columns of keys
    } cache[] = {{4, 2, 16, 16, 0, 16, false},
                 {7, 1, 33, 20, 0, 5, false},
                 {14, 2, 64, 64, 100, 16, false},
                 {5, 1, 72, 64, 0, 16, true},
                 {1, 1, 8, 8, 0, 64, false}};
    const int most = isa[_i]->host_memory ? 2600 : 600, length[] = {1, 17, 128, 129, most / 4, most, 5, 64};
    enum { N = sizeof length / sizeof *length };
    struct device one, four, writer; // writer: where pages are host memory
    device_open(&one, isa[_i]->name, 1);
    device_open(&four, isa[_i]->name, 4);
    device_open(&writer, isa[_i]->host_memory ? isa[_i]->name : "cpu", 4);
    for (size_t n = 0; n < sizeof cache / sizeof *cache; n++)
        for (int types = 0; types < 2; types++) {
            const enum dtype t = types ? DT_BF16 : DT_F32;
            const int len = cache[n].page_len, max_page = most / len + 1, n_page = N * max_page, n_kv = cache[n].n_kv, dk = cache[n].dk,
                      dv = cache[n].dv;
            int32_t *page = NEW_N(int32_t, n_page), start[N + 1], pos[N];
            uint32_t *order = NEW_N(uint32_t, n_page);
            for (int i = 0; i < n_page; i++) order[i] = (uint32_t)i;
            rng_shuffle(1, 2, order, (uint64_t)n_page);
            for (int i = 0; i < n_page; i++) page[i] = (int32_t)order[i];
            for (int i = 0; i < N; i++) start[i] = i, pos[i] = length[i] - 1;
            start[N] = N;
            struct tensor keys = tensor_4d(keep((size_t)(n_page * len * n_kv * dk) * 4), t, n_page, len, n_kv, dk),
                          values =
                              cache[n].shared ? keys : tensor_4d(keep((size_t)(n_page * len * n_kv * dv) * 4), t, n_page, len, n_kv, dv);
            values.shape[3] = dv;
            struct segments seg = {N, N, 1, most, start, pos, page, max_page, len};
            // written sequence by sequence, positions in two goes
            struct data d[N];
            for (int s = 0; s < N; s++) {
                struct setting one_row = {cache[n].n_head, n_kv, dk, dv, cache[n].window, false, 1, {1}, {length[s]}};
                d[s] = data_make(&one_row, t);
                data_starts(&d[s]);
                fill(d[s].k, 20 + (uint64_t)s, 1), fill(d[s].v, 40 + (uint64_t)s, 1), fill(d[s].q, 60 + (uint64_t)s, 1);
                for (int64_t i = 0; cache[n].shared && i < tensor_numel(d[s].v); i++) put(d[s].v, i, at(d[s].k, i / dv * dk + i % dv));
                int32_t *where = NEW_N(int32_t, length[s]);
                for (int i = 0; i < length[s]; i++) where[i] = i;
                for (int half = 0; half < 2; half++) {
                    const int from = half ? length[s] / 2 : 0, to = half ? length[s] : length[s] / 2;
                    const int32_t st[2] = {0, to - from};
                    struct segments w = {1, to - from, to - from, to, st, where + from, page + s * max_page, max_page, len};
                    RESERVED(&writer, op_kv_write(&writer, keys, rows(d[s].k, from, to - from), &w));
                    if (!cache[n].shared) RESERVED(&writer, op_kv_write(&writer, values, rows(d[s].v, from, to - from), &w));
                }
                mem_free(where);
            }
            struct tensor q = make(t, N, cache[n].n_head, dk, 2, 9), out = make(t, N, cache[n].n_head, dv, 1, 10),
                          again = make(t, N, cache[n].n_head, dv, 1, 10);
            for (int s = 0; s < N; s++)
                for (int64_t i = 0; i < tensor_numel(d[s].q); i++) put(rows(q, s, 1), i, at(d[s].q, i));
            const float scale = d[0].a.scale;
            PLANNED(&four, attention_paged(&four, out, q, keys, values, &seg, scale, cache[n].window));
            double *o = NEW_N(double, dv), *size = NEW_N(double, dv), lse;
            for (int s = 0; s < N; s++)
                for (int h = 0; h < cache[n].n_head; h++) {
                    reference(&d[s], 0, 0, h, o, size, &lse);
                    for (int c = 0; c < dv; c++)
                        want(fabs(at(rows(out, s, 1), h * dv + c) - o[c]) <
                                 size[c] * (types ? 1.0 / 200 : 2e-5) + (types ? fabs(o[c]) / 256 : 0) + 1e-7,
                             "cache %d %s: sequence %d head %d [%d]: %g, wanted %g", (int)n, dtype_name(t), s, h, c,
                             at(rows(out, s, 1), h * dv + c), o[c]);
                }
            for (int s = 0; s < N; s++) { // alone, on one thread and on four (which share the long ones out)
                const int32_t st[2] = {0, 1};
                struct segments w = {1, 1, 1, length[s], st, pos + s, page + s * max_page, max_page, len};
                RESERVED(&one, attention_paged(&one, rows(again, s, 1), rows(q, s, 1), keys, values, &w, scale, cache[n].window));
                same_rows(rows(out, s, 1), rows(again, s, 1), "alone on one thread", (int)n);
                RESERVED(&four, attention_paged(&four, rows(again, s, 1), rows(q, s, 1), keys, values, &w, scale, cache[n].window));
                same_rows(rows(out, s, 1), rows(again, s, 1), "alone on four threads", (int)n);
            }
            int32_t k_start[N + 1] = {0};
            for (int s = 0; s < N; s++) k_start[s + 1] = k_start[s] + length[s];
            struct tensor read = make(t, k_start[N], n_kv, dk, 0, 11);
            RESERVED(&writer, op_kv_read(&writer, read, keys, &seg, k_start));
            for (int s = 0; s < N; s++) same_rows(rows(read, k_start[s], length[s]), d[s].k, "read back", (int)n);
            mem_free(o), mem_free(size), mem_free(page), mem_free(order);
        }
    dev_close(&one), dev_close(&four), dev_close(&writer);
}
END_TEST

// Several rows a segment (prefill): the reference's numbers, and each row's bits alone, with splits apart or not.
START_TEST(paged_rows_of_a_chunk_are_rows_alone)
{
    static const struct {
        int n_head, n_kv, dk, dv, window, n_row[2], ahead[2];
        bool shared;
    } chunk[] = {{8, 2, 64, 64, 0, {70, 1}, {200, 520}, false},
                 {3, 1, 24, 8, 60, {9, 30}, {300, 0}, false},
                 {20, 1, 320, 264, 0, {1, 3}, {530, 60}, true},
                 {2, 2, 136, 130, 0, {17, 2}, {255, 3}, false},
                 {2, 1, 280, 520, 0, {3, 1}, {30, 1}, false}};
    enum { PAGE_LEN = 16, MAX_PAGE = 40 };
    struct device dev;
    device_open(&dev, isa[_i]->name, 2);
    for (size_t n = 0; n < sizeof chunk / sizeof *chunk; n++)
        for (int types = 0; types < 2; types++) {
            const enum dtype t = types ? DT_BF16 : DT_F32;
            const int n_kv = chunk[n].n_kv, n_head = chunk[n].n_head, dk = chunk[n].dk, dv = chunk[n].dv;
            const int n_tok = chunk[n].n_row[0] + chunk[n].n_row[1], n_page = 2 * MAX_PAGE;
            int32_t page[2 * MAX_PAGE], pos[128], start[3] = {0, chunk[n].n_row[0], n_tok};
            for (int i = 0; i < n_page; i++) page[i] = i * 37 % n_page; // 37 is prime to it
            struct tensor keys = tensor_4d(keep((size_t)(n_page * PAGE_LEN * n_kv * dk) * 4), t, n_page, PAGE_LEN, n_kv, dk), values = keys;
            if (!chunk[n].shared) values = tensor_4d(keep((size_t)(n_page * PAGE_LEN * n_kv * dv) * 4), t, n_page, PAGE_LEN, n_kv, dv);
            values.shape[3] = dv;
            fill(keys, 1, 1);
            if (!chunk[n].shared) fill(values, 2, 1);
            struct tensor q = make(t, n_tok, n_head, dk, 0, 3), out = make(t, n_tok, n_head, dv, 0, 4),
                          again = make(t, n_tok, n_head, dv, 0, 4);
            int max_pos = 0;
            for (int r = 0; r < n_tok; r++) {
                const int s = r >= start[1];
                pos[r] = chunk[n].ahead[s] + r - start[s];
                max_pos = pos[r] + 1 > max_pos ? pos[r] + 1 : max_pos;
            }
            const int longest = chunk[n].n_row[0] > chunk[n].n_row[1] ? chunk[n].n_row[0] : chunk[n].n_row[1];
            const struct segments seg = {2, n_tok, longest, max_pos, start, pos, page, MAX_PAGE, PAGE_LEN};
            const float scale = 0.7f / sqrtf((float)dk);
            PLANNED(&dev, attention_paged(&dev, out, q, keys, values, &seg, scale, chunk[n].window));
            double *o = NEW_N(double, dv), *size = NEW_N(double, dv), lse;
            for (int r = 0; r < n_tok; r += r % 8 == 3 ? 5 : 1) {
                const int s = r >= start[1], one[2] = {0, 1}, n_key[2] = {0, pos[r] + 1};
                struct data d = {.a = {1, 1, one, n_key, scale, chunk[n].window}, .q_start = {0, 1}, .k_start = {0, pos[r] + 1}};
                d.q = rows(q, r, 1), d.k = make(t, pos[r] + 1, n_kv, dk, 0, 5), d.v = make(t, pos[r] + 1, n_kv, dv, 0, 6);
                for (int j = 0; j <= pos[r]; j++) {
                    const int64_t slot = (int64_t)page[s * MAX_PAGE + j / PAGE_LEN] * PAGE_LEN + j % PAGE_LEN;
                    for (int i = 0; i < n_kv * dk; i++) put(d.k, (int64_t)j * n_kv * dk + i, at(keys, slot * n_kv * dk + i));
                    for (int i = 0; i < n_kv * dv; i++) put(d.v, (int64_t)j * n_kv * dv + i, at(values, slot * n_kv * dv + i));
                }
                for (int h = 0; h < n_head; h++) {
                    reference(&d, 0, 0, h, o, size, &lse);
                    for (int c = 0; c < dv; c++)
                        want(fabs(at(rows(out, r, 1), h * dv + c) - o[c]) <
                                 size[c] * (types ? 1.0 / 200 : 2e-5) + (types ? fabs(o[c]) / 256 : 0) + 1e-7,
                             "chunk %d %s: row %d head %d [%d]: %g, wanted %g", (int)n, dtype_name(t), r, h, c,
                             at(rows(out, r, 1), h * dv + c), o[c]);
                }
                const struct segments alone = {1, 1, 1, pos[r] + 1, one, pos + r, page + s * MAX_PAGE, MAX_PAGE, PAGE_LEN};
                RESERVED(&dev, attention_paged(&dev, rows(again, r, 1), rows(q, r, 1), keys, values, &alone, scale, chunk[n].window));
                same_rows(rows(out, r, 1), rows(again, r, 1), "a row alone", (int)n);
            }
            mem_free(o), mem_free(size);
        }
    dev_close(&dev);
}
END_TEST

Suite *suite_attention(void)
{
    int n = cpu_backend_list(isa);
    struct err err = {0};
    const bool gpu = test_gpu() && !cuda_backend(&isa[n], "cuda", &err);
    n += gpu;
    const int n_with_older = gpu ? n + 1 : n;
    if (gpu) isa[sm_80 = n] = isa[n - 1];
    Suite *s = suite_create("attention");
    TCase *t = tcase_create("attention");
    tcase_add_loop_test(t, forward_is_softmax_of_scores_times_values, 0, n_with_older);
    tcase_add_loop_test(t, backward_is_the_gradient_of_forward, 0, n);
    tcase_add_loop_test(t, chunks_company_and_threads_do_not_show, 0, n_with_older);
    tcase_add_loop_test(t, paged_is_attention_of_the_last_row, 0, n);
    tcase_add_loop_test(t, paged_rows_of_a_chunk_are_rows_alone, 0, n);
    if (gpu) tcase_add_test(t, less_shared_memory_does_not_show);
    suite_add_tcase(s, t);
    return s;
}
