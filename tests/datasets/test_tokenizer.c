// The tokenizer against Hugging Face's: ids of awkward strings (tests/golden/text/tokenizer.py), for the shipped tokenizer, for variants of
// it that use every known part, and for real ones where the material is at hand; and what must be refused.
#include "datasets/tokenizer/internal.h"
#include "tests/datasets/tokenizer_helpers.h"

#include <stdlib.h>
#include <time.h>

// Ids, the place of each token's end, and the way back for one string.
static void check(const struct tokenizer *t, const char *name, const json_t *text, const json_t *wanted, bool reversible)
{
    struct err err = {0};
    struct ids ids = {0};
    struct buf ends = {0}, back = {0};
    const char *s = json_string_value(text);
    const size_t n = json_string_length(text);
    char *shown = json_dumps(text, JSON_ENCODE_ANY);
    ck_encodes(t, name, text, wanted);
    ck_ok(tokenizer_encode_ends(t, s, n, &ids, &ends, &err));
    ck_assert_uint_eq(ends.size, ids.n * sizeof(size_t));
    for (size_t i = 0, end = 0, last = 0; reversible && i < ids.n; i++, last = end) {
        memcpy(&end, ends.data + i * sizeof end, sizeof end);
        ck_assert_msg(end >= last && end <= n && (i + 1 < ids.n || end == n), "%s: %s: token %zu ends at %zu", name, shown, i, end);
    }
    if (reversible) {
        ck_ok(tokenizer_decode(t, ids.v, ids.n, false, &back, &err));
        ck_assert_msg(back.size == n && (n == 0 || memcmp(back.data, s, n) == 0), "%s: %s: decoding gives other bytes", name, shown);
    }
    free(shown);
    ids_free(&ids);
    buf_free(&ends);
    buf_free(&back);
}

// NFC may change the text, and then decoding gives the changed one back.
static bool stays(const struct tokenizer *t, const json_t *text)
{
    struct normalized z = {0};
    const bool changed = normalizer_run(t->normalizer, json_string_value(text), json_string_length(text), &z);
    normalized_free(&z);
    return !changed;
}

START_TEST(shipped_tokenizer_gives_the_ids_of_hugging_face)
{
    struct err err = {0};
    struct tokenizer *t;
    json_t *cases = golden("text/tokenizer_tiny.json"), *c;
    size_t i;
    ck_ok(tokenizer_load(&t, TINY_TOKENIZER, &err));
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        check(t, "tiny", text, json_object_get(c, "ids"), stays(t, text));
    }
    ck_assert_int_eq(tokenizer_n_vocab(t), 512);
    ck_assert_int_eq(tokenizer_eos(t), tokenizer_id(t, "<|im_end|>"));
    ck_assert_int_eq(tokenizer_pad(t), tokenizer_id(t, "<|endoftext|>"));
    ck_assert_int_eq(tokenizer_bos(t), -1);
    ck_assert_int_eq(tokenizer_id(t, "no such token"), -1);
    ck_assert(tokenizer_is_special(t, tokenizer_eos(t)));
    ck_assert(!tokenizer_is_special(t, tokenizer_id(t, "<think>")));
    ck_assert(tokenizer_chat_template(t) != NULL);
    ck_assert_uint_eq(strlen(tokenizer_sha256(t)), 64);
    json_decref(cases);
    tokenizer_free(t);
}
END_TEST

// Text that the library's decoder gives for the ids of a case, whole and as a stream.
static void check_decoded(const struct tokenizer *t, const char *name, const json_t *c)
{
    struct err err = {0};
    struct buf whole = {0}, stream = {0};
    const json_t *decoded = json_object_get(c, "decoded"), *ids = json_object_get(c, "ids"), *id;
    if (json_is_null(decoded)) return;
    struct decode_stream *d = decode_stream_new(t, false);
    struct ids v = {0};
    size_t i;
    if (!decoded) decoded = json_object_get(c, "text");
    json_array_foreach(ids, i, id)
    {
        ids_push(&v, (int32_t)json_integer_value(id));
        ck_ok(decode_stream_put(d, v.v[i], &stream, &err));
        ck_assert_msg(utf8_check(stream.data, stream.size) == stream.size, "%s: half a character after %zu ids", name, i + 1);
    }
    decode_stream_end(d, &stream);
    decode_stream_free(d);
    ck_ok(tokenizer_decode(t, v.v, v.n, false, &whole, &err));
    for (int k = 0; k < 2; k++) {
        const struct buf *got = k ? &stream : &whole;
        char *shown = json_dumps(decoded, JSON_ENCODE_ANY);
        ck_assert_msg(got->size == json_string_length(decoded) && (!got->size || !memcmp(got->data, json_string_value(decoded), got->size)),
                      "%s: %s: %s gives \"%.*s\"", name, shown, k ? "streaming" : "decoding", (int)got->size, got->data ? got->data : "");
        free(shown);
    }
    buf_free(&whole);
    buf_free(&stream);
    ids_free(&v);
}

