// What a tokenizer's files may hold: parts that are not known are refused by name, broken files with the place, and the fast reader of the
// vocabulary takes nothing that the JSON reader would refuse. Then streams of decoded text.
#include "datasets/tokenizer/internal.h"
#include "tests/datasets/tokenizer_helpers.h"

#include <string.h>

START_TEST(what_is_not_known_is_refused_by_name)
{
    static const struct {
        const char *spec, *message;
    } bad[] = {
        {"{\"normalizer\":{\"type\":\"Nmt\"}}", "normalizer Nmt is not known"},
        {"{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "pre_tokenizer UnicodeScripts is not known"},
        {"{\"pre_tokenizer\":null}", "no ByteLevel"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}}",
         "Digits stands after ByteLevel"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\bx\"},\"behavior\":\"Isolated\",\"invert\":false}}", "\\b"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Klingon}\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         "\\p{Klingon}"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         "unclosed ("},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Glued\",\"invert\":false}}",
         "behavior is Glued"},
        {"{\"decoder\":{\"type\":\"WordPiece\"},\"pre_tokenizer\":null}", "decoder WordPiece is not known"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "model.type is Unigram"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "the same id 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "id of \"a\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "its result is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "one space between"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"continuing_subword_prefix\":\"##\"}}",
         "continuing_subword_prefix"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}", "unk_token \"?\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":true}}", "byte 0x00 has no token"},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a\"},\"content\":\"b\"}}", "unclosed ("},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":\"a\",\"content\":\"b\"}}", "normalizer Replace: wanted a pattern"},
        {"{\"normalizer\":{\"type\":\"StripAccents\"}}", "normalizer StripAccents is not known"},
        {"{\"normalizer\":{\"type\":\"Prepend\"}}", "no string \"prepend\""},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", "replacement is not one character"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}}", "prepend_scheme is last"},
        {"{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}}", "decoder Metaspace: the pre_tokenizer has a ByteLevel"},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},{\"type\":\"Strip\",\"content\":\"\"}]}}",
         "decoder Strip: wanted"},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},"
         "\"content\":\"b\"}]}}",
         "Replace with a Regex behind Fuse"},
        {"{\"post_processor\":{\"type\":\"BertProcessing\"}}", "post_processor BertProcessing is not known"},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_tokens\":{}}}",
         "no ids for \"<s>\""},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}],\"special_tokens\":{}}}",
         "single[0] is neither"},
        {"{\"added_tokens\":[{\"id\":600,\"content\":\"<x>\"},{\"id\":600,\"content\":\"<y>\"}]}", "the same id 600"},
        {"{\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]}", "added_tokens[0]"},
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *spec;
        struct tokenizer *t;
        ck_ok(json_parse(&spec, bad[i].spec, strlen(bad[i].spec), "spec", 0, &err));
        ck_fails(tokenizer_variant(&t, spec, &err), ST_BAD_INPUT, bad[i].message);
        ck_assert_ptr_null(t);
        json_decref(spec);
    }
}
END_TEST

// Writes a tokenizer.json whose model holds these texts of vocab and merges.
static enum status load_text(const char *vocab, const char *merges, struct tokenizer **t, struct err *why)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *path = path_join(dir, "tokenizer.json");
    char *text = mem_printf("{\n\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": false, \"add_prefix_space\": false},\n"
                            "\"model\": {\"type\": \"BPE\", \"vocab\": %s,\n\"merges\": %s}\n}\n",
                            vocab, merges);
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    enum status st = tokenizer_load(t, dir, why);
    mem_free(path);
    mem_free(text);
    return st;
}

