// Decode and prefill of a model as the engine runs them (MODEL_GENERATE, a paged cache 512 deep), against what must be done at least:
//
//   decode   bytes of the weights in use and of the cache / memory reads measured (a GPU: a copy), or FLOPs / the library's products if
//   that
//            takes longer
//   prefill  FLOPs / the library's products
//
// ours / ceiling is the share of that limit which is reached.
#include "kernels/layers/layer.h"
#include "tests/bench/bench.h"

enum { DEPTH = 512, PAGE = 32, CHUNK = 256, MAX_SEQ = 64 };

struct work { // of one forward over some rows
    double bytes, flops;
};

struct generator {
    struct slice s;
    struct kv_cache kv;
    int32_t *ints, *ids, *pos, *start, *k_start, *page; // ints: all of them, which go to the device at once
    int64_t n_int;
    int max_page;
    int64_t n_active; // experts with rows in the last forward, over all layers
    bool count;
};

static void count_experts(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight)
{
    (void)layer, (void)out, (void)weight;
    struct generator *g = arg;
    if (tensor_none(expert) || g->s.dev.measuring) return;
    bool seen[1024] = {false};
    const int64_t n = tensor_numel(expert);
    int32_t *chosen = NEW_N(int32_t, n);
    op_download(&g->s.dev, chosen, expert);
    for (int64_t i = 0; i < n && !g->s.dev.error.code; i++) seen[chosen[i]] = true;
    mem_free(chosen);
    for (int i = 0; i < 1024; i++) g->n_active += seen[i];
}

// n rows of each of n_seg sequences from position `from`; logits and a drawn token for each sequence's last row.
static void forward(struct generator *g, enum run_mode mode, int n_seg, int n, int from)
{
    struct device *dev = &g->s.dev;
    struct model *m = g->s.model;
    const int n_tok = n_seg * n;
    for (int i = 0; i <= n_seg; i++) g->start[i] = i * n, g->k_start[i] = i * (from + n);
    for (int i = 0; i < n_tok; i++) {
        g->pos[i] = from + i % n;
        g->ids[i] = (int32_t)(rng_uniform(5, (uint64_t)from, (uint64_t)i) * (double)m->config.n_vocab);
    }
    const size_t mark = dev_mark(dev);
    struct tensor ints = dev_1d(dev, DT_I32, g->n_int);
    op_upload(dev, ints, g->ints);
    const int32_t *at = ints.data;
    struct segments seg = {.n_seg = n_seg,
                           .n_tok = n_tok,
                           .max_len = n,
                           .max_pos = from + n,
                           .start = at + (g->start - g->ints),
                           .pos = at + (g->pos - g->ints),
                           .page = at + (g->page - g->ints),
                           .max_page = g->max_page,
                           .page_len = PAGE};
    struct run run = {.dev = dev, .mode = mode, .seg = &seg, .kv = &g->kv};
    if (mode == RUN_PREFILL) run.k_start = at + (g->k_start - g->ints), run.n_key = n_seg * (from + n);
    if (g->count) run.on_layer = count_experts, run.on_layer_arg = g;
    struct tensor hidden = dev_2d(dev, m->dtype, n_tok, m->config.d_model), ids = tensor_rows(ints, 0, n_tok);
    // Decode repeats itself, as in the engine; while experts are counted the host looks in between.
    const struct {
        const void *model, *hidden, *ints;
        int64_t n_tok;
    } key = {m, hidden.data, ints.data, n_tok};
    const bool repeats = mode == RUN_DECODE && !g->count;
    if (!repeats || !dev_step_begin(dev, &key, sizeof key)) model_forward(m, &run, hidden, ids);
    if (repeats) dev_step_end(dev);
    struct tensor logits = dev_2d(dev, DT_F32, n_seg, m->config.n_vocab), token = dev_1d(dev, DT_I32, n_seg);
    model_logits(m, dev, logits, tensor_rows(hidden, mode == RUN_DECODE ? 0 : n_tok - 1, n_seg));
    struct sample_row sample[MAX_SEQ];
    for (int i = 0; i < n_seg; i++)
        sample[i] = (struct sample_row){.temperature = 1, .top_p = 1, .seed = 1, .stream = (uint64_t)i, .counter = 1};
    struct tensor settings = dev_1d(dev, DT_U8, (int64_t)sizeof *sample * n_seg);
    op_upload(dev, settings, sample);
    op_sample(dev, token, logits, (int)m->config.n_vocab, settings.data);
    dev_release(dev, mark);
}

