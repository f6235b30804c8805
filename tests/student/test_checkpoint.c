// Saving and resuming: bit for bit, through kills at random moments, and readable by others.
#include "student/checkpoint.h"
#include "student/metrics.h"
#include "tests/student/train_fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct train_options options(void)
{
    struct train_options o = fixture_options_of("fkl", 1, 0.3);
    o.n_step = 12, o.schedule = SCHEDULE_COSINE, o.warmup = 2;
    o.pack.shuffle = true, o.pack.seed = 9, o.pack.micro_tokens = 30;
    return o;
}

struct way {
    enum dtype dtype;
    enum optimizer_kind optimizer;
};
static const struct way F32 = {DT_F32, OPTIMIZER_ADAMW}, BF16 = {DT_BF16, OPTIMIZER_ADAMW}, EIGHT_BITS = {DT_BF16, OPTIMIZER_ADAMW8};

// What distill train does: go on from what is saved, save every second step.
static void train_on(const char *dir, const char *store, struct way way, int64_t until)
{
    struct err err = {0};
    struct run_dir d;
    struct position pos;
    struct fixture f;
    struct metrics m;
    struct train_options o = options();
    ck_ok(run_dir_open(&d, dir, &err));
    ck_ok(checkpoint_find(&d, &pos, &err));
    o.optimizer = way.optimizer, o.seed = 9;
    fixture_open(&f, "qwen3", way.dtype, store);
    fixture_train(&f, &o);
    ck_ok(metrics_open(&m, dir, pos.step, &err));
    if (pos.step >= 0)
        ck_ok(checkpoint_load(&d, &pos, f.trainer, &err));
    else
        pos = (struct position){0};
    while (f.trainer->step < until) {
        struct step_result r = fixture_step(&f);
        pos.step = r.step;
        pos.n_tok += r.n_tok;
        ck_ok(metrics_write(&m, &r, NULL, 0, 0, &err));
        if (r.step % 2 == 0) ck_ok(checkpoint_save(&d, f.trainer, &pos, "# card\n", 2, &err));
    }
    metrics_close(&m);
    fixture_close(&f);
    run_dir_close(&d);
}

static bool same_file(const char *dir_a, const char *dir_b, const char *name)
{
    struct err err = {0};
    char *a = path_join(dir_a, name), *b = path_join(dir_b, name), ha[65], hb[65];
    ck_ok(file_sha256(a, ha, &err));
    ck_ok(file_sha256(b, hb, &err));
    mem_free(a);
    mem_free(b);
    return !strcmp(ha, hb);
}

// Losses of metrics.jsonl; each step once, in order.
static int read_losses(const char *dir, double loss[64])
{
    struct err err = {0};
    struct buf text = {0};
    char *path = path_join(dir, "metrics.jsonl");
    ck_ok(file_read(&text, path, 1 << 20, &err));
    int n = 0;
    for (char *line = text.data, *nl; (nl = strchr(line, '\n')); line = nl + 1) {
        json_t *o = NULL;
        ck_ok(json_parse(&o, line, (size_t)(nl - line), path, n + 1, &err));
        ck_assert_int_eq((int)json_integer_value(json_object_get(o, "step")), n + 1);
        loss[n++] = json_real_value(json_object_get(o, "loss"));
        json_decref(o);
    }
    mem_free(path);
    buf_free(&text);
    return n;
}

static void same_run(const char *a, const char *b, int n_step)
{
    char state[64];
    snprintf(state, sizeof state, "state/step-%08d/optimizer.safetensors", n_step);
    ck_assert(same_file(a, b, "model.safetensors"));
    ck_assert(same_file(a, b, state));
    double x[64], y[64];
    ck_assert_int_eq(read_losses(a, x), n_step);
    ck_assert_int_eq(read_losses(b, y), n_step);
    ck_assert_int_eq(memcmp(x, y, (size_t)n_step * sizeof *x), 0);
}

START_TEST(a_resumed_run_equals_the_uninterrupted_one_byte_for_byte)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    const struct way ways[] = {F32, BF16, EIGHT_BITS};
    for (int k = 0; k < 3; k++) {
        const char *whole = test_tmpdir(), *parts = test_tmpdir();
        train_on(whole, store, ways[k], 12);
        train_on(parts, store, ways[k], 5); // step 5 is lost: the last save is of step 4
        train_on(parts, store, ways[k], 9);
        train_on(parts, store, ways[k], 12);
        same_run(whole, parts, 12);
    }
}
END_TEST

