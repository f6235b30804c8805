// Prompts and other JSONL: what is accepted, and that each complaint names the line.
#include "datasets/jsonl.h"
#include "tests/test.h"

static const char *put(const char *text)
{
    static char path[512];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/p.jsonl", test_tmpdir());
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    return path;
}

START_TEST(prompts_of_every_accepted_form_are_read)
{
    struct err err = {0};
    struct prompts p;
    const char *path = put("\xEF\xBB\xBF{\"id\": \"a\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"answer\": 5}\r\n"
                           "\n"
                           "{\"prompt\": \"two\", \"answer\": \"1/2\"}\n"
                           "  \t \n"
                           "{\"id\": 17, \"prompt\": \"\", \"answer\": 0.1, \"tools\": []}\n"
                           "{\"id\": null, \"prompt\": \"u\\u0000v\", \"answer\": null}");
    ck_ok(prompts_load(&p, path, 0, false, &err));
    ck_assert_uint_eq(p.n, 4);
    ck_assert_uint_eq(p.n_skipped, 0);
    ck_assert_str_eq(p.v[0].id, "a");
    ck_assert_str_eq(p.v[0].answer, "5");
    ck_assert_int_eq(p.v[0].line, 1);
    ck_assert_str_eq(p.v[1].id, "2"); // 0-based, blank lines counted
    ck_assert_int_eq(p.v[1].line, 3);
    ck_assert_str_eq(p.v[1].answer, "1/2");
    const json_t *m = json_array_get(p.v[1].messages, 0);
    ck_assert_str_eq(json_string_value(json_object_get(m, "role")), "user");
    ck_assert_str_eq(json_string_value(json_object_get(m, "content")), "two");
    ck_assert_str_eq(p.v[2].id, "17");
    ck_assert_str_eq(p.v[2].answer, "0.1");
    ck_assert_ptr_nonnull(json_object_get(p.v[2].row, "tools"));
    ck_assert_str_eq(p.v[3].id, "5");
    ck_assert_ptr_null(p.v[3].answer);
    ck_assert_uint_eq(json_string_length(json_object_get(json_array_get(p.v[3].messages, 0), "content")), 3);
    prompts_free(&p);
    ck_ok(prompts_load(&p, path, 2, false, &err));
    ck_assert_uint_eq(p.n, 2);
    prompts_free(&p);
}
END_TEST

START_TEST(a_limit_leaves_later_lines_unread)
{
    struct err err = {0};
    struct prompts p;
    ck_ok(prompts_load(&p, put("{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\nnonsense\n"), 2, false, &err));
    ck_assert_uint_eq(p.n, 2);
    prompts_free(&p);
}
END_TEST

static const struct {
    const char *line, *part;
} BAD[] = {
    {"{\"prompt\": \"a\"", "not valid JSON"},
    {"{\"prompt\": \"a\"} x", "not valid JSON"},
    {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "a key stands twice"},
    {"{\"prompt\": \"\xFF\"}", "not valid JSON"},
    {"{\"prompt\": \"\\ud800\"}", "not valid JSON"},
    {"[1]", "wanted a JSON object"},
    {"7", "wanted a JSON object"},
    {"{}", "wanted \"messages\""},
    {"{\"prompt\": 7}", "wanted \"messages\""},
    {"{\"messages\": []}", "non-empty list"},
    {"{\"messages\": \"hi\"}", "non-empty list"},
    {"{\"messages\": [{\"content\": \"x\"}]}", "messages[0]: wanted an object with a \"role\""},
    {"{\"messages\": [\"x\"]}", "messages[0]"},
    {"{\"messages\": [{\"role\": \"user\"}]}", "wanted a \"content\" string"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": 5}]}", "wanted a \"content\" string"},
    {"{\"prompt\": \"a\", \"answer\": [1]}", "\"answer\": wanted a string or a number"},
    {"{\"prompt\": \"a\", \"id\": \"\"}", "\"id\": wanted"},
    {"{\"prompt\": \"a\", \"id\": 1.5}", "\"id\": wanted"},
    {"{\"prompt\": \"a\", \"id\": \"u\\u0000\"}", "\"id\": wanted"},
    {"{\"prompt\": \"a\", \"id\": \"first\"}", "id \"first\" was already given in line 1"},
    {"{\"prompt\": \"a\", \"id\": \"0\"}", NULL}, // fine: the first line has an id of its own
};

