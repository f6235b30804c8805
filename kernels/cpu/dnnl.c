// Products by oneDNN: c (m, n) = [c +] a (m, k) · b (k, n) [+ bias]. The three entries describe their operands as such a product by
// strides. A compiled product ("primitive") is kept by its shapes, strides and types in a table that forgets the longest unused; one engine
// and one stream serve all. The library's scratch memory comes from the arena, so the plan counts it.
//
// bf16 runs as bf16 where the table in use is cpu:avx512bf16, else through f32 in scratch, a slice of c's columns at a time so that a large
// weight is never widened as a whole. The same holds for operands of two types.
#include "kernels/cpu/dnnl.h"

#include "kernels/base/mem.h"
#include "kernels/ops.h"

#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR >= 3 // descriptors became handles
typedef const_dnnl_memory_desc_t md_arg;
#define MD(d) (d)
#define MD_FREE(d) dnnl_memory_desc_destroy(d)
#define md_make(d, dims, t, strides) dnnl_memory_desc_create_with_strides(d, 2, dims, t, strides)
#define append_sum(ops) dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef)
#else
typedef const dnnl_memory_desc_t *md_arg;
#define MD(d) (&(d))
#define MD_FREE(d) ((void)(d))
#define md_make(d, dims, t, strides) dnnl_memory_desc_init_by_strides(d, 2, dims, t, strides)
#define append_sum(ops) dnnl_post_ops_append_sum(ops, 1.0f)
#endif

struct matrix { // any two strides, in elements
    void *data;
    enum dtype dtype;
    int64_t row, col;
};
struct key { // all that a primitive is compiled for; compared as bytes
    int64_t m, n, k, a_row, a_col, b_row, b_col, c_row;
    int64_t type, c_type, bias, accumulate;
};
enum { ARG_A, ARG_B, ARG_C, ARG_BIAS, ARG_SCRATCH, N_ARG };
static const int arg_id[N_ARG] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS, DNNL_ARG_SCRATCHPAD};
struct product {
    struct key key;
    dnnl_primitive_t primitive; // NULL: free slot
    dnnl_memory_t arg[N_ARG];
    size_t scratch_bytes;
    uint64_t used; // the clock of its last use
};
enum { N_PRODUCT = 512, N_WAY = 8 }; // a product lies in one of N_WAY slots after its hash
struct dnnl_cache {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    void *spare; // when a shape the plan never saw wants more scratch than the arena has left
    size_t spare_bytes;
    struct product product[N_PRODUCT];
};

static void product_free(struct product *p)
{
    for (int i = 0; i < N_ARG; i++)
        if (p->arg[i]) dnnl_memory_destroy(p->arg[i]);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    memset(p, 0, sizeof *p);
}

void cpu_dnnl_free(struct cpu_state *s)
{
    struct dnnl_cache *c = s->dnnl;
    if (!c) return;
    for (int i = 0; i < N_PRODUCT; i++) product_free(&c->product[i]);
    if (c->stream) dnnl_stream_destroy(c->stream);
    if (c->engine) dnnl_engine_destroy(c->engine);
    free(c->spare);
    free(c);
    s->dnnl = NULL;
}

// malloc, not mem_alloc: like the library's own memory of a primitive, this may be made at first use inside a step.
static struct dnnl_cache *cache_of(struct device *dev)
{
    struct cpu_state *s = dev->state;
    if (s->dnnl) return s->dnnl;
    struct dnnl_cache *c = calloc(1, sizeof *c);
    if (!c || dnnl_engine_create(&c->engine, dnnl_cpu, 0) || dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags)) {
        if (c && c->engine) dnnl_engine_destroy(c->engine);
        free(c);
        dev_fail(dev, "linear", "oneDNN cannot be started on this machine");
        return NULL;
    }
    s->dnnl = c;
    return c;
}

static dnnl_data_type_t dnnl_type(enum dtype t)
{
    return t == DT_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t product_make(struct dnnl_cache *c, struct product *p)
{
    const struct key *k = &p->key;
    dnnl_memory_desc_t a, b, out, bias;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st;
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&out, 0, sizeof out), memset(&bias, 0, sizeof bias);
    if ((st = md_make(&a, ((dnnl_dims_t){k->m, k->k}), dnnl_type((enum dtype)k->type), ((dnnl_dims_t){k->a_row, k->a_col})))) goto out;
    if ((st = md_make(&b, ((dnnl_dims_t){k->k, k->n}), dnnl_type((enum dtype)k->type), ((dnnl_dims_t){k->b_row, k->b_col})))) goto out;
    if ((st = md_make(&out, ((dnnl_dims_t){k->m, k->n}), dnnl_type((enum dtype)k->c_type), ((dnnl_dims_t){k->c_row, 1})))) goto out;
    if ((st = md_make(&bias, ((dnnl_dims_t){1, k->n}), dnnl_f32, ((dnnl_dims_t){k->n, 1})))) goto out;
    if ((st = dnnl_primitive_attr_create(&attr))) goto out;
    if ((st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user))) goto out;
    if (k->accumulate) {
        if ((st = dnnl_post_ops_create(&ops)) || (st = append_sum(ops))) goto out;
        if ((st = dnnl_primitive_attr_set_post_ops(attr, ops))) goto out;
    }
