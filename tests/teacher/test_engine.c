// The engine: what a sample is must not depend on what else runs; nothing leaks; what it makes is what the model says.
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "teacher/engine.h"
#include "tests/gpu.h"
#include "tests/test.h"

#include <math.h>

extern const struct arch arch_deepseek_v3, arch_qwen3;
static const struct arch *const archs[] = {&arch_deepseek_v3, &arch_qwen3, NULL};

enum { N_PROMPT = 12, MAX_NEW = 40, VOCAB = 512, EOS = 7 };

struct fixture {
    struct device dev;
    struct model *m;
};

// Both tiny shipped architectures, with random weights: sharper ones than the usual 0.02, so that samples differ and some end soon.
static void load(struct fixture *f, const char *dir, enum dtype dtype)
{
    struct err err = {0};
    ck_ok(dev_open(&f->dev, test_device(), 2, &err));
    struct model_options o = {.archs = archs, .use = MODEL_GENERATE, .dtype = dtype, .random_init = true, .seed = 3};
    ck_ok(model_load(&f->m, &f->dev, dir, &o, &err));
}
static void unload(struct fixture *f)
{
    model_free(f->m);
    dev_close(&f->dev);
}

struct prompt_ids {
    char id[16];
    int32_t v[400];
    int n;
};
// Prompts of lengths around pages (32) and chunks (256).
static void make_prompts(struct prompt_ids p[N_PROMPT])
{
    static const int len[N_PROMPT] = {1, 31, 32, 33, 5, 64, 255, 256, 257, 300, 17, 40};
    for (int i = 0; i < N_PROMPT; i++) {
        snprintf(p[i].id, sizeof p[i].id, "p%d", i);
        p[i].n = len[i];
        for (int j = 0; j < len[i]; j++) p[i].v[j] = (int32_t)rng_below(5, (uint64_t)i, (uint64_t)j, VOCAB);
    }
}

struct setup {
    const char *targets;
    struct sampling sampling;
    int batch_tokens, n_sample, max_new;
};
static const struct sampling WARM = {.temperature = 1, .top_p = 1};

// Everything generated, by prompt and sample.
struct made {
    struct generation g[N_PROMPT][4];
    struct engine_stats stats;
};

static struct engine *open_engine(struct fixture *f, const struct setup *s)
{
    struct err err = {0};
    struct engine *e;
    static const int32_t eos[] = {EOS};
    struct engine_options o = {
        .n_vocab = VOCAB, .eos = eos, .n_eos = 1, .batch_tokens = s->batch_tokens, .max_prompt = 300, .max_len = 300 + s->max_new};
    ck_ok(targets_spec_parse(&o.targets, s->targets, "1,2", VOCAB, &err));
    ck_ok(engine_open(&e, f->m, &o, &err));
    return e;
}

static void add(struct engine *e, const struct setup *s, const struct prompt_ids *p, const int *samples, int n_sample, void *user)
{
    struct err err = {0};
    struct engine_request r = {.id = p->id,
                               .ids = p->v,
                               .n_ids = p->n,
                               .samples = samples,
                               .n_sample = n_sample,
                               .max_tokens = s->max_new,
                               .sampling = s->sampling,
                               .seed = 11,
                               .user = user};
    ck_ok(engine_add(e, &r, &err));
}

static void drain(struct engine *e, struct made *out)
{
    struct err err = {0};
    struct generation g, seen = {0};
    int32_t peeked[512]; // the last of what the sequence `seen` had written
    while (engine_busy(e)) {
        ck_ok(engine_step(e, &err));
        while (engine_next(e, &g)) {
            struct generation *to = &out->g[(size_t)(uintptr_t)g.user][g.sample];
            ck_assert_ptr_null(to->token_ids);
            *to = g;
            if (seen.n_tok && g.seed == seen.seed) // it has gone on from there
                ck_assert(g.n_tok > seen.n_tok && !memcmp(g.token_ids, peeked, (size_t)seen.n_tok * sizeof *peeked));
        }
        if (!engine_peek(e, &seen)) continue;
        ck_assert(seen.n_tok > 0 && seen.n_tok < 512 && engine_n_running(e) > 0);
        memcpy(peeked, seen.token_ids, (size_t)seen.n_tok * sizeof *peeked);
    }
    ck_assert(!engine_peek(e, &seen));
    out->stats = engine_stats(e);
    ck_assert_int_eq(out->stats.n_page_free, out->stats.n_page);
}