static void check_cases(const struct tokenizer *t, const char *name, const json_t *cases)
{
    json_t *c;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)cases, i, c)
    {
        check(t, name, json_object_get(c, "text"), json_object_get(c, "ids"), false);
        check_decoded(t, name, c);
    }
}

START_TEST(every_known_part_gives_the_ids_and_text_of_hugging_face)
{
    struct err err = {0};
    json_t *parts = golden("text/tokenizer_parts.json"), *part, *wanted, *id;
    size_t i, k, n;
    json_array_foreach(parts, i, part)
    {
        struct tokenizer *t;
        const char *name = json_string_value(json_object_get(part, "name"));
        const enum status st = tokenizer_variant(&t, json_object_get(part, "spec"), &err);
        ck_assert_msg(st == ST_OK, "%s: %s", name, err.text);
        check_cases(t, name, json_object_get(part, "cases"));
        json_array_foreach(json_object_get(part, "with_special"), k, wanted)
        {
            struct ids plain = {0}, full = {0};
            const json_t *c = json_array_get(json_object_get(part, "cases"), k);
            json_array_foreach(json_object_get(c, "ids"), n, id) ids_push(&plain, (int32_t)json_integer_value(id));
            tokenizer_add_special(t, plain.v, plain.n, &full);
            ck_assert_uint_eq(full.n, json_array_size(wanted));
            json_array_foreach(wanted, n, id) ck_assert_int_eq(full.v[n], json_integer_value(id));
            ids_free(&plain);
            ids_free(&full);
        }
        tokenizer_free(t);
    }
    json_decref(parts);
}
END_TEST

START_TEST(characters_with_bytes_to_fall_back_on_give_the_ids_and_text_of_hugging_face)
{
    struct err err = {0};
    json_t *root = golden("text/tokenizer_chars.json"), *part;
    size_t i;
    json_array_foreach(json_object_get(root, "parts"), i, part)
    {
        struct tokenizer *t;
        const char *name = json_string_value(json_object_get(part, "name"));
        json_t *file = json_deep_copy(json_object_get(root, "file")), *model = json_object_get(file, "model");
        json_object_update(file, json_object_get(part, "spec"));
        json_object_update(model, json_object_get(part, "model"));
        if (json_object_get(part, "model") && json_is_true(json_object_get(json_object_get(part, "model"), "missing")))
            for (unsigned b = 0; b < 256; b++) {
                char token[8];
                snprintf(token, sizeof token, "<0x%02X>", b);
                if ((b >= 0x80 && b < 0xC4) || b == 0x41 || b == 0x58) json_object_del(json_object_get(model, "vocab"), token);
            }
        const enum status st = tokenizer_from_json(&t, &(struct tokenizer_source){.tokenizer = file, .where = name, .sha256 = "-"}, &err);
        ck_assert_msg(st == ST_OK, "%s: %s", name, err.text);
        check_cases(t, name, json_object_get(part, "cases"));
        tokenizer_free(t);
        json_decref(file);
    }
    json_decref(root);
}
END_TEST

static const char *const REAL[] = {"qwen2_5", "qwen3", "llama3", "deepseek_v3"};

START_TEST(real_tokenizers_give_the_ids_of_hugging_face)
{
    struct err err = {0};
    const char *dir = test_material("tokenizers");
    if (!dir) return;
    json_t *root = golden("text/tokenizer_real.json"), *texts = json_object_get(root, "texts"), *text;
    size_t i;
    char *path = path_join(dir, REAL[_i]);
    struct tokenizer *t;
    ck_ok(tokenizer_load(&t, path, &err));
    json_array_foreach(texts, i, text)
        check(t, REAL[_i], text, json_array_get(json_object_get(json_object_get(root, "ids"), REAL[_i]), i), stays(t, text));
    tokenizer_free(t);
    mem_free(path);
    json_decref(root);
}
END_TEST

// Texts split by a marker line, and a line of ids each, by other programs than ours.
static void check_vectors(const struct tokenizer *t, const char *dir, const char *name)
{
    static const char marker[] = "\n__ggml_vocab_test__\n";
    struct err err = {0};
    struct buf in = {0}, out = {0};
    char *base = path_join(dir, name), *path_in = mem_printf("%s.inp", base), *path_out = mem_printf("%s.out", base);
    ck_ok(file_read(&in, path_in, 1 << 20, &err));
    ck_ok(file_read(&out, path_out, 1 << 20, &err));
    const char *s = in.data, *line = out.data;
    int n = 0;
    for (const char *end; s; n++) {
        end = strstr(s, marker);
        json_t *text = json_stringn(s, end ? (size_t)(end - s) : strlen(s)), *ids = json_array();
        for (char *next; *line && *line != '\n'; line = next) {
            const long id = strtol(line, &next, 10);
            if (next == line) break;
            json_array_append_new(ids, json_integer(id));
        }
        line = strchr(line, '\n') ? strchr(line, '\n') + 1 : "";
        check(t, name, text, ids, stays(t, text));
        json_decref(text);
        json_decref(ids);
        s = end ? end + sizeof marker - 1 : NULL;
    }
    ck_assert_int_eq(n, 47);
    mem_free(base);
    mem_free(path_in);
    mem_free(path_out);
    buf_free(&in);
    buf_free(&out);
}