#if DNNL_VERSION_MAJOR >= 3
    if ((st = dnnl_matmul_primitive_desc_create(&pd, c->engine, a, b, k->bias ? bias : NULL, out, attr))) goto out;
#else
    dnnl_matmul_desc_t desc;
    if ((st = dnnl_matmul_desc_init(&desc, &a, &b, k->bias ? &bias : NULL, &out))) goto out;
    if ((st = dnnl_primitive_desc_create(&pd, &desc, attr, c->engine, NULL))) goto out;
#endif
    if ((st = dnnl_primitive_create(&p->primitive, pd))) goto out;
    md_arg scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    md_arg md[N_ARG] = {MD(a), MD(b), MD(out), k->bias ? MD(bias) : NULL, p->scratch_bytes ? scratch : NULL};
    for (int i = 0; i < N_ARG && !st; i++)
        if (md[i]) st = dnnl_memory_create(&p->arg[i], md[i], c->engine, DNNL_MEMORY_NONE);
out:
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    MD_FREE(a), MD_FREE(b), MD_FREE(out), MD_FREE(bias);
    return st;
}

static struct product *product_find(struct device *dev, const char *op, const struct key *key)
{
    struct dnnl_cache *c = cache_of(dev);
    if (!c) return NULL;
    uint64_t hash = 14695981039346656037u; // FNV-1a by words
    for (size_t i = 0; i < sizeof *key / 8; i++) hash = (hash ^ ((const uint64_t *)key)[i]) * 1099511628211u;
    hash ^= hash >> 32;
    struct product *oldest = NULL;
    for (unsigned i = 0; i < N_WAY; i++) {
        struct product *p = &c->product[(hash + i) % N_PRODUCT];
        if (p->primitive && !memcmp(&p->key, key, sizeof *key)) {
            p->used = ++c->clock;
            return p;
        }
        if (!oldest || p->used < oldest->used) oldest = p;
    }
    product_free(oldest);
    oldest->key = *key;
    dnnl_status_t st = product_make(c, oldest);
    if (st) {
        product_free(oldest);
        dev_fail(dev, op, "oneDNN has no product (%lld, %lld) = (%lld, %lld) · (%lld, %lld) in %s%s: its status %d", (long long)key->m,
                 (long long)key->n, (long long)key->m, (long long)key->k, (long long)key->k, (long long)key->n,
                 dtype_name((enum dtype)key->type), key->accumulate ? ", accumulated" : "", (int)st);
        return NULL;
    }
    oldest->used = ++c->clock;
    return oldest;
}

