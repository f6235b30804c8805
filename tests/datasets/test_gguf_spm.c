// SentencePiece's BPE through GGUF and back (tests/golden/text/spm.py): the ids are those of Hugging Face's conversion, and what no scores
// say is refused.
#include "tests/datasets/gguf_helpers.h"
#include "tests/datasets/tokenizer_helpers.h"

static void check_cases(const struct tokenizer *t, const json_t *cases)
{
    struct err err = {0};
    struct ids ids = {0};
    struct buf back = {0};
    const json_t *c;
    size_t k;
    json_array_foreach(cases, k, c)
    {
        const json_t *text = json_object_get(c, "text"), *wanted = json_object_get(c, "ids"), *decoded = json_object_get(c, "decoded");
        ck_encodes(t, "spm", text, wanted);
        if (json_is_null(decoded)) continue; // the library gives up bytes there
        ids.n = 0;
        ck_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &err));
        if (!decoded) decoded = text;
        buf_clear(&back);
        ck_ok(tokenizer_decode(t, ids.v, ids.n, false, &back, &err));
        if (back.size != json_string_length(decoded) || (back.size && memcmp(back.data, json_string_value(decoded), back.size)))
            ck_abort_msg("the ids of \"%s\" become \"%.*s\"", json_string_value(text), (int)back.size, back.data);
    }
    ids_free(&ids);
    buf_free(&back);
}

static const struct {
    const char *name;
    bool bos, eos; // put around a text
} FILES[] = {{"spm", true, false}, {"spm_bare", true, true}, {"spm_ties", true, false}, {"spm_merges", true, false}};

START_TEST(a_vocabulary_of_scores_gives_hugging_faces_ids)
{
    struct err err = {0};
    struct tokenizer *t;
    struct ids full = {0};
    char name[64];
    snprintf(name, sizeof name, "text/%s.gguf", FILES[_i].name);
    ck_ok(tokenizer_load(&t, test_golden(name), &err));
    json_t *root = golden("text/spm.json");
    const json_t *cases = json_object_get(json_object_get(root, "files"), FILES[_i].name);
    ck_assert_uint_gt(json_array_size(cases), 150);
    check_cases(t, cases);
    ck_assert_int_eq(tokenizer_n_vocab(t), 508); // not the four [PAD…]
    ck_assert_int_eq(tokenizer_bos(t), 1);       // also where only llama.cpp's defaults say so
    ck_assert_int_eq(tokenizer_eos(t), 2);
    ck_assert_int_eq(tokenizer_pad(t), -1);
    ck_assert(tokenizer_is_special(t, 0) && tokenizer_is_special(t, 3)); // <unk>, <|end|>
    ck_assert(!tokenizer_is_special(t, 4));                              // <think>, which the user defined
    tokenizer_add_special(t, (int32_t[]){300}, 1, &full);
    ck_assert_uint_eq(full.n, 1u + FILES[_i].bos + FILES[_i].eos);
    ck_assert_int_eq(full.v[0], 1);
    ck_assert_int_eq(full.v[full.n - 1], FILES[_i].eos ? 2 : 300);
    ids_free(&full);
    json_decref(root);
    tokenizer_free(t);
}
END_TEST

// ---- written ----

