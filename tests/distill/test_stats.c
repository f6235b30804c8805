// Intervals against values of others: R's prop.test(correct = FALSE) for Wilson, the normal limit for the bootstrap.
#include "distill/stats.h"
#include "kernels/base/mem.h"
#include "tests/test.h"

#include <math.h>

START_TEST(wilson_matches_published_values)
{
    static const struct {
        int64_t right, n;
        double low, high;
    } known[] = {
        {8, 10, 0.4901625, 0.9433178}, {0, 10, 0, 0.2775328},
        {10, 10, 0.7224672, 1},        {81, 263, 0.2552714, 0.3662143}, // Newcombe 1998, table I: 0.2553 to 0.3662
        {15, 148, 0.0624, 0.1605},                                      // the same: 0.0624 to 0.1605
        {1, 29, 0.0061, 0.1718},                                        // the same: 0.0061 to 0.1718
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct interval ci = wilson_interval(known[i].right, known[i].n);
        ck_assert_double_eq_tol(ci.low, known[i].low, 6e-5); // the tables have four digits
        ck_assert_double_eq_tol(ci.high, known[i].high, 6e-5);
    }
    ck_assert_double_eq_tol(wilson_interval(8, 10).low, 0.4901625, 1e-7);
}
END_TEST

START_TEST(an_interval_of_nothing_is_everything)
{
    struct interval w = wilson_interval(0, 0), b = bootstrap_interval(NULL, 0, 100, 1);
    ck_assert(w.low <= 0 && w.high >= 1 && b.low <= 0 && b.high >= 1);
}
END_TEST

START_TEST(bootstrap_nears_the_normal_interval_and_repeats_itself)
{
    enum { N = 2000 };
    double *score = NEW_N(double, N), mean = 0, var = 0;
    for (int i = 0; i < N; i++) score[i] = fmod(i * 0.6180339887, 1), mean += score[i] / N;
    for (int i = 0; i < N; i++) var += (score[i] - mean) * (score[i] - mean) / N;
    const double half = 1.96 * sqrt(var / N);
    struct interval a = bootstrap_interval(score, N, 2000, 7), b = bootstrap_interval(score, N, 2000, 7),
                    c = bootstrap_interval(score, N, 2000, 8);
    // 2,000 resamples place a 2.5% quantile to about 0.06 standard errors (one sigma): a quarter of one is four of those.
    ck_assert_double_eq_tol(a.low, mean - half, half / 8);
    ck_assert_double_eq_tol(a.high, mean + half, half / 8);
    ck_assert(!(a.low < b.low) && !(a.low > b.low) && !(a.high < b.high) && !(a.high > b.high));
    ck_assert(a.low < c.low || a.low > c.low);
    mem_free(score);
}
END_TEST

Suite *suite_stats(void);
Suite *suite_stats(void)
{
    Suite *s = suite_create("stats");
    TCase *t = tcase_create("intervals");
    tcase_add_test(t, wilson_matches_published_values);
    tcase_add_test(t, an_interval_of_nothing_is_everything);
    tcase_add_test(t, bootstrap_nears_the_normal_interval_and_repeats_itself);
    suite_add_tcase(s, t);
    return s;
}