static void *scratch_of(struct device *dev, const char *op, size_t size_bytes)
{
    if (!size_bytes) return NULL;
    if (dev->measuring || dev->arena.size - dev->arena.used >= size_bytes + ARENA_ALIGN) return dev_scratch(dev, size_bytes);
    struct dnnl_cache *c = cache_of(dev);
    if (c->spare_bytes < size_bytes) {
        free(c->spare);
        c->spare = aligned_alloc(ARENA_ALIGN, (size_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN);
        c->spare_bytes = c->spare ? size_bytes : 0;
        if (!c->spare) dev_fail(dev, op, "no %zu bytes for oneDNN's scratch memory", size_bytes);
    }
    return c->spare;
}

// Operands of one type, as they are.
static void product_run(struct device *dev, const char *op, int64_t m, int64_t n, int64_t k, struct matrix a, struct matrix b,
                        struct matrix c, const float *bias, bool accumulate)
{
    const struct key key = {m, n, k, a.row, a.col, b.row, b.col, c.row, a.dtype, c.dtype, bias != NULL, accumulate};
    const int team = omp_get_max_threads(); // the library compiles for, and runs on, as many threads as OpenMP would use
    if (team != dev->n_thread) omp_set_num_threads(dev->n_thread);
    const struct product *p = product_find(dev, op, &key);
    if (!p) goto out;
    const size_t mark = dev_mark(dev);
    void *data[N_ARG] = {a.data, b.data, c.data, (void *)bias, scratch_of(dev, op, p->scratch_bytes)};
    if (!dev->measuring && !dev->error.code) {
        dnnl_exec_arg_t arg[N_ARG];
        int n_arg = 0;
        dnnl_status_t st = dnnl_success;
        for (int i = 0; i < N_ARG && !st; i++) {
            if (!p->arg[i]) continue;
            st = dnnl_memory_set_data_handle(p->arg[i], data[i]);
            arg[n_arg++] = (dnnl_exec_arg_t){arg_id[i], p->arg[i]};
        }
        struct dnnl_cache *cache = cache_of(dev);
        if (!st) st = dnnl_primitive_execute(p->primitive, cache->stream, n_arg, arg);
        if (!st) st = dnnl_stream_wait(cache->stream);
        if (st)
            dev_fail(dev, op, "oneDNN's product (%lld, %lld) = (%lld, %lld) · (%lld, %lld) failed with its status %d", (long long)m,
                     (long long)n, (long long)m, (long long)k, (long long)k, (long long)n, (int)st);
    }
    dev_release(dev, mark);
out:
    if (team != dev->n_thread) omp_set_num_threads(team);
}

// (rows, cols) of src as contiguous f32, its columns kept the fast ones if they were.
static struct matrix widen(struct device *dev, struct matrix src, int64_t rows, int64_t cols)
{
    const bool by_row = src.col == 1 || src.row != 1;
    struct tensor from = {.data = src.data, .dtype = src.dtype, .rank = 2, .shape = {rows, cols}, .stride = {src.row, src.col}};
    if (!by_row) from.shape[0] = cols, from.shape[1] = rows, from.stride[0] = src.col, from.stride[1] = src.row;
    struct tensor to = dev_2d(dev, DT_F32, from.shape[0], from.shape[1]);
    if (!dev->measuring) dev->backend->copy(dev, to, from);
    return (struct matrix){to.data, DT_F32, by_row ? cols : 1, by_row ? 1 : rows};
}

static bool native_bf16(const struct device *dev)
{
    return strstr(dev->backend->name, "bf16") != NULL;
}

static void product(struct device *dev, const char *op, int64_t m, int64_t n, int64_t k, struct matrix a, struct matrix b, struct matrix c,
                    const float *bias, bool accumulate)
{
    const bool f32 = a.dtype == DT_F32 && b.dtype == DT_F32, bf16_ok = native_bf16(dev) && a.dtype == DT_BF16 && b.dtype == DT_BF16;
    if ((f32 && c.dtype == DT_F32) || bf16_ok) {
        product_run(dev, op, m, n, k, a, b, c, bias, accumulate);
        return;
    }
    if (a.dtype != DT_F32) a = widen(dev, a, m, k);
    int64_t slice = (4 << 20) / (k + (c.dtype != DT_F32 ? m : 0)); // columns: 16 MB of f32
    if (slice < 64) slice = 64;
    for (int64_t at = 0; at < n; at += slice) {
        const int64_t cols = n - at < slice ? n - at : slice;
        const size_t mark = dev_mark(dev);
        struct matrix bs = b, cs = c;
        bs.data = (char *)b.data + (size_t)(at * b.col) * dtype_size(b.dtype);
        cs.data = (char *)c.data + (size_t)at * dtype_size(c.dtype);
        if (b.dtype != DT_F32) bs = widen(dev, bs, k, cols);
        struct tensor out = {.data = cs.data, .dtype = c.dtype, .rank = 2, .shape = {m, cols}, .stride = {c.row, 1}}, sum = out;
        if (c.dtype != DT_F32) {
            sum = dev_2d(dev, DT_F32, m, cols);
            cs = (struct matrix){sum.data, DT_F32, cols, 1};
            if (accumulate && !dev->measuring) dev->backend->copy(dev, sum, out);
        }
        product_run(dev, op, m, cols, k, a, bs, cs, bias ? bias + at : NULL, accumulate);
        if (c.dtype != DT_F32 && !dev->measuring) dev->backend->copy(dev, out, sum);
        dev_release(dev, mark);
    }
}

static struct matrix rows_of(struct tensor t)
{
    return (struct matrix){t.data, t.dtype, t.stride[0], 1};
}
static struct matrix transposed(struct matrix t)
{
    return (struct matrix){t.data, t.dtype, t.col, t.row};
}

void cpu_dnnl_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    product(dev, "linear", x.shape[0], w.shape[0], x.shape[1], rows_of(x), transposed(rows_of(w)), rows_of(out), bias.data, false);
}

void cpu_dnnl_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate)
{
    product(dev, "linear_bwd_x", dout.shape[0], w.shape[1], dout.shape[1], rows_of(dout), rows_of(w), rows_of(dx), NULL, accumulate);
}

void cpu_dnnl_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x)
{
    product(dev, "linear_bwd_w", dout.shape[1], x.shape[1], dout.shape[0], transposed(rows_of(dout)), rows_of(x), rows_of(dw), NULL, true);
}
