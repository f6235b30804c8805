// Products with packed weights (panel.h), for generation: a row's result is the same bits whatever rows share the call, wherever it
// stands among them, on any number of threads (tile.h says why). Weights in plain rows go to oneDNN.
//
// bf16 x against bf16 w runs on vdpbf16ps where the CPU has it; every other pair of types multiplies in f32, x widened through scratch,
// w widened in registers. FP8 is bf16 here: e4m3 values are exact in it, and so are their products in f32.
#include "kernels/cpu/dnnl.h"
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/pack.h"
#include "kernels/cpu/isa/tile.h"

#ifdef TILE_DP
enum { HAVE_DP = 1 };
#else
enum { HAVE_DP = 0 };
#endif

// One product out (m, n) = x (m, k) · wᵀ + bias, x as the tiles want it.
struct prod {
    int64_t m, n, k;
    const char *x;
    int64_t x_row; // bytes
    bool x_bf16;   // pairs for vdpbf16ps
    const char *w;
    enum dtype w_type;
    const float *bias; // may be NULL
    char *out;
    int64_t out_row; // elements
    bool out_bf16;
    const float *x_scale, *w_scale; // FP8: of x's rows and of w's blocks, n_block of FP8_BLOCK along k; else NULL
    int64_t n_block;
};

size_t ISA_NAME(pack_bytes)(const struct device *dev, enum dtype t, int64_t n, int64_t k)
{
    (void)dev;
    return (size_t)(panel_count(n) * panel_words(t, k)) * 4;
}

void ISA_NAME(pack)(struct device *dev, struct tensor out, struct tensor w, struct tensor nonfinite)
{
    const int64_t n = w.shape[0], k = w.shape[1], n_panel = panel_count(n);
    int32_t *count = nonfinite.data;
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)(n * k)))
    for (int64_t p = 0; p < n_panel; p++) {
        if (!pack_panel(out.data, out.dtype, w.data, w.dtype, w.stride[0], n, k, p) || !count) continue;
        int64_t bad = 0;
        for (int64_t row = p * PANEL_N; row < n && row < (p + 1) * PANEL_N; row++)
            bad += nonfinite_values((const char *)w.data + row * w.stride[0] * (int64_t)dtype_size(w.dtype), w.dtype, k);
        __atomic_fetch_add(count, (int32_t)bad, __ATOMIC_RELAXED);
    }
}

// Rows as the tiles want them: bf16 pairs where both sides are bf16 and the CPU multiplies those, else f32. Takes scratch when they have
// to be rewritten: (m, k) with an outer stride and, for head_linear, a head's. The result is then contiguous, its rows padded to whole
// pairs.
static struct tensor x_ready(struct device *dev, struct tensor x, enum dtype w_type)
{
    const bool dp = HAVE_DP && x.dtype == DT_BF16 && w_type == DT_BF16;
    const int64_t k = x.shape[x.rank - 1], k_pad = (k + 1) / 2 * 2;
    if (dp ? k == k_pad : x.dtype == DT_F32) return x;
    const enum dtype t = dp ? DT_BF16 : DT_F32;
    const int64_t h = x.rank == 3 ? x.shape[1] : 1, m = x.shape[0];
    struct tensor y = x.rank == 3 ? dev_3d(dev, t, m, h, k_pad) : dev_2d(dev, t, m, k_pad);
    y.shape[x.rank - 1] = k;
    if (dev->measuring) return y;
    const int64_t row = x.stride[0], head = x.rank == 3 ? x.stride[1] : 0;
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)(m * h * k) * 0.1))
    for (int64_t i = 0; i < m * h; i++) {
        const bf16 *from = (const bf16 *)x.data + i / h * row + i % h * head;
        if (dp) {
            bf16 *to = (bf16 *)y.data + i * k_pad;
            memcpy(to, from, (size_t)k * 2);
            to[k] = 0; // the pair's other half; its weight is 0, but 0 * NaN would not be
        } else {
            float *to = (float *)y.data + i * k_pad;
            int64_t j = 0;
            for (; j + VL <= k; j += VL) vf_store(to + j, vf_load_bf16(from + j));
            if (j < k) vf_store_n(to + j, vf_load_bf16_n(from + j, (int)(k - j)), (int)(k - j));
        }
    }
    return y;
}

