// Random numbers: Philox's published answers, ranges, permutations, moments.
#include "kernels/base/rng.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

// kat_vectors of Random123 (Salmon et al.): philox4x32 10 rounds. Counter words c0 c1 are our counter, c2 c3 the stream; k0 k1 the seed.
START_TEST(philox_gives_the_published_answers)
{
    static const struct {
        uint64_t seed, stream, counter;
        uint32_t want[4];
    } KAT[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof KAT / sizeof *KAT; i++) {
        struct rng_block b = rng_block(KAT[i].seed, KAT[i].stream, KAT[i].counter);
        for (int k = 0; k < 4; k++) ck_assert_uint_eq(b.v[k], KAT[i].want[k]);
    }
}
END_TEST

START_TEST(uniform_lies_in_0_1_with_the_right_mean)
{
    enum { N = 100000 };
    double sum = 0, square = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(5, 6, i);
        ck_assert(u >= 0 && u < 1);
        sum += u;
        square += u * u;
    }
    // 5 standard errors: sqrt(1/12/N) = 9.1e-4, sqrt(4/45/N) = 9.4e-4
    ck_assert_double_eq_tol(sum / N, 0.5, 5e-3);
    ck_assert_double_eq_tol(square / N, 1. / 3, 5e-3);
}
END_TEST

START_TEST(below_covers_every_value_and_none_else)
{
    int count[7] = {0};
    for (uint64_t i = 0; i < 7000; i++) {
        uint64_t v = rng_below(1, 1, i, 7);
        ck_assert_uint_lt(v, 7);
        count[v]++;
    }
    for (int i = 0; i < 7; i++) ck_assert_int_le(abs(count[i] - 1000), 150); // 5 standard deviations: sqrt(7000 · 6/49) = 29.3
}
END_TEST

START_TEST(shuffle_is_a_fixed_permutation_of_seed_and_stream)
{
    enum { N = 1000 };
    uint32_t a[N], b[N], c[N], seen[N] = {0};
    for (uint32_t i = 0; i < N; i++) a[i] = b[i] = c[i] = i;
    rng_shuffle(1, 2, a, N);
    rng_shuffle(1, 2, b, N);
    rng_shuffle(1, 3, c, N);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_mem_ne(a, c, sizeof a);
    for (int i = 0; i < N; i++) ck_assert_uint_eq(seen[a[i]]++, 0);
    rng_shuffle(1, 2, NULL, 0);
    rng_shuffle(1, 2, a, 1);
}
END_TEST

START_TEST(normal_has_mean_0_and_variance_1)
{
    enum { N = 100000 };
    double sum = 0, square = 0, fourth = 0;
    for (uint64_t i = 0; i < N; i++) {
        double v = rng_normal(9, 9, i);
        ck_assert(isfinite(v));
        sum += v;
        square += v * v;
        fourth += v * v * v * v;
    }
    ck_assert_double_eq_tol(sum / N, 0, 0.016);    // 5 / sqrt(N)
    ck_assert_double_eq_tol(square / N, 1, 0.023); // 5 sqrt(2/N)
    ck_assert_double_eq_tol(fourth / N, 3, 0.16);  // 5 sqrt(96/N)
}
END_TEST

START_TEST(hash_spreads_short_keys)
{
    ck_assert_uint_ne(rng_hash("a", 1), rng_hash("b", 1));
    ck_assert_uint_eq(rng_hash("prompt", 6), rng_hash("prompt", 6));
    int differing = __builtin_popcountll(rng_hash("1", 1) ^ rng_hash("2", 1));
    ck_assert_int_gt(differing, 16);
    ck_assert_int_lt(differing, 48);
}
END_TEST

Suite *suite_rng(void)
{
    Suite *s = suite_create("base: random numbers");
    TCase *t = tcase_create("all");
    tcase_add_test(t, philox_gives_the_published_answers);
    tcase_add_test(t, uniform_lies_in_0_1_with_the_right_mean);
    tcase_add_test(t, below_covers_every_value_and_none_else);
    tcase_add_test(t, shuffle_is_a_fixed_permutation_of_seed_and_stream);
    tcase_add_test(t, normal_has_mean_0_and_variance_1);
    tcase_add_test(t, hash_spreads_short_keys);
    suite_add_tcase(s, t);
    return s;
}
