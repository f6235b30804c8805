// Each check of `distill doctor` on a case that breaks it and on one that does not: copies of the shipped models with one thing changed.
#include "distill/command.h"
#include "distill/doctor.h"
#include "distill/licence.h"
#include "kernels/model/safetensors.h"
#include "tests/test.h"

#include <stdlib.h>

static const char TEACHER[] = TEST_ROOT "/teacher/tiny/moe", STUDENT[] = TEST_ROOT "/teacher/tiny/base";
extern const struct command command_doctor, command_gen;

// ---- folders --------------------------------------------------------------------------------------------------------------------------

static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                    "tokenizer_config.json"};

// A copy of a model in a folder of its own. The path lives until the test ends.
static const char *copy_of(const char *model)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    for (int i = 0; i < 5; i++) {
        char *from = path_join(model, files[i]), *to = path_join(dir, files[i]);
        ck_ok(file_copy(from, to, &err));
        mem_free(from);
        mem_free(to);
    }
    return dir;
}

static void put(const char *dir, const char *name, const char *text)
{
    struct err err = {0};
    char *path = path_join(dir, name);
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    mem_free(path);
}

static void drop(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    ck_assert_int_eq(remove(path), 0);
    mem_free(path);
}

// Sets a key of a JSON file; the value is written as JSON, "-" takes the key away.
static void set(const char *dir, const char *name, const char *key, const char *value)
{
    struct err err = {0};
    char *path = path_join(dir, name);
    json_t *root, *v = NULL;
    ck_ok(json_read(&root, path, &err));
    if (!strcmp(value, "-"))
        json_object_del(root, key);
    else {
        ck_assert_msg((v = json_loads(value, JSON_DECODE_ANY, NULL)) != NULL, "%s is no JSON", value);
        json_object_set_new(root, key, v);
    }
    ck_ok(json_write_atomic(root, path, &err));
    json_decref(root);
    mem_free(path);
}

static void set_template(const char *dir, const char *text)
{
    put(dir, "chat_template.jinja", text);
}

// The weights again, with `lm_head.weight` (a copy of the embedding, its first value changed or not), without one tensor, with an embedding
// that is called I32, or with one tensor that holds one value (bits of BF16) throughout.
struct rewrite {
    bool head, head_differs, embed_as_i32;
    const char *without, *fill;
    uint16_t value;
};
static void rewrite(const char *dir, struct rewrite how)
{
    struct err err = {0};
    struct st_set set;
    struct st_writer *w;
    ck_ok(st_open_dir(&set, dir, &err));
    char *path = path_join(dir, "model.safetensors");
    const struct st_tensor *embed = st_find(&set, "model.embed_tokens.weight");
    ck_ok(st_create(&w, path, &err));
    for (size_t i = 0; i < set.n; i++)
        if (!how.without || strcmp(set.v[i].name, how.without) != 0) {
            bool odd = how.embed_as_i32 && &set.v[i] == embed; // two values of BF16 in one of I32
            int64_t shape[2] = {set.v[i].shape[0], odd ? set.v[i].shape[1] / 2 : set.v[i].shape[1]};
            st_declare(w, set.v[i].name, odd ? "I32" : set.v[i].dtype, set.v[i].rank, shape);
        }
    if (how.head) st_declare(w, "lm_head.weight", embed->dtype, embed->rank, embed->shape);
    ck_ok(st_begin(w, &err));
    for (size_t i = 0; i < set.n; i++) {
        if (how.without && !strcmp(set.v[i].name, how.without)) continue;
        uint16_t *data = mem_alloc(set.v[i].size_bytes);
        memcpy(data, set.v[i].data, set.v[i].size_bytes);
        for (size_t k = 0; how.fill && !strcmp(how.fill, set.v[i].name) && k < set.v[i].size_bytes / 2; k++) data[k] = how.value;
        ck_ok(st_put(w, data, set.v[i].size_bytes, &err));
        mem_free(data);
    }
    if (how.head) {
        uint8_t *data = mem_alloc(embed->size_bytes);
        memcpy(data, embed->data, embed->size_bytes);
        if (how.head_differs) data[0] ^= 1;
        ck_ok(st_put(w, data, embed->size_bytes, &err));
        mem_free(data);
    }
    ck_ok(st_finish(w, &err));
    mem_free(path);
    st_close(&set);
}

// ---- running --------------------------------------------------------------------------------------------------------------------------

static struct options *options; // of the run in hand: findings refer to them
static struct findings all;

static void close_run(void)
{
    findings_free(&all);
    options_free(options);
    options = NULL;
}

// Runs the doctor; arguments NULL-terminated.
static enum status try_run(struct err *err, const char *const *args)
{
    char *argv[20];
    int n = 0;
    close_run();
    for (; args[n]; n++) argv[n] = (char *)(uintptr_t)args[n];
    enum status st = options_parse(&options, &command_doctor, n, argv, err);
    return st ? st : doctor_examine(options, &all, err);
}
static void must_run(const char *const *args)
{
    struct err err = {0};
    ck_ok(try_run(&err, args));
}
#define RUN(...) must_run((const char *const[]){__VA_ARGS__, "--threads", "1", NULL})
#define RUN_TEACHER(dir) RUN("--teacher", dir, "--no-probe")
#define RUN_STUDENT(dir) RUN("--student", dir, "--no-probe")
#define RUN_BOTH(t, s) RUN("--teacher", t, "--student", s, "--no-probe")

static const struct finding *find(const char *check)
{
    for (size_t i = 0; i < all.n; i++)
        if (!strcmp(all.v[i].check, check)) return &all.v[i];
    ck_abort_msg("no finding of %s", check);
}

