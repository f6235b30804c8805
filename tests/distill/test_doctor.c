// Each check of a model on a case that breaks it and on one that does not; the report.
#include "distill/licence.h"
#include "distill/registry.h"
#include "tests/distill/doctor_fixture.h"

#include <math.h>

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
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors"};
    for (int i = 0; i < 3; i++) drop(t, names[i]), drop(s, names[i]);
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

START_TEST(gguf_files_are_examined_as_folders_are)
{
    const char *t = copy_of(TEACHER), *s = copy_of(STUDENT);
    put(t, "README.md", "---\nlicense: other\nlicense_name: Llama3.1\n---\n");
    put(s, "README.md", "---\nlicense: MIT\n---\n");
    const char *teacher = gguf_of(t, "bf16"), *student = gguf_of(s, "q8_0");
    RUN("--teacher", teacher, "--student", student);
    ck_assert_int_eq(all.n_verdict[V_FAIL], 0);
    ck_assert_int_eq(all.n_verdict[V_WARN], 1); // the terms of llama3.1
    expect("files", V_OK, "model keys, tokenizer keys, weights");
    expect("architecture", V_OK, "deepseek_v3");
    expect("weights", V_OK, "as the keys say");
    expect("dtype", V_OK, "BF16");
    expect("tied_head", V_SKIP, "output.weight");
    expect("tokenizer", V_OK, "the same file");
    expect("vocabulary", V_OK, "rows");
    expect("end_token", V_OK, "<|im_end|>");
    expect("chat_templates", V_OK, "come out the same");
    expect("loss_mask", V_OK, "");
    expect("same_numbers", V_OK, "");
    expect("logit_shift", V_OK, "KL");
    expect("memory_gen", V_OK, "weights");
    expect("memory_train", V_OK, "weights");
    expect("licence", V_WARN, "llama3.1 (general.license.name)");
    expect("licences", V_OK, "mit for the student");
    RUN_STUDENT(student);
    expect("dtype", V_OK, "Q8_0 is dequantised");
    expect("licence", V_OK, "mit (general.license)");
    RUN_STUDENT(gguf_of(STUDENT, "f32"));
    expect("licence", V_WARN, "no key general.license");
}
END_TEST

START_TEST(what_a_gguf_file_lacks_is_said_in_its_own_words)
{
    struct err err = {0};
    const char *dir = copy_of(STUDENT);
    set(dir, "generation_config.json", "eos_token_id", "0");
    set(dir, "config.json", "eos_token_id", "0");
    set(dir, "tokenizer_config.json", "chat_template", "-");
    const char *file = gguf_of(dir, "f32");
    RUN_STUDENT(file);
    expect("chat_template", V_WARN, "is one GGUF file: do so in the folder it was made from");
    expect("reasoning", V_SKIP, "the student's tokenizer keys: no chat template");

    struct gguf_writer *w;
    char *path = path_join(dir, "few.gguf");
    ck_ok(gguf_create(&w, path, &err));
    gguf_put_string(w, "general.architecture", "qwen3");
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_finish(w, &err));
    RUN_STUDENT(path);
    expect("files", V_FAIL, "qwen3: block_count: missing");
    expect("tied_head", V_SKIP, "the student's model keys: cannot be read");
    expect("end_token", V_SKIP, "the student has no tokenizer keys");
    ck_ok(gguf_create(&w, path, &err));
    gguf_put_string(w, "general.name", "nothing");
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_finish(w, &err));
    ck_fails(try_run(&err, (const char *const[]){"--student", path, NULL}), ST_BAD_INPUT, "neither keys nor tensors");
    mem_free(path);
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
    ck_fails(try_run(&err, (const char *const[]){"--student", "README.md", NULL}), ST_BAD_INPUT, "GGUF");
    ck_fails(try_run(&err, (const char *const[]){"--student", STUDENT, "--data", "/no/such/data", NULL}), ST_BAD_INPUT, "/no/such/data");
}
END_TEST

// ---- files ------------------------------------------------------------------------------------------------------------------------------