static void free_made(struct made *m)
{
    for (int i = 0; i < N_PROMPT; i++)
        for (int s = 0; s < 4; s++) generation_free(&m->g[i][s]);
}

// All prompts in one engine.
static void together(struct fixture *f, const struct setup *s, struct made *out)
{
    struct prompt_ids p[N_PROMPT];
    static const int numbers[] = {0, 1, 2, 3};
    make_prompts(p);
    struct engine *e = open_engine(f, s);
    for (int i = 0; i < N_PROMPT; i++) add(e, s, &p[i], numbers, s->n_sample, (void *)(uintptr_t)i);
    drain(e, out);
    engine_close(e);
}
// Every sample alone: one prompt, one sample in flight at any time.
static void alone(struct fixture *f, const struct setup *s, struct made *out)
{
    struct prompt_ids p[N_PROMPT];
    make_prompts(p);
    struct engine *e = open_engine(f, s);
    for (int i = 0; i < N_PROMPT; i++)
        for (int k = s->n_sample - 1; k >= 0; k--) {
            add(e, s, &p[i], &k, 1, (void *)(uintptr_t)i);
            drain(e, out);
        }
    engine_close(e);
}

#define SAME_BYTES(a, b, n)                                                                                                                \
    ck_assert_msg((n) == 0 || !memcmp(a, b, (n) * sizeof *(a)), "prompt %d, sample %d: %s differ", prompt, sample, #a)

static void assert_same_generation(const struct generation *a, const struct generation *b, int prompt, int sample)
{
    ck_assert_msg(a->token_ids && b->token_ids, "prompt %d, sample %d is missing", prompt, sample);
    ck_assert_msg(a->n_tok == b->n_tok, "prompt %d, sample %d: %d and %d tokens", prompt, sample, a->n_tok, b->n_tok);
    ck_assert(a->seed == b->seed);
    ck_assert_str_eq(a->finish_reason, b->finish_reason);
    SAME_BYTES(a->token_ids, b->token_ids, (size_t)a->n_tok);
    const struct targets *s = &a->targets, *t = &b->targets;
    const size_t n = (size_t)s->n_tok, k = (size_t)s->k;
    ck_assert_int_eq(s->n_tok, t->n_tok);
    if (!s->ids) return;
    ck_assert_int_eq(s->n_tok, a->n_tok);
    SAME_BYTES(s->ids, t->ids, n * k);
    SAME_BYTES(s->log_z, t->log_z, n * (size_t)s->n_temperature);
    if (s->logprob) SAME_BYTES(s->logprob, t->logprob, n * k);
    if (s->tail_logprob) SAME_BYTES(s->tail_logprob, t->tail_logprob, n);
    if (s->count) SAME_BYTES(s->count, t->count, n * k);
}

static void assert_same(const struct made *a, const struct made *b, int n_sample)
{
    for (int i = 0; i < N_PROMPT; i++)
        for (int s = 0; s < n_sample; s++) assert_same_generation(&a->g[i][s], &b->g[i][s], i, s);
}

// ---- what shares the batch does not matter -------------------------------------------------------------------------------------------

static const struct {
    const char *dir;
    enum dtype dtype;
} KIND[] = {{"teacher/tiny/moe", DT_BF16}, {"teacher/tiny/moe", DT_F32}, {"teacher/tiny/base", DT_BF16}, {"teacher/tiny/base", DT_F32}};

START_TEST(a_sample_is_the_same_alone_and_in_any_batch)
{
    struct fixture f;
    load(&f, KIND[_i].dir, KIND[_i].dtype);
    struct setup s = {.targets = "topk:16", .sampling = WARM, .n_sample = 3, .max_new = MAX_NEW};
    struct made one = {0}, other = {0};
    s.batch_tokens = 1;
    alone(&f, &s, &one);
    static const int batches[] = {1, 3, 16, 300};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        s.batch_tokens = batches[i];
        together(&f, &s, &other);
        assert_same(&one, &other, s.n_sample);
        free_made(&other);
        other = (struct made){0};
    }
    int n_stop = 0, n_length = 0;
    for (int i = 0; i < N_PROMPT; i++)
        for (int k = 0; k < s.n_sample; k++) {
            const struct generation *g = &one.g[i][k];
            bool ended = g->token_ids[g->n_tok - 1] == EOS;
            ck_assert_str_eq(g->finish_reason, ended ? "stop" : "length");
            ck_assert_int_le(g->n_tok, s.max_new);
            n_stop += ended;
            n_length += !ended;
        }
    // A test in which no sample ended early would not have refilled a slot at odd moments.
    ck_assert_int_gt(n_length, 0);
    ck_assert_int_gt(n_stop, 0);
    free_made(&one);
    unload(&f);
}
END_TEST

