// The sampler and the unbiased capture as statistics: frequencies against probabilities by chi-square, and the sets that top-k, top-p and
// min-p leave, against what transformers' logits warpers leave on the same logits.
#include "kernels/base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/test.h"

#include <math.h>

enum { N_DRAW = 20000, V = 10 };
static const float logits_10[V] = {1.5f, -0.5f, 2.0f, 0.25f, 0.25f, -2.0f, 1.0f, 0.0f, 0.25f, -1.0f};

// Frequencies of N_DRAW tokens drawn with these settings; counters from 0.
static void draw(struct device *dev, const float *z, int n, struct sample_row s, int64_t *count)
{
    float *rows = NEW_N(float, N_DRAW *n);
    struct sample_row *row = NEW_N(struct sample_row, N_DRAW);
    int32_t *id = NEW_N(int32_t, N_DRAW);
    struct err err = {0};
    for (int i = 0; i < N_DRAW; i++) {
        memcpy(rows + i * n, z, (size_t)n * sizeof *z);
        row[i] = s;
        row[i].seed = 77;
        row[i].counter = (uint64_t)i;
    }
    struct tensor out = tensor_1d(id, DT_I32, N_DRAW), logits = tensor_2d(rows, DT_F32, N_DRAW, n);
    dev_measure(dev);
    op_sample(dev, out, logits, n, row);
    ck_ok(dev_reserve(dev, dev->arena.peak, &err));
    op_sample(dev, out, logits, n, row);
    ck_ok(dev_check(dev, &err));
    memset(count, 0, (size_t)n * sizeof *count);
    for (int i = 0; i < N_DRAW; i++) count[id[i]]++;
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
    int64_t *count = NEW_N(int64_t, 3000);
    double *p = NEW_N(double, 3000);
    float *z = NEW_N(float, 3000);
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    for (int i = 0; i < 3000; i++) z[i] = i % 100 ? -8 : (float)(i / 100 % 7) / 2; // a few likely ids, over several blocks of the sum
    softmax(p, logits_10, V, 0.7);
    draw(&dev, logits_10, V, (struct sample_row){.temperature = 0.7f, .top_p = 1}, count);
    check_frequencies("10 tokens", count, p, V, N_DRAW);
    softmax(p, z, 3000, 1.5);
    draw(&dev, z, 3000, (struct sample_row){.temperature = 1.5f, .top_p = 1}, count);
    check_frequencies("3000 tokens", count, p, 3000, N_DRAW);
    softmax(p, z, 3000, 1);
    draw(&dev, z, 3000, (struct sample_row){.temperature = 1, .top_p = 0.9999999f},
         count); // everything but by way of the sorted candidates
    check_frequencies("3000 tokens, sorted", count, p, 3000, N_DRAW);
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
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        int64_t count[V];
        double p[V], sum = 0;
        char kept[V + 1], what[32];
        int n = 0;
        draw(&dev, logits_10, V, sets[i].s, count);
        for (int j = 0; j < V; j++)
            if (count[j]) kept[n++] = (char)('0' + j);
        kept[n] = 0;
        snprintf(what, sizeof what, "set %zu", i);
        ck_assert_msg(!strcmp(kept, sets[i].kept), "%s: drew %s, transformers keeps %s", what, kept, sets[i].kept);
        softmax(p, logits_10, V, sets[i].s.temperature > 0 ? (double)sets[i].s.temperature : 1);
        for (int j = 0; j < V; j++) sum += p[j] *= strchr(kept, '0' + j) != NULL;
        for (int j = 0; j < V; j++) p[j] /= sum;
        check_frequencies(what, count, p, V, N_DRAW);
    }
    dev_close(&dev);
}
END_TEST

START_TEST(sampled_targets_are_unbiased_and_not_the_next_token)
{
    enum { N = 4000, K = 8 };
    struct err err = {0};
    struct device dev;
    static float z[N][V], log_z[N];
    static int32_t id[N][K], n_of[N][K], next[N];
    static struct sample_row row[N];
    int64_t count[V] = {0};
    double p[V], held = 0, expected = 0;
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    for (int i = 0; i < N; i++) {
        memcpy(z[i], logits_10, sizeof logits_10);
        row[i] = (struct sample_row){.temperature = 1, .top_p = 1, .seed = 3, .counter = (uint64_t)i};
    }
    float one = 1;
    struct tensor logits = tensor_2d(z, DT_F32, N, V);
    op_capture_sampled(&dev, tensor_2d(id, DT_I32, N, K), tensor_2d(n_of, DT_I32, N, K), tensor_2d(log_z, DT_F32, N, 1), logits, V, &one,
                       row);
    op_sample(&dev, tensor_1d(next, DT_I32, N), logits, V, row);
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
    Suite *s = suite_create("sampling");
    TCase *t = tcase_create("sampling");
    tcase_add_test(t, frequencies_follow_the_softmax_at_the_temperature);
    tcase_add_test(t, filters_leave_the_sets_that_transformers_leaves);
    tcase_add_test(t, sampled_targets_are_unbiased_and_not_the_next_token);
    suite_add_tcase(s, t);
    return s;
}
