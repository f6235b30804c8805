// Each check of tokenizers and chat templates on a case that breaks it and on one that does not.
#include "tests/distill/doctor_fixture.h"

// ---- tokenizers -------------------------------------------------------------------------------------------------------------------------

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
    expect("vocabulary", V_FAIL,
           "do not belong together, and train, gen and eval refuse them"); // the teacher's own embedding has 512 rows too
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

START_TEST(added_tokens_json_that_contradicts)
{
    const char *s = copy_of(STUDENT);
    put(s, "added_tokens.json", "{\"<think>\": 510, \"</think>\": 511}");
    RUN_STUDENT(s);
    expect("vocabulary", V_OK, "512 rows, a token each");
    put(s, "added_tokens.json", "{\"<think>\": 511, \"</think>\": 511}");
    RUN_STUDENT(s);
    expect("vocabulary", V_WARN, "added_tokens.json contradicts tokenizer.json: \"<think>\" is 511 there, 510 here");
    put(s, "added_tokens.json", "{\"<think>\": 510, \"<extra>\": 512}"); // beside an added_tokens_decoder nobody reads it
    RUN_STUDENT(s);
    expect("vocabulary", V_WARN, "\"<extra>\" is 512 there, no token here");
    set(s, "tokenizer_config.json", "added_tokens_decoder", "-");
    RUN_STUDENT(s);
    expect("vocabulary", V_FAIL, "the tokenizer has ids up to 512");
    put(s, "added_tokens.json", "{\"<extra>\": 600}");
    RUN_STUDENT(s);
    expect("files", V_FAIL, "added_tokens.json gives \"<extra>\" the id 600");
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

#define NO_EOS GENERATION("eos_token_id", "-") CONFIG("eos_token_id", "-") TOKENIZER("eos_token", "null")
#define OTHER_EOS GENERATION("eos_token_id", "507") CONFIG("eos_token_id", "507") TOKENIZER("eos_token", "\"<|endoftext|>\"")
#define OTHER_PAD TOKENIZER("pad_token", "\"<|im_end|>\"")
#define NO_PAD TOKENIZER("pad_token", "null") CONFIG("pad_token_id", "-") GENERATION("pad_token_id", "-")
#define BOS TOKENIZER("bos_token", "\"<|endoftext|>\"")
#define TEXT "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
#define NO_END "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
static const struct doctor_case tokens[] = {
    {"end_token", V_OK, "\"<|im_end|>\" (509)", NULL, NULL},
    {"end_token", V_WARN, "does not name \"<|im_end|>\" (509)", NULL, GENERATION("eos_token_id", "507")},
    {"end_token", V_WARN, "ends a turn with \"<|im_end|>\" (509), which is not among them", NULL, OTHER_EOS},
    {"end_token", V_FAIL, "600 is no token", NULL, GENERATION("eos_token_id", "600")},
    {"end_token", V_FAIL, "no end token in", NULL, NO_EOS},
    {"end_token", V_FAIL, "writes no token after an answer", NO_END, NULL},
    {"pad_token", V_OK, "<|endoftext|>", NULL, NULL},
    {"pad_token", V_WARN, "never learns to stop", NULL, OTHER_PAD},
    {"pad_token", V_WARN, "do not name the same", NULL, OTHER_PAD}, // config.json still says 507
    {"pad_token", V_OK, "none is needed", NULL, NO_PAD},
    {"bos_token", V_OK, "none", NULL, NULL},
    {"bos_token", V_WARN, "config.json says 508", NULL, BOS CONFIG("bos_token_id", "508")},
    {"bos_token", V_WARN, "2 times", "{{ bos_token }}{{ bos_token }}" TEXT, BOS CONFIG("bos_token_id", "507")},
    {"bos_token", V_OK, "written by the chat template", "{{ bos_token }}" TEXT, BOS CONFIG("bos_token_id", "507")},
};

START_TEST(tokens_that_end_fill_and_begin)
{
    check_case(&tokens[_i]);
}
END_TEST

START_TEST(end_tokens_of_both)
{
    const char *s = copy_of(STUDENT);
    set_keys(s, OTHER_EOS);
    RUN_BOTH(TEACHER, s);
    expect("end_tokens", V_OK, "509"); // known from the student's template, though its files do not name it
    set_template(s, "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}>{% endif %}");
    RUN_BOTH(TEACHER, s);
    expect("end_tokens", V_FAIL, "add 509");
}
END_TEST

// ---- templates --------------------------------------------------------------------------------------------------------------------------

START_TEST(templates_that_are_missing_or_broken)
{
    const char *t = copy_of(TEACHER);
    set_keys(t, TOKENIZER("chat_template", "-"));
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
    set_template(t, TURN_BEGIN REASON_LAST TURN_END);
    RUN_TEACHER(t); // of a teacher the template writes prompts only
    expect("reasoning", V_OK, "stripped from earlier ones");
}
END_TEST

#define STRIPS                                                                                                                             \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"                       \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define OPENS                                                                                                                              \
    TURN_BEGIN REASON "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
#define TWICE                                                                                                                              \
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% "  \
    "endif %}"