static const char CONFIG[] =
    "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": {\"content\": \"<unk>\"}, \"add_bos_token\": true}";

// A folder with spm_tokenizer.json in which some keys are others; its merges changed by `edit`, if there is one.
static const char *variant(const char *changes, void (*edit)(json_t *merges))
{
    struct err err = {0};
    const char *dir = tokenizer_folder(golden("text/spm_tokenizer.json"), changes, edit);
    char *config = path_join(dir, "tokenizer_config.json");
    ck_ok(file_write_atomic(config, CONFIG, strlen(CONFIG), &err));
    mem_free(config);
    return dir;
}

static const char *exported(const char *dir, const char **note)
{
    return exported_tokenizer(dir, 512, note);
}

static json_t *keys_of(const char *path)
{
    struct err err = {0};
    struct gguf g;
    ck_ok(gguf_open(&g, path, &err));
    json_t *keys = gguf_json(&g, "");
    gguf_close(&g);
    return keys;
}

// What sentencepiece trained and the gguf package wrote, out of the tokenizer.json that transformers made of it.
START_TEST(an_export_says_what_the_original_said)
{
    struct err err = {0};
    const char *note, *dir = variant("{}", NULL), *file = exported(dir, &note);
    json_t *root = golden("text/spm.json"), *keys = keys_of(file), *wanted = keys_of(test_golden("text/spm.gguf"));
    ck_assert_ptr_null(note);
    static const char *const same[] = {"model",        "pre",          "tokens",           "token_type",
                                       "bos_token_id", "eos_token_id", "unknown_token_id", "add_bos_token"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s", same[i]);
        if (!json_equal(json_object_get(keys, key), json_object_get(wanted, key))) ck_abort_msg("%s differs", key);
    }
    ck_assert(json_is_true(json_object_get(keys, "tokenizer.ggml.add_space_prefix")));
    ck_assert_ptr_null(json_object_get(keys, "tokenizer.ggml.merges")); // the scores say it all
    const json_t *made = json_object_get(root, "made"), *scores = json_object_get(keys, "tokenizer.ggml.scores"), *id;
    ck_assert_uint_eq(json_array_size(scores), 512);
    size_t i;
    double last = 1;
    json_array_foreach(made, i, id)
    {
        const double score = json_real_value(json_array_get(scores, (size_t)json_integer_value(id)));
        ck_assert_double_lt(score, last); // in sentencepiece's order
        last = score;
    }
    struct tokenizer *t, *of_dir;
    ck_ok(tokenizer_load(&of_dir, dir, &err));
    ck_ok(tokenizer_load(&t, file, &err));
    check_cases(t, json_object_get(json_object_get(root, "files"), "spm"));
    ck_assert_str_eq(tokenizer_sha256(t), tokenizer_sha256(of_dir));
    tokenizer_free(t);
    tokenizer_free(of_dir);
    json_decref(root);
    json_decref(keys);
    json_decref(wanted);
}
END_TEST

// Each golden file through a file of our own: the same ids again, also where scores are equal, and by scores alone, for llama.cpp has no
// more.
START_TEST(an_export_of_a_file_gives_the_same_ids)
{
    struct err err = {0};
    struct tokenizer *t;
    const char *note;
    char name[64];
    snprintf(name, sizeof name, "text/%s.gguf", FILES[_i].name);
    json_t *root = golden("text/spm.json");
    const char *file = exported(test_golden(name), &note);
    json_t *keys = keys_of(file);
    ck_assert_ptr_null(json_object_get(keys, "tokenizer.ggml.merges"));
    ck_assert_int_eq(note && strstr(note, "several tokens have one score"), !strcmp(FILES[_i].name, "spm_ties"));
    ck_assert_int_eq(note != NULL, !strcmp(FILES[_i].name, "spm_ties"));
    ck_ok(tokenizer_load(&t, file, &err));
    json_decref(keys);
    check_cases(t, json_object_get(json_object_get(root, "files"), FILES[_i].name));
    json_decref(root);
    tokenizer_free(t);
}
END_TEST

// Files of Llama 2's time: the splits of one token in another order. llama.cpp sees no difference, tokenizers see one; so merges are
// written.
static void turn_splits(json_t *merges)
{
    for (size_t i = 0; i + 1 < json_array_size(merges); i++) {
        json_t *a = json_array_get(merges, i), *b = json_array_get(merges, i + 1);
        char x[64], y[64];
        snprintf(x, sizeof x, "%s%s", json_string_value(json_array_get(a, 0)), json_string_value(json_array_get(a, 1)));
        snprintf(y, sizeof y, "%s%s", json_string_value(json_array_get(b, 0)), json_string_value(json_array_get(b, 1)));
        if (strcmp(x, y)) continue;
        json_incref(a);
        json_array_set(merges, i, b);
        json_array_set_new(merges, i + 1, a);
        i++;
    }
}

static void check_same(const struct tokenizer *a, const struct tokenizer *b)
{
    struct err err = {0};
    json_t *root = golden("text/spm.json");
    const json_t *c;
    size_t k;
    json_array_foreach(json_object_get(json_object_get(root, "files"), "spm"), k, c)
    {
        const json_t *text = json_object_get(c, "text");
        struct ids x = {0}, y = {0};
        ck_ok(tokenizer_encode(a, json_string_value(text), json_string_length(text), &x, &err));
        ck_ok(tokenizer_encode(b, json_string_value(text), json_string_length(text), &y, &err));
        if (x.n != y.n || (x.n && memcmp(x.v, y.v, x.n * sizeof *x.v))) ck_abort_msg("\"%s\" has other ids", json_string_value(text));
        ids_free(&x);
        ids_free(&y);
    }
    json_decref(root);
}

static const struct {
    const char *changes;
    void (*edit)(json_t *);
    const char *key, *note; // that is written beside; that is said
    bool no_prefix;
} KINDS[] = {
    {"{}", turn_splits, "tokenizer.ggml.merges", NULL, false},
    {"{\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"▁\", \"prepend_scheme\": \"first\", "
     "\"split\": "
     "false}}",
     NULL, "distill.tokenizer.prepend_scheme", "before the text behind every special token", false},
    {"{\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"add_prefix_space\": true, \"split\": false}}", NULL,
     "distill.tokenizer.prepend_scheme", "not where one stands", false},
    {"{\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": \"never\", \"split\": false}, \"decoder\": "
     "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"▁\"}, \"content\": \" \"}, {\"type\": "
     "\"ByteFallback\"}, {\"type\": \"Fuse\"}]}}",
     NULL, NULL, NULL, true},
    {"{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true, \"normalized\": true}, {\"id\": 2, \"content\": \"</s>\", "
     "\"special\": true}]}",
     NULL, NULL, "\"normalized\": true", false},
};

START_TEST(what_is_written_is_read_again)
{
    struct err err = {0};
    struct tokenizer *t, *of_dir;
    const char *note, *dir = variant(KINDS[_i].changes, KINDS[_i].edit), *file = exported(dir, &note);
    json_t *keys = keys_of(file);
    if (KINDS[_i].key) ck_assert_ptr_nonnull(json_object_get(keys, KINDS[_i].key));
    if (!KINDS[_i].note) ck_assert_ptr_null(note);
    if (KINDS[_i].note) ck_assert_ptr_nonnull(strstr(note, KINDS[_i].note));
    ck_assert_int_eq(json_is_false(json_object_get(keys, "tokenizer.ggml.add_space_prefix")), KINDS[_i].no_prefix);
    ck_ok(tokenizer_load(&t, file, &err));
    ck_ok(tokenizer_load(&of_dir, dir, &err));
    if (_i < 4) check_same(t, of_dir); // the last one is what GGUF cannot say
    tokenizer_free(t);
    tokenizer_free(of_dir);
    json_decref(keys);
}
END_TEST

// A file with the bytes and these texts, all of one score.
static const char *of_one_score(const struct gguf_text *more, size_t n_more)
{
    static char names[256][8];
    const size_t n = 259 + n_more;
    struct gguf_text *text = NEW_N(struct gguf_text, n);
    int32_t *type = NEW_N(int32_t, n);
    float *score = NEW_N(float, n);
    static const struct gguf_text first[] = {{"<unk>", 5}, {"<s>", 3}, {"</s>", 4}};
    for (size_t i = 0; i < n; i++) {
        if (i >= 3 && i < 259) snprintf(names[i - 3], 8, "<0x%02X>", (unsigned)i - 3);
        text[i] = i < 3 ? first[i] : i < 259 ? (struct gguf_text){names[i - 3], 6} : more[i - 259];
        type[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
        score[i] = -7;
    }
    const char *path = file_of_keys(&(struct tokenizer_keys){
        .model = "llama", .tokens = text, .n_token = n, .types = type, .n_type = n, .scores = score, .n_score = n});
    mem_free(text);
    mem_free(type);
    mem_free(score);
    return path;
}

// Llama 2's spaces: runs of one character have one score, and that is no difference. Of other tokens it is.
START_TEST(runs_of_one_score_need_no_word)
{
    static const struct gguf_text runs[] = {{"e", 1}, {"ee", 2}, {"eee", 3}, {"eeee", 4}}, gap[] = {{"e", 1}, {"ee", 2}, {"eeee", 4}},
                                  mixed[] = {{"e", 1},  {"f", 1},  {"g", 1},   {"h", 1},  {"ef", 2},
                                             {"fg", 2}, {"gh", 2}, {"efg", 3}, {"fgh", 3}};
    struct err err = {0};
    struct tokenizer *t;
    struct ids ids = {0};
    const char *note;
    exported(of_one_score(mixed, 9), &note); // ef+g, fg+h, e+fg, f+gh
    ck_assert_ptr_nonnull(note);
    exported(of_one_score(gap, 3), &note); // each token alone has its splits together
    ck_assert_ptr_null(note);
    ck_ok(tokenizer_load(&t, exported(of_one_score(runs, 4), &note), &err));
    ck_assert_ptr_null(note);
    ck_ok(tokenizer_encode(t, "eeeeeee", 7, &ids, &err));
    ck_assert_uint_eq(ids.n, 5); // the space in front, three bytes, has no token here
    ck_assert_int_eq(ids.v[3], 262);
    ck_assert_int_eq(ids.v[4], 261);
    ids_free(&ids);
    tokenizer_free(t);
}
END_TEST

// ---- refused ----

static void drop_a_split(json_t *merges) // "▁th" + "e" makes "▁the", "▁t" + "he" no longer
{
    for (size_t i = 0; i < json_array_size(merges); i++) {
        json_t *m = json_array_get(merges, i);
        if (strcmp(json_string_value(json_array_get(m, 0)), "▁t") || strcmp(json_string_value(json_array_get(m, 1)), "he")) continue;
        json_array_remove(merges, i);
        return;
    }
    ck_abort_msg("no such merge");
}

static void move_a_split(json_t *merges)
{
    json_t *split = json_pack("[s, s]", "▁t", "he");
    drop_a_split(merges);
    json_array_append_new(merges, split);
}

START_TEST(what_llama_cpp_would_do_otherwise_is_refused)
{
    static const struct {
        const char *changes;
        void (*edit)(json_t *);
        const char *part;
    } cases[] = {
        {"{}", drop_a_split, "do not join \"▁t\" and \"he\", but \"▁the\" is a token"},
        {"{}", move_a_split, "partly before and partly behind other tokens"},
        {"{\"model\": {\"ignore_merges\": true}}", NULL, "\"ignore_merges\":true"},
        {"{\"model\": {\"vocab\": {\"qæ\": 508}}}", NULL, "token \"qæ\" begins or ends with a character that is no token"},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"split\": true}}", NULL, "\"Metaspace\""},
        {"{\"normalizer\": {\"type\": \"NFKC\"}}", NULL, "\"NFKC\""},
        {"{\"normalizer\": null}", NULL, "not exactly so"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\"}}", NULL,
         "\"Split\""},
        {"{\"decoder\": null}", NULL, "\"decoder\":[]"},
        {"{\"added_tokens\": [{\"id\": 4, \"content\": \"<think>\", \"rstrip\": true}]}", NULL, "\"<think>\" has rstrip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) ck_export_refused(variant(cases[i].changes, cases[i].edit), cases[i].part);
}
END_TEST

START_TEST(a_byte_without_a_token_is_refused)
{
    struct err err = {0};
    const char *dir = variant("{}", NULL);
    char *file = path_join(dir, "tokenizer.json");
    json_t *root;
    ck_ok(json_read(&root, file, &err));
    json_object_del(json_object_get(json_object_get(root, "model"), "vocab"), "<0x7F>");
    ck_ok(json_write_atomic(root, file, &err));
    ck_export_refused(dir, "byte 0x7F has no token <0x7F>");
    json_decref(root);
    mem_free(file);
}
END_TEST

START_TEST(a_vocabulary_made_in_millions_of_ways_is_refused)
{
    enum { N = 700 };
    static char run[N + 1];
    static struct gguf_text more[N];
    struct err err = {0};
    struct tokenizer *t;
    memset(run, 'e', N);
    for (size_t i = 0; i < N; i++) more[i] = (struct gguf_text){run, i + 1};
    ck_fails(tokenizer_load(&t, of_one_score(more, N), &err), ST_BAD_INPUT, "no real vocabulary is so");
}
END_TEST

struct broken {
    const char *part;
    const struct gguf_text *tokens;
    int32_t types[4];
    float scores[5];
    size_t n_score;
    uint32_t bos; // 0: not said
    const char *scheme;
};

START_TEST(keys_that_make_no_tokenizer_are_refused_by_name)
{
    static const struct gguf_text good[] = {{"<unk>", 5}, {"<s>", 3}, {"<0x41>", 6}, {"a", 1}},
                                  twice[] = {{"<unk>", 5}, {"<s>", 3}, {"a", 1}, {"a", 1}},
                                  bytes[] = {{"<unk>", 5}, {"<s>", 3}, {"<0x4>", 5}, {"a", 1}},
                                  lower[] = {{"<unk>", 5}, {"<s>", 3}, {"<0xff>", 6}, {"a", 1}},
                                  latin[] = {{"<unk>", 5}, {"<s>", 3}, {"<0x41>", 6}, {"\xe9", 1}};
    static const struct broken cases[] = {
        {"tokenizer.ggml.scores: missing", good, {2, 3, 6, 1}, {0}, 0, 0, NULL},
        {"tokenizer.ggml.scores: 3 items, wanted 4", good, {2, 3, 6, 1}, {0}, 3, 0, NULL},
        {"tokenizer.ggml.scores: 5 items, wanted 4", good, {2, 3, 6, 1}, {0}, 5, 0, NULL},
        {"tokenizer.ggml.scores: token 3: wanted a finite number", good, {2, 3, 6, 1}, {0, 0, 0, (float)INFINITY}, 4, 0, NULL},
        {"tokenizer.ggml.scores: token 1: wanted a finite number", good, {2, 3, 6, 1}, {0, (float)NAN}, 4, 0, NULL},
        {"token 3 has type 7; known are 1 to 6", good, {2, 3, 6, 7}, {0}, 4, 0, NULL},
        {"token 3 has type 0", good, {2, 3, 6, 0}, {0}, 4, 0, NULL},
        {"token 3 has the type of a byte, and the text \"a\"", good, {2, 3, 6, 6}, {0}, 4, 0, NULL},
        {"token 2 has the type of a byte, and the text \"<0x4>\"", bytes, {2, 3, 6, 1}, {0}, 4, 0, NULL},
        {"token 2 has the type of a byte, and the text \"<0xff>\"", lower, {2, 3, 6, 1}, {0}, 4, 0, NULL},
        {"tokens 2 and 3 are both \"a\"", twice, {2, 3, 1, 1}, {0}, 4, 0, NULL},
        {"token 3: wanted text in UTF-8", latin, {2, 3, 6, 1}, {0}, 4, 0, NULL},
        {"tokenizer.ggml.bos_token_id: wanted the id of one of the 4 tokens", good, {2, 3, 6, 1}, {0}, 4, 4, NULL},
        {"distill.tokenizer.prepend_scheme: \"second\" is not known", good, {2, 3, 6, 1}, {0}, 4, 1, "second"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct broken *c = &cases[i];
        const struct tokenizer_keys k = {.model = "llama",
                                         .scheme = c->scheme,
                                         .tokens = c->tokens,
                                         .n_token = 4,
                                         .types = c->types,
                                         .n_type = 4,
                                         .scores = c->scores,
                                         .n_score = c->n_score,
                                         .bos = c->bos};
        struct err err = {0};
        struct tokenizer *t;
        ck_fails(tokenizer_load(&t, file_of_keys(&k), &err), ST_BAD_INPUT, c->part);
    }
}
END_TEST

Suite *suite_gguf_spm(void)
{
    Suite *s = suite_create("gguf spm");
    TCase *t = tcase_create("there and back");
    tcase_add_loop_test(t, a_vocabulary_of_scores_gives_hugging_faces_ids, 0, sizeof FILES / sizeof *FILES);
    tcase_add_test(t, an_export_says_what_the_original_said);
    tcase_add_loop_test(t, an_export_of_a_file_gives_the_same_ids, 0, sizeof FILES / sizeof *FILES);
    tcase_add_loop_test(t, what_is_written_is_read_again, 0, sizeof KINDS / sizeof *KINDS);
    tcase_add_test(t, runs_of_one_score_need_no_word);
    tcase_add_test(t, a_vocabulary_made_in_millions_of_ways_is_refused);
    tcase_add_test(t, what_llama_cpp_would_do_otherwise_is_refused);
    tcase_add_test(t, a_byte_without_a_token_is_refused);
    tcase_add_test(t, keys_that_make_no_tokenizer_are_refused_by_name);
    suite_add_tcase(s, t);
    return s;
}