static void prompt(struct generator *g) // 512 tokens in the engine's chunks
{
    for (int at = 0; at < DEPTH; at += CHUNK) forward(g, RUN_PREFILL, 1, CHUNK, at);
}

static void generator_open(struct generator *g, const char *json, enum dtype dtype, int max_seq)
{
    struct err err = {0};
    *g = (struct generator){.max_page = DEPTH / PAGE};
    slice_open(&g->s, json, NULL, MODEL_GENERATE, dtype);
    struct device *dev = &g->s.dev;
    const int n_page = max_seq * g->max_page;
    must(kv_open(&g->kv, g->s.model, n_page, PAGE, &err), &err);
    for (int64_t i = 0; i < g->s.model->config.n_layer; i++) {
        fill_random(dev, g->kv.keys[i]);
        if (!g->s.model->config.mla) fill_random(dev, g->kv.values[i]);
    }
    g->n_int = 4 * (DEPTH + 1) + n_page;
    g->ints = NEW_N(int32_t, g->n_int);
    g->ids = g->ints, g->pos = g->ids + DEPTH + 1, g->start = g->pos + DEPTH + 1, g->k_start = g->start + DEPTH + 1;
    g->page = g->k_start + DEPTH + 1;
    for (int i = 0; i < n_page; i++) g->page[i] = n_page - 1 - i;
    dev_measure(dev);
    prompt(g);
    size_t peak = dev->arena.peak;
    dev_measure(dev);
    forward(g, RUN_DECODE, max_seq, 1, DEPTH - 1);
    if (dev->arena.peak > peak) peak = dev->arena.peak;
    must(dev_check(dev, &err), &err);
    must(dev_reserve(dev, peak, &err), &err);
}

static void generator_close(struct generator *g)
{
    kv_close(&g->kv);
    mem_free(g->ints);
    slice_close(&g->s);
}

// What a forward over n rows of each of n_seg sequences, n_key key-query pairs in all and n_logits rows of logits must read and multiply.
static struct work work_of(const struct generator *g, int n_tok, double n_pair, int n_logits, double n_active)
{
    const struct model *m = g->s.model;
    const struct model_config *c = &m->config;
    const double size = (double)dtype_size(m->dtype);
    double dense = 0, expert = 0, head = (double)c->n_vocab * (double)c->d_model;
    for (size_t i = 0; i < m->n_param; i++) {
        const struct param *p = &m->params[i];
        const double n = (double)(p->shape[0] * (p->rank == 2 ? p->shape[1] : 1));
        if (p == m->embed || p == m->head || p->rank == 1) continue; // rows of the embedding in use, and vectors, are next to nothing
        if (strstr(p->name, ".experts."))
            expert = n; // one of an expert's three, all alike
        else
            dense += n;
    }
    double n_moe = 0;
    for (int64_t i = 0; i < c->n_layer; i++) n_moe += c->moe_layer && c->moe_layer[i];
    const double d_qk = c->mla ? (double)(c->d_nope + c->d_rope) : (double)c->d_head, d_v = c->mla ? (double)c->d_v : (double)c->d_head;
    struct work w;
    w.flops = 2 * (n_tok * (dense + 3 * expert * n_moe * c->router.top_k) + n_logits * head);
    w.flops += 2 * n_pair * (d_qk + d_v) * (double)(c->n_head * c->n_layer);
    w.bytes = size * (dense + 3 * expert * n_active + (n_logits ? head : 0)) + n_pair * (double)kv_bytes_per_page(m, 1);
    return w;
}

enum { MAX_REP = 64 };
static int repeats(int n)
{
    return bench_small ? 1 : n;
}