static void check_tensor(const struct st_set *set, const char *name, const char *dtype, size_t n_byte)
{
    const struct st_tensor *t = st_find(set, name);
    ck_assert_msg(t && !strcmp(t->dtype, dtype) && t->size_bytes == n_byte, "%s: wanted %zu bytes of %s", name, n_byte, dtype);
}

START_TEST(states_of_8_bits_are_saved_as_they_are_and_fit_no_other_optimizer)
{
    struct err err = {0};
    const char *store = test_tmpdir(), *dir = test_tmpdir();
    fixture_store(store, 8, 1);
    train_on(dir, store, EIGHT_BITS, 2);
    struct st_set model, state;
    char *path = path_join(dir, "state/step-00000002/optimizer.safetensors");
    ck_ok(st_open_dir(&model, dir, &err));
    ck_ok(st_open(&state, path, &err));
    const size_t n = FIXTURE_VOCAB * 32, n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
    check_tensor(&state, "model.embed_tokens.weight.master", "BF16", 2 * n);
    check_tensor(&state, "model.embed_tokens.weight.m", "U8", n);
    check_tensor(&state, "model.embed_tokens.weight.v", "U8", n);
    check_tensor(&state, "model.embed_tokens.weight.m_unit", "F32", 4 * n_block);
    check_tensor(&state, "model.embed_tokens.weight.v_unit", "F32", 4 * n_block);
    check_tensor(&state, "model.norm.weight.m", "F32", 4 * 32); // a norm is f32 in the run: as ever
    ck_assert(!st_find(&state, "model.norm.weight.m_unit"));
    // The model is the bf16 weights, in the dtype of its file (here F32).
    const struct st_tensor *w = st_find(&model, "model.embed_tokens.weight"), *half = st_find(&state, "model.embed_tokens.weight.master");
    for (size_t i = 0; i < n; i++) {
        const float x = bf16_to_f32(((const bf16 *)(const void *)half->data)[i]);
        ck_assert_msg(!memcmp(w->data + 4 * i, &x, 4), "value %zu", i);
    }
    st_close(&model);
    st_close(&state);
    mem_free(path);

    struct run_dir d;
    struct position pos;
    struct fixture f;
    struct train_options o = options();
    ck_ok(run_dir_open(&d, dir, &err));
    ck_ok(checkpoint_find(&d, &pos, &err));
    fixture_open(&f, "qwen3", DT_BF16, store);
    fixture_train(&f, &o);
    ck_fails(checkpoint_load(&d, &pos, f.trainer, &err), ST_BAD_INPUT,
             "tensor model.embed_tokens.weight.m: 3072 bytes of U8, wanted 3072 values of F32");
    fixture_close(&f);
    run_dir_close(&d);
}
END_TEST

// TRAP: OpenMP's threads do not survive fork, so this process itself never computes: children do.
static pid_t start(const char *dir, const char *store)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return pid;
    train_on(dir, store, F32, 12);
    _exit(0);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

START_TEST(kills_at_random_moments_leave_what_an_uninterrupted_run_leaves)
{
    const char *store = test_tmpdir(), *whole = test_tmpdir(), *killed = test_tmpdir();
    fixture_store(store, 8, 1);
    int status, n_kill = 0;
    double begin = now_ms();
    waitpid(start(whole, store), &status, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    double span_ms = now_ms() - begin;
    struct stat st;
    srand((unsigned)getpid());
    for (int i = 0; i < 40 && n_kill < 8; i++) {
        pid_t pid = start(killed, store);
        usleep((useconds_t)(1e3 * span_ms * (rand() % 1000) * 1e-3));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status)) {
            n_kill++;
        } else { // it was done before: once more from the start, and sooner
            killed = test_tmpdir();
            span_ms *= 0.7;
        }
        char *model = path_join(killed, "model.safetensors");
        struct st_set set;
        struct err err = {0};
        if (stat(model, &st) == 0) { // if there is a model it is whole
            ck_ok(st_open(&set, model, &err));
            st_close(&set);
        }
        mem_free(model);
    }
    ck_assert_int_gt(n_kill, 0);
    waitpid(start(killed, store), &status, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    same_run(whole, killed, 12);
}
END_TEST

static void put(const char *dir, const char *name, const char *text)
{
    struct err err = {0};
    char *path = path_join(dir, name), *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    ck_ok(dir_make(folder, &err));
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    mem_free(folder);
    mem_free(path);
}

