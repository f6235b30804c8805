// The sampler and the unbiased capture as statistics: frequencies against probabilities by chi-square, and the sets that top-k, top-p and
// min-p leave, against what transformers' logits warpers leave on the same logits.
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "tests/gpu.h"
#include "tests/kernels/on_device.h"
#include "tests/test.h"

#include <math.h>

// Each test runs on the CPU, and on the emulated GPU with fewer draws.
static const struct {
    const char *name;
    int n_draw, n_long, n_token; // n_long: draws where there are n_token
} devices[] = {{"cpu", 20000, 20000, 3000}, {"cuda", 200, 60, 2300}};
enum { V = 10 };
static const float logits_10[V] = {1.5f, -0.5f, 2.0f, 0.25f, 0.25f, -2.0f, 1.0f, 0.0f, 0.25f, -1.0f};

// Frequencies of n_draw tokens drawn with these settings; counters from 0.
static void draw(struct device *dev, int n_draw, const float *z, int n, struct sample_row s, int64_t *count)
{
    float *rows = NEW_N(float, n_draw *n);
    struct sample_row *row = NEW_N(struct sample_row, n_draw);
    int32_t *id = NEW_N(int32_t, n_draw);
    struct err err = {0};
    for (int i = 0; i < n_draw; i++) {
        memcpy(rows + i * n, z, (size_t)n * sizeof *z);
        row[i] = s;
        row[i].seed = 77;
        row[i].counter = (uint64_t)i;
    }
    struct tensor out = tensor_1d(id, DT_I32, n_draw), logits = tensor_2d(rows, DT_F32, n_draw, n);
    struct lent l = {.dev = dev};
    dev_measure(dev);
    op_sample(dev, out, logits, n, row);
    ck_ok(dev_reserve(dev, dev->arena.peak, &err));
    op_sample(dev, lend_out(&l, out), lend_tensor(&l, logits), n, lend(&l, row, (size_t)n_draw * sizeof *row));
    lent_back(&l);
    ck_ok(dev_check(dev, &err));
    memset(count, 0, (size_t)n * sizeof *count);
    for (int i = 0; i < n_draw; i++) count[id[i]]++;
    mem_free(rows);
    mem_free(row);
    mem_free(id);
}
// With n categories, chi-square has mean n - 1 and variance 2 (n - 1): 5 deviations above happens by chance less than once in 1e5 (its
// tail is longer than a normal's), and the seed is fixed.
static void check_frequencies(const char *what, const int64_t *count, const double *p, int n, double n_draw)
{
    double chi = 0;
    int n_category = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] == 0 && count[i]) ck_abort_msg("%s: token %d was drawn and may not be", what, i);
        if (p[i] * n_draw < 5) continue; // too rare for chi-square
        double e = p[i] * n_draw;
        chi += ((double)count[i] - e) * ((double)count[i] - e) / e;
        n_category++;
    }
    ck_assert_msg(chi < n_category - 1 + 5 * sqrt(2.0 * n_category), "%s: chi-square %.1f over %d categories", what, chi, n_category);
}
static void softmax(double *p, const float *z, int n, double t)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += p[i] = exp((double)z[i] / t);
    for (int i = 0; i < n; i++) p[i] /= sum;
}

START_TEST(frequencies_follow_the_softmax_at_the_temperature)
{
    struct err err = {0};
    struct device dev;
    const int n_draw = devices[_i].n_draw, n_long = devices[_i].n_long, n = devices[_i].n_token;
    int64_t *count = NEW_N(int64_t, 3000);
    double *p = NEW_N(double, 3000);
    float *z = NEW_N(float, 3000);
    ck_ok(dev_open(&dev, devices[_i].name, 1, &err));
    for (int i = 0; i < n; i++) z[i] = i % 100 ? -8 : (float)(i / 100 % 7) / 2; // a few likely ids, over several blocks of the sum
    softmax(p, logits_10, V, 0.7);
    draw(&dev, n_draw, logits_10, V, (struct sample_row){.temperature = 0.7f, .top_p = 1}, count);
    check_frequencies("10 tokens", count, p, V, n_draw);
    softmax(p, z, n, 1.5);
    draw(&dev, n_long, z, n, (struct sample_row){.temperature = 1.5f, .top_p = 1}, count);
    check_frequencies("many tokens", count, p, n, n_long);
    softmax(p, z, n, 1);
    draw(&dev, n_long, z, n, (struct sample_row){.temperature = 1, .top_p = 0.9999999f},
         count); // everything but by way of the sorted candidates
    check_frequencies("many tokens, sorted", count, p, n, n_long);
    dev_close(&dev);
    mem_free(count), mem_free(p), mem_free(z);
}
END_TEST

