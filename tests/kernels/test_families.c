// Every family by config alone: what this build computes on tests/golden/models/*, against what transformers computed there (models.py).
// On the CPU, or with DISTILL_TEST_DEVICE=cuda on a GPU. A test a config; each prints its row of the table in docs/families.md:
// build/tests/run-all families.
#include "kernels/base/half.h"
#include "tests/gpu.h"
#include "tests/kernels/model_fixture.h"

#include <math.h>
#include <stdlib.h>

static const char *const goldens[] = {
    "deepseek_v2",
    "deepseek_v2-groups",
    "deepseek_v2-plain",
    "deepseek_v3",
    "deepseek_v3-plain",
    "deepseek_v3-bias",
    "kimi_k2",
    "qwen3_moe",
    "qwen3_moe-sparse",
    "qwen3_moe-window",
    "qwen2",
    "qwen2-window",
    "qwen2-types",
    "qwen3",
    "qwen3-bias",
    "qwen3-yarn",
    "qwen3-attn",
    "llama",
    "llama3",
    "llama32",
    "llama-linear",
    "llama-window",
    "mistral",
    "mistral-plain",
    "mistral-yarn",
};
enum { N_GOLDEN = sizeof goldens / sizeof *goldens, N_ROW_MAX = 64, N_CHOICE_MAX = 16 };

// Logits of a golden's ids, and in which rows the experts are others than in `same_as`, if there are experts.
struct result {
    float *logits;
    int64_t n, v;
    struct device *dev;
    int32_t choice[8][N_ROW_MAX * N_CHOICE_MAX]; // (MoE layer) (row, top_k) sorted
    int n_moe, top_k;
};