START_TEST(sampled_targets_are_the_same_alone_and_together)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "sampled:20",
                      .sampling = {.temperature = 0.8f, .top_p = 0.9f, .top_k = 50, .min_p = 0.01f},
                      .batch_tokens = 5,
                      .n_sample = 2,
                      .max_new = 20};
    struct made one = {0}, other = {0};
    alone(&f, &s, &one);
    s.batch_tokens = 64;
    together(&f, &s, &other);
    assert_same(&one, &other, s.n_sample);
    for (int i = 0; i < one.g[3][0].targets.n_tok; i++) {
        int n = 0;
        for (int j = 0; j < 20; j++) n += one.g[3][0].targets.count[i * 20 + j];
        ck_assert_int_eq(n, 20);
    }
    free_made(&one);
    free_made(&other);
    unload(&f);
}
END_TEST

START_TEST(a_resume_makes_what_was_missing_and_the_same)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "topk:8", .sampling = WARM, .batch_tokens = 7, .n_sample = 4, .max_new = 24};
    struct made whole = {0}, part = {0};
    struct prompt_ids p[N_PROMPT];
    make_prompts(p);
    together(&f, &s, &whole);
    struct engine *e = open_engine(&f, &s);
    for (int i = N_PROMPT - 1; i >= 0; i--) { // another order, and only two of four samples
        int numbers[] = {3, i % 3};
        add(e, &s, &p[i], numbers, 2, (void *)(uintptr_t)i);
    }
    drain(e, &part);
    for (int i = 0; i < N_PROMPT; i++) {
        assert_same_generation(&whole.g[i][3], &part.g[i][3], i, 3);
        assert_same_generation(&whole.g[i][i % 3], &part.g[i][i % 3], i, i % 3);
    }
    engine_close(e);
    free_made(&whole);
    free_made(&part);
    unload(&f);
}
END_TEST

// ---- what is made is what the model says ---------------------------------------------------------------------------------------------

// Logits of a whole document, by scoring flat: another path through the model (no cache, MLA expanded).
static float *flat_logits(struct fixture *f, const int32_t *ids, int n)
{
    struct err err = {0};
    struct device *dev = &f->dev;
    const int64_t v = f->m->config.n_vocab;
    float *host = NEW_N(float, n *v);
    int32_t *pos = NEW_N(int32_t, n), start[2] = {0, n};
    for (int i = 0; i < n; i++) pos[i] = i;
    for (int real = 0; real < 2; real++) {
        if (real)
            ck_ok(dev_reserve(dev, dev->arena.peak, &err));
        else
            dev_measure(dev);
        struct tensor t_ids = dev_1d(dev, DT_I32, n), t_pos = dev_1d(dev, DT_I32, n), t_start = dev_1d(dev, DT_I32, 2);
        op_upload(dev, t_ids, ids);
        op_upload(dev, t_pos, pos);
        op_upload(dev, t_start, start);
        struct segments seg = {.n_seg = 1, .n_tok = n, .max_len = n, .max_pos = n, .start = t_start.data, .pos = t_pos.data};
        struct run run = {.dev = dev, .mode = RUN_FLAT, .seg = &seg};
        struct tensor hidden = dev_2d(dev, f->m->dtype, n, f->m->config.d_model), logits = dev_2d(dev, DT_F32, n, v);
        model_forward(f->m, &run, hidden, t_ids);
        model_logits(f->m, dev, logits, hidden);
        op_download(dev, host, logits);
        ck_ok(dev_check(dev, &err));
    }
    mem_free(pos);
    return host;
}