START_TEST(broken_vocabularies_are_refused_with_the_place)
{
    static const struct {
        const char *vocab, *merges, *message;
    } bad[] = {
        {"{\"a\": 0,}", "[]", "tokenizer.json:3:"},
        {"{\"a\": 0 \"b\": 1}", "[]", "tokenizer.json:3:"},
        {"{\"a\": 01}", "[]", "tokenizer.json:3:"},
        {"{\"a\": +1}", "[]", "tokenizer.json:3:"},
        {"{'a': 1}", "[]", "tokenizer.json:3:"},
        {"{\"a\\ud800\": 0}", "[]", "invalid Unicode '\\uD800'"},
        {"{\"a\\udc00\": 0}", "[]", "invalid Unicode '\\uDC00'"},
        {"{\"\\ud83dx\": 0}", "[]", "tokenizer.json:3:"},
        {"{\"a\tb\": 0}", "[]", "control character 0x9"},
        {"{\"a\xff\": 0}", "[]", "tokenizer.json:3:"},
        {"{\"a\\x\": 0}", "[]", "invalid escape"},
        {"{\"a\": 0, \"a\": 1}", "[]", "duplicate"},
        {"{\"a\": 0, \"\\u0061\": 1}", "[]", "duplicate"},
        {"{\"\\u4f60\": 0, \"\xE4\xBD\xA0\": 1}", "[]", "duplicate"},
        {"{\"a\": 0.5}", "[]", "the id of \"a\""},
        {"{\"a\": null}", "[]", "the id of \"a\""},
        {"{\"a\": 99999999}", "[]", "the id of \"a\""},
        {"[\"a\"]", "[]", "model.vocab is not an object"},
        {"{}", "[]", "model.vocab is empty"},
        {"{\"\": 0}", "[[\"\", \"a\"]]", "its right part"},
        {"{\"a\": 0}", "[\"a\",]", "tokenizer.json:4:"},
        {"{\"a\": 0}", "[[\"a\", \"b\", \"c\"]]", "merge 0 is neither"},
        {"{\"a\": 0}", "[\"a  b\"]", "one space between"},
        {"{\"a\": 0}", "{}", "model.merges is not an array"},
        {"{\"a\": 0}", "[\"a b\"]]", "tokenizer.json:4:"},
        {"{\"a\": 0}", "[], \"vocab\": {}", "duplicate"},
        {"{\"a\": 0}", "[", "tokenizer.json:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct tokenizer *t;
        ck_fails(load_text(bad[i].vocab, bad[i].merges, &t, &err), ST_BAD_INPUT, bad[i].message);
        ck_assert_ptr_null(t);
    }
}
END_TEST

START_TEST(unusual_but_right_vocabularies_are_read)
{
    static const char *const good[][2] = {{"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]"},
                                          {" {\n \"\\u0061\" :\t0 ,\r\n\"b\": 1, \"\\u0061b\":2 } ", " [ [ \"a\" , \"b\" ] ] "},
                                          {"{\"b\":1,\"ab\":2,\"a\":0}", "[\"#version: 0.2\",\"a b\"]"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err err = {0};
        struct tokenizer *t;
        struct ids ids = {0};
        ck_ok(load_text(good[i][0], good[i][1], &t, &err));
        ck_ok(tokenizer_encode(t, "abba", 4, &ids, &err));
        ck_assert_uint_eq(ids.n, 3);
        ck_assert(ids.v[0] == 2 && ids.v[1] == 1 && ids.v[2] == 0);
        ids_free(&ids);
        tokenizer_free(t);
    }
}
END_TEST

// Ids in any order, so that characters are cut and bytes broken in every way: the pieces are whole characters, and all together are what
// the whole text gives with U+FFFD for each broken character.
START_TEST(a_stream_of_any_ids_is_the_text_of_all_in_whole_characters)
{
    struct err err = {0};
    struct tokenizer *t;
    uint32_t x = 1;
    ck_ok(tokenizer_load(&t, TINY_TOKENIZER, &err));
    for (int round = 0; round < 300; round++) {
        struct decode_stream *d = decode_stream_new(t, false);
        struct buf out = {0}, whole = {0};
        struct ids ids = {0};
        for (int i = 0; i < 40; i++) {
            x = x * 1664525 + 1013904223;
            ids_push(&ids, (int32_t)((x >> 8) % (round % 2 ? 512 : 256))); // the first 256 are single bytes, more or less
            ck_ok(decode_stream_put(d, ids.v[i], &out, &err));
            ck_assert_uint_eq(utf8_check(out.data ? out.data : "", out.size), out.size);
        }
        decode_stream_end(d, &out);
        ck_ok(tokenizer_decode(t, ids.v, ids.n, false, &whole, &err));
        json_t *wanted = utf8_json(whole.data, whole.size);
        ck_assert_uint_eq(out.size, json_string_length(wanted));
        ck_assert_mem_eq(out.data, json_string_value(wanted), out.size);
        json_decref(wanted);
        decode_stream_free(d);
        buf_free(&out);
        buf_free(&whole);
        ids_free(&ids);
    }
    struct decode_stream *d = decode_stream_new(t, true);
    struct buf out = {0};
    ck_ok(decode_stream_put(d, tokenizer_eos(t), &out, &err));
    ck_assert_uint_eq(out.size, 0);
    ck_fails(decode_stream_put(d, 512, &out, &err), ST_BAD_INPUT, "id 512");
    decode_stream_free(d);
    buf_free(&out);
    tokenizer_free(t);
}
END_TEST

Suite *suite_tokenizer_files(void)
{
    Suite *s = suite_create("tokenizer_files");
    TCase *c = tcase_create("tokenizer_files");
    tcase_add_test(c, what_is_not_known_is_refused_by_name);
    tcase_add_test(c, broken_vocabularies_are_refused_with_the_place);
    tcase_add_test(c, unusual_but_right_vocabularies_are_read);
    tcase_add_test(c, a_stream_of_any_ids_is_the_text_of_all_in_whole_characters);
    suite_add_tcase(s, c);
    return s;
}