// Rows of x in FP8: e4m3 values as the tiles want them, and the scales f32 (m, blocks). Both are scratch.
static struct tensor x_fp8(struct device *dev, struct tensor x, bool ue8m0, struct tensor *scale)
{
    const int64_t m = x.shape[0], k = x.shape[1], k_pad = (k + 1) / 2 * 2, n_block = (k + FP8_BLOCK - 1) / FP8_BLOCK;
    struct tensor y = dev_2d(dev, HAVE_DP ? DT_BF16 : DT_F32, m, k_pad);
    *scale = dev_2d(dev, DT_F32, m, n_block);
    y.shape[1] = k;
    if (dev->measuring) return y;
    CPU_FOR(dev, (double)(m * k) * 0.5, i, m * n_block, {
        const int64_t row = i / n_block, at = i % n_block * FP8_BLOCK, n = k - at < FP8_BLOCK ? k - at : FP8_BLOCK;
        const int64_t from = row * x.stride[0] + at, to = row * k_pad + at;
        float v[FP8_BLOCK + VL];
        memset(v, 0, sizeof v);
        float amax = 0;
        for (int64_t j = 0; j < n; j++) {
            v[j] = x.dtype == DT_BF16 ? bf16_to_f32(((const bf16 *)x.data)[from + j]) : ((const float *)x.data)[from + j];
            amax = fabsf(v[j]) > amax ? fabsf(v[j]) : amax;
        }
        const float s = fp8_scale(amax, ue8m0);
        ((float *)scale->data)[i] = s;
        for (int64_t j = 0; j < FP8_BLOCK; j++) v[j] = f32_round_e4m3(v[j] / s);
        for (int64_t j = 0; j < (HAVE_DP ? (n + 1) / 2 * 2 : n); j++) { // the odd end's other half: 0, as its weight
            if (HAVE_DP)
                ((bf16 *)y.data)[to + j] = f32_to_bf16(v[j]);
            else
                ((float *)y.data)[to + j] = v[j];
        }
    });
    return y;
}

static void tile_run(const struct prod *p, struct tile *t, int rows, bool wide)
{
#ifdef TILE_DP
    if (p->x_bf16) {
        (wide ? tile_hh_wide : tile_hh)(t, rows);
        return;
    }
#endif
    if (p->w_type == DT_BF16)
        (wide ? tile_fh_wide : tile_fh)(t, rows);
    else
        (wide ? tile_ff_wide : tile_ff)(t, rows);
}

// From a tile's sums to out: bias, rounding, the ragged edge.
static void tile_store(const struct prod *p, const float *c, int64_t row, int64_t rows, int64_t col, int64_t width)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width && col + j < p->n; j += VL) {
            const int n = p->n - col - j < VL ? (int)(p->n - col - j) : VL;
            vf a = vf_load(c + r * 2 * PANEL_N + j);
            const int64_t at = (row + r) * p->out_row + col + j;
            if (n == VL) {
                if (p->bias) a = a + vf_load(p->bias + col + j);
                vf_store_any(p->out, p->out_bf16, at, a);
            } else {
                if (p->bias) a = a + vf_load_n(p->bias + col + j, n);
                vf_store_any_n(p->out, p->out_bf16, at, a, n);
            }
        }
}

// A tile in FP8: block after block of k, each sum times its two scales added to c.
static void tile_fp8(const struct prod *p, const struct tile *whole, int64_t row, int64_t rows, int64_t col, bool wide)
{
    _Alignas(64) float part[TILE_M * 2 * PANEL_N];
    const float *w_scale = p->w_scale + col / FP8_BLOCK * p->n_block, *x_scale = p->x_scale + row * p->n_block;
    for (int64_t b = 0; b < p->n_block; b++) {
        const int64_t at = b * FP8_BLOCK, k = p->k - at < FP8_BLOCK ? p->k - at : FP8_BLOCK;
        struct tile t = *whole;
        t.k = p->x_bf16 ? (k + 1) / 2 : k;
        t.x = (const char *)t.x + at * (p->x_bf16 ? 2 : 4);
        t.w = (const char *)t.w + at * PANEL_N * 2;
        t.w2 = (const char *)t.w2 + at * PANEL_N * 2;
        t.c = part;
        t.ldc = 2 * PANEL_N;
        tile_run(p, &t, (int)rows, wide);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < (wide ? 2 : 1) * PANEL_N; j += VL) {
                float *c = whole->c + r * whole->ldc + j;
                const vf scaled = vf_load(part + r * 2 * PANEL_N + j) * vf_set1(x_scale[r * p->n_block + b]);
                vf_store(c, vf_fma(scaled, vf_set1(w_scale[b]), b ? vf_load(c) : vf_zero()));
            }
    }
}