START_TEST(greedy_is_the_argmax_of_scoring_and_targets_are_its_softmax)
{
    struct fixture f;
    load(&f, _i ? "teacher/tiny/base" : "teacher/tiny/moe", DT_F32);
    struct setup s = {.targets = "topk:512", .sampling = {.temperature = 0, .top_p = 1}, .batch_tokens = 16, .n_sample = 1, .max_new = 24};
    struct made m = {0};
    struct prompt_ids p[N_PROMPT];
    make_prompts(p);
    together(&f, &s, &m);
    for (int i = 0; i < N_PROMPT; i++) {
        const struct generation *g = &m.g[i][0];
        int32_t doc[512];
        memcpy(doc, p[i].v, sizeof *doc * (size_t)p[i].n);
        memcpy(doc + p[i].n, g->token_ids, sizeof *doc * (size_t)g->n_tok);
        float *logits = flat_logits(&f, doc, p[i].n + g->n_tok);
        for (int t = 0; t < g->n_tok; t++) {
            const float *z = logits + (int64_t)(p[i].n + t - 1) * VOCAB;
            double sum = 0, sum2 = 0, worst = 0;
            int best = 0;
            for (int j = 0; j < VOCAB; j++) {
                sum += exp((double)z[j]);
                sum2 += exp((double)z[j] / 2);
                if (z[j] > z[best]) best = j;
            }
            // Absorbed and expanded MLA differ by f32 rounding, a few 1e-6 of logits of order 1.
            ck_assert_double_eq_tol((double)g->targets.log_z[2 * t], log(sum), 1e-4);
            ck_assert_double_eq_tol((double)g->targets.log_z[2 * t + 1], log(sum2), 1e-4);
            for (int j = 0; j < VOCAB; j++) {
                double d = fabs((double)g->targets.logprob[t * VOCAB + j] - ((double)z[g->targets.ids[t * VOCAB + j]] - log(sum)));
                if (d > worst) worst = d;
            }
            ck_assert_msg(worst < 1e-4, "prompt %d, token %d: log-probabilities off by %g", i, t, worst);
            ck_assert_int_eq(g->token_ids[t], g->targets.ids[t * VOCAB]);
            ck_assert_msg(g->token_ids[t] == best || fabs((double)(z[best] - z[g->token_ids[t]])) < 1e-4,
                          "prompt %d, token %d: %d, not the argmax %d", i, t, g->token_ids[t], best);
            ck_assert(isinf(g->targets.tail_logprob[t]) && g->targets.tail_logprob[t] < 0);
        }
        mem_free(logits);
    }
    free_made(&m);
    unload(&f);
}
END_TEST

// ---- slots and pages -----------------------------------------------------------------------------------------------------------------