static void decode(struct generator *g, const char *name, int n_seq)
{
    const enum dtype t = g->s.model->dtype;
    double mine[MAX_REP], best[MAX_REP], share[MAX_REP], read[MAX_REP], gemm[MAX_REP];
    g->count = true, g->n_active = 0;
    forward(g, RUN_DECODE, n_seq, 1, DEPTH - 1);
    g->count = false;
    const struct work w = work_of(g, n_seq, (double)n_seq * DEPTH, n_seq, (double)g->n_active);
    int n_rep = repeats(20), by_read = 0;
    for (int i = bench_small ? 0 : -1; i < n_rep; i++) {
        const int k = i < 0 ? 0 : i;
        read[k] = ceiling_bytes();
        const int n_call = on_gpu() && !bench_small ? 8 : 2;
        double s = device_now_s(&g->s.dev);
        for (int j = 0; j < n_call; j++) forward(g, RUN_DECODE, n_seq, 1, DEPTH - 1);
        mine[k] = (device_now_s(&g->s.dev) - s) / n_call;
        gemm[k] = ceiling_gemm(t);
        const double by_mem = w.bytes / read[k], by_flops = w.flops / gemm[k];
        best[k] = by_mem > by_flops ? by_mem : by_flops;
        share[k] = best[k] / mine[k];
        if (i >= 0) by_read += by_mem > by_flops;
    }
    const double s = median(mine, n_rep), b = median(best, n_rep);
    const char *limit = by_read * 2 > n_rep ? text("%.0f MB at %s", w.bytes / 1e6, bytes_text(median(read, n_rep)))
                                            : text("%.1f GFLOP at %s", w.flops / 1e9, flops_text(median(gemm, n_rep)));
    row(text("decode, %s, batch %d, %s", name, n_seq, dtype_name(t)), text("%.0f tokens/s", n_seq / s),
        text("%.0f tokens/s (%s)", n_seq / b, limit), median(share, n_rep));
}

static void prefill(struct generator *g, const char *name)
{
    const enum dtype t = g->s.model->dtype;
    double mine[MAX_REP], best[MAX_REP], share[MAX_REP], gemm[MAX_REP];
    struct work w = work_of(g, DEPTH, 0.5 * DEPTH * (DEPTH + 1), 1, 0);
    int n_rep = repeats(9);
    for (int i = -1; i < n_rep; i++) {
        const int k = i < 0 ? 0 : i;
        gemm[k] = ceiling_gemm(t);
        double s = device_now_s(&g->s.dev);
        prompt(g);
        mine[k] = device_now_s(&g->s.dev) - s;
        gemm[k] = 2 / (1 / gemm[k] + 1 / ceiling_gemm(t));
        best[k] = w.flops / gemm[k];
        share[k] = best[k] / mine[k];
    }
    row(text("prefill of %d, %s, %s", DEPTH, name, dtype_name(t)), text("%.0f tokens/s", DEPTH / median(mine, n_rep)),
        text("%.0f tokens/s (%.0f GFLOP at %s)", DEPTH / median(best, n_rep), w.flops / 1e9, flops_text(median(gemm, n_rep))),
        median(share, n_rep));
}

static void run(const char *name, const char *json, enum dtype t, int n_batch, const int *batch, bool with_prefill)
{
    struct generator g;
    struct err err = {0};
    ceilings_open();
    generator_open(&g, json, t, n_batch ? batch[n_batch - 1] : 1);
    for (int i = 0; i < n_batch; i++) decode(&g, name, batch[i]);
    if (with_prefill) prefill(&g, name);
    must(dev_check(&g.s.dev, &err), &err);
    generator_close(&g);
}

static const int batches[] = {1, 16, 64}; // 64: on a GPU
static void both_types(const char *name, const char *json, bool with_decode, bool with_prefill)
{
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) run(name, json, t, with_decode ? 2 : 0, batches, with_prefill);
}

void job_decode(void)
{
    if (bench_small)
        run("smallest dense", slice_smallest, DT_BF16, 2, (const int[]){1, 4}, false);
    else if (on_gpu())
        run("Qwen2.5-1.5B", config_qwen_1_5b(), DT_BF16, 3, batches, true);
    else
        both_types("Qwen2.5-0.5B slice", slice_qwen, true, false);
}
void job_prefill(void)
{
    both_types("Qwen2.5-0.5B slice", slice_qwen, false, true);
}
void job_moe(void)
{
    if (bench_small)
        run("smallest MoE", slice_smallest_moe, DT_BF16, 2, (const int[]){1, 4}, false);
    else if (on_gpu())
        run("Qwen3-30B-A3B shapes, 6 of 48 layers", slice_30b_a3b, DT_BF16, 3, batches, false);
    else
        both_types("V3-shaped slice", slice_v3, true, true);
}
void job_moe_rank(void)
{
    if (bench_small)
        run("smallest MLA", slice_smallest_mla, DT_BF16, 2, (const int[]){1, 4}, false);
    else
        run("DeepSeek-V3 shapes, 4 of 61 layers, 32 experts", slice_v3_rank, DT_BF16, 3, batches, false);
}