// The finding of a check (the first, where there are several) has this verdict and says `part`, in what was found or in the fix.
static void expect(const char *check, enum verdict v, const char *part)
{
    const struct finding *f = find(check);
    const char *found = f->found.size ? f->found.data : "", *mend = f->fix.size ? f->fix.data : "";
    ck_assert_msg(f->verdict == v, "%s: verdict %d, wanted %d: %s / %s", check, f->verdict, v, found, mend);
    ck_assert_msg(strstr(found, part) || strstr(mend, part), "%s: \"%s\" is in neither \"%s\" nor \"%s\"", check, part, found, mend);
    if (v >= V_WARN) ck_assert_msg(f->fix.size > 0, "%s: no fix beside \"%s\"", check, found);
}

static double numbered(const char *check, const char *key)
{
    return json_number_value(json_object_get(find(check)->numbers, key));
}

// ---- the shipped models, and what is not there ------------------------------------------------------------------------------------------

START_TEST(the_shipped_models_are_fine)
{
    RUN("--teacher", TEACHER, "--student", STUDENT);
    ck_assert_int_eq(all.n_verdict[V_FAIL], 0);
    ck_assert_int_eq(all.n_verdict[V_WARN], 2); // no licence in either folder
    expect("logit_shift", V_OK, "KL");
    ck_assert(numbered("logit_shift", "kl") < numbered("logit_shift", "kl_before"));
    ck_assert(numbered("logit_shift", "kl") < numbered("logit_shift", "kl_behind"));
}
END_TEST

START_TEST(only_tokenizers_still_tell_what_can_be_known)
{
    const char *t = copy_of(TEACHER), *s = copy_of(STUDENT);
    for (int i = 0; i < 3; i++) drop(t, files[i]), drop(s, files[i]);
    RUN("--teacher", t, "--student", s);
    expect("files", V_WARN, "missing: config.json, weights");
    expect("tokenizer", V_OK, "the same file");
    expect("end_tokens", V_OK, "<|im_end|>");
    for (size_t i = 0; i < all.n; i++)
        if (all.v[i].verdict == V_SKIP) ck_assert(all.v[i].found.size > 0); // with the reason
    expect("memory_train", V_SKIP, "the student has no config.json");
    expect("logit_shift", V_SKIP, "the teacher has no config.json");
}
END_TEST

START_TEST(only_config_and_weights_still_tell_what_can_be_known)
{
    static const char *const models[] = {"deepseek_v3", "deepseek_v3-plain", "llama", "llama3", "qwen2", "qwen2-window", "qwen3"};
    char name[64];
    snprintf(name, sizeof name, "models/%s", models[_i]);
    const char *dir = test_golden(name);
    RUN("--teacher", dir, "--student", dir);
    expect("files", V_WARN, "missing: tokenizer.json");
    expect("weights", V_OK, "every shape");
    expect("tokenizer", V_SKIP, "the teacher has no tokenizer.json");
    // The same model twice, by two kinds of kernels: nothing but rounding between them (bf16 here).
    expect("logit_shift", V_OK, "the same model");
    ck_assert(numbered("logit_shift", "kl") < 1e-4);
    ck_assert(numbered("logit_shift", "kl_before") > 0.1);
    expect("architecture", V_OK, "layers");
}
END_TEST

START_TEST(what_cannot_be_examined_is_bad_input)
{
    struct err err = {0};
    const char *none = test_tmpdir();
    ck_fails(try_run(&err, (const char *const[]){NULL}), ST_BAD_INPUT, "wanted --teacher");
    ck_fails(try_run(&err, (const char *const[]){"--teacher", "https://api.example.org/v1", NULL}), ST_BAD_INPUT, "only folders");
    ck_fails(try_run(&err, (const char *const[]){"--student", "/no/such/folder", NULL}), ST_BAD_INPUT, "/no/such/folder");
    ck_fails(try_run(&err, (const char *const[]){"--student", none, NULL}), ST_BAD_INPUT, "none of config.json");
    ck_fails(try_run(&err, (const char *const[]){"--student", TEST_ROOT "/README.md", NULL}), ST_BAD_INPUT, "a file");
    ck_fails(try_run(&err, (const char *const[]){"--student", STUDENT, "--data", "/no/such/data", NULL}), ST_BAD_INPUT, "/no/such/data");
}
END_TEST

// ---- files ------------------------------------------------------------------------------------------------------------------------------

START_TEST(broken_files_are_named)
{
    const char *s = copy_of(STUDENT);
    put(s, "config.json", "{\n\"model_type\": \"qwen3\",\n");
    RUN_STUDENT(s);
    expect("files", V_FAIL, "config.json:3");
    expect("architecture", V_SKIP, "see files");
    s = copy_of(STUDENT);
    put(s, "tokenizer.json", "{}");
    RUN_STUDENT(s);
    expect("files", V_FAIL, "tokenizer.json");
    s = copy_of(STUDENT);
    put(s, "model.safetensors", "short");
    RUN_STUDENT(s);
    expect("files", V_FAIL, "model.safetensors");
    s = copy_of(STUDENT);
    put(s, "generation_config.json", "[]");
    RUN_STUDENT(s);
    expect("files", V_FAIL, "wanted a JSON object");
}
END_TEST

START_TEST(an_unknown_architecture_and_one_that_cannot_be_trained)
{
    const char *s = copy_of(STUDENT);
    set(s, "config.json", "model_type", "\"mamba\"");
    RUN_STUDENT(s);
    expect("architecture", V_FAIL, "mamba");
    expect("weights", V_SKIP, "see architecture");
    RUN_STUDENT(TEACHER);
    expect("architecture", V_FAIL, "cannot be trained yet");
    RUN_TEACHER(TEACHER);
    expect("architecture", V_OK, "12 experts, 2 a token");
}
END_TEST

START_TEST(weights_that_are_not_the_configs)
{
    const char *s = copy_of(STUDENT);
    set(s, "config.json", "intermediate_size", "256");
    RUN_STUDENT(s);
    expect("weights", V_FAIL, "model.layers.0.mlp.gate_proj.weight: found (384, 128), wanted (256, 128)");
    s = copy_of(STUDENT);
    rewrite(s, (struct rewrite){.without = "model.norm.weight"});
    RUN_STUDENT(s);
    expect("weights", V_FAIL, "model.norm.weight: missing");
}
END_TEST