START_TEST(samples_of_a_prompt_share_its_pages_and_its_prefill)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "none", .sampling = WARM, .batch_tokens = 8, .n_sample = 4, .max_new = 8};
    struct prompt_ids p[N_PROMPT];
    static const int numbers[] = {0, 1, 2, 3};
    struct err err = {0};
    make_prompts(p);
    struct engine *e = open_engine(&f, &s);
    add(e, &s, &p[9], numbers, 4, NULL); // 300 tokens: 9 full pages and one of 12
    ck_ok(engine_step(e, &err));         // the first chunk
    ck_ok(engine_step(e, &err));
    struct engine_stats st = engine_stats(e);
    ck_assert_int_eq(st.n_prompt_tok, 300);
    ck_assert_int_eq(st.n_prefill_step, 2);
    struct generation g;
    int n_ended = 0;
    while (engine_next(e, &g)) n_ended++, generation_free(&g);
    if (!n_ended) ck_assert_int_eq(st.n_page - st.n_page_free, 9 + 4); // 307 positions each: the shared nine and one of its own
    while (engine_busy(e)) {
        ck_ok(engine_step(e, &err));
        while (engine_next(e, &g)) n_ended++, generation_free(&g);
    }
    st = engine_stats(e);
    ck_assert_int_eq(n_ended, 4);
    ck_assert_int_eq(st.n_prompt_tok, 300);
    ck_assert_int_eq(st.n_page_free, st.n_page);
    engine_close(e);
    unload(&f);
}
END_TEST

START_TEST(what_is_planned_without_weights_is_what_is_taken)
{
    struct fixture f;
    struct err err = {0};
    const struct setup s = {"topk:8", WARM, 8, 1, 10};
    const char *dir = _i ? "teacher/tiny/base" : "teacher/tiny/moe";
    load(&f, dir, DT_BF16);
    struct engine *e = open_engine(&f, &s);
    const struct engine_stats taken = engine_stats(e);
    const size_t weights = f.m->weights.peak;
    engine_close(e);
    unload(&f);
    struct model_options mo = {.archs = archs, .use = MODEL_GENERATE, .dtype = DT_BF16, .random_init = true, .plan = true};
    struct engine_plan p;
    struct engine_options eo = {
        .n_vocab = VOCAB, .batch_tokens = s.batch_tokens, .max_prompt = 300, .max_len = 300 + s.max_new, .eos = (int32_t[]){EOS}};
    ck_ok(targets_spec_parse(&eo.targets, s.targets, "1,2", VOCAB, &err));
    ck_ok(dev_open(&f.dev, test_device(), 2, &err));
    ck_ok(model_load(&f.m, &f.dev, dir, &mo, &err));
    ck_ok(engine_plan(&p, f.m, &eo, &err));
    ck_assert_uint_eq(f.m->weights.peak, weights);
    ck_assert_uint_eq(p.step_bytes, taken.step_bytes);
    ck_assert_int_eq(p.n_page, taken.n_page);
    ck_assert_uint_eq((size_t)p.n_page * p.page_bytes, taken.kv_bytes);
    unload(&f);
}
END_TEST

START_TEST(a_freed_slot_is_filled_again_at_once)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "none", .sampling = WARM, .batch_tokens = 4, .n_sample = 1, .max_new = 1};
    struct prompt_ids p[N_PROMPT];
    static const int zero = 0;
    struct err err = {0};
    make_prompts(p);
    struct engine *e = open_engine(&f, &s);
    for (int i = 0; i < N_PROMPT; i++) {
        s.max_new = 1; // the engine was opened for one more token only
        add(e, &s, &p[i % 6], &zero, 1, NULL);
    }
    int n_step = 0, n_ended = 0;
    struct generation g;
    for (; engine_busy(e); n_step++) {
        ck_ok(engine_step(e, &err));
        while (engine_next(e, &g)) {
            ck_assert_int_eq(g.n_tok, 1);
            n_ended++;
            generation_free(&g);
        }
    }
    ck_assert_int_eq(n_ended, N_PROMPT);
    ck_assert_int_eq(n_step, N_PROMPT / 4);
    engine_close(e);
    unload(&f);
}
END_TEST

START_TEST(closing_with_samples_in_flight_frees_them)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "topk:4", .sampling = WARM, .batch_tokens = 6, .n_sample = 4, .max_new = MAX_NEW};
    struct prompt_ids p[N_PROMPT];
    static const int numbers[] = {0, 1, 2, 3};
    make_prompts(p);
    for (int n_step = 0; n_step < 12; n_step += 3) { // what leaks, ASan tells
        struct err err = {0};
        struct engine *e = open_engine(&f, &s);
        for (int i = 0; i < N_PROMPT; i++) add(e, &s, &p[i], numbers, 4, NULL);
        for (int i = 0; i < n_step; i++) ck_ok(engine_step(e, &err));
        engine_close(e);
    }
    unload(&f);
}
END_TEST

