// JSON: what is read and refused (nst/JSONTestSuite among it), where errors point, what is written.
#include "kernels/base/json.h"
#include "tests/test.h"

#include <dirent.h>
#include <float.h>
#include <math.h>

static enum status parse(json_t **root, const char *text, struct err *err)
{
    return json_parse(root, text, strlen(text), "x.json", 0, err);
}

START_TEST(errors_point_at_line_and_column)
{
    struct err err = {0};
    json_t *root;
    ck_fails(parse(&root, "{\n  \"a\": 1,\n  \"b\": oops\n}", &err), ST_BAD_INPUT, "x.json:3:");
    ck_fails(json_parse(&root, "{\"a\": }", 7, "p.jsonl", 12, &err), ST_BAD_INPUT, "p.jsonl:12:7:");
    ck_fails(parse(&root, "", &err), ST_BAD_INPUT, "x.json:1:");
    ck_fails(parse(&root, "{} {}", &err), ST_BAD_INPUT, "end of file expected");
    ck_fails(json_parse_strict(&root, "{\"a\":1,\n\"a\":2}", 14, "x.json", 0, &err), ST_BAD_INPUT, "x.json:2:3: a key stands twice");
    ck_fails(parse(&root, "{\"a\":\n\"x\", \0}", &err), ST_BAD_INPUT, "x.json:2:");
    ck_fails(json_parse(&root, "[\n\"\xc3\xa9\", \0]", 10, "x.json", 0, &err), ST_BAD_INPUT, "x.json:2:6: not valid JSON: a NUL byte");
    ck_fails(parse(&root, "[\"\\ud800\"]", &err), ST_BAD_INPUT, "x.json:1:");
    ck_fails(parse(&root, "[1, -1e400]", &err), ST_BAD_INPUT, "a number is too large for a double");
    ck_assert_ptr_null(root);
}
END_TEST

START_TEST(what_jansson_alone_would_not_read_is_read_as_python_does)
{
    struct err err = {0};
    json_t *root;
    ck_ok(parse(&root, "{\"a\":1,\"a\":2}", &err));
    ck_assert_int_eq(json_integer_value(json_object_get(root, "a")), 2); // the last counts
    json_decref(root);
    ck_ok(parse(&root, "[1000000000000000019884624838656, -18446744073709551616, 9223372036854775807, \"18446744073709551616\"]", &err));
    ck_assert_double_eq(json_real_value(json_array_get(root, 0)), 1e30);
    ck_assert_double_eq(json_real_value(json_array_get(root, 1)), -0x1p64);
    ck_assert_int_eq(json_integer_value(json_array_get(root, 2)), INT64_MAX);
    ck_assert_str_eq(json_string_value(json_array_get(root, 3)), "18446744073709551616");
    json_decref(root);
    ck_ok(parse(&root, "{\"a\\\\u0000\\u0000b\" : \"\\u0000\"}", &err)); // an escaped backslash before the letters u0000 is no U+0000
    ck_assert_uint_eq(json_string_length(json_object_get(root, "a\\u0000\xEF\xBF\xBD"
                                                               "b")),
                      1);
    json_decref(root);
    ck_fails(json_parse_strict(&root, "{\"a\\u0000\":1}", 13, "x", 0, &err), ST_BAD_INPUT, "a key holds U+0000");
    ck_fails(parse(&root, "[18446744073709551616,\n oops]", &err), ST_BAD_INPUT, "x.json:2:"); // where the second fault is
    ck_fails(parse(&root, "[01844674407370955161600]", &err), ST_BAD_INPUT, "x.json:1:");
}
END_TEST

START_TEST(nul_in_strings_and_scalars_at_the_top_are_read)
{
    struct err err = {0};
    json_t *root;
    ck_ok(parse(&root, "[\"a\\u0000b\"]", &err));
    ck_assert_uint_eq(json_string_length(json_array_get(root, 0)), 3);
    struct buf b = {0};
    json_append_line(&b, root);
    ck_assert_str_eq(b.data, "[\"a\\u0000b\"]\n");
    json_decref(root);
    ck_ok(parse(&root, "\xef\xbb\xbf 7", &err)); // a byte order mark
    ck_assert_int_eq(json_integer_value(root), 7);
    json_decref(root);
    buf_free(&b);
}
END_TEST

