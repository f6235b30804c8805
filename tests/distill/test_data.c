// distill data …: what a store holds comes out in the files that others load.
#include "distill/command.h"
#include "distill/signals.h"
#include "kernels/model/safetensors.h"
#include "tests/datasets/store_helpers.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

extern const struct command command_data_verify, command_data_export, command_data_show, command_data_stats, command_export;

// Runs a command with up to five arguments (NULL: fewer); what it prints goes to *out (may be NULL: thrown away).
static enum status run(const struct command *c, struct buf *out, struct err *err, const char *a0, const char *a1, const char *a2,
                       const char *a3, const char *a4)
{
    const char *arg[] = {a0, a1, a2, a3, a4};
    char *argv[6] = {0};
    int argc = 0;
    while (argc < 5 && arg[argc]) argv[argc] = mem_strdup(arg[argc]), argc++;
    char path[64];
    snprintf(path, sizeof path, "/tmp/distill-test-out.%ld", (long)getpid());
    fflush(stdout);
    int keep = dup(1);
    ck_assert_ptr_nonnull(freopen(path, "w", stdout));
    struct options *o;
    enum status st = options_parse(&o, c, argc, argv, err);
    if (!st) st = c->run(o, err);
    options_free(o);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    if (out) {
        struct err ignored = {0};
        out->size = 0;
        file_read(out, path, 1 << 24, &ignored);
    }
    unlink(path);
    for (int i = 0; i < argc; i++) mem_free(argv[i]);
    return st;
}

// Samples 0 .. n-1 written in another order than exports have: sample 1 of p0 last.
static void fill_shuffled(const char *dir, const struct targets_spec *spec)
{
    static const int order[] = {0, 5, 4, 2, 3, 1};
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    ck_ok(store_open_write(&st, dir, identity, spec, &err));
    for (int k = 0; k < 6; k++) {
        struct sample s;
        struct targets t;
        make_sample(&s, &t, spec, order[k]);
        s.answer = order[k] % 2 ? "0.5" : NULL;
        ck_ok(store_append(st, &s, t.ids ? &t : NULL, &err));
        sample_free(&s);
        targets_free(&t);
    }
    ck_ok(store_close(st, &err));
    json_decref(identity);
}
static const int EXPORT_ORDER[] = {0, 1, 4, 5, 2, 3};

static const struct st_tensor *tensor(const struct st_set *set, const char *name, const char *dtype, int64_t rows, int64_t width)
{
    const struct st_tensor *t = st_find(set, name);
    ck_assert_msg(t != NULL, "no tensor %s", name);
    ck_assert_str_eq(t->dtype, dtype);
    ck_assert_int_eq(t->rank, width ? 2 : 1);
    ck_assert_int_eq(t->shape[0], rows);
    if (width) ck_assert_int_eq(t->shape[1], width);
    return t;
}

static void check_export(const struct targets_spec *spec, const char *path)
{
    struct err err = {0};
    struct st_set set;
    struct sample s;
    struct targets t;
    int64_t n_tok = 0, at = 0;
    ck_ok(st_open(&set, path, &err));
    for (int i = 0; i < 6; i++) n_tok += 2 + i % 5;
    const struct st_tensor *offsets = tensor(&set, "offsets", "I64", 7, 0), *ids = tensor(&set, "ids", "I32", n_tok, 0);
    bool topk = spec->kind == TARGETS_TOPK;
    ck_assert_uint_eq(set.n, spec->kind == TARGETS_NONE ? 2 : topk ? 6 : 5);
    for (int k = 0; k < 6; k++) {
        make_sample(&s, &t, spec, EXPORT_ORDER[k]);
        size_t row = (size_t)at, rows = (size_t)s.n_tok, cells = rows * (size_t)t.k, first = row * (size_t)t.k;
        int64_t offset;
        memcpy(&offset, offsets->data + 8 * k, 8);
        ck_assert_int_eq(offset, at);
        ck_assert_mem_eq(ids->data + 4 * row, s.token_ids, 4 * rows);
        if (topk) {
            ck_assert_mem_eq(tensor(&set, "topk_ids", "I32", n_tok, t.k)->data + 4 * first, t.ids, 4 * cells);
            ck_assert_mem_eq(tensor(&set, "topk_logprobs", "F32", n_tok, t.k)->data + 4 * first, t.logprob, 4 * cells);
            ck_assert_mem_eq(tensor(&set, "tail_logprob", "F32", n_tok, 0)->data + 4 * row, t.tail_logprob, 4 * rows);
        } else if (spec->kind == TARGETS_SAMPLED) {
            ck_assert_mem_eq(tensor(&set, "sampled_ids", "I32", n_tok, t.k)->data + 4 * first, t.ids, 4 * cells);
            ck_assert_mem_eq(tensor(&set, "sampled_counts", "I32", n_tok, t.k)->data + 4 * first, t.count, 4 * cells);
        }
        if (spec->n_temperature) {
            size_t n_t = (size_t)spec->n_temperature;
            ck_assert_mem_eq(tensor(&set, "log_z", "F32", n_tok, spec->n_temperature)->data + 4 * row * n_t, t.log_z, 4 * rows * n_t);
        }
        at += s.n_tok;
        sample_free(&s);
        targets_free(&t);
    }
    int64_t end;
    memcpy(&end, offsets->data + 48, 8);
    ck_assert_int_eq(end, n_tok);
    st_close(&set);
}

