// Each check of stores and JSONL on a case that breaks it and on one that does not.
#include "tests/distill/doctor_fixture.h"

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
    static const char beside[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello\","
                                 "\"reasoning_content\":\"A greeting\"}]}\n";
    static const char inside[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
                                 "\"<think>A greeting</think>Hello\"}]}\n";
    const char *s = copy_of(STUDENT);
    RUN_DATA(TEACHER, s, inside);
    expect("data_answers", V_OK, "1 conversations");
    set_template(s, "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
                    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    RUN_DATA(TEACHER, s, inside);
    expect("data_answers", V_FAIL, "would be lost without a word");
    RUN_DATA(TEACHER, s, beside); // train puts that back
    expect("data_answers", V_OK, "1 turns with reasoning");
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
                    "teacher/tiny/prompts.jsonl",
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
    json_t *manifest = json_of_file(store, "manifest.json"), *identity = json_object_get(manifest, "identity");
    json_object_set_new(identity, "fp8_activations", json_true());
    json_object_del(manifest, "crc32c");
    write_json(store, "manifest.json", manifest);
    RUN("--teacher", t, "--student", s, "--data", store);
    expect("data_capture", V_SKIP, "gen made the store with --fp8-activations");
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

Suite *suite_doctor_data(void);
Suite *suite_doctor_data(void)
{
    Suite *s = suite_create("doctor_data");
    TCase *t = tcase_create("doctor");
    tcase_add_checked_fixture(t, NULL, close_run);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, rows_of_jsonl);
    tcase_add_test(t, rows_longer_than_the_context);
    tcase_add_test(t, reasoning_that_the_template_would_lose);
    tcase_add_test(t, a_store_and_its_teacher);
    tcase_add_test(t, a_store_of_samples_that_were_cut_off);
    tcase_add_test(t, targets_of_other_tokens_are_seen);
    tcase_add_test(t, damaged_samples_are_counted);
    suite_add_tcase(s, t);
    return s;
}