// Up to TILE_M rows at once, and two panels at once when the rows are few: more sums in flight, x read half as often.
static int64_t block_rows(int64_t m)
{
    return (m + (m + TILE_M - 1) / TILE_M - 1) / ((m + TILE_M - 1) / TILE_M);
}
static int64_t block_panels(int64_t m)
{
    return m <= TILE_M / 2 ? 2 : 1;
}
static int64_t prod_items(const struct prod *p)
{
    const int64_t r = block_rows(p->m), w = block_panels(p->m);
    return (p->m + r - 1) / r * ((panel_count(p->n) + w - 1) / w);
}

// Items [begin, end): tiles, column block after column block, so that a panel is read once from memory.
static void prod_run(const struct prod *p, int64_t begin, int64_t end)
{
    const int64_t each = block_rows(p->m), n_row = (p->m + each - 1) / each, width = block_panels(p->m) * PANEL_N;
    const int64_t words = panel_words(p->w_type, p->k);
    _Alignas(64) float buf[TILE_M * 2 * PANEL_N];
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = i % n_row * each, rows = row + each < p->m ? each : p->m - row, col = i / n_row * width;
        const bool wide = width > PANEL_N && col + PANEL_N < p->n;
        const bool direct = !p->bias && !p->out_bf16 && col + (wide ? 2 : 1) * PANEL_N <= p->n;
        struct tile t = {
            .k = p->x_bf16 ? (p->k + 1) / 2 : p->k,
            .x = p->x + row * p->x_row,
            .x_row = p->x_row,
            .x_k = 4,
            .w = p->w + col / PANEL_N * words * 4,
            .ldw = PANEL_N,
            .c = direct ? (float *)p->out + row * p->out_row + col : buf,
            .ldc = direct ? p->out_row : 2 * PANEL_N,
        };
        t.w2 = (const char *)t.w + (wide ? words * 4 : 0);
        if (p->w_scale)
            tile_fp8(p, &t, row, rows, col, wide);
        else
            tile_run(p, &t, (int)rows, wide);
        if (!direct) tile_store(p, buf, row, rows, col, wide ? 2 * PANEL_N : PANEL_N);
    }
}

// Nanoseconds on one thread, roughly: the arithmetic or the reading of the weights, whichever is longer.
static double prod_ns(int64_t m, int64_t n, int64_t k, enum dtype w_type)
{
    const double gops = VL * (HAVE_DP && w_type == DT_BF16 ? 12 : 6), nk = (double)n * (double)k;
    const double read = nk * (double)dtype_size(w_type) / 15, sum = 2 * (double)m * nk / gops;
    return read > sum ? read : sum;
}

static struct prod prod_of(struct tensor out, struct tensor x, enum dtype w_type, int64_t n)
{
    return (struct prod){
        .m = x.shape[0],
        .n = n,
        .k = x.shape[x.rank - 1],
        .x = x.data,
        .x_row = x.stride[0] * (int64_t)dtype_size(x.dtype),
        .x_bf16 = x.dtype == DT_BF16,
        .w_type = w_type,
        .out = out.data,
        .out_row = out.stride[0],
        .out_bf16 = out.dtype == DT_BF16,
    };
}

static void prod_all(struct device *dev, const struct prod *p)
{
    const int64_t n_item = prod_items(p);
    const int team = cpu_team(dev, prod_ns(p->m, p->n, p->k, p->w_type));
    if (team == 1) {
        prod_run(p, 0, n_item);
        return;
    }
#pragma omp parallel num_threads(team)
    {
        int64_t begin, end;
        cpu_slice(n_item, &begin, &end);
        prod_run(p, begin, end);
    }
}

void ISA_NAME(linear)(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    if (w.layout == LAYOUT_ROWS) {
        cpu_dnnl_linear(dev, out, x, w, bias);
        return;
    }
    x = x_ready(dev, x, w.dtype);
    if (dev->measuring) return;
    struct prod p = prod_of(out, x, w.dtype, w.shape[0]);
    p.w = w.data;
    p.bias = bias.data;
    prod_all(dev, &p);
}