START_TEST(reals_are_written_shortest_and_come_back_equal)
{
    static const struct {
        double v;
        const char *text;
    } CASES[] = {{0.1, "0.1"},
                 {1, "1.0"},
                 {-0.0, "-0.0"},
                 {1e300, "1e+300"},
                 {1.0 / 3, "0.3333333333333333"},
                 {2e-5, "2e-05"},
                 {0.7, "0.7"},
                 {123456789.5, "123456789.5"},
                 {5e-324, "4.94065645841247e-324"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct err err = {0};
        struct buf b = {0};
        json_t *j = json_real(CASES[i].v), *back;
        json_append_line(&b, j);
        ck_assert_int_eq(b.data[b.size - 1], '\n');
        ck_assert(!strncmp(b.data, CASES[i].text, b.size - 1));
        ck_ok(json_parse(&back, b.data, b.size, "x", 0, &err));
        ck_assert(json_is_real(back));
        ck_assert_double_eq(json_real_value(back), CASES[i].v);
        json_decref(j);
        json_decref(back);
        buf_free(&b);
    }
}
END_TEST

START_TEST(lines_and_indented_files_keep_order_and_bytes)
{
    struct err err = {0};
    json_t *root, *back;
    const char *text = "{\"z\":[1,2,[]],\"a\":{\"ä\":null,\"q\":\"\\\"\\\\\\n\\t\\r\\u001f\xf0\x9f\x98\x80\"},\"e\":{},\"t\":true}\n";
    ck_ok(parse(&root, text, &err));
    struct buf b = {0};
    json_append_line(&b, root);
    ck_assert_str_eq(b.data, text);
    char *path = path_join(test_tmpdir(), "x.json");
    ck_ok(json_write_atomic(root, path, &err));
    ck_ok(json_read(&back, path, &err));
    ck_assert(json_equal(root, back));
    buf_clear(&b);
    ck_ok(file_read(&b, path, 1000, &err));
    ck_assert(!strncmp(b.data, "{\n  \"z\": [\n    1,\n    2,\n    []\n  ],\n  \"a\": {\n    \"ä\": null,", 60));
    ck_assert_int_eq(b.data[b.size - 1], '\n');
    json_decref(root);
    json_decref(back);
    buf_free(&b);
    mem_free(path);
}
END_TEST

START_TEST(field_readers_report_all_mismatches_at_once)
{
    struct err err = {0};
    json_t *c;
    ck_ok(parse(&c, "{\"n\": 12, \"r\": 1e-6, \"whole\": 3.0, \"half\": 3.5, \"b\": true, \"s\": \"x\", \"null\": null}", &err));
    ck_assert_int_eq(json_get_int(c, "n", 0, true, "c.json", &err), 12);
    ck_assert_int_eq(json_get_int(c, "whole", 0, true, "c.json", &err), 3);
    ck_assert_double_eq(json_get_real(c, "r", 0, true, "c.json", &err), 1e-6);
    ck_assert_double_eq(json_get_real(c, "n", 0, true, "c.json", &err), 12);
    ck_assert(json_get_bool(c, "b", false, true, "c.json", &err));
    ck_assert_str_eq(json_get_str(c, "s", "", true, "c.json", &err), "x");
    ck_assert_int_eq(json_get_int(c, "null", 5, false, "c.json", &err), 5);
    ck_assert_int_eq(json_get_int(c, "missing", 6, false, "c.json", &err), 6);
    ck_assert_int_eq(err.code, ST_OK);
    ck_assert_int_eq(json_get_int(c, "half", 7, false, "c.json", &err), 7);
    json_get_int(c, "s", 7, true, "c.json", &err);
    json_get_bool(c, "n", false, true, "c.json", &err);
    json_get_str(c, "missing", NULL, true, "c.json", &err);
    ck_assert_int_eq(err.code, ST_BAD_INPUT);
    ck_assert_str_eq(err.text, "c.json: half: wanted an integer, found 3.5\n"
                               "c.json: s: wanted an integer, found \"x\"\n"
                               "c.json: n: wanted true or false, found 12\n"
                               "c.json: missing: missing, wanted a string");
    json_decref(c);
}
END_TEST

START_TEST(json_test_suite_is_judged_as_its_names_say)
{
    const char *dir = test_material("json-test-suite/test_parsing");
    if (!dir) return;
    DIR *d = opendir(dir);
    int n_yes = 0, n_no = 0, n_either = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct err err = {0};
        json_t *root;
        if (!strstr(e->d_name, ".json")) continue;
        char *path = path_join(dir, e->d_name);
        enum status st = json_read(&root, path, &err);
        if (e->d_name[0] == 'y') {
            ck_assert_msg(st == ST_OK, "%s: refused: %s", e->d_name, err.text);
            struct buf b = {0};
            json_t *back;
            json_append_line(&b, root); // what was read is written so that it reads the same
            ck_ok(json_parse(&back, b.data, b.size, e->d_name, 0, &err));
            ck_assert_msg(json_equal(root, back), "%s: written as %s", e->d_name, b.data);
            json_decref(back);
            buf_free(&b);
            n_yes++;
        } else if (e->d_name[0] == 'n') {
            ck_assert_msg(st == ST_BAD_INPUT, "%s: status %d, wanted a refusal", e->d_name, st);
            const char *place = strstr(err.text, e->d_name);
            int line, column;
            ck_assert_msg(place && sscanf(place + strlen(e->d_name), ":%d:%d:", &line, &column) == 2, "%s: no place in: %s", e->d_name,
                          err.text);
            n_no++;
        } else {
            n_either++; // i_: up to us, but no crash
        }
        json_decref(root);
        mem_free(path);
    }
    closedir(d);
    ck_assert_int_gt(n_yes, 90);
    ck_assert_int_gt(n_no, 180);
    ck_assert_int_gt(n_either, 30);
}
END_TEST

Suite *suite_json(void)
{
    Suite *s = suite_create("base: JSON");
    TCase *t = tcase_create("all");
    tcase_add_test(t, errors_point_at_line_and_column);
    tcase_add_test(t, what_jansson_alone_would_not_read_is_read_as_python_does);
    tcase_add_test(t, nul_in_strings_and_scalars_at_the_top_are_read);
    tcase_add_test(t, reals_are_written_shortest_and_come_back_equal);
    tcase_add_test(t, lines_and_indented_files_keep_order_and_bytes);
    tcase_add_test(t, field_readers_report_all_mismatches_at_once);
    tcase_add_test(t, json_test_suite_is_judged_as_its_names_say);
    suite_add_tcase(s, t);
    return s;
}
