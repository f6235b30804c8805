// Whether two trace stores hold the same: the same (id, sample) set, each with equal messages, token ids and targets, in any order. For the
// command-line tests: DISTILL_STORES=A:B run-all same_stores. Without that variable there is nothing to compare.
#include "datasets/store/store.h"
#include "kernels/base/mem.h"
#include "tests/test.h"

#include <stdlib.h>

static size_t find(const struct store *s, const char *id, int sample)
{
    for (size_t i = 0; i < store_n_sample(s); i++) {
        int number;
        if (!strcmp(store_id(s, i, &number, NULL), id) && number == sample) return i;
    }
    ck_abort_msg("sample %d of %s is missing", sample, id);
}

#define SAME(a, b, n)                                                                                                                      \
    ck_assert_msg(!(a) == !(b) && (!(a) || !memcmp(a, b, (size_t)(n) * sizeof *(a))), "%s, sample %d: %s differ", x.id, x.sample, #a)

static void compare(const struct store *a, size_t i, const struct store *b, size_t j)
{
    struct sample x, y;
    struct targets s = {0}, t = {0};
    struct err err = {0};
    ck_ok(store_read(a, i, &x, &s, &err));
    ck_ok(store_read(b, j, &y, &t, &err));
    ck_assert_msg(json_equal(x.messages, y.messages), "%s, sample %d: messages differ", x.id, x.sample);
    ck_assert_str_eq(x.finish_reason, y.finish_reason);
    ck_assert_int_eq(x.n_tok, y.n_tok);
    ck_assert_int_eq(x.n_prompt, y.n_prompt);
    ck_assert(x.seed == y.seed);
    SAME(x.token_ids, y.token_ids, x.n_tok);
    SAME(x.prompt_ids, y.prompt_ids, x.n_prompt);
    ck_assert_int_eq(s.n_tok, t.n_tok);
    ck_assert_int_eq(s.k, t.k);
    SAME(s.ids, t.ids, s.n_tok * s.k);
    SAME(s.logprob, t.logprob, s.n_tok * s.k);
    SAME(s.count, t.count, s.n_tok * s.k);
    SAME(s.tail_logprob, t.tail_logprob, s.n_tok);
    SAME(s.log_z, t.log_z, s.n_tok * s.n_temperature);
    sample_free(&x);
    sample_free(&y);
    targets_free(&s);
    targets_free(&t);
}

START_TEST(two_stores_hold_the_same)
{
    const char *both = getenv("DISTILL_STORES"), *colon = both ? strchr(both, ':') : NULL;
    if (!colon) return;
    char *first = mem_strndup(both, (size_t)(colon - both));
    struct store *a, *b;
    struct err err = {0};
    ck_ok(store_open_read(&a, first, &err));
    ck_ok(store_open_read(&b, colon + 1, &err));
    ck_assert_int_gt((int)store_n_sample(a), 0);
    ck_assert_int_eq((int)store_n_sample(a), (int)store_n_sample(b));
    for (size_t i = 0; i < store_n_sample(a); i++) {
        int sample;
        const char *id = store_id(a, i, &sample, NULL);
        compare(a, i, b, find(b, id, sample));
    }
    ck_ok(store_close(a, &err));
    ck_ok(store_close(b, &err));
    mem_free(first);
}
END_TEST

Suite *suite_same_stores(void);
Suite *suite_same_stores(void)
{
    Suite *s = suite_create("same_stores");
    TCase *t = tcase_create("same_stores");
    tcase_add_test(t, two_stores_hold_the_same);
    suite_add_tcase(s, t);
    return s;
}
