// Ids and loss masks under real templates with real tokenizers, token by token, against masks computed in Python by other means
// (tests/golden/text/chat.py): regular expressions for each family, and transformers' own for {% generation %} templates.
#include "datasets/chat.h"
#include "tests/datasets/chat_helpers.h"
#include "tests/test.h"

static const char *str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void check_case(const json_t *c, const json_t *row, const struct chat *chat)
{
    struct err err = {0};
    struct ids ids = {0};
    struct buf bytes = {0};
    uint8_t *mask = NULL;
    const json_t *runs = json_object_get(c, "mask");
    ck_assert_msg(chat_training_row(chat, row, &ids, &mask, NULL, &err) == ST_OK, "%s: %s", str(c, "template"), err.text);
    for (size_t i = 0; i < ids.n; i++)
        for (int k = 0; k < 4; k++) buf_putc(&bytes, (char)(ids.v[i] >> (8 * k)));
    ck_assert_msg(ids.n == (size_t)json_integer_value(json_object_get(c, "n")), "%s: %zu tokens", str(c, "template"), ids.n);
    ck_assert_msg(crc32_of(&bytes) == (uint32_t)json_integer_value(json_object_get(c, "crc32")), "%s: other ids", str(c, "template"));
    size_t run = 0;
    for (size_t i = 0; i < ids.n; i++) {
        const json_t *r = json_array_get(runs, run);
        const size_t begin = (size_t)json_integer_value(json_array_get(r, 0)), end = (size_t)json_integer_value(json_array_get(r, 1));
        ck_assert_msg(mask[i] == (r && i >= begin), "%s: token %zu of %zu has mask %d", str(c, "template"), i, ids.n, mask[i]);
        run += r && i + 1 == end;
    }
    ck_assert_uint_eq(run, json_array_size(runs));
    ids_free(&ids);
    buf_free(&bytes);
    mem_free(mask);
}

// The row with every text in parts, one a line. None of these templates loops over content, so the texts come back as they were.
static json_t *in_parts(const json_t *row)
{
    json_t *copy = json_deep_copy(row), *m;
    size_t i;
    json_array_foreach(json_object_get(copy, "messages"), i, m)
    {
        const char *text = str(m, "content"), *line;
        json_t *parts = json_array();
        for (; text; text = *line ? line + 1 : NULL) {
            line = text + strcspn(text, "\n");
            json_array_append_new(parts, json_pack("{s:s, s:s#}", "type", "text", "text", text, (int)(line - text)));
        }
        if (str(m, "content")) json_object_set(m, "content", parts);
        json_decref(parts);
    }
    return copy;
}

START_TEST(masks_are_those_of_python_token_by_token)
{
    static const char *const names[] = {"deepseek_v3", "qwen2_5", "qwen3", "llama3"};
    struct err err = {0};
    if (!test_material("tokenizers") || !test_material("chat-templates")) return;
    json_t *root, *c;
    size_t i, n = 0;
    ck_ok(json_read(&root, test_golden("text/chat_real.json"), &err));
    struct chat_fixture f = {0};
    chat_fixture_open(&f, names[_i], NULL);
    const char *open = "";
    json_array_foreach(json_object_get(root, "cases"), i, c)
    {
        if (strcmp(str(c, "tokenizer"), names[_i]) != 0) continue;
        if (strcmp(open, str(c, "template")) != 0) {
            chat_fixture_template(&f, str(c, "template"));
            open = str(c, "template");
        }
        const json_t *row = json_object_get(c, "row");
        if (json_is_integer(row)) row = json_array_get(json_object_get(root, "rows"), (size_t)json_integer_value(row));
        json_t *parts = in_parts(row);
        check_case(c, row, f.chat);
        check_case(c, parts, f.chat);
        json_decref(parts);
        n++;
    }
    ck_assert_uint_gt(n, 18);
    chat_fixture_close(&f);
    json_decref(root);
}
END_TEST

Suite *suite_chat_real(void)
{
    Suite *s = suite_create("chat_real");
    TCase *c = tcase_create("chat_real");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, masks_are_those_of_python_token_by_token, 0, 4);
    suite_add_tcase(s, c);
    return s;
}