static int int_cmp(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void watch_experts(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight)
{
    (void)layer, (void)out, (void)weight;
    struct result *r = arg;
    if (tensor_none(expert)) return;
    r->top_k = (int)expert.shape[1];
    int32_t *to = r->choice[r->n_moe++];
    op_download(r->dev, to, expert);
    for (int64_t i = 0; i < expert.shape[0]; i++) qsort(to + i * r->top_k, (size_t)r->top_k, sizeof *to, int_cmp);
}

static void result_of(struct result *r, struct fixture *f)
{
    const int32_t *ids = ref_i32(f, "ids", &r->n);
    ck_assert_int_le(r->n, N_ROW_MAX);
    r->v = f->model->config.n_vocab;
    r->logits = NEW_N(float, r->n * r->v);
    r->n_moe = 0;
    r->dev = &f->dev;
    fixture_flat_watched(f, r->logits, ids, (int[]){(int)r->n}, 1, watch_experts, r);
}

static bool flipped(const struct result *a, const struct result *b, int64_t row)
{
    bool differ = false;
    for (int l = 0; l < a->n_moe; l++)
        differ |= memcmp(a->choice[l] + row * a->top_k, b->choice[l] + row * b->top_k, sizeof(int32_t) * (size_t)a->top_k) != 0;
    return differ;
}

// Root mean square, as a share of the largest logit, over the rows whose experts did not change.
static double rms_error(const float *got, const float *want, const int32_t *skip, int64_t n, int64_t v)
{
    double sum = 0;
    int64_t n_row = 0;
    for (int64_t i = 0; i < n; i++) {
        if (skip[i]) continue;
        n_row++;
        for (int64_t k = i * v; k < (i + 1) * v; k++) sum += ((double)got[k] - (double)want[k]) * ((double)got[k] - (double)want[k]);
    }
    return sqrt(sum / (double)(n_row * v)) / max_abs(want, n * v);
}

static double max_error(const struct result *r, const float *want)
{
    return max_diff(r->logits, want, r->n * r->v) / max_abs(want, r->n * r->v);
}

// One line of the table: errors as shares of the largest logit, or of a parameter's largest gradient.
struct row {
    double f32, f32_rows, f32_generic;   // worst logit: packed weights, weights in rows (dense), plain C
    double bf16, bf16_rows, bf16_theirs; // root mean square over rows that kept their experts; transformers' own
    int n_flipped, n_flipped_theirs, n;  // rows in which bf16 chose other experts
    double decode;                       // decode against prefill
    bool chunks_same;                    // prefill in chunks has the bits of prefill at once
    double grad;                         // worst gradient (dense)
};

static void measure_bf16(struct row *m, const char *dir, const struct result *f32, const float *want)
{
    struct fixture f;
    struct result *r = NEW(struct result);
    int64_t n;
    int32_t skip[N_ROW_MAX] = {0};
    model_fixture_open(&f, dir, MODEL_GENERATE, DT_BF16, test_device());
    result_of(r, &f);
    for (int64_t i = 0; i < r->n; i++) m->n_flipped += skip[i] = flipped(r, f32, i);
    m->bf16 = rms_error(r->logits, want, skip, r->n, r->v);
    const struct st_tensor *low = st_find(&f.ref, "logits_bf16");
    ck_assert(low && !strcmp(low->dtype, "BF16") && low->size_bytes == (size_t)(r->n * r->v) * sizeof(bf16));
    for (int64_t i = 0; i < r->n * r->v; i++) r->logits[i] = bf16_to_f32(((const bf16 *)low->data)[i]);
    const int32_t *theirs = ref_i32(&f, "flipped", &n);
    ck_assert((theirs != NULL) == (f32->n_moe > 0));
    for (int64_t i = 0; i < r->n; i++) m->n_flipped_theirs += skip[i] = theirs ? theirs[i] : 0;
    m->bf16_theirs = rms_error(r->logits, want, skip, r->n, r->v);
    mem_free(r->logits);
    mem_free(r);
    model_fixture_close(&f);
}

// Gradients of loss = sum(hidden * g), each parameter's worst as a share of its largest.
static double measure_gradients(struct fixture *f, const char *golden)
{
    struct trained t;
    double worst = 0;
    int64_t n, n_g;
    trained_open(&t, f);
    const int32_t *ids = ref_i32(f, "ids", &n);
    trained_step(f, &t, ids, (int[]){(int)n}, 1, ref_f32(f, "g", &n_g), RECOMPUTE_NONE, true);
    for (size_t i = 0; i < f->model->n_param; i++) {
        struct param *p = &f->model->params[i];
        char name[128];
        int64_t size;
        snprintf(name, sizeof name, "grad.%s", p->name);
        const float *want = ref_f32(f, name, &size);
        if (p == f->model->head && !f->model->config.tied) {
            ck_assert_ptr_null(want); // the loss is on hidden: the head is not asked
            continue;
        }
        ck_assert_msg(want != NULL, "%s: no golden of %s", golden, name);
        float *grad = fixture_values(f, p->grad);
        double diff = max_diff(grad, want, size);
        mem_free(grad);
        if (strstr(name, "k_proj.bias")) // it moves all of a query's scores alike: its true gradient is 0, what is left is rounding
            ck_assert_msg(diff < 1e-3, "%s: %s differs by %g", golden, name, diff);
        else if (!(diff / max_abs(want, size) <= worst))
            worst = diff / max_abs(want, size);
    }
    trained_close(&t);
    return worst;
}

static void measure_dense(struct row *m, const char *dir, const char *golden, const float *want)
{
    struct fixture f;
    struct result *r = NEW(struct result);
    const int32_t skip[N_ROW_MAX] = {0};
    for (int low = 0; low < 2; low++) {
        model_fixture_open(&f, dir, MODEL_TRAIN, low ? DT_BF16 : DT_F32, test_device());
        ck_assert_ptr_null(model_untrainable(f.model));
        result_of(r, &f);
        if (low)
            m->bf16_rows = rms_error(r->logits, want, skip, r->n, r->v);
        else
            m->f32_rows = max_error(r, want), m->grad = measure_gradients(&f, golden);
        mem_free(r->logits);
        model_fixture_close(&f);
    }
    mem_free(r);
}

static void measure_cached(struct row *m, struct fixture *f, int n, int64_t v, double scale)
{
    int64_t n_id;
    const int32_t *ids = ref_i32(f, "ids", &n_id);
    float *once = NEW_N(float, n *v), *chunks = NEW_N(float, n *v), *decoded = NEW_N(float, n *v);
    fixture_cached(f, once, ids, n, n, n);
    fixture_cached(f, chunks, ids, n, 7, n);
    fixture_cached(f, decoded, ids, n, 1, 1); // token by token; MLA: absorbed
    m->chunks_same = !memcmp(once, chunks, (size_t)(n * v) * sizeof *once);
    m->decode = max_diff(decoded, once, n * v) / scale;
    mem_free(once);
    mem_free(chunks);
    mem_free(decoded);
}

static struct row measure(const char *golden)
{
    const char *dir = golden_model(golden);
    struct row m = {0};
    struct fixture f, generic;
    struct result *r = NEW(struct result), *g = NEW(struct result);
    int64_t n_logit;
    model_fixture_open(&f, dir, MODEL_GENERATE, DT_F32, test_device());
    const float *want = ref_f32(&f, "logits", &n_logit);
    result_of(r, &f);
    m.n = (int)r->n;
    m.f32 = max_error(r, want);
    model_fixture_open(&generic, dir, MODEL_GENERATE, DT_F32, "cpu:generic");
    result_of(g, &generic);
    m.f32_generic = max_error(g, want);
    model_fixture_close(&generic);
    measure_bf16(&m, dir, r, want);
    measure_cached(&m, &f, (int)r->n, r->v, max_abs(want, n_logit));
    if (r->n_moe)
        ck_assert_str_eq(model_untrainable(f.model), "moe");
    else
        measure_dense(&m, dir, golden, want);
    mem_free(r->logits);
    mem_free(g->logits);
    mem_free(r);
    mem_free(g);
    model_fixture_close(&f);
    return m;
}

static void print_row(const char *golden, const struct row *m)
{
    const bool moe = m->grad == 0;
    printf("| %s | %.1e | %.2e | %.2e |", golden, m->f32 > m->f32_rows ? m->f32 : m->f32_rows, m->bf16, m->bf16_theirs);
    if (moe)
        printf(" %d, %d of %d | %.1e | |\n", m->n_flipped, m->n_flipped_theirs, m->n, m->decode);
    else
        printf(" | %.1e | %.1e |\n", m->decode, m->grad);
}

// bf16: a bf16 run is one draw of many roundings, so that two equally good ones differ by some percent: ours may err 1.1 times as much as
// transformers' own. In a MoE a rounding may also turn the choice of an expert, and with it the row: such rows are left out on both sides
// and counted; two of 45 more than transformers' are chance.
static void check(const char *name)
{
    const struct row m = measure(name);
    print_row(name, &m);
    ck_assert_msg(m.f32 < 1e-5, "packed f32 logits differ by %g of the largest", m.f32);
    ck_assert_msg(m.f32_rows < 1e-5, "plain f32 logits differ by %g of the largest", m.f32_rows);
    ck_assert_msg(m.f32_generic < 1e-5, "generic f32 logits differ by %g of the largest", m.f32_generic);
    ck_assert_msg(m.bf16 < 1.1 * m.bf16_theirs, "packed bf16 logits differ by %g, transformers' by %g", m.bf16, m.bf16_theirs);
    ck_assert_msg(m.bf16_rows < 1.1 * m.bf16_theirs, "plain bf16 logits differ by %g, transformers' by %g", m.bf16_rows, m.bf16_theirs);
    ck_assert_msg(m.n_flipped <= m.n_flipped_theirs + 2, "bf16 chose other experts in %d rows, transformers' in %d", m.n_flipped,
                  m.n_flipped_theirs);
    ck_assert_msg(m.chunks_same, "prefill in chunks has other bits than at once");
    ck_assert_msg(m.decode < 1e-5, "decode differs from prefill by %g of the largest logit", m.decode);
    ck_assert_msg(m.grad < 5e-5, "a gradient differs from PyTorch's by %g of its parameter's largest", m.grad);
}

START_TEST(config_gives_transformers_numbers)
{
    check(goldens[_i]);
}
END_TEST

// The same on the GPU, emulated or real: one of each kind of layer, since the emulation takes its time.
static const char *const gpu_goldens[] = {"deepseek_v3-plain", "qwen3_moe", "qwen2"};
START_TEST(a_gpu_gives_transformers_numbers_too)
{
    setenv("DISTILL_TEST_DEVICE", "cuda", 1);
    check(gpu_goldens[_i]);
}
END_TEST

Suite *suite_families(void)
{
    Suite *s = suite_create("families");
    TCase *t = tcase_create("configs");
    tcase_add_loop_test(t, config_gives_transformers_numbers, 0, N_GOLDEN);
    if (!strcmp(test_device(), "cpu") && test_gpu())
        tcase_add_loop_test(t, a_gpu_gives_transformers_numbers_too, 0, sizeof gpu_goldens / sizeof *gpu_goldens);
    suite_add_tcase(s, t);
    return s;
}
