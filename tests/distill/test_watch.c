// What is shown of a text while it comes: whole characters, on one line, whatever the model writes.
#include "distill/watch.h"
#include "tests/test.h"

#include <string.h>

static struct tokenizer *tiny(void)
{
    struct err err = {0};
    struct tokenizer *t;
    ck_ok(tokenizer_load(&t, "teacher/tiny/base", &err));
    return t;
}

static struct ids ids_of(const struct tokenizer *t, const char *text)
{
    struct err err = {0};
    struct ids ids = {0};
    ck_ok(tokenizer_encode(t, text, strlen(text), &ids, &err));
    return ids;
}

START_TEST(tokens_that_cut_characters_never_show_half_of_one)
{
    static const char text[] = "Gr\u00fc\u00dfe \u4e2d\u6587 \U0001fae8 q\u0301!";
    struct tokenizer *t = tiny();
    struct watch w = {.tok = t};
    struct ids ids = ids_of(t, text);
    size_t shown = 0;
    ck_assert_uint_gt(ids.n, 15); // bytes, most of them
    for (size_t i = 0; i <= ids.n; i++) {
        const char *now = watch_text(&w, 1, ids.v, (int)i);
        const size_t n = strlen(now);
        ck_assert(n >= shown && n <= strlen(text) && !memcmp(now, text, n));
        ck_assert((text[n] & 0xC0) != 0x80); // between two characters
        shown = n;
    }
    ck_assert_uint_eq(shown, strlen(text));
    watch_free(&w);
    ids_free(&ids);
    tokenizer_free(t);
}
END_TEST

START_TEST(nothing_that_is_written_drives_the_terminal)
{
    static const struct {
        const char *text, *line;
    } cases[] = {
        {"a\n\n b\tc\r\nd", "a b c d"},
        {"x\033[2Jy\a\bz", "x[2Jyz"},
        {"\n\nfirst", "first"},
        {"a\u202eb\u200bc\xC2\x85\u2028\u3000d", "abc d"}, // no change of direction, nothing without a width
        {"<|im_start|>a<think>b<|im_end|>", "a<think>b"},  // special tokens are left out
        {"\xEF\xBF\xBD", "\xEF\xBF\xBD"},
    };
    struct tokenizer *t = tiny();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct watch w = {.tok = t};
        struct ids ids = ids_of(t, cases[i].text);
        ck_assert_str_eq(watch_text(&w, 1, ids.v, (int)ids.n), cases[i].line);
        watch_free(&w);
        ids_free(&ids);
    }
    tokenizer_free(t);
}
END_TEST

START_TEST(another_sequence_begins_anew_and_a_long_one_keeps_its_end)
{
    struct tokenizer *t = tiny();
    struct watch w = {.tok = t};
    struct ids a = ids_of(t, "first"), b = ids_of(t, "second");
    ck_assert_str_eq(watch_text(&w, 1, a.v, (int)a.n), "first");
    ck_assert_str_eq(watch_text(&w, 2, b.v, (int)b.n), "second");
    ck_assert_str_eq(watch_text(&w, 2, b.v, 0), ""); // fewer tokens: not the same run of it
    struct buf text = {0};
    for (int i = 0; i < 3000; i++) buf_printf(&text, "\u4e2d%d ", i);
    struct ids ids = ids_of(t, text.data);
    for (size_t i = 0; i <= ids.n; i += 7) {
        const char *now = watch_text(&w, 3, ids.v, (int)i);
        ck_assert_uint_le(strlen(now), 2100);
        ck_assert((*now & 0xC0) != 0x80);
    }
    const char *now = watch_text(&w, 3, ids.v, (int)ids.n);
    ck_assert_uint_ge(strlen(now), 1000);
    ck_assert_str_eq(now, text.data + text.size - strlen(now));
    buf_free(&text);
    ids_free(&a);
    ids_free(&b);
    ids_free(&ids);
    watch_free(&w);
    tokenizer_free(t);
}
END_TEST

Suite *suite_watch(void)
{
    Suite *s = suite_create("distill: what is being written");
    TCase *t = tcase_create("all");
    tcase_add_test(t, tokens_that_cut_characters_never_show_half_of_one);
    tcase_add_test(t, nothing_that_is_written_drives_the_terminal);
    tcase_add_test(t, another_sequence_begins_anew_and_a_long_one_keeps_its_end);
    suite_add_tcase(s, t);
    return s;
}