#define TOO_MUCH "{% for m in messages %}{% generation %}{{ m.role }}:{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}"
#define NO_PROMPT TURN_BEGIN "{{ m.content }}<|im_end|>\n{% endfor %}"
#define RAISES "{% if add_generation_prompt %}{{ raise_exception('not so') }}{% endif %}" TURN_BEGIN TURN_END
static const struct doctor_case templates[] = {
    {"reasoning", V_OK, "in every turn", NULL, NULL},
    {"loss_mask", V_OK, "both reasonings", NULL, NULL},
    {"reasoning", V_WARN, "stripped from earlier ones", TURN_BEGIN REASON_LAST TURN_END, NULL},
    {"loss_mask", V_OK, "the last reasoning", TURN_BEGIN REASON_LAST TURN_END, NULL},
    {"reasoning", V_WARN, "never written; train writes it as <think>…</think>", TURN_BEGIN TURN_END, NULL},
    {"loss_mask", V_OK, "train puts it back", TURN_BEGIN TURN_END, NULL},
    {"reasoning", V_WARN, "inside the content is stripped everywhere", STRIPS, NULL},
    {"reasoning", V_WARN, "move it to reasoning_content", STRIPS, NULL},
    {"generation_prompt", V_OK, "it opens <think>", OPENS, NULL},
    {"generation_prompt", V_OK, "nothing is added", NO_PROMPT, NULL},
    {"generation_prompt", V_FAIL, "not so", RAISES, NULL},
    {"loss_mask", V_FAIL, "writes the turn's text twice", TWICE, NULL},
    {"loss_mask", V_FAIL, "does not fall on the assistant's answers alone", TOO_MUCH, NULL},
};

START_TEST(what_templates_do_with_reasoning_prompt_and_loss)
{
    check_case(&templates[_i]);
    if (!templates[_i].template) ck_assert(!strstr(find("generation_prompt")->found.data, "opens <think>"));
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

// ---- real tokenizers --------------------------------------------------------------------------------------------------------------------

START_TEST(real_tokenizers_in_pairs)
{
    // How many ids mean the same, from the files by a script of five lines; rows: teacher, columns: student.
    static const char *const names[] = {"deepseek_v3", "qwen2_5", "qwen3", "llama3"};
    static const int agree[4][4] = {{128815, 8, 8, 7}, {8, 151665, 151665, 410}, {8, 151665, 151669, 410}, {7, 410, 410, 128256}};
    if (_i / 4 > _i % 4) return; // the other way round: the same count
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

Suite *suite_doctor_text(void);
Suite *suite_doctor_text(void)
{
    Suite *s = suite_create("doctor_text");
    TCase *t = tcase_create("doctor");
    tcase_add_checked_fixture(t, NULL, close_run);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, tokenizers_that_differ_in_layout_only);
    tcase_add_test(t, tokenizers_with_more_tokens_in_one);
    tcase_add_test(t, added_tokens_json_that_contradicts);
    tcase_add_test(t, tokenizers_whose_tokens_mean_something_else);
    tcase_add_test(t, tokenizers_that_merge_or_cut_otherwise);
    tcase_add_loop_test(t, tokens_that_end_fill_and_begin, 0, sizeof tokens / sizeof *tokens);
    tcase_add_test(t, end_tokens_of_both);
    tcase_add_test(t, templates_that_are_missing_or_broken);
    tcase_add_loop_test(t, what_templates_do_with_reasoning_prompt_and_loss, 0, sizeof templates / sizeof *templates);
    tcase_add_test(t, templates_of_teacher_and_student);
    tcase_add_loop_test(t, real_tokenizers_in_pairs, 0, 16);
    suite_add_tcase(s, t);
    return s;
}