// What transformers' TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper, in this order, keep of logits_10.
static const struct {
    struct sample_row s;
    const char *kept; // a digit a token
} sets[] = {
    {{.temperature = 1, .top_p = 1, .top_k = 1}, "2"},
    {{.temperature = 1, .top_p = 1, .top_k = 3}, "026"},
    {{.temperature = 1, .top_p = 1, .top_k = 4}, "023468"}, // 3, 4 and 8 tie for the fourth place: all stay
    {{.temperature = 1, .top_p = 0.3f}, "2"},
    {{.temperature = 1, .top_p = 0.5f}, "02"},
    {{.temperature = 1, .top_p = 0.7f}, "026"},
    {{.temperature = 2, .top_p = 0.5f}, "026"},
    {{.temperature = 1, .top_p = 0.7f, .top_k = 3}, "02"}, // of the mass that top-k left
    {{.temperature = 1, .top_p = 1, .min_p = 0.3f}, "026"},
    {{.temperature = 1, .top_p = 1, .min_p = 0.12f}, "0234678"},
    {{.temperature = 0.5f, .top_p = 1, .min_p = 0.3f}, "02"},
    {{.temperature = 1, .top_p = 0.96f, .top_k = 9, .min_p = 0.5f}, "02"},
    {{.temperature = 0, .top_p = 1}, "2"},
};
START_TEST(filters_leave_the_sets_that_transformers_leaves)
{
    struct err err = {0};
    struct device dev;
    const int n_draw = devices[_i].n_draw;
    ck_ok(dev_open(&dev, devices[_i].name, 1, &err));
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        int64_t count[V];
        double p[V], sum = 0;
        char kept[V + 1], what[32];
        int n = 0;
        draw(&dev, n_draw, logits_10, V, sets[i].s, count);
        for (int j = 0; j < V; j++)
            if (count[j]) kept[n++] = (char)('0' + j);
        kept[n] = 0;
        snprintf(what, sizeof what, "set %zu", i);
        ck_assert_msg(!strcmp(kept, sets[i].kept), "%s: drew %s, transformers keeps %s", what, kept, sets[i].kept);
        softmax(p, logits_10, V, sets[i].s.temperature > 0 ? (double)sets[i].s.temperature : 1);
        for (int j = 0; j < V; j++) sum += p[j] *= strchr(kept, '0' + j) != NULL;
        for (int j = 0; j < V; j++) p[j] /= sum;
        check_frequencies(what, count, p, V, n_draw);
    }
    dev_close(&dev);
}
END_TEST