struct presence {
    const char *name;
    bool there;
};
static void check_presence(const char *dir, const struct presence *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *path = path_join(dir, want[i].name);
        ck_assert_msg(file_exists(path) == want[i].there, "%s", want[i].name);
        mem_free(path);
    }
}

START_TEST(a_run_begins_with_all_files_of_the_student_but_its_weights)
{
    static const struct presence files[] = {{"config.json", true},
                                            {"tokenizer.json", true},
                                            {"tokenizer_config.json", true},
                                            {"special_tokens_map.json", true},
                                            {"chat_template.jinja", true},
                                            {"additional_chat_templates/tool_use.jinja", true},
                                            {"additional_chat_templates/notes.txt", false},
                                            {"model.safetensors", false}};
    struct err err = {0};
    const char *from = test_tmpdir(), *to = test_tmpdir();
    struct run_dir d;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) put(from, files[i].name, "{}");
    ck_ok(run_dir_open(&d, to, &err));
    ck_ok(checkpoint_copy_files(&d, from, &err));
    run_dir_close(&d);
    check_presence(to, files, sizeof files / sizeof *files);
}
END_TEST

// What generation_config.json becomes when answers end with 5 and 6. transformers takes config.json's where there is no such file.
START_TEST(generation_config_names_what_answers_end_with)
{
    static const struct {
        const char *config, *generation, *after; // after NULL: as it was
        size_t n_added;
    } cases[] = {
        {"{\"eos_token_id\": 1}", "{\"eos_token_id\": 1, \"top_p\": 0.5}", "{\"eos_token_id\": [1, 5, 6], \"top_p\": 0.5}", 2},
        {"{\"eos_token_id\": 5}", "{\"eos_token_id\": [6, 1]}", "{\"eos_token_id\": [6, 1, 5]}", 1},
        {"{\"eos_token_id\": 1}", "{\"eos_token_id\": [5, 6, 7]}", NULL, 0},
        {"{\"eos_token_id\": 5}", "{\"top_p\": 0.5}", "{\"eos_token_id\": [5, 6], \"top_p\": 0.5}", 2},
        {"{\"eos_token_id\": 1}", "{\"eos_token_id\": null}", "{\"eos_token_id\": [1, 5, 6]}", 2},
        {"{\"eos_token_id\": [1, 2], \"bos_token_id\": 3, \"pad_token_id\": null}", NULL,
         "{\"bos_token_id\": 3, \"eos_token_id\": [1, 2, 5, 6]}", 2},
        {"{\"eos_token_id\": [6, 5]}", NULL, NULL, 0},
        {"{}", NULL, "{\"eos_token_id\": [5, 6]}", 2},
    };
    struct err err = {0};
    int32_t v[] = {5, 6};
    const struct ids ends = {v, 2, 2};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = test_tmpdir(), *after = cases[i].after ? cases[i].after : cases[i].generation;
        struct run_dir d;
        struct ids added = {0};
        json_t *found = NULL, *want = NULL;
        char *path = path_join(dir, "generation_config.json");
        put(dir, "config.json", cases[i].config);
        if (cases[i].generation) put(dir, "generation_config.json", cases[i].generation);
        ck_ok(run_dir_open(&d, dir, &err));
        ck_ok(checkpoint_name_ends(&d, &ends, &added, &err));
        run_dir_close(&d);
        ck_assert_uint_eq(added.n, cases[i].n_added);
        ck_assert_int_eq(file_exists(path), after != NULL);
        if (after) {
            ck_ok(json_read(&found, path, &err));
            ck_ok(json_parse(&want, after, strlen(after), "wanted", 0, &err));
            ck_assert_msg(json_equal(found, want), "case %zu", i);
        }
        json_decref(found);
        json_decref(want);
        ids_free(&added);
        mem_free(path);
    }
    const char *dir = test_tmpdir();
    struct run_dir d;
    struct ids added = {0};
    put(dir, "config.json", "{}");
    put(dir, "generation_config.json", "[]");
    ck_ok(run_dir_open(&d, dir, &err));
    ck_fails(checkpoint_name_ends(&d, &ends, &added, &err), ST_BAD_INPUT, "generation_config.json: wanted a JSON object");
    run_dir_close(&d);
}
END_TEST