START_TEST(numbers_that_are_none_and_a_student_that_knows_nothing)
{
    const char *s = copy_of(STUDENT);
    rewrite(s, (struct rewrite){.fill = "model.norm.weight", .value = 0x7fc0}); // NaN
    RUN("--student", s);
    expect("same_numbers", V_FAIL, "NaN");
    rewrite(s, (struct rewrite){.fill = "model.norm.weight", .value = 0x7f7f}); // 3.4e38: logits beyond f32
    RUN("--student", s);
    expect("same_numbers", V_FAIL, "not finite");
    rewrite(s, (struct rewrite){.fill = "model.embed_tokens.weight", .value = 0}); // all tokens as likely
    RUN("--teacher", TEACHER, "--student", s);
    expect("logit_shift", V_WARN, "does not know such text yet");
    RUN("--teacher", TEACHER, "--student", s, "--no-probe");
    expect("logit_shift", V_SKIP, "--no-probe");
}
END_TEST

START_TEST(dtypes_of_the_files)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    expect("dtype", V_OK, "BF16");
    set(s, "config.json", "torch_dtype", "\"float32\"");
    RUN_STUDENT(s);
    expect("dtype", V_WARN, "config.json says F32");
    rewrite(s, (struct rewrite){.embed_as_i32 = true});
    RUN_STUDENT(s);
    expect("dtype", V_FAIL, "I32 weights cannot be trained");
}
END_TEST

START_TEST(tied_heads)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    expect("tied_head", V_OK, "tied, as in config.json");
    set(s, "config.json", "tie_word_embeddings", "false");
    RUN_STUDENT(s);
    expect("tied_head", V_FAIL, "no lm_head.weight");
    rewrite(s, (struct rewrite){.head = true});
    RUN_STUDENT(s);
    expect("tied_head", V_OK, "not tied");
    set(s, "config.json", "tie_word_embeddings", "true");
    RUN_STUDENT(s);
    expect("tied_head", V_OK, "repeat the embedding");
    rewrite(s, (struct rewrite){.without = "lm_head.weight", .head = true, .head_differs = true});
    RUN_STUDENT(s);
    expect("tied_head", V_FAIL, "not the embedding");
}
END_TEST

START_TEST(contexts)
{
    const char *s = copy_of(STUDENT);
    RUN_BOTH(TEACHER, s);
    expect("contexts", V_OK, "512");
    set(s, "config.json", "max_position_embeddings", "256");
    RUN_BOTH(TEACHER, s);
    expect("contexts", V_WARN, "fit into 256");
    set(s, "config.json", "max_position_embeddings", "-");
    RUN_STUDENT(s);
    expect("context", V_WARN, "no max_position_embeddings");
    set(s, "config.json", "max_position_embeddings", "4096");
    set(s, "config.json", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 512}");
    RUN_STUDENT(s);
    expect("context", V_WARN, "reaches 2048 only");
    set(s, "config.json", "max_position_embeddings", "2048");
    RUN_STUDENT(s);
    expect("context", V_OK, "stretched from 512 by YaRN");
}
END_TEST

// ---- tokenizers -------------------------------------------------------------------------------------------------------------------------

static json_t *tokenizer_json(const char *dir)
{
    struct err err = {0};
    char *path = path_join(dir, "tokenizer.json");
    json_t *root;
    ck_ok(json_read(&root, path, &err));
    mem_free(path);
    return root;
}

static void write_tokenizer(const char *dir, json_t *root) // steals
{
    struct err err = {0};
    char *path = path_join(dir, "tokenizer.json");
    ck_ok(json_write_atomic(root, path, &err));
    json_decref(root);
    mem_free(path);
}

START_TEST(tokenizers_that_differ_in_layout_only)
{
    const char *s = copy_of(STUDENT);
    write_tokenizer(s, tokenizer_json(s));
    put(s, "x", "");
    json_t *root = tokenizer_json(s);
    json_object_set_new(root, "version", json_string("1.0 "));
    write_tokenizer(s, root);
    RUN_BOTH(TEACHER, s);
    expect("tokenizer", V_FAIL, "all 512 ids, merges and cuts are the same");
    expect("tokenizer", V_FAIL, "cp ");
    expect("vocabularies", V_OK, "512 rows in both");
}
END_TEST

START_TEST(tokenizers_with_more_tokens_in_one)
{
    const char *s = copy_of(STUDENT), *t = copy_of(TEACHER);
    json_t *root = tokenizer_json(t);
    json_array_append_new(json_object_get(root, "added_tokens"),
                          json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 512, "content", "<extra>", "single_word", 0, "lstrip", 0,
                                    "rstrip", 0, "normalized", 0, "special", 1));
    write_tokenizer(t, root);
    RUN_BOTH(t, s);
    expect("tokenizer", V_FAIL, "1 only the teacher has: \"<extra>\" (512)");
    expect("tokenizer", V_FAIL, "the student's embedding has 512 rows");
    expect("vocabulary", V_FAIL, "do not belong together"); // the teacher's own embedding has 512 rows too
    expect("vocabularies", V_FAIL, "ids up to 512");
    set(s, "config.json", "vocab_size", "640");
    set(t, "config.json", "vocab_size", "576");
    RUN_BOTH(t, s);
    expect("tokenizer", V_FAIL, "rows of the student's padding");
    expect("vocabulary", V_OK, "576 rows for 513 tokens: 63 are padding");
    expect("vocabularies", V_OK, "padded");
    RUN_BOTH(s, t);
    expect("tokenizer", V_FAIL, "1 only the student has");
}
END_TEST