START_TEST(real_tokenizers_pass_the_vectors_of_llama_cpp)
{
    static const char *const vectors[][2] = {{"qwen2_5", "ggml-vocab-qwen2.gguf"},
                                             {"qwen3", "ggml-vocab-qwen2.gguf"},
                                             {"llama3", "ggml-vocab-llama-bpe.gguf"},
                                             {"deepseek_v3", "deepseek-v3"},
                                             {"deepseek_v3", "deepseek-v3.2026"}};
    struct err err = {0};
    const char *dir = test_material("tokenizers");
    if (!dir) return;
    struct tokenizer *t;
    char *path = path_join(dir, vectors[_i][0]), *inputs = path_join(dir, "vectors");
    ck_ok(tokenizer_load(&t, path, &err));
    check_vectors(t, inputs, vectors[_i][1]);
    tokenizer_free(t);
    mem_free(path);
    mem_free(inputs);
}
END_TEST

START_TEST(a_megabyte_of_one_letter_is_encoded_in_time)
{
    struct err err = {0};
    struct tokenizer *t;
    struct buf text = {0}, back = {0};
    struct ids ids = {0};
    for (int i = 0; i < 1 << 20; i++) buf_putc(&text, 'a');
    ck_ok(tokenizer_load(&t, TINY_TOKENIZER, &err));
    const clock_t start = clock();
    ck_ok(tokenizer_encode(t, text.data, text.size, &ids, &err));
    ck_assert_msg(clock() - start < 10 * CLOCKS_PER_SEC, "it took %g s",
                  (double)(clock() - start) / CLOCKS_PER_SEC); // 0.3 s; quadratic work takes hours
    ck_ok(tokenizer_decode(t, ids.v, ids.n, false, &back, &err));
    ck_assert(back.size == text.size && memcmp(back.data, text.data, text.size) == 0);
    ids_free(&ids);
    buf_free(&text);
    buf_free(&back);
    tokenizer_free(t);
}
END_TEST

START_TEST(invalid_text_and_ids_are_refused)
{
    static const char *const bad[] = {"\x80",  "a\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xF0\x8F\xBF\xBF",
                                      "ok\xFF"};
    struct err err = {0};
    struct tokenizer *t;
    struct ids ids = {0};
    struct buf out = {0};
    const int32_t beyond = 512, negative = -1;
    ck_ok(tokenizer_load(&t, TINY_TOKENIZER, &err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_fails(tokenizer_encode(t, bad[i], strlen(bad[i]), &ids, &err), ST_BAD_INPUT, "not valid UTF-8");
    ck_fails(tokenizer_decode(t, &beyond, 1, false, &out, &err), ST_BAD_INPUT, "id 512");
    ck_fails(tokenizer_decode(t, &negative, 1, false, &out, &err), ST_BAD_INPUT, "id -1");
    ids_free(&ids);
    tokenizer_free(t);
}
END_TEST

START_TEST(decoding_skips_special_tokens_when_asked)
{
    struct err err = {0};
    struct tokenizer *t;
    struct ids ids = {0};
    struct buf out = {0};
    const char text[] = "<|im_start|>user\n<think>x</think><|im_end|>";
    ck_ok(tokenizer_load(&t, TINY_TOKENIZER, &err));
    ck_ok(tokenizer_encode(t, text, strlen(text), &ids, &err));
    ck_ok(tokenizer_decode(t, ids.v, ids.n, true, &out, &err));
    ck_assert_str_eq(out.data, "user\n<think>x</think>");
    ids_free(&ids);
    buf_free(&out);
    tokenizer_free(t);
}
END_TEST

Suite *suite_tokenizer(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *c = tcase_create("tokenizer");
    tcase_add_test(c, shipped_tokenizer_gives_the_ids_of_hugging_face);
    tcase_add_test(c, every_known_part_gives_the_ids_and_text_of_hugging_face);
    tcase_add_test(c, characters_with_bytes_to_fall_back_on_give_the_ids_and_text_of_hugging_face);
    tcase_add_loop_test(c, real_tokenizers_give_the_ids_of_hugging_face, 0, 4);
    tcase_add_loop_test(c, real_tokenizers_pass_the_vectors_of_llama_cpp, 0, 5);
    tcase_add_test(c, a_megabyte_of_one_letter_is_encoded_in_time);
    tcase_add_test(c, invalid_text_and_ids_are_refused);
    tcase_add_test(c, decoding_skips_special_tokens_when_asked);
    suite_add_tcase(s, c);
    return s;
}
