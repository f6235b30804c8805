// Messages: gathering, cutting, prefixes, system errors.
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>

START_TEST(err_set_may_quote_its_own_text)
{
    struct err err = {0};
    ck_assert_int_eq(err_set(&err, ST_FAIL, "first"), ST_FAIL);
    ck_assert_int_eq(err_set(&err, ST_BAD_INPUT, "after %s", err.text), ST_BAD_INPUT);
    ck_assert_str_eq(err.text, "after first");
    ck_assert_int_eq(err.code, ST_BAD_INPUT);
}
END_TEST

START_TEST(err_add_gathers_lines_and_keeps_the_first_code)
{
    struct err err = {0};
    err_add(&err, ST_BAD_INPUT, "a: wanted 1");
    err_add(&err, ST_FAIL, "b: wanted 2");
    ck_assert_str_eq(err.text, "a: wanted 1\nb: wanted 2");
    ck_assert_int_eq(err.code, ST_BAD_INPUT);
    ck_assert_int_eq(err.n_line, 2);
    ck_assert_int_eq(err_prefix(&err, "config.%s", "json"), ST_BAD_INPUT);
    ck_assert_str_eq(err.text, "config.json: a: wanted 1\nb: wanted 2");
}
END_TEST

START_TEST(long_text_is_cut_at_a_line_and_says_so_once)
{
    struct err err = {0};
    for (int i = 0; i < 1000; i++) err_add(&err, ST_FAIL, "line %d of many", i);
    ck_assert_int_eq(err.n_line, 1000);
    size_t n = strlen(err.text);
    ck_assert_uint_lt(n, sizeof err.text);
    const char *mark = strstr(err.text, "\n(more left out)");
    ck_assert_ptr_nonnull(mark);
    ck_assert_str_eq(mark, "\n(more left out)"); // at the end, once
    ck_assert(!strncmp(mark - strlen("of many"), "of many", strlen("of many")));
}
END_TEST

START_TEST(one_line_too_long_is_cut_at_a_whole_character)
{
    struct err err = {0};
    char *text = NEW_N(char, 10001);
    for (int i = 0; i < 5000; i++) memcpy(text + 2 * i, "\xc3\xa4", 2); // ä
    err_set(&err, ST_FAIL, "%s", text);
    char *mark = strstr(err.text, "\n(more left out)");
    ck_assert_ptr_nonnull(mark);
    ck_assert_int_eq((mark - err.text) % 2, 0);
    mem_free(text);
}
END_TEST

START_TEST(a_full_disk_says_what_to_do)
{
    struct err err = {0};
    errno = ENOSPC;
    ck_assert_int_eq(err_errno(&err, "write", "out/x"), ST_FAIL);
    ck_assert_ptr_nonnull(strstr(err.text, "out/x"));
    ck_assert_ptr_nonnull(strstr(err.text, "free some space and run the same command again"));
    ck_assert_ptr_null(strstr(err.text, "lost")); // what is kept, each command knows alone
    errno = ENOENT;
    ck_assert_int_eq(err_errno(&err, "open", "nowhere"), ST_BAD_INPUT);
    ck_assert_str_eq(err.text, "open nowhere: No such file or directory");
    errno = EIO;
    ck_assert_int_eq(err_errno(&err, "read", "x"), ST_FAIL);
}
END_TEST

START_TEST(buf_grows_and_is_always_a_string)
{
    struct buf b = {0};
    buf_put(&b, "", 0);
    ck_assert_str_eq(b.data, "");
    for (int i = 0; i < 1000; i++) buf_printf(&b, "%d,", i % 10);
    ck_assert_uint_eq(b.size, 2000);
    ck_assert_uint_eq(strlen(b.data), 2000);
    buf_clear(&b);
    buf_puts(&b, "ab");
    buf_put(&b, "\0c", 2);
    buf_putc(&b, 'd');
    ck_assert_mem_eq(b.data, "ab\0cd", 6);
    ck_assert_uint_eq(b.size, 5);
    buf_free(&b);
}
END_TEST

START_TEST(mem_printf_and_strndup_own_their_text)
{
    char *a = mem_printf("%s/%d", "x", 7), *b = mem_strndup("abcdef", 3), *c = mem_strndup("ab", 9);
    ck_assert_str_eq(a, "x/7");
    ck_assert_str_eq(b, "abc");
    ck_assert_str_eq(c, "ab");
    mem_free(a);
    mem_free(b);
    mem_free(c);
    int *zeros = NEW_N(int, 1000);
    for (int i = 0; i < 1000; i++) ck_assert_int_eq(zeros[i], 0);
    mem_free(zeros);
}
END_TEST

#ifdef DISTILL_DEBUG
START_TEST(debug_builds_trap_an_allocation_inside_a_step)
{
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr)); // the BUG() to come is wanted
    mem_forbid(true);
    mem_alloc(1); // aborts
}
END_TEST
#endif

Suite *suite_status(void)
{
    Suite *s = suite_create("base: status and memory");
    TCase *t = tcase_create("all");
    tcase_add_test(t, err_set_may_quote_its_own_text);
    tcase_add_test(t, err_add_gathers_lines_and_keeps_the_first_code);
    tcase_add_test(t, long_text_is_cut_at_a_line_and_says_so_once);
    tcase_add_test(t, one_line_too_long_is_cut_at_a_whole_character);
    tcase_add_test(t, a_full_disk_says_what_to_do);
    tcase_add_test(t, buf_grows_and_is_always_a_string);
    tcase_add_test(t, mem_printf_and_strndup_own_their_text);
#ifdef DISTILL_DEBUG
    tcase_add_test_raise_signal(t, debug_builds_trap_an_allocation_inside_a_step, 6); // SIGABRT
#endif
    suite_add_tcase(s, t);
    return s;
}