START_TEST(tokenizers_whose_tokens_mean_something_else)
{
    const char *s = copy_of(STUDENT);
    json_t *root = tokenizer_json(s), *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_int_t a = json_integer_value(json_object_get(vocab, "a")), b = json_integer_value(json_object_get(vocab, "b"));
    json_object_set_new(vocab, "a", json_integer(b));
    json_object_set_new(vocab, "b", json_integer(a));
    write_tokenizer(s, root);
    RUN("--teacher", TEACHER, "--student", s);
    expect("tokenizer", V_FAIL, "2 mean something else: ");
    expect("tokenizer", V_FAIL, "learn from the text alone");
    expect("logit_shift", V_SKIP, "other words");
    ck_assert(numbered("tokenizer", "n_differ") > 1.5);
}
END_TEST

START_TEST(tokenizers_that_merge_or_cut_otherwise)
{
    const char *s = copy_of(STUDENT);
    json_t *root = tokenizer_json(s), *merges = json_object_get(json_object_get(root, "model"), "merges");
    json_t *first = json_incref(json_array_get(merges, 0));
    json_array_remove(merges, 0);
    json_array_append_new(merges, first);
    write_tokenizer(s, root);
    RUN_BOTH(TEACHER, s);
    expect("tokenizer", V_FAIL, "merges differ");
    s = copy_of(STUDENT);
    root = tokenizer_json(s);
    json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "Lowercase"));
    write_tokenizer(s, root);
    RUN_BOTH(TEACHER, s);
    expect("tokenizer", V_FAIL, "test texts are cut otherwise");
}
END_TEST

START_TEST(end_tokens)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    expect("end_token", V_OK, "\"<|im_end|>\" (509)");
    set(s, "generation_config.json", "eos_token_id", "507");
    RUN_STUDENT(s);
    expect("end_token", V_WARN, "generation_config.json does not name \"<|im_end|>\" (509)");
    set(s, "config.json", "eos_token_id", "507");
    set(s, "tokenizer_config.json", "eos_token", "\"<|endoftext|>\"");
    RUN_BOTH(TEACHER, s);
    expect("end_token", V_OK, "509"); // the teacher's
    expect("end_tokens", V_FAIL, "add 509");
    RUN_STUDENT(s);
    expect("end_token", V_FAIL, "ends a turn with \"<|im_end|>\" (509), which is not among them");
    set(s, "generation_config.json", "eos_token_id", "600");
    RUN_STUDENT(s);
    expect("end_token", V_FAIL, "600 is no token");
    set(s, "generation_config.json", "eos_token_id", "-");
    set(s, "config.json", "eos_token_id", "-");
    set(s, "tokenizer_config.json", "eos_token", "null");
    RUN_STUDENT(s);
    expect("end_token", V_FAIL, "no end token in");
    s = copy_of(STUDENT);
    set_template(s,
                 "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}");
    RUN_STUDENT(s);
    expect("end_token", V_FAIL, "writes no token after an answer");
}
END_TEST