START_TEST(a_bad_line_is_named_or_skipped)
{
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct err err = {0};
        struct prompts p;
        char text[512];
        snprintf(text, sizeof text, "{\"id\": \"first\", \"prompt\": \"x\"}\n\n%s\n{\"prompt\": \"last\"}\n", BAD[i].line);
        const char *path = put(text);
        if (BAD[i].part) {
            ck_fails(prompts_load(&p, path, 0, false, &err), ST_BAD_INPUT, BAD[i].part);
            ck_assert_int_eq(prompts_load(&p, path, 0, false, &err), ST_BAD_INPUT);
            ck_assert_msg(strstr(err.text, "p.jsonl:3") != NULL, "%s", err.text);
            err = (struct err){0};
        }
        ck_ok(prompts_load(&p, path, 0, true, &err));
        ck_assert_uint_eq(p.n, BAD[i].part ? 2 : 3);
        ck_assert_uint_eq(p.n_skipped, BAD[i].part ? 1 : 0);
        ck_assert_str_eq(p.v[p.n - 1].id, "3");
        prompts_free(&p);
    }
}
END_TEST

START_TEST(a_missing_or_empty_file)
{
    struct err err = {0};
    struct prompts p;
    ck_fails(prompts_load(&p, "/nowhere/p.jsonl", 0, true, &err), ST_BAD_INPUT, "/nowhere/p.jsonl");
    ck_ok(prompts_load(&p, put(""), 0, false, &err));
    ck_assert_uint_eq(p.n, 0);
    prompts_free(&p);
}
END_TEST

static enum status stop_at_three(void *arg, json_t *row, long line, struct err *err)
{
    (*(int *)arg)++;
    ck_assert_int_eq(json_integer_value(row), line);
    return line == 3 ? err_set(err, ST_FAIL, "stopped") : ST_OK;
}

START_TEST(each_line_is_handed_over_until_one_fails)
{
    struct err err = {0};
    int n = 0;
    ck_fails(jsonl_each(put("1\n2\n3\n4\n"), true, NULL, stop_at_three, &n, &err), ST_FAIL, "stopped");
    ck_assert_int_eq(n, 3);
}
END_TEST

START_TEST(many_prompts_load_in_time)
{
    enum { N = 100000 };
    struct err err = {0};
    struct prompts p;
    struct buf b = {0};
    for (int i = 0; i < N; i++) buf_printf(&b, "{\"id\": \"p%d\", \"prompt\": \"how many?\"}\n", i);
    const char *path = put("");
    ck_ok(file_write_atomic(path, b.data, b.size, &err));
    ck_ok(prompts_load(&p, path, 0, false, &err));
    ck_assert_uint_eq(p.n, N);
    prompts_free(&p);
    buf_free(&b);
}
END_TEST

Suite *suite_jsonl(void);
Suite *suite_jsonl(void)
{
    Suite *s = suite_create("jsonl");
    TCase *c = tcase_create("jsonl");
    tcase_add_test(c, prompts_of_every_accepted_form_are_read);
    tcase_add_test(c, a_limit_leaves_later_lines_unread);
    tcase_add_test(c, a_bad_line_is_named_or_skipped);
    tcase_add_test(c, a_missing_or_empty_file);
    tcase_add_test(c, each_line_is_handed_over_until_one_fails);
    tcase_add_test(c, many_prompts_load_in_time);
    suite_add_tcase(s, c);
    return s;
}