START_TEST(export_writes_what_was_captured_by_prompt_then_sample)
{
    static const struct targets_spec none = {0};
    const struct targets_spec *spec = _i == 0 ? &spec_topk : _i == 1 ? &spec_sampled : &none;
    const char *dir = test_tmpdir();
    struct err err = {0};
    char *m = path_join(dir, "m.jsonl"), *t = path_join(dir, "t.safetensors");
    fill_shuffled(dir, spec);
    ck_ok(run(&command_data_export, NULL, &err, dir, "--messages", m, "--targets", t));
    check_export(spec, t);
    struct buf text = {0};
    ck_ok(file_read(&text, m, 1 << 20, &err));
    char *line = text.data;
    for (int k = 0; k < 6; k++) {
        struct sample s;
        struct targets unused;
        json_t *row;
        char *end = strchr(line, '\n');
        make_sample(&s, &unused, &none, EXPORT_ORDER[k]);
        ck_ok(json_parse(&row, line, (size_t)(end - line), m, k + 1, &err));
        ck_assert_str_eq(json_string_value(json_object_get(row, "id")), s.id);
        ck_assert_int_eq(json_integer_value(json_object_get(row, "sample")), s.sample);
        ck_assert(json_equal(json_object_get(row, "messages"), s.messages));
        json_decref(row);
        sample_free(&s);
        line = end + 1;
    }
    ck_assert_int_eq(*line, 0);
    buf_free(&text);
    ck_fails(run(&command_data_export, NULL, &err, dir, NULL, NULL, NULL, NULL), ST_BAD_INPUT, "nothing to do");
    mem_free(m);
    mem_free(t);
}
END_TEST

START_TEST(verify_tells_damage_and_judges)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct buf out = {0};
    json_t *report;
    fill_shuffled(dir, &spec_topk);
    ck_ok(run(&command_data_verify, &out, &err, dir, NULL, NULL, NULL, NULL));
    ck_assert_ptr_nonnull(strstr(out.data, "6 samples, all whole"));
    ck_ok(run(&command_data_verify, &out, &err, dir, "--kind", "math", "--json", NULL));
    ck_ok(json_parse(&report, out.data, out.size, "report", 0, &err));
    ck_assert_int_eq(json_integer_value(json_object_get(report, "n_judged")), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(report, "n_no_reference")), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(report, "n_correct")), 0);
    json_decref(report);
    char *targets = path_join(dir, "targets-00000.bin");
    FILE *f = fopen(targets, "r+b");
    fseek(f, 100, SEEK_SET);
    fputc(0xAA, f);
    fclose(f);
    mem_free(targets);
    ck_fails(run(&command_data_verify, NULL, &err, dir, NULL, NULL, NULL, NULL), ST_FAIL,
             "targets-00000.bin: the frame at byte 0 is damaged");
    ck_assert_int_eq(run(&command_data_verify, &out, &err, dir, "--json", NULL, NULL, NULL), ST_FAIL);
    ck_assert_ptr_nonnull(strstr(out.data, "\"ok\":false"));
    err = (struct err){0};
    ck_fails(run(&command_data_verify, NULL, &err, "/nowhere", NULL, NULL, NULL, NULL), ST_BAD_INPUT, "no such folder");
    ck_fails(run(&command_data_verify, NULL, &err, dir, "--kind", "maths", NULL, NULL), ST_BAD_INPUT, "math");
    buf_free(&out);
}
END_TEST