START_TEST(a_save_keeps_dtypes_names_and_shapes_and_so_many_older_models)
{
    struct err err = {0};
    const char *store = test_tmpdir(), *dir = test_tmpdir();
    fixture_store(store, 8, 1);
    put(dir, "additional_chat_templates/rag.jinja", "x");
    train_on(dir, store, BF16, 12);
    struct st_set saved, source;
    ck_ok(st_open_dir(&saved, dir, &err));
    ck_ok(st_open_dir(&source, test_golden("train/qwen3"), &err));
    ck_assert_uint_eq(saved.n, source.n);
    for (size_t i = 0; i < saved.n; i++) {
        ck_assert_str_eq(saved.v[i].name, source.v[i].name);
        ck_assert_str_eq(saved.v[i].dtype, source.v[i].dtype); // F32, though the run was bf16: the master's exact value
        ck_assert_uint_eq(saved.v[i].size_bytes, source.v[i].size_bytes);
    }
    // The file holds the masters.
    char *state = path_join(dir, "state/step-00000012/optimizer.safetensors");
    struct st_set opt;
    ck_ok(st_open(&opt, state, &err));
    const struct st_tensor *w = st_find(&saved, "model.norm.weight"), *m = st_find(&opt, "model.norm.weight.master");
    ck_assert(w && m && !memcmp(w->data, m->data, w->size_bytes));
    st_close(&opt);
    st_close(&saved);
    st_close(&source);
    mem_free(state);
    static const struct presence want[] = {{"checkpoints/step-00000010/model.safetensors", true},
                                           {"checkpoints/step-00000010/additional_chat_templates/rag.jinja", true},
                                           {"checkpoints/step-00000008/model.safetensors", true},
                                           {"checkpoints/step-00000006", false},
                                           {"checkpoints/step-00000012", false},
                                           {"state/step-00000010", false},
                                           {"README.md", true}};
    check_presence(dir, want, sizeof want / sizeof *want);
}
END_TEST

// What a run without a step saves of a student.
static void save_untrained(const char *student, const char *dir)
{
    struct err err = {0};
    struct fixture f;
    struct run_dir d;
    const char *store = test_tmpdir();
    const struct train_options o = fixture_options();
    fixture_store(store, 0, 1);
    fixture_open_model(&f, "cpu", student, DT_F32, store, 1);
    fixture_train(&f, &o);
    ck_ok(run_dir_open(&d, dir, &err));
    ck_ok(checkpoint_copy_files(&d, student, &err));
    ck_ok(checkpoint_save(&d, f.trainer, &(struct position){0}, "", 0, &err));
    run_dir_close(&d);
    fixture_close(&f);
}

START_TEST(values_become_f16_as_the_format_rounds_them)
{
    // A student in f16: the save of a run without steps gives the file's own bytes back.
    struct err err = {0};
    const char *dir = test_tmpdir(), *student = test_tmpdir();
    struct st_set source;
    ck_ok(st_open_dir(&source, test_golden("train/qwen3"), &err));
    struct st_writer *w;
    char *path = path_join(student, "model.safetensors"), *config = path_join(student, "config.json");
    ck_ok(file_copy(test_golden("train/qwen3/config.json"), config, &err));
    ck_ok(st_create(&w, path, &err));
    for (size_t i = 0; i < source.n; i++) st_declare(w, source.v[i].name, "F16", source.v[i].rank, source.v[i].shape);
    ck_ok(st_begin(w, &err));
    uint16_t next = 0;
    for (size_t i = 0; i < source.n; i++) // every finite f16 in turn: subnormals, both zeros, the largest
        for (size_t k = 0; k < source.v[i].size_bytes / 4; k++) {
            while ((next & 0x7c00) == 0x7c00) next++;
            ck_ok(st_put(w, &next, 2, &err));
            next++;
        }
    ck_ok(st_finish(w, &err));
    st_close(&source);

    save_untrained(student, dir);
    struct st_set a, b;
    ck_ok(st_open_dir(&a, student, &err));
    ck_ok(st_open_dir(&b, dir, &err));
    for (size_t i = 0; i < a.n; i++)
        ck_assert_msg(!memcmp(a.v[i].data, st_find(&b, a.v[i].name)->data, a.v[i].size_bytes), "%s", a.v[i].name);
    st_close(&a);
    st_close(&b);
    mem_free(path);
    mem_free(config);
}
END_TEST