START_TEST(broken_files_are_named)
{
    static const struct {
        const char *name, *text, *part;
    } broken[] = {{"config.json", "{\n\"model_type\": \"qwen3\",\n", "config.json:3"},
                  {"tokenizer.json", "{}", "tokenizer.json"},
                  {"model.safetensors", "short", "model.safetensors"},
                  {"generation_config.json", "[]", "wanted a JSON object"}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const char *s = copy_of(STUDENT);
        put(s, broken[i].name, broken[i].text);
        RUN_STUDENT(s);
        expect("files", V_FAIL, broken[i].part);
        if (!i) expect("architecture", V_SKIP, "see files");
    }
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

#define STRETCHED(from, more)                                                                                                              \
    CONFIG("rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": " from more "}")
static const struct doctor_case contexts[] = {
    {"context", V_WARN, "no max_position_embeddings", NULL, CONFIG("max_position_embeddings", "-")},
    {"context", V_WARN, "reaches 2048 only", NULL, STRETCHED("512", "") CONFIG("max_position_embeddings", "4096")},
    {"context", V_OK, "stretched from 512 by YaRN", NULL, STRETCHED("512", "")},
    {"context", V_WARN, "\"attention_factor\": 0.569315", NULL, STRETCHED("512", ", \"attn_factor\": 0.5")},
    {"context", V_OK, "positions divided by 4", NULL, CONFIG("rope_scaling", "{\"type\": \"linear\", \"factor\": 4}")},
};

START_TEST(the_context_of_a_model)
{
    check_case(&contexts[_i]);
}
END_TEST

START_TEST(the_contexts_of_both)
{
    const char *s = copy_of(STUDENT);
    RUN_BOTH(TEACHER, s);
    expect("contexts", V_OK, "512");
    set(s, "config.json", "max_position_embeddings", "256");
    RUN_BOTH(TEACHER, s);
    expect("contexts", V_WARN, "fit into 256");
}
END_TEST

// ---- memory, licences -------------------------------------------------------------------------------------------------------------------

// DeepSeek-V3 and Qwen2.5-7B by their published config.json: nothing of that size is taken, and what is needed is known.
static const char V3[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":129280,\"hidden_size\":7168,\"intermediate_size\":18432,\"moe_intermediate_size\":2048,"
    "\"num_hidden_layers\":61,\"num_attention_heads\":128,\"num_key_value_heads\":128,\"n_shared_experts\":1,\"n_routed_experts\":256,"
    "\"num_experts_per_tok\":8,\"n_group\":8,\"topk_group\":4,\"first_k_dense_replace\":3,\"q_lora_rank\":1536,\"kv_lora_rank\":512,"
    "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,\"routed_scaling_factor\":2.5,\"max_position_embeddings\":163840,"
    "\"rope_theta\":10000}";
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
    RUN("--student", s, "--micro-tokens", "4096", "--optimizer", "adamw8");
    // The gradient in f32, two codes, two f32 units for 256 of them; norms and biases are few.
    ck_assert_double_eq_tol(numbered("memory_train", "state_bytes"), (4 + 2 + 8.0 / 256) * 7.616e9, 0.01e9);
}
END_TEST

// Against what loading so takes; by default on a CPU 2 bytes a value instead of f32's 4.
START_TEST(a_teacher_in_fp8_is_planned_and_probed_as_gen_runs_it)
{
    struct err err = {0};
    struct device dev;
    struct model *m;
    const char *whole = test_golden("fp8"), *alone = test_tmpdir();
    struct model_options mo = {.archs = all_archs, .use = MODEL_GENERATE, .dtype = DT_F32, .fp8_activations = true};
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    ck_ok(model_load(&m, &dev, whole, &mo, &err));
    const double taken = (double)m->weights.peak;
    model_free(m);
    dev_close(&dev);
    RUN("--teacher", whole, "--dtype", "f32", "--device", "cpu");
    ck_assert_double_gt(numbered("memory_gen", "weights_bytes"), 1.2 * taken);
    expect("same_numbers", V_OK, "KL");
    ck_assert(numbered("same_numbers", "kl") < 1e-4);
    RUN("--teacher", whole, "--student", whole, "--dtype", "f32", "--device", "cpu", "--fp8-activations");
    ck_assert_double_eq(numbered("memory_gen", "weights_bytes"), taken);
    expect("same_numbers", V_OK, "KL");
    expect("logit_shift", V_OK, "the same model");
    ck_assert(numbered("same_numbers", "kl") > 1e-3); // the teacher's: quantised, and told from what is not
    char *from = path_join(whole, "config.json"), *to = path_join(alone, "config.json");
    ck_ok(file_copy(from, to, &err));
    RUN("--teacher", alone, "--dtype", "f32", "--device", "cpu", "--fp8-activations"); // all its linear maps are in FP8
    ck_assert_double_eq(numbered("memory_gen", "weights_bytes"), taken);
    RUN("--teacher", TEACHER, "--fp8-activations");
    expect("memory_gen", V_FAIL, "no quantization_config");
    expect("memory_gen", V_FAIL, "leave --fp8-activations out");
    expect("same_numbers", V_SKIP, "no quantization_config");
    mem_free(from);
    mem_free(to);
}
END_TEST

// With 18 bytes a parameter half as much again as is free, with 8 two thirds of it.
START_TEST(an_optimizer_that_would_fit_is_the_fix)
{
    static const char WIDE[] = "{\"model_type\":\"qwen2\",\"vocab_size\":512,\"hidden_size\":4096,\"intermediate_size\":%.0f,"
                               "\"num_hidden_layers\":1,\"num_attention_heads\":32,\"max_position_embeddings\":2048}";
    const char *s = test_tmpdir();
    char config[256];
    snprintf(config, sizeof config, WIDE, 4096.0);
    put(s, "config.json", config);
    RUN("--student", s, "--micro-tokens", "64");
    snprintf(config, sizeof config, WIDE, floor(numbered("memory_train", "free_bytes") / (12 * 3 * 4096)));
    put(s, "config.json", config);
    RUN("--student", s, "--micro-tokens", "64");
    expect("memory_train", V_FAIL, "--optimizer adamw8 fits: ");
    RUN("--student", s, "--micro-tokens", "64", "--optimizer", "adamw8");
    expect("memory_train", V_OK, "gradients and optimizer (adamw8)");
    expect("memory_train", V_OK, "fits with --recompute");
    RUN("--student", s, "--micro-tokens", "64", "--dtype", "f32");
    expect("memory_train", V_FAIL, "a smaller student or a larger machine"); // f32 weights keep AdamW's states
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

#define APACHE "\n\n                              Apache License\n                        Version 2.0, January 2004\n"
// README.md of the teacher, a licence of the student's, what is said of the teacher's and of both.
static const struct {
    const char *readme, *student;
    enum verdict verdict;
    const char *part;
    enum verdict both;
    const char *part_both;
} licences[] = {
    {NULL, NULL, V_WARN, "none is named", V_SKIP, "neither"},
    {"---\nlanguage: en\nlicense: other\nlicense_name: deepseek\n---\n# A model\nlicense: mit\n", NULL, V_WARN,
     "deepseek (README.md); its text counts a model made from its output", V_WARN, "nothing for the student"},
    {"---\nlicense: \"mit\"\n---\n", APACHE, V_OK, "mit (README.md)", V_OK, "apache-2.0 for the student and mit for the teacher"},
    {"---\nlicense: llama3\n---\n", APACHE, V_WARN, "forbids", V_WARN, "another family"},
    {"---\nlicense: llama3.1\n---\n", APACHE, V_WARN, "must begin with \"Llama\"", V_OK, "llama3.1 for the teacher"},
    {"---\nlicense: my-own\n---\n", APACHE, V_WARN, "not one whose terms are known", V_OK, "my-own for the teacher"},
};

START_TEST(licences_of_both)
{
    const char *t = copy_of(TEACHER), *s = copy_of(STUDENT);
    if (licences[_i].readme) put(t, "README.md", licences[_i].readme);
    if (licences[_i].student) put(s, "LICENSE", licences[_i].student);
    RUN_BOTH(t, s);
    expect("licence", licences[_i].verdict, licences[_i].part);
    expect("licences", licences[_i].both, licences[_i].part_both);
}
END_TEST

START_TEST(terms_of_licences)
{
    bool look;
    ck_assert(licence_terms("apache-2.0", &look) && !look);
    ck_assert(licence_terms("qwen-research", &look) && strstr(licence_terms("qwen-research", &look), "non-commercial"));
    ck_assert(!licence_terms("unheard-of", &look) && look);
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
    tcase_add_test(t, gguf_files_are_examined_as_folders_are);
    tcase_add_test(t, what_a_gguf_file_lacks_is_said_in_its_own_words);
    tcase_add_test(t, what_cannot_be_examined_is_bad_input);
    tcase_add_test(t, broken_files_are_named);
    tcase_add_test(t, an_unknown_architecture_and_one_that_cannot_be_trained);
    tcase_add_test(t, weights_that_are_not_the_configs);
    tcase_add_test(t, numbers_that_are_none_and_a_student_that_knows_nothing);
    tcase_add_test(t, dtypes_of_the_files);
    tcase_add_test(t, tied_heads);
    tcase_add_loop_test(t, the_context_of_a_model, 0, sizeof contexts / sizeof *contexts);
    tcase_add_test(t, the_contexts_of_both);
    tcase_add_test(t, memory_is_planned_from_config_alone);
    tcase_add_test(t, a_teacher_in_fp8_is_planned_and_probed_as_gen_runs_it);
    tcase_add_test(t, an_optimizer_that_would_fit_is_the_fix);
    tcase_add_test(t, memory_that_suffices_and_that_does_not);
    tcase_add_loop_test(t, licences_of_both, 0, sizeof licences / sizeof *licences);
    tcase_add_test(t, terms_of_licences);
    tcase_add_test(t, json_names_every_check_with_status_and_fix);
    tcase_add_test(t, sizes_have_three_digits);
    suite_add_tcase(s, t);
    return s;
}