START_TEST(pad_and_bos_tokens)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    expect("pad_token", V_OK, "<|endoftext|>");
    expect("bos_token", V_OK, "none");
    set(s, "tokenizer_config.json", "pad_token", "\"<|im_end|>\"");
    set(s, "tokenizer_config.json", "bos_token", "\"<|endoftext|>\"");
    set(s, "config.json", "bos_token_id", "508");
    RUN_STUDENT(s);
    expect("pad_token", V_WARN, "never learns to stop");
    expect("pad_token", V_WARN, "do not name the same"); // config.json still says 507
    expect("bos_token", V_WARN, "config.json says 508");
    set(s, "config.json", "bos_token_id", "507");
    set_template(s, "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
    RUN_STUDENT(s);
    expect("bos_token", V_WARN, "2 times");
    set_template(s, "{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
    RUN_STUDENT(s);
    expect("bos_token", V_OK, "written by the chat template");
    set(s, "tokenizer_config.json", "pad_token", "null");
    set(s, "config.json", "pad_token_id", "-");
    set(s, "generation_config.json", "pad_token_id", "-");
    RUN_STUDENT(s);
    expect("pad_token", V_OK, "none is needed");
}
END_TEST

// ---- templates --------------------------------------------------------------------------------------------------------------------------

#define TURN_BEGIN "{% for m in messages %}<|im_start|>{{ m.role }}\n"
#define TURN_END "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define REASON "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
#define REASON_LAST "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"

START_TEST(templates_that_are_missing_or_broken)
{
    const char *t = copy_of(TEACHER);
    set(t, "tokenizer_config.json", "chat_template", "-");
    RUN_TEACHER(t);
    expect("chat_template", V_FAIL, "no chat template");
    expect("reasoning", V_SKIP, "no chat template that can be run");
    RUN_STUDENT(t);
    expect("chat_template", V_WARN, "no chat template");
    set_template(t, "{% for m in messages %}{{ m.content }}");
    RUN_TEACHER(t);
    expect("chat_template", V_FAIL, "without what is named");
    set_template(t, "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" TURN_BEGIN TURN_END);
    RUN_TEACHER(t);
    expect("chat_template", V_WARN, "no system here");
}
END_TEST

START_TEST(what_becomes_of_reasoning)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    expect("reasoning", V_OK, "in every turn");
    expect("loss_mask", V_OK, "both reasonings");
    set_template(s, TURN_BEGIN REASON_LAST TURN_END);
    RUN_STUDENT(s);
    expect("reasoning", V_WARN, "stripped from earlier ones");
    expect("loss_mask", V_OK, "the last reasoning");
    RUN_TEACHER(s); // of a teacher the template writes prompts only
    expect("reasoning", V_OK, "stripped from earlier ones");
    set_template(s, TURN_BEGIN TURN_END);
    RUN_STUDENT(s);
    expect("reasoning", V_WARN, "never written; <think>…</think> inside the content is kept");
    set_template(s, "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
                    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    RUN_STUDENT(s);
    expect("reasoning", V_WARN, "inside the content is stripped");
    expect("reasoning", V_WARN, "give the student a template that writes reasoning");
}
END_TEST

START_TEST(what_the_generation_prompt_opens)
{
    const char *s = copy_of(STUDENT);
    RUN_STUDENT(s);
    ck_assert(!strstr(find("generation_prompt")->found.data, "opens <think>"));
    set_template(s, TURN_BEGIN REASON
                 "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}");
    RUN_STUDENT(s);
    expect("generation_prompt", V_OK, "it opens <think>");
    set_template(s, TURN_BEGIN "{{ m.content }}<|im_end|>\n{% endfor %}");
    RUN_STUDENT(s);
    expect("generation_prompt", V_OK, "nothing is added");
    set_template(s, "{% if add_generation_prompt %}{{ raise_exception('not so') }}{% endif %}" TURN_BEGIN TURN_END);
    RUN_STUDENT(s);
    expect("generation_prompt", V_FAIL, "not so");
}
END_TEST

START_TEST(where_the_loss_falls)
{
    const char *s = copy_of(STUDENT);
    set_template(s, "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt "
                    "%}assistant:{% endif %}");
    RUN_STUDENT(s);
    expect("loss_mask", V_FAIL, "writes the turn's text twice");
    set_template(s, "{% for m in messages %}{% generation %}{{ m.role }}:{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}");
    RUN_STUDENT(s);
    expect("loss_mask", V_FAIL, "does not fall on the assistant's answers alone");
}
END_TEST

START_TEST(templates_of_teacher_and_student)
{
    const char *s = copy_of(STUDENT);
    RUN_BOTH(TEACHER, s);
    expect("chat_templates", V_OK, "4 test conversations come out the same");
    set_template(s, TURN_BEGIN TURN_END);
    RUN_BOTH(TEACHER, s);
    expect("chat_templates", V_WARN, "a conversation with reasoning differs after");
    set_template(s, "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" TURN_BEGIN REASON TURN_END);
    RUN_BOTH(TEACHER, s);
    expect("chat_templates", V_WARN, "rendered by the teacher alone");
}
END_TEST

// ---- memory, licences -------------------------------------------------------------------------------------------------------------------

// DeepSeek-V3 and Qwen2.5-7B by their published config.json: nothing of that size is taken, and what is needed is known.
static const char V3[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":129280,\"hidden_size\":7168,\"intermediate_size\":18432,\"moe_intermediate_size\":2048,"
    "\"num_hidden_layers\":61,\"num_attention_heads\":128,\"num_key_value_heads\":128,\"n_shared_experts\":1,\"n_routed_experts\":256,"
    "\"num_experts_per_tok\":8,\"n_group\":8,\"topk_group\":4,\"first_k_dense_replace\":3,\"q_lora_rank\":1536,\"kv_lora_rank\":512,"
    "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,\"max_position_embeddings\":163840,\"rope_theta\":10000}";
static const char Q7[] =
    "{\"model_type\":\"qwen2\",\"vocab_size\":152064,\"hidden_size\":3584,\"intermediate_size\":18944,\"num_hidden_layers\":28,"
    "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"max_position_embeddings\":32768,\"rope_theta\":1000000}";

START_TEST(memory_is_planned_from_config_alone)
{
    const char *t = test_tmpdir(), *s = test_tmpdir();
    put(t, "config.json", V3);
    put(s, "config.json", Q7);
    RUN("--teacher", t, "--student", s, "--micro-tokens", "4096");
    // 671.0 and 7.616 thousand million parameters; norms and routers are f32, and MLA keeps some weights in a second form.
    const double gen = numbered("memory_gen", "weights_bytes"), train = numbered("memory_train", "weights_bytes");
    ck_assert_double_ge(gen, 2 * 671.0e9);
    ck_assert_double_le(gen, 2 * 671.0e9 * 1.01);
    ck_assert_double_eq_tol(train, 2 * 7.616e9, 0.002e9);
    ck_assert_double_ge(numbered("memory_train", "state_bytes"), 12 * 7.6e9); // gradient and two moments in f32
    const double none = numbered("memory_train", "need_none_bytes"), cheap = numbered("memory_train", "need_cheap_bytes"),
                 layer = numbered("memory_train", "need_layer_bytes");
    ck_assert(none > cheap && cheap > layer && layer > train);
}
END_TEST

START_TEST(memory_that_suffices_and_that_does_not)
{
    RUN_BOTH(TEACHER, STUDENT);
    expect("memory_gen", V_OK, "are free");
    expect("memory_train", V_OK, "fits with --recompute none");
    const char *t = test_tmpdir(), *s = test_tmpdir();
    char *huge = mem_strdup(V3);
    memcpy(strstr(huge, "\"num_hidden_layers\":61"), "\"num_hidden_layers\":99", 22);
    put(t, "config.json", huge);
    put(s, "config.json",
        "{\"model_type\":\"qwen2\",\"vocab_size\":152064,\"hidden_size\":65536,\"intermediate_size\":262144,"
        "\"num_hidden_layers\":99,\"num_attention_heads\":512,\"max_position_embeddings\":32768}");
    RUN_BOTH(t, s);
    expect("memory_gen", V_FAIL, "the weights alone do not fit");
    expect("memory_train", V_FAIL, "a smaller student or a larger machine");
    // So wide that a token takes some hundred KiB: more of them than fit, on any machine.
    char n[32];
    put(s, "config.json",
        "{\"model_type\":\"qwen2\",\"vocab_size\":512,\"hidden_size\":256,\"intermediate_size\":65536,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"max_position_embeddings\":2048}");
    RUN("--student", s, "--micro-tokens", "4096");
    snprintf(n, sizeof n, "%.0f", 3 * 4096 * numbered("memory_train", "free_bytes") / numbered("memory_train", "need_layer_bytes"));
    RUN("--student", s, "--micro-tokens", n);
    expect("memory_train", V_FAIL, "--micro-tokens ");
    expect("memory_train", V_FAIL, " fits, with --max-len ");
    mem_free(huge);
}
END_TEST

START_TEST(licences)
{
    const char *t = copy_of(TEACHER), *s = copy_of(STUDENT);
    RUN_BOTH(t, s);
    expect("licence", V_WARN, "none is named");
    expect("licences", V_SKIP, "neither");
    put(t, "README.md", "---\nlanguage: en\nlicense: other\nlicense_name: deepseek\n---\n# A model\nlicense: mit\n");
    RUN_BOTH(t, s);
    expect("licence", V_WARN, "deepseek (README.md); its text counts a model made from its output");
    expect("licences", V_WARN, "nothing for the student");
    put(t, "README.md", "---\nlicense: \"mit\"\n---\n");
    put(s, "LICENSE", "\n\n                              Apache License\n                        Version 2.0, January 2004\n");
    RUN_BOTH(t, s);
    expect("licence", V_OK, "mit (README.md)");
    expect("licences", V_OK, "apache-2.0 for the student and mit for the teacher");
    put(t, "README.md", "---\nlicense: llama3\n---\n");
    RUN_BOTH(t, s);
    expect("licence", V_WARN, "forbids");
    expect("licences", V_WARN, "another family");
    put(t, "README.md", "---\nlicense: llama3.1\n---\n");
    RUN_BOTH(t, s);
    expect("licence", V_WARN, "must begin with \"Llama\"");
    expect("licences", V_OK, "llama3.1 for the teacher");
    put(t, "README.md", "---\nlicense: my-own\n---\n");
    RUN_TEACHER(t);
    expect("licence", V_WARN, "not one whose terms are known");
    bool look;
    ck_assert(licence_terms("apache-2.0", &look) && !look);
    ck_assert(licence_terms("qwen-research", &look) && strstr(licence_terms("qwen-research", &look), "non-commercial"));
    ck_assert(!licence_terms("unheard-of", &look) && look);
}
END_TEST

// ---- data -------------------------------------------------------------------------------------------------------------------------------

static const char *written(const char *text)
{
    const char *dir = test_tmpdir();
    put(dir, "rows.jsonl", text);
    return dir;
}
#define RUN_DATA(t, s, text)                                                                                                               \
    do {                                                                                                                                   \
        char *path_ = path_join(written(text), "rows.jsonl");                                                                              \
        RUN("--teacher", t, "--student", s, "--no-probe", "--data", path_);                                                                \
        mem_free(path_);                                                                                                                   \
    } while (0)

START_TEST(rows_of_jsonl)
{
    static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello\"}]}\n";
    static const char empty[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"\"}]}\n";
    static const char prompt[] = "{\"prompt\":\"What is 2 + 3?\",\"answer\":5}\n", open[] = "{\"prompt\":\"Why?\"}\n";
    char text[2000];
    RUN_DATA(TEACHER, STUDENT, chat);
    expect("data_rows", V_OK, "1 conversations, to train on");
    expect("data_lengths", V_OK, "within the context of 512");
    expect("data_answers", V_OK, "1 conversations");
    RUN_DATA(TEACHER, STUDENT, prompt);
    expect("data_rows", V_OK, "1 prompts");
    expect("data_answers", V_OK, "1 of 1 prompts say the right answer");
    snprintf(text, sizeof text, "%s%s", prompt, open);
    RUN_DATA(TEACHER, STUDENT, text);
    expect("data_answers", V_WARN, "1 of 2 prompts");
    snprintf(text, sizeof text, "%s%s", prompt, chat);
    RUN_DATA(TEACHER, STUDENT, text);
    expect("data_rows", V_WARN, "make two files");
    snprintf(text, sizeof text, "%s{\"messages\":[]}\n%s{\"text\":\"x\"}\n{\"messages\":\n", chat, chat);
    RUN_DATA(TEACHER, STUDENT, text);
    expect("data_rows", V_FAIL, "3 of 5 are no good");
    expect("data_rows", V_FAIL, "line 2");
    expect("data_rows", V_FAIL, "rows.jsonl:5");
    RUN_DATA(TEACHER, STUDENT, "");
    expect("data_rows", V_FAIL, "nothing is in it");
    snprintf(text, sizeof text, "%s%s%s%s", chat, chat, chat, empty);
    RUN_DATA(TEACHER, STUDENT, text);
    expect("data_answers", V_WARN, "1 of 4 answers are empty");
    RUN_DATA(TEACHER, STUDENT, empty);
    expect("data_answers", V_FAIL, "1 of 1 answers are empty");
}
END_TEST

START_TEST(rows_longer_than_the_context)
{
    struct buf text = {0};
    buf_puts(&text, "{\"prompt\":\"");
    for (int i = 0; i < 600; i++) buf_puts(&text, "7 ");
    buf_puts(&text, "\"}\n");
    RUN_DATA(TEACHER, STUDENT, text.data);
    expect("data_lengths", V_FAIL, "1 of 1 prompts leave no room");
    buf_clear(&text);
    buf_puts(&text, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"");
    for (int i = 0; i < 600; i++) buf_puts(&text, "7 ");
    buf_puts(&text, "\"}]}\n");
    RUN_DATA(TEACHER, STUDENT, text.data);
    expect("data_lengths", V_WARN, "train cuts their ends off");
    buf_free(&text);
}
END_TEST

START_TEST(reasoning_that_the_template_would_lose)
{
    static const char row[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello\","
                              "\"reasoning_content\":\"A greeting\"}]}\n";
    const char *s = copy_of(STUDENT);
    RUN_DATA(TEACHER, s, row);
    expect("data_answers", V_OK, "1 turns with reasoning");
    set_template(s, TURN_BEGIN TURN_END);
    RUN_DATA(TEACHER, s, row);
    expect("data_answers", V_FAIL, "would be lost without a word");
}
END_TEST

// A store that gen writes with the shipped teacher.
static const char *store_of(const char *teacher, const char *max_tokens, const char *targets)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *argv[] = {"--teacher",
                    (char *)(uintptr_t)teacher,
                    "--prompts",
                    TEST_ROOT "/teacher/tiny/prompts.jsonl",
                    "--limit",
                    "6",
                    "--out",
                    path_join(dir, "store"),
                    "--max-tokens",
                    (char *)(uintptr_t)max_tokens,
                    "--targets",
                    (char *)(uintptr_t)targets,
                    "--target-temperatures",
                    "1,2",
                    "--quiet",
                    "--threads",
                    "1"};
    struct options *o;
    enum status st = options_parse(&o, &command_gen, sizeof argv / sizeof *argv, argv, &err);
    if (!st) st = command_gen.run(o, &err);
    ck_assert_msg(!st, "gen: %s", err.text);
    options_free(o);
    return argv[7];
}

START_TEST(a_store_and_its_teacher)
{
    const char *t = copy_of(TEACHER), *s = copy_of(STUDENT), *store = store_of(t, "64", "topk:16");
    RUN("--teacher", t, "--student", s, "--data", store);
    expect("data_rows", V_OK, "a store of 6 samples");
    expect("data_finish", V_OK, "0.0%");
    expect("data_teacher", V_OK, "written by this teacher");
    expect("data_tokenizer", V_OK, "the student's");
    expect("data_targets", V_OK, "topk:16, log Z at temperature 1, 2; losses: fkl, rkl, jsd");
    expect("data_capture", V_OK, "KL");
    expect("data_shift", V_OK, "KL");
    ck_assert(numbered("data_capture", "kl") < 1e-3); // bf16, decoded a token at a time then, all at once now
    ck_assert(numbered("data_shift", "kl") < numbered("data_shift", "kl_before"));
    RUN("--teacher", t, "--student", s, "--data", store, "--no-probe", "--kd-temperature", "2");
    expect("data_targets", V_OK, "fkl");
    RUN("--teacher", t, "--student", s, "--data", store, "--no-probe", "--kd-temperature", "3");
    expect("data_targets", V_FAIL, "temperature 1,2 only");
    set(t, "generation_config.json", "temperature", "0.5");
    RUN("--teacher", t, "--student", s, "--data", store, "--no-probe");
    expect("data_teacher", V_FAIL, "these differ: generation_config.json");
    json_t *root = tokenizer_json(s);
    json_object_set_new(root, "version", json_string("2"));
    write_tokenizer(s, root);
    RUN("--student", s, "--data", store, "--no-probe");
    expect("data_tokenizer", V_FAIL, "train refuses the store");
    expect("data_teacher", V_SKIP, "no --teacher was given");
    set(s, "config.json", "vocab_size", "100");
    RUN("--student", s, "--data", store, "--no-probe");
    expect("data_targets", V_FAIL, "outside the student's 100 rows");
    mem_free((char *)(uintptr_t)store);
}
END_TEST

START_TEST(a_store_of_samples_that_were_cut_off)
{
    const char *store = store_of(TEACHER, "8", "none");
    RUN("--student", STUDENT, "--data", store, "--no-probe");
    expect("data_finish", V_FAIL, "the student learns to go on");
    expect("data_answers", V_FAIL, "6 of 6 answers are empty");
    expect("data_targets", V_WARN, "by its text alone");
    mem_free((char *)(uintptr_t)store);
}
END_TEST

// The same store with every row of targets one token late, as a tool writes it that captures logits beside their input.
static const char *shifted(const char *from)
{
    struct err err = {0};
    struct store *in, *out;
    char *dir = path_join(test_tmpdir(), "shifted");
    ck_ok(store_open_read(&in, from, &err));
    ck_ok(store_open_write(&out, dir, json_object_get(store_manifest(in), "identity"), store_spec(in), &err));
    for (size_t i = 0; i < store_n_sample(in); i++) {
        struct sample s;
        struct targets t;
        ck_ok(store_read(in, i, &s, &t, &err));
        const size_t k = (size_t)t.k, n = (size_t)t.n_tok - 1;
        memmove(t.ids, t.ids + k, n * k * sizeof *t.ids);
        memmove(t.logprob, t.logprob + k, n * k * sizeof *t.logprob);
        memmove(t.tail_logprob, t.tail_logprob + 1, n * sizeof *t.tail_logprob);
        memmove(t.log_z, t.log_z + t.n_temperature, n * (size_t)t.n_temperature * sizeof *t.log_z);
        ck_ok(store_append(out, &s, &t, &err));
        sample_free(&s);
        targets_free(&t);
    }
    ck_ok(store_close(in, &err));
    ck_ok(store_close(out, &err));
    return dir;
}

START_TEST(targets_of_other_tokens_are_seen)
{
    const char *store = store_of(TEACHER, "64", "topk:16"), *late = shifted(store);
    RUN("--teacher", TEACHER, "--student", STUDENT, "--data", late);
    expect("data_shift", V_FAIL, "the student fits better one row late");
    expect("data_capture", V_FAIL, "more than rounding");
    mem_free((char *)(uintptr_t)store);
    mem_free((char *)(uintptr_t)late);
}
END_TEST

START_TEST(damaged_samples_are_counted)
{
    struct err err = {0};
    const char *store = store_of(TEACHER, "64", "topk:16");
    char *path = path_join(store, "targets-00000.bin");
    struct buf bytes = {0};
    ck_ok(file_read(&bytes, path, 1 << 24, &err));
    bytes.data[bytes.size / 2] ^= 1;
    ck_ok(file_write_atomic(path, bytes.data, bytes.size, &err));
    RUN("--student", STUDENT, "--data", store, "--no-probe");
    expect("data_rows", V_FAIL, "1 of 6 are no good");
    expect("data_rows", V_FAIL, "distill data verify");
    buf_free(&bytes);
    mem_free(path);
    mem_free((char *)(uintptr_t)store);
}
END_TEST

// ---- real tokenizers --------------------------------------------------------------------------------------------------------------------

START_TEST(real_tokenizers_in_pairs)
{
    // How many ids mean the same, from the files by a script of five lines; rows: teacher, columns: student.
    static const char *const names[] = {"deepseek_v3", "qwen2_5", "qwen3", "llama3"};
    static const int agree[4][4] = {{128815, 8, 8, 7}, {8, 151665, 151665, 410}, {8, 151665, 151669, 410}, {7, 410, 410, 128256}};
    const char *dir = test_material("tokenizers");
    if (!dir) return;
    char *t = path_join(dir, names[_i / 4]), *s = path_join(dir, names[_i % 4]);
    RUN_BOTH(t, s);
    ck_assert_int_eq((int)numbered("tokenizer", "n_agree"), agree[_i / 4][_i % 4]);
    if (_i / 4 == _i % 4) expect("tokenizer", V_OK, "the same file");
    if (_i / 4 == 1 && _i % 4 == 2) expect("tokenizer", V_FAIL, "4 only the student has: \"<tool_response>\" (151665)");
    if (_i / 4 == 2) expect("reasoning", V_OK, "stripped from earlier ones"); // Qwen3's template
    if (_i / 4 == 3) expect("end_token", V_WARN, "<|eot_id|>");               // the base model's tokenizer_config.json names another
    if (_i / 4 == 0) expect("pad_token", V_WARN, "also what ends an answer");
    mem_free(t);
    mem_free(s);
}
END_TEST

// ---- the report -------------------------------------------------------------------------------------------------------------------------

START_TEST(json_names_every_check_with_status_and_fix)
{
    static const char *const words[] = {"skip", "ok", "warn", "fail"};
    const char *s = copy_of(STUDENT);
    set(s, "config.json", "vocab_size", "100");
    RUN_BOTH(TEACHER, s);
    json_t *list = findings_json(&all), *o;
    size_t i;
    ck_assert_uint_eq(json_array_size(list), all.n);
    json_array_foreach(list, i, o)
    {
        ck_assert_str_eq(json_string_value(json_object_get(o, "check")), all.v[i].check);
        ck_assert_str_eq(json_string_value(json_object_get(o, "status")), words[all.v[i].verdict]);
        ck_assert(json_is_string(json_object_get(o, "found")) && json_is_string(json_object_get(o, "of")));
        ck_assert(all.v[i].fix.size ? json_is_string(json_object_get(o, "fix")) : json_is_null(json_object_get(o, "fix")));
    }
    ck_assert_int_eq(all.n_verdict[V_SKIP] + all.n_verdict[V_OK] + all.n_verdict[V_WARN] + all.n_verdict[V_FAIL], (int)all.n);
    json_decref(list);
}
END_TEST

START_TEST(sizes_have_three_digits)
{
    ck_assert_str_eq(size_text(0).s, "0 bytes");
    ck_assert_str_eq(size_text(999).s, "999 bytes");
    ck_assert_str_eq(size_text(1000).s, "0.977 KiB");
    ck_assert_str_eq(size_text((size_t)5 << 30).s, "5 GiB");
    ck_assert_str_eq(size_text(((size_t)5 << 30) + ((size_t)1 << 28)).s, "5.25 GiB");
    ck_assert_str_eq(size_text((size_t)3000 << 40).s, "3e+03 TiB");
}
END_TEST

Suite *suite_doctor(void);
Suite *suite_doctor(void)
{
    Suite *s = suite_create("doctor");
    TCase *t = tcase_create("doctor");
    tcase_add_checked_fixture(t, NULL, close_run);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_shipped_models_are_fine);
    tcase_add_test(t, only_tokenizers_still_tell_what_can_be_known);
    tcase_add_loop_test(t, only_config_and_weights_still_tell_what_can_be_known, 0, 7);
    tcase_add_test(t, what_cannot_be_examined_is_bad_input);
    tcase_add_test(t, broken_files_are_named);
    tcase_add_test(t, an_unknown_architecture_and_one_that_cannot_be_trained);
    tcase_add_test(t, weights_that_are_not_the_configs);
    tcase_add_test(t, numbers_that_are_none_and_a_student_that_knows_nothing);
    tcase_add_test(t, dtypes_of_the_files);
    tcase_add_test(t, tied_heads);
    tcase_add_test(t, contexts);
    tcase_add_test(t, tokenizers_that_differ_in_layout_only);
    tcase_add_test(t, tokenizers_with_more_tokens_in_one);
    tcase_add_test(t, tokenizers_whose_tokens_mean_something_else);
    tcase_add_test(t, tokenizers_that_merge_or_cut_otherwise);
    tcase_add_test(t, end_tokens);
    tcase_add_test(t, pad_and_bos_tokens);
    tcase_add_test(t, templates_that_are_missing_or_broken);
    tcase_add_test(t, what_becomes_of_reasoning);
    tcase_add_test(t, what_the_generation_prompt_opens);
    tcase_add_test(t, where_the_loss_falls);
    tcase_add_test(t, templates_of_teacher_and_student);
    tcase_add_test(t, memory_is_planned_from_config_alone);
    tcase_add_test(t, memory_that_suffices_and_that_does_not);
    tcase_add_test(t, licences);
    tcase_add_test(t, rows_of_jsonl);
    tcase_add_test(t, rows_longer_than_the_context);
    tcase_add_test(t, reasoning_that_the_template_would_lose);
    tcase_add_test(t, a_store_and_its_teacher);
    tcase_add_test(t, a_store_of_samples_that_were_cut_off);
    tcase_add_test(t, targets_of_other_tokens_are_seen);
    tcase_add_test(t, damaged_samples_are_counted);
    tcase_add_loop_test(t, real_tokenizers_in_pairs, 0, 16);
    tcase_add_test(t, json_names_every_check_with_status_and_fix);
    tcase_add_test(t, sizes_have_three_digits);
    suite_add_tcase(s, t);
    return s;
}