// ---- refusals ------------------------------------------------------------------------------------------------------------------------

START_TEST(a_prompt_longer_than_the_context_is_refused_by_name)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct err err = {0};
    int room = 0;
    const int context = (int)f.m->config.max_position;
    ck_ok(engine_room(f.m, "short", 10, 20, &room, &err));
    ck_assert_int_eq(room, 20);
    ck_ok(engine_room(f.m, "near", context - 5, 20, &room, &err));
    ck_assert_int_eq(room, 5);
    ck_fails(engine_room(f.m, "far", context, 20, &room, &err), ST_BAD_INPUT, "prompt \"far\"");
    unload(&f);
}
END_TEST

START_TEST(ids_beyond_the_vocabulary_are_refused)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_BF16);
    struct setup s = {.targets = "none", .sampling = WARM, .batch_tokens = 4, .n_sample = 1, .max_new = 4};
    struct engine *e = open_engine(&f, &s);
    struct err err = {0};
    int32_t ids[] = {1, 512};
    int zero = 0;
    struct engine_request r = {.id = "x", .ids = ids, .n_ids = 2, .samples = &zero, .n_sample = 1, .max_tokens = 4, .sampling = WARM};
    ck_fails(engine_add(e, &r, &err), ST_BAD_INPUT, "token id 512");
    r.n_ids = 1;
    r.sampling.top_p = 0;
    ck_fails(engine_add(e, &r, &err), ST_BAD_INPUT, "--top-p 0");
    engine_close(e);
    unload(&f);
}
END_TEST

START_TEST(logits_that_are_not_numbers_name_prompt_and_layer)
{
    struct fixture f;
    load(&f, "teacher/tiny/moe", DT_F32);
    // A weight that is not a number, behind the loader's back: the output norm of layer 1 (f32, rank 1).
    struct param *norm = model_param(f.m, "model.layers.1.post_attention_layernorm.weight");
    ck_assert_ptr_nonnull(norm);
    ((float *)norm->weight.data)[0] = NAN;
    for (int captured = 0; captured < 2; captured++) {
        struct setup s = {.targets = captured ? "topk:4" : "none", .sampling = WARM, .batch_tokens = 4, .n_sample = 1, .max_new = 4};
        struct engine *e = open_engine(&f, &s);
        struct prompt_ids p[N_PROMPT];
        struct err err = {0};
        int zero = 0;
        make_prompts(p);
        add(e, &s, &p[2], &zero, 1, NULL);
        enum status st = engine_step(e, &err);
        ck_assert_int_eq(st, ST_FAIL);
        ck_assert_msg(strstr(err.text, "\"p2\"") && strstr(err.text, "layer 1"), "%s", err.text);
        engine_close(e);
    }
    unload(&f);
}
END_TEST

Suite *suite_engine(void);
Suite *suite_engine(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    tcase_add_loop_test(t, a_sample_is_the_same_alone_and_in_any_batch, 0, 4);
    tcase_add_test(t, sampled_targets_are_the_same_alone_and_together);
    tcase_add_test(t, a_resume_makes_what_was_missing_and_the_same);
    tcase_add_loop_test(t, greedy_is_the_argmax_of_scoring_and_targets_are_its_softmax, 0, 2);
    tcase_add_test(t, samples_of_a_prompt_share_its_pages_and_its_prefill);
    tcase_add_loop_test(t, what_is_planned_without_weights_is_what_is_taken, 0, 2);
    tcase_add_test(t, a_freed_slot_is_filled_again_at_once);
    tcase_add_test(t, closing_with_samples_in_flight_frees_them);
    tcase_add_test(t, a_prompt_longer_than_the_context_is_refused_by_name);
    tcase_add_test(t, ids_beyond_the_vocabulary_are_refused);
    tcase_add_test(t, logits_that_are_not_numbers_name_prompt_and_layer);
    suite_add_tcase(s, t);
    return s;
}