// So many that no list of candidates holds them: the lowest ids are captured, and top-k, which keeps what ties with its last, keeps all.
START_TEST(logits_that_all_tie_go_by_id)
{
    enum { N_ID = 2100, N = 16, K = 5 };
    struct err err = {0};
    struct device dev;
    static float z[N][N_ID], logprob[N][K], tail[N], log_z[N];
    static int32_t id[N][K], next[N];
    static struct sample_row row[N];
    float one = 1, mean = 0;
    ck_ok(dev_open(&dev, devices[_i].name, 1, &err));
    ck_ok(dev_reserve(&dev, 8 << 20, &err));
    for (int i = 0; i < N; i++)
        row[i] =
            (struct sample_row){.temperature = 1, .top_p = i % 2 ? 1 : 0.5f, .top_k = i % 4 < 2 ? 3 : 0, .seed = 9, .counter = (uint64_t)i};
    struct lent l = {.dev = &dev};
    struct tensor logits = lend_tensor(&l, tensor_2d(z, DT_F32, N, N_ID));
    op_capture_topk(&dev, lend_out(&l, tensor_2d(id, DT_I32, N, K)), lend_out(&l, tensor_2d(logprob, DT_F32, N, K)),
                    lend_out(&l, tensor_1d(tail, DT_F32, N)), lend_out(&l, tensor_2d(log_z, DT_F32, N, 1)), logits, N_ID, &one);
    op_sample(&dev, lend_out(&l, tensor_1d(next, DT_I32, N)), logits, N_ID, lend(&l, row, sizeof row));
    lent_back(&l);
    ck_ok(dev_check(&dev, &err));
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < K; j++) ck_assert_int_eq(id[i][j], j);
        // all weigh the same: the token is the uniform number's place among the ids that are kept, one less where sums are rounded
        const double u = rng_uniform(9, 0, (uint64_t)i) * (i % 2 ? N_ID : N_ID / 2);
        ck_assert_msg(next[i] == (int)u || fabs(u - round(u)) < 1e-6, "row %d: %d, wanted %d", i, next[i], (int)u);
        mean += (float)next[i] / N;
    }
    ck_assert_float_gt(mean, N_ID / 8.0f);
    dev_close(&dev);
}
END_TEST

START_TEST(sampled_targets_are_unbiased_and_not_the_next_token)
{
    enum { N = 600, K = 8 };
    struct err err = {0};
    struct device dev;
    static float z[N][V], log_z[N];
    static int32_t id[N][K], n_of[N][K], next[N];
    static struct sample_row row[N];
    int64_t count[V] = {0};
    double p[V], held = 0, expected = 0;
    ck_ok(dev_open(&dev, devices[_i].name, 1, &err));
    ck_ok(dev_reserve(&dev, 8 << 20, &err));
    for (int i = 0; i < N; i++) {
        memcpy(z[i], logits_10, sizeof logits_10);
        row[i] = (struct sample_row){.temperature = 1, .top_p = 1, .seed = 3, .counter = (uint64_t)i};
    }
    float one = 1;
    struct lent l = {.dev = &dev};
    struct tensor logits = lend_tensor(&l, tensor_2d(z, DT_F32, N, V));
    const struct sample_row *settings = lend(&l, row, sizeof row);
    op_capture_sampled(&dev, lend_out(&l, tensor_2d(id, DT_I32, N, K)), lend_out(&l, tensor_2d(n_of, DT_I32, N, K)),
                       lend_out(&l, tensor_2d(log_z, DT_F32, N, 1)), logits, V, &one, settings);
    op_sample(&dev, lend_out(&l, tensor_1d(next, DT_I32, N)), logits, V, settings);
    lent_back(&l);
    ck_ok(dev_check(&dev, &err));
    softmax(p, logits_10, V, 1);
    for (int i = 0; i < N; i++) {
        int64_t sum = 0;
        bool has = false;
        for (int j = 0; j < K; j++) {
            if (id[i][j] < 0) continue;
            count[id[i][j]] += n_of[i][j];
            sum += n_of[i][j];
            has |= id[i][j] == next[i];
        }
        ck_assert_int_eq(sum, K);
        held += has;
        expected += 1 - pow(1 - p[next[i]], K); // the chance that K draws hit that token, if they know nothing of it
    }
    check_frequencies("draws", count, p, V, (double)N * K);
    ck_assert_msg(fabs(held - expected) < 5 * sqrt(N) / 2, "the next token was among the draws %g times of %d, %g expected", held, N,
                  expected);
    dev_close(&dev);
}
END_TEST

Suite *suite_sampling(void)
{
    const int n = 1 + test_gpu();
    Suite *s = suite_create("sampling");
    TCase *t = tcase_create("sampling");
    tcase_add_loop_test(t, frequencies_follow_the_softmax_at_the_temperature, 0, n);
    tcase_add_loop_test(t, filters_leave_the_sets_that_transformers_leaves, 0, n);
    tcase_add_loop_test(t, logits_that_all_tie_go_by_id, 0, n);
    tcase_add_loop_test(t, sampled_targets_are_unbiased_and_not_the_next_token, 0, n);
    suite_add_tcase(s, t);
    return s;
}
