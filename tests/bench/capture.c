// What capture of top-64 and log Z costs inside decode: two engines over the same weights' shapes, one that captures and one that does not,
// step in turn with the same 16 sequences.
#include "teacher/engine.h"
#include "tests/bench/bench.h"

enum { N_SEQ = 16, N_PROMPT = 16, MAX_STEP = 200 };

struct side {
    struct slice s;
    struct engine *e;
};

static void side_open(struct side *a, const char *json, const char *dir, enum dtype dtype, int n_step, bool capture)
{
    struct err err = {0};
    slice_open(&a->s, json, dir, MODEL_GENERATE, dtype);
    struct engine_options opt = {.batch_tokens = N_SEQ, .max_prompt = N_PROMPT, .max_len = N_PROMPT + n_step + 8, .eos = (int32_t[]){-1}};
    if (capture) opt.targets = (struct targets_spec){.kind = TARGETS_TOPK, .k = 64, .n_temperature = 1, .temperature = {1}};
    must(engine_open(&a->e, a->s.model, &opt, &err), &err);
    for (int i = 0; i < N_SEQ; i++) {
        int32_t ids[N_PROMPT];
        const int sample = 0;
        for (int k = 0; k < N_PROMPT; k++)
            ids[k] = (int32_t)(rng_uniform(9, (uint64_t)i, (uint64_t)k) * (double)a->s.model->config.n_vocab);
        struct engine_request r = {.id = text("%d", i),
                                   .ids = ids,
                                   .n_ids = N_PROMPT,
                                   .samples = &sample,
                                   .n_sample = 1,
                                   .max_tokens = n_step + 8,
                                   .sampling = {.temperature = 1, .top_p = 1},
                                   .seed = 1};
        must(engine_add(a->e, &r, &err), &err);
    }
    // Until all decode, and once more.
    for (int i = 0; i < 4; i++) must(engine_step(a->e, &err), &err);
    if (engine_n_running(a->e) != N_SEQ) note("capture: %d of %d sequences run", engine_n_running(a->e), N_SEQ);
}

static double side_step(struct side *a, int n)
{
    struct err err = {0};
    const double t = now_s();
    for (int i = 0; i < n; i++) must(engine_step(a->e, &err), &err);
    return (now_s() - t) / n;
}

static void side_close(struct side *a)
{
    engine_close(a->e);
    slice_close(&a->s);
}

static void measure(const char *name, const char *json, const char *dir, enum dtype dtype, int n_step, int each)
{
    double plain[MAX_STEP], with[MAX_STEP], ratio[MAX_STEP];
    struct side a, b;
    side_open(&a, json, dir, dtype, n_step, false);
    side_open(&b, json, dir, dtype, n_step, true);
    const int n = n_step / each;
    for (int i = 0; i < n; i++) {
        plain[i] = side_step(&a, each);
        with[i] = side_step(&b, each);
        ratio[i] = with[i] / plain[i];
    }
    row(text("capture in decode, %s, batch %d, %s", name, N_SEQ, dtype_name(dtype)),
        text("%.0f tokens/s with top-64 and log Z", N_SEQ / median(with, n)),
        text("%.0f tokens/s without; %+.1f%% time", N_SEQ / median(plain, n), 100 * (median(ratio, n) - 1)), 1 / median(ratio, n));
    side_close(&a);
    side_close(&b);
}

void job_capture(void)
{
    measure("tiny teacher", NULL, "teacher/tiny/moe", DT_BF16, bench_small ? 2 : 200, bench_small ? 1 : 2);
    if (bench_small) return;
    if (on_gpu()) {
        measure("Qwen2.5-1.5B", config_qwen_1_5b(), NULL, DT_BF16, 60, 1);
        return;
    }
    measure("Qwen2.5-0.5B slice", slice_qwen, NULL, DT_BF16, 60, 1);
    measure("Qwen2.5-0.5B whole", slice_qwen_whole, NULL, DT_BF16, 40, 1);
}