// Writes train/qwen3 with its linear maps in FP8, codes and scales made up, and a configuration that says so.
static void write_fp8_student(const char *dir)
{
    struct err err = {0};
    struct st_set source;
    struct st_writer *w;
    json_t *root;
    char *path = path_join(dir, "model.safetensors"), *config = path_join(dir, "config.json"), name[128];
    ck_ok(json_read(&root, test_golden("train/qwen3/config.json"), &err));
    json_object_set_new(root, "quantization_config", json_pack("{s:s, s:[i,i]}", "quant_method", "fp8", "weight_block_size", 128, 128));
    ck_ok(json_write_atomic(root, config, &err));
    json_decref(root);
    ck_ok(st_open_dir(&source, test_golden("train/qwen3"), &err));
    ck_ok(st_create(&w, path, &err));
    for (int pass = 0; pass < 2; pass++) {
        if (pass) ck_ok(st_begin(w, &err));
        for (size_t i = 0; i < source.n; i++) {
            const struct st_tensor *t = &source.v[i];
            const bool fp8 = strstr(t->name, "_proj.weight") != NULL;
            const int64_t blocks[2] = {(t->shape[0] + 127) / 128, (t->shape[1] + 127) / 128};
            snprintf(name, sizeof name, "%s_scale_inv", t->name);
            if (!pass) {
                st_declare(w, t->name, fp8 ? "F8_E4M3" : t->dtype, t->rank, t->shape);
                if (fp8) st_declare(w, name, "F32", 2, blocks);
            } else if (!fp8) {
                ck_ok(st_put(w, t->data, t->size_bytes, &err));
            } else {
                const float scale = 0.01f;
                for (size_t k = 0; k < t->size_bytes / 4; k++) ck_ok(st_put(w, &(uint8_t){(uint8_t)(k * 37 % 127)}, 1, &err));
                for (int64_t k = 0; k < blocks[0] * blocks[1]; k++) ck_ok(st_put(w, &scale, 4, &err));
            }
        }
    }
    ck_ok(st_finish(w, &err));
    st_close(&source);
    mem_free(path);
    mem_free(config);
}

START_TEST(an_fp8_student_is_trained_dequantised_and_saved_as_bf16)
{
    struct err err = {0};
    const char *dir = test_tmpdir(), *student = test_tmpdir();
    write_fp8_student(student);
    save_untrained(student, dir);
    struct device dev;
    const struct model_options mo = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = DT_F32};
    struct model *again;
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    ck_ok(model_load(&again, &dev, dir, &mo, &err)); // config.json says nothing of FP8 any more
    ck_assert(!again->config.fp8.on);
    model_free(again);
    dev_close(&dev);
    struct st_set saved;
    ck_ok(st_open_dir(&saved, dir, &err));
    for (size_t i = 0; i < saved.n; i++) {
        const struct st_tensor *t = &saved.v[i];
        if (!strstr(t->name, "_proj.weight")) continue;
        ck_assert_str_eq(t->dtype, "BF16");
        for (size_t k = 0; k < t->size_bytes / 2; k++) {
            const bf16 want = f32_to_bf16(e4m3_to_f32((e4m3)(k * 37 % 127)) * 0.01f);
            ck_assert_msg(!memcmp(t->data + 2 * k, &want, 2), "%s: value %zu", t->name, k);
        }
    }
    st_close(&saved);
}
END_TEST

START_TEST(a_second_process_on_the_same_folder_is_refused_and_told_of_the_first)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    struct run_dir first, second;
    ck_ok(run_dir_open(&first, dir, &err));
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    ck_fails(run_dir_open(&second, dir, &err), ST_BAD_INPUT, file_exists("/proc/locks") ? pid : "is training into this folder");
    run_dir_close(&first);
    ck_ok(run_dir_open(&second, dir, &err));
    run_dir_close(&second);
}
END_TEST

Suite *suite_checkpoint(void)
{
    Suite *s = suite_create("checkpoint");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_resumed_run_equals_the_uninterrupted_one_byte_for_byte);
    tcase_add_test(t, states_of_8_bits_are_saved_as_they_are_and_fit_no_other_optimizer);
    tcase_add_test(t, kills_at_random_moments_leave_what_an_uninterrupted_run_leaves);
    tcase_add_test(t, generation_config_names_what_answers_end_with);
    tcase_add_test(t, a_run_begins_with_all_files_of_the_student_but_its_weights);
    tcase_add_test(t, a_save_keeps_dtypes_names_and_shapes_and_so_many_older_models);
    tcase_add_test(t, values_become_f16_as_the_format_rounds_them);
    tcase_add_test(t, an_fp8_student_is_trained_dequantised_and_saved_as_bf16);
    tcase_add_test(t, a_second_process_on_the_same_folder_is_refused_and_told_of_the_first);
    suite_add_tcase(s, t);
    return s;
}
