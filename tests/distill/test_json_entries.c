// nst/JSONTestSuite through every file of JSON that the libraries read: what is no JSON is refused with file, line and column; what is JSON
// may be refused for what it says, never for how it is written. (The program's own entries, standard input and --config:
// tests/cli/json.sh.)
#include "datasets/jsonl.h"
#include "datasets/rows.h"
#include "datasets/store/internal.h"
#include "distill/command.h"
#include "distill/registry.h"
#include "kernels/base/crc32c.h"
#include "kernels/model/safetensors.h"
#include "student/checkpoint.h"
#include "tests/test.h"

#include <dirent.h>

struct text {
    const char *p;
    size_t n;
};
static const char *dir; // of the files that this test writes

static const char *put(const char *name, struct text text)
{
    static char path[4][512];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof *path, "%s/%s", dir, name);
    remove(p); // some file systems write a file that is cut and filled again to the disk at once
    FILE *f = fopen(p, "w");
    ck_assert(f && fwrite(text.p, 1, text.n, f) == text.n && !fclose(f));
    return p;
}
static void copy(const char *from, const char *name)
{
    struct err err = {0};
    struct buf b = {0};
    ck_ok(file_read(&b, from, 1 << 24, &err));
    put(name, (struct text){b.data, b.size});
    buf_free(&b);
}

// ---- the entries: each writes the text where its file belongs and reads it as the program does ----

static enum status any_value(void *arg, json_t *row, long line, struct err *err)
{
    (void)arg, (void)row, (void)line, (void)err;
    return ST_OK;
}
static enum status read_jsonl(struct text t, struct err *err)
{
    return jsonl_each(put("x.jsonl", t), false, NULL, any_value, NULL, err);
}
static enum status read_prompts(struct text t, struct err *err)
{
    struct prompts p;
    enum status st = prompts_load(&p, put("x.jsonl", t), 0, false, err);
    if (!st) prompts_free(&p);
    return st;
}
static enum status read_rows(struct text t, struct err *err)
{
    static struct tokenizer *tok;
    static struct chat *chat;
    struct rows r;
    if (!tok) ck_assert(!tokenizer_load(&tok, "teacher/tiny/base", err) && !chat_open(&chat, tok, err));
    struct rows_options o = {.max_len = 100, .n_vocab = 512, .tokenizer = tok, .chat = chat};
    enum status st = rows_load(&r, put("x.jsonl", t), &o, err);
    if (!st) rows_free(&r);
    return st;
}
static enum status read_config(struct text t, struct err *err)
{
    struct model_config c;
    const struct arch *arch;
    put("config.json", t);
    enum status st = model_config_read(&c, &arch, dir, all_archs, err);
    if (!st) model_config_free(&c);
    return st;
}
static enum status read_generation_config(struct text t, struct err *err)
{
    struct model_config c;
    const struct arch *arch;
    copy("teacher/tiny/base/config.json", "config.json");
    char *path = mem_strdup(put("generation_config.json", t));
    enum status st = model_config_read(&c, &arch, dir, all_archs, err);
    if (!st) model_config_free(&c);
    remove(path);
    mem_free(path);
    return st;
}
static enum status read_tokenizer(struct text t, struct err *err)
{
    struct tokenizer *tok;
    put("tokenizer.json", t);
    enum status st = tokenizer_load(&tok, dir, err);
    if (!st) tokenizer_free(tok);
    return st;
}
static enum status read_beside_tokenizer(const char *name, struct text t, struct err *err)
{
    struct tokenizer *tok;
    copy("tests/golden/text/byte_tokenizer.json", "tokenizer.json");
    char *path = mem_strdup(put(name, t));
    enum status st = tokenizer_load(&tok, dir, err);
    if (!st) tokenizer_free(tok);
    remove(path);
    mem_free(path);
    return st;
}
static enum status read_tokenizer_config(struct text t, struct err *err)
{
    return read_beside_tokenizer("tokenizer_config.json", t, err);
}
static enum status read_special_tokens_map(struct text t, struct err *err)
{
    return read_beside_tokenizer("special_tokens_map.json", t, err);
}
static enum status read_added_tokens(struct text t, struct err *err)
{
    return read_beside_tokenizer("added_tokens.json", t, err);
}
static enum status read_safetensors(struct text t, struct err *err)
{
    struct st_set s;
    struct buf b = {0};
    uint64_t n = t.n;
    buf_put(&b, &n, sizeof n);
    buf_put(&b, t.p, t.n);
    enum status st = st_open(&s, put("x.safetensors", (struct text){b.data, b.size}), err);
    if (!st) st_close(&s);
    buf_free(&b);
    return st;
}
static enum status read_index(struct text t, struct err *err)
{
    struct st_set s;
    put("model.safetensors.index.json", t);
    enum status st = st_open_dir(&s, dir, err);
    if (!st) st_close(&s);
    return st;
}
static enum status read_manifest(struct text t, struct err *err)
{
    struct store *s;
    struct err ignored;
    put("manifest.json", t);
    enum status st = store_open_read(&s, dir, err);
    if (!st) store_close(s, &ignored);
    return st;
}
static enum status read_trace_line(struct text t, struct err *err) // as a member of a line, whose checksum is right
{
    struct buf line = {0};
    struct sample s;
    buf_puts(&line, "{\"id\":\"a\",\"sample\":0,\"seed\":1,\"messages\":[],\"token_ids\":[],\"prompt_ids\":[],\"finish_reason\":\"stop\","
                    "\"verdicts\":");
    buf_put(&line, t.p, t.n);
    buf_printf(&line, ",\"crc32c\":\"%08x\"}", crc32c(0, line.data, line.size));
    enum status st = line_decode(&s, line.data, line.size, "traces", 1, err);
    if (!st) sample_free(&s);
    buf_free(&line);
    return st;
}
static enum status read_options(struct text t, struct err *err)
{
    static const struct option none[] = {{0}};
    static const struct command command = {.name = "x", .options = none};
    char *argv[] = {"--config", (char *)(uintptr_t)put("options.json", t)};
    struct options *o;
    enum status st = options_parse(&o, &command, 2, argv, err);
    options_free(o);
    return st;
}