START_TEST(show_and_stats_print)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct buf out = {0};
    fill_shuffled(dir, &spec_topk);
    ck_ok(run(&command_data_show, &out, &err, dir, "--n", "2", "--positions", "2"));
    ck_assert_ptr_nonnull(strstr(out.data, "=== p0, sample 0: 2 tokens after a prompt of 3, length"));
    ck_assert_ptr_nonnull(strstr(out.data, "reasoning:\n0 a \"quoted\""));
    ck_assert_ptr_nonnull(strstr(out.data, "\\x01")); // control characters are not sent to a terminal
    ck_assert_ptr_nonnull(strstr(out.data, "  1: drew 1  |"));
    ck_assert_ptr_null(strstr(out.data, "=== with"));
    ck_ok(run(&command_data_show, &out, &err, dir, "--id", "with \"quote\"", NULL, NULL));
    ck_assert_ptr_nonnull(strstr(out.data, "=== with \"quote\", sample 0"));
    ck_fails(run(&command_data_show, &out, &err, dir, "--id", "nobody", NULL, NULL), ST_BAD_INPUT, "no sample of \"nobody\"");
    ck_ok(run(&command_data_stats, &out, &err, dir, NULL, NULL, NULL, NULL));
    ck_assert_ptr_nonnull(strstr(out.data, "6 samples of 3 prompts, targets topk:3 at T = 1, 2\n22 tokens generated, 18 of prompts"));
    ck_ok(run(&command_data_stats, &out, &err, dir, "--json", NULL, NULL, NULL));
    ck_assert_ptr_nonnull(strstr(out.data, "\"n_prompt\":3"));
    buf_free(&out);
}
END_TEST

static int n_file(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

// A stop asked for before the first sample or tensor: the part that was begun goes, the file of before stays.
START_TEST(exports_that_are_stopped_leave_nothing)
{
    struct err err = {0};
    const char *store = test_tmpdir(), *dir = test_tmpdir(), *model = "teacher/tiny/base";
    fill_shuffled(store, &spec_topk);
    char *old = path_join(dir, "old"), *new = path_join(dir, "new");
    ck_ok(file_write_atomic(old, "as it was", 9, &err));
    ck_assert(command_data_export.saves_on_stop && command_export.saves_on_stop);
    signals_install(true);
    raise(SIGINT);
    ck_fails(run(&command_data_export, NULL, &err, store, "--messages", old, NULL, NULL), ST_INTERRUPTED, "old was not written");
    ck_fails(run(&command_data_export, NULL, &err, store, "--targets", new, NULL, NULL), ST_INTERRUPTED, "after 0 of 6 samples");
    ck_fails(run(&command_export, NULL, &err, "--model", model, "--gguf", new, "--quiet"), ST_INTERRUPTED, "new was not written: stopped");
    ck_assert_int_eq(n_file(dir), 1);
    struct buf text = {0};
    ck_ok(file_read(&text, old, 100, &err));
    ck_assert_str_eq(text.data, "as it was");
    buf_free(&text);
    mem_free(old);
    mem_free(new);
}
END_TEST

Suite *suite_data(void);
Suite *suite_data(void)
{
    Suite *s = suite_create("data");
    TCase *c = tcase_create("data");
    tcase_add_loop_test(c, export_writes_what_was_captured_by_prompt_then_sample, 0, 3);
    tcase_add_test(c, verify_tells_damage_and_judges);
    tcase_add_test(c, show_and_stats_print);
    tcase_add_test(c, exports_that_are_stopped_leave_nothing);
    suite_add_tcase(s, c);
    return s;
}