void ISA_NAME(fp8_linear)(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale,
                          struct tensor bias, bool ue8m0)
{
    struct tensor x_scale;
    x = x_fp8(dev, x, ue8m0, &x_scale);
    if (dev->measuring) return;
    struct prod p = prod_of(out, x, w.dtype, w.shape[0]);
    p.w = w.data;
    p.bias = bias.data;
    p.x_scale = x_scale.data;
    p.w_scale = w_scale.data;
    p.n_block = x_scale.shape[1];
    prod_all(dev, &p);
}

void ISA_NAME(head_linear)(struct device *dev, struct tensor out, struct tensor x, struct tensor w)
{
    const int64_t h = x.shape[1], n = w.shape[1], k = w.shape[2], m = x.shape[0];
    const int64_t n_panel = panel_count(n), w_bytes = (int64_t)ISA_NAME(pack_bytes)(dev, w.dtype, n, k);
    x = x_ready(dev, x, w.dtype);
    const char *panels = w.data;
    char *packed = NULL;
    if (w.layout == LAYOUT_ROWS) panels = packed = dev_scratch(dev, (size_t)(h * w_bytes));
    if (dev->measuring) return;
    if (packed) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)(h * n * k)))
        for (int64_t i = 0; i < h * n_panel; i++)
            pack_panel(packed + i / n_panel * w_bytes, w.dtype,
                       (const char *)w.data + (size_t)(i / n_panel * w.stride[0]) * dtype_size(w.dtype), w.dtype, w.stride[1], n, k,
                       i % n_panel);
    }
    const struct prod all = prod_of(out, x, w.dtype, n);
    const int64_t each = prod_items(&all), x_head = x.stride[1] * (int64_t)dtype_size(x.dtype),
                  out_head = out.stride[1] * (int64_t)dtype_size(out.dtype);
#pragma omp parallel num_threads(cpu_team(dev, prod_ns(m, n *h, k, w.dtype)))
    {
        int64_t begin, end;
        cpu_slice(h * each, &begin, &end);
        while (begin < end) {
            const int64_t i = begin / each, from = begin % each, n_item = end - begin < each - from ? end - begin : each - from;
            struct prod p = all;
            p.x += i * x_head;
            p.out += i * out_head;
            p.w = panels + i * w_bytes;
            prod_run(&p, from, from + n_item);
            begin += n_item;
        }
    }
}

void ISA_NAME(grouped_linear)(struct device *dev, struct tensor out, struct tensor x, const struct expert_weights *w, struct tensor first_)
{
    struct tensor x_scale = TENSOR_NONE;
    x = w->scale ? x_fp8(dev, x, w->ue8m0, &x_scale) : x_ready(dev, x, w->dtype);
    if (dev->measuring) return;
    const int32_t *first = first_.data;
    int n_active = 0;
    for (int e = 0; e < w->n_expert; e++) {
        if (first[e + 1] == first[e]) continue;
        n_active++;
        if (w->slot[e]) continue;
        dev_fail(dev, "grouped_linear", "expert %d has %d rows but no weights on this device", e, first[e + 1] - first[e]);
        return;
    }
    const struct prod all = prod_of(out, x, w->dtype, w->n);
    // A team shares the pieces of every expert: enough of them to keep it busy to the end, long enough to read forward.
    const int team = cpu_team(dev, prod_ns(x.shape[0], w->n, w->k, w->dtype) + n_active * (double)(w->n * w->k) * 0.1);
    const int64_t n_part = team == 1 ? 1 : (4 * team + n_active - 1) / (n_active ? n_active : 1);
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(team)
    for (int e = 0; e < w->n_expert; e++)
        for (int64_t part = 0; part < n_part; part++) {
            if (first[e + 1] == first[e]) continue;
            struct prod p = all;
            p.m = first[e + 1] - first[e];
            p.x += first[e] * p.x_row;
            p.out += (size_t)(first[e] * p.out_row) * (p.out_bf16 ? 2 : 4);
            p.w = w->slot[e];
            if (w->scale) {
                p.n_block = x_scale.shape[1];
                p.x_scale = (const float *)x_scale.data + first[e] * p.n_block;
                p.w_scale = w->scale[e];
            }
            const int64_t n_item = prod_items(&p);
            prod_run(&p, n_item * part / n_part, n_item * (part + 1) / n_part);
        }
}