static const struct entry_point {
    const char *file; // as messages name it
    enum status (*read)(struct text t, struct err *err);
    bool lines; // text without anything in it is then no line, which is no fault
} ENTRIES[] = {{"x.jsonl", read_jsonl, true},
               {"x.jsonl", read_prompts, true},
               {"x.jsonl", read_rows, true},
               {"config.json", read_config, false},
               {"generation_config.json", read_generation_config, false},
               {"tokenizer.json", read_tokenizer, false},
               {"tokenizer_config.json", read_tokenizer_config, false},
               {"special_tokens_map.json", read_special_tokens_map, false},
               {"added_tokens.json", read_added_tokens, false},
               {"x.safetensors", read_safetensors, false},
               {"model.safetensors.index.json", read_index, false},
               {"manifest.json", read_manifest, false},
               {"traces", read_trace_line, false},
               {"options.json", read_options, false}};

static void judge(const struct entry_point *e, const char *name, struct text t)
{
    struct err err = {0};
    enum status st = e->read(t, &err);
    if (name[0] == 'i') return; // up to us, but no crash
    bool spoken_of = strstr(err.text, "not valid JSON") != NULL;
    if (name[0] == 'y') {
        // In JSONL a value ends with its line: the suite's values of several lines are none.
        if (!e->lines || !memchr(t.p, '\n', t.n)) ck_assert_msg(!spoken_of, "%s through %s: %s", name, e->file, err.text);
        return;
    }
    if (e->lines && strspn(t.p, " \xef\xbb\xbf") == t.n) return;
    const char *place = strstr(err.text, e->file);
    int line, column;
    ck_assert_msg(st == ST_BAD_INPUT, "%s through %s: status %d", name, e->file, st);
    ck_assert_msg(place && sscanf(place + strlen(e->file), ":%d:%d:", &line, &column) == 2, "%s through %s: no place: %s", name, e->file,
                  err.text);
}

START_TEST(json_test_suite_through_every_file_that_is_read)
{
    const char *cases = test_material("json-test-suite/test_parsing");
    if (!cases) return;
    dir = test_tmpdir();
    DIR *d = opendir(cases);
    int n = 0;
    for (struct dirent *f; (f = readdir(d));) {
        if (!strstr(f->d_name, ".json")) continue;
        struct err err = {0};
        struct buf b = {0};
        char *path = path_join(cases, f->d_name);
        ck_ok(file_read(&b, path, 1 << 24, &err));
        for (size_t i = 0; i < sizeof ENTRIES / sizeof *ENTRIES; i++) judge(&ENTRIES[i], f->d_name, (struct text){b.data, b.size});
        buf_free(&b);
        mem_free(path);
        n++;
    }
    closedir(d);
    ck_assert_int_eq(n, 318);
}
END_TEST

// The same where no material is: a few of the kinds.
START_TEST(every_file_that_is_read_refuses_what_is_no_json_at_its_place)
{
    static const char *const no[] = {"[1,]",       "{\"a\":1,}",     "{'a':1}",       "[\"\x01\"]", "nul",        "[1] x",
                                     "[\"a",       "{\"a\" 1}",      "[+1]",          "[01]",       "[\"\\x\"]",  "[1e]",
                                     "[\"\xff\"]", "{\"a\":{\"b\":", "[\"\\ud800\"]", "[NaN]",      "/* c */ {}", "{}}"};
    static const char *const yes[] = {
        "{\"a\":1,\"a\":2}", "{\"a\\u0000b\":1}", "[123456789012345678901234567890]", "[\"\\u0000\"]", "7", " null ", "\xef\xbb\xbf{}"};
    dir = test_tmpdir();
    for (size_t i = 0; i < sizeof ENTRIES / sizeof *ENTRIES; i++) {
        for (size_t k = 0; k < sizeof no / sizeof *no; k++) judge(&ENTRIES[i], "n", (struct text){no[k], strlen(no[k])});
        judge(&ENTRIES[i], "n", (struct text){"[1]\0", 4}); // no blank, though strchr() finds it among some
        for (size_t k = 0; k < sizeof yes / sizeof *yes; k++)
            if (k < 6 || strcmp(ENTRIES[i].file, "traces")) judge(&ENTRIES[i], "y", (struct text){yes[k], strlen(yes[k])});
    }
}
END_TEST

Suite *suite_json_entries(void)
{
    Suite *s = suite_create("JSON: every file that is read");
    TCase *t = tcase_create("all");
    tcase_add_test(t, json_test_suite_through_every_file_that_is_read);
    tcase_add_test(t, every_file_that_is_read_refuses_what_is_no_json_at_its_place);
    suite_add_tcase(s, t);
    return s;
}
