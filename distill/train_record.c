// run.json, its comparison on resume, the card.
#include "distill/train_record.h"

#include "distill/command.h"
#include "distill/identity.h"
#include "distill/licence.h"
#include "kernels/base/gguf.h"

#include <string.h>

// ---- making ----

// What the student is: the identity of its weights, or config.json alone where they are drawn afresh.
static enum status identify(json_t **out, const struct options *o, struct err *err)
{
    const char *dir = opt_str(o, "student");
    if (strcmp(opt_str(o, "init"), "random") || gguf_is(dir)) return identity_of_model(out, dir, err);
    char *path = path_join(dir, "config.json"), hex[65];
    enum status st = file_sha256(path, hex, err);
    if (!st) *out = json_pack("{s:{s:{s:s}}}", "files", "config.json", "sha256", hex);
    mem_free(path);
    return st;
}

static json_t *describe_source(const struct rows_source *s)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:I}", "path", s->path, "kind", s->store ? "store" : "jsonl", "sha256", s->sha256, "n_row",
                          (json_int_t)s->n_row);
    if (!s->store) return o;
    static const char *const kinds[] = {"none", "topk", "sampled"};
    json_object_set_new(o, "targets", json_pack("{s:s, s:i}", "kind", kinds[s->spec.kind], "k", s->spec.k));
    const json_t *identity = json_object_get(store_manifest(s->store), "identity");
    json_object_set_new(o, "identity", json_deep_copy(identity)); // the teacher's files with their hashes, tokenizer, sampling
    if (rows_teacher(s)) json_object_set_new(o, "teacher", json_string(rows_teacher(s)));
    json_t *licence = json_object_get(json_object_get(store_manifest(s->store), "info"), "teacher_licence");
    if (licence) json_object_set(o, "teacher_licence", licence);
    return o;
}

// The tokens by which the student learns to end, by their text.
static json_t *describe_ends(const struct ids *ends, const struct tokenizer *tokenizer)
{
    json_t *o = json_object();
    for (size_t i = 0; i < ends->n; i++) {
        struct buf text = {0};
        struct err ignored = {0};
        tokenizer_decode(tokenizer, &ends->v[i], 1, false, &text, &ignored);
        json_t *name = utf8_json(text.data ? text.data : "", text.size);
        json_object_set_new(o, json_string_value(name), json_integer(ends->v[i]));
        json_decref(name);
        buf_free(&text);
    }
    return o;
}

enum status train_record(json_t **out, const struct options *o, const struct model_config *config, const struct tokenizer *tokenizer,
                         const struct rows *rows, int64_t n_step, struct err *err)
{
    json_t *identity;
    TRY(identify(&identity, o, err));
    json_t *root = options_effective_json(o), *data = json_array();
    json_object_set_new(root, "n_step", json_integer(n_step));
    json_object_set_new(
        root, "student",
        json_pack("{s:s, s:s, s:o}", "path", opt_str(o, "student"), "model_type", config->model_type, "identity", identity));
    for (int i = 0; i < rows->n_source; i++) json_array_append_new(data, describe_source(&rows->source[i]));
    json_t *licence = licence_of(opt_str(o, "student"));
    if (licence) json_object_set_new(json_object_get(root, "student"), "licence", licence);
    json_object_set_new(root, "data", data);
    json_object_set_new(root, "rows",
                        json_pack("{s:I, s:I, s:I, s:I, s:s}", "n", (json_int_t)rows->n, "n_tok", (json_int_t)rows->n_tok, "n_loss",
                                  (json_int_t)rows->n_loss, "n_cut", (json_int_t)rows->n_cut, "sha256", rows->sha256));
    json_object_set_new(root, "ends", describe_ends(&rows->ends, tokenizer));
    *out = root;
    return ST_OK;
}

// ---- comparing ----

// Settings that leave the result as it is, or are compared in another way: paths by the hashes of what they hold, steps by n_step.
static const char *const FREE[] = {"out",  "student",    "data",    "steps",     "epochs", "save-every", "keep",
                                   "eval", "eval-every", "threads", "recompute", "resume", "skip-bad",   NULL};

static bool is_free(const char *name)
{
    for (const char *const *f = FREE; *f; f++)
        if (!strcmp(*f, name)) return true;
    return false;
}

static void differs(const char *path, int *n, const char *what, const json_t *stored, const json_t *given, struct err *err)
{
    struct buf a = {0}, b = {0};
    json_append_line(&a, stored ? stored : json_null());
    json_append_line(&b, given ? given : json_null());
    if (!(*n)++)
        err_add(err, ST_BAD_INPUT,
                "%s: the run was begun with other settings; give those again to resume it, or another --out for a new run:", path);
    err_add(err, ST_BAD_INPUT, "  %s: stored %.*s, given %.*s", what, (int)a.size - 1, a.data, (int)b.size - 1, b.data);
    buf_free(&a);
    buf_free(&b);
}

static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a), y = json_number_value(b);
        return !(x < y) && !(x > y);
    }
    if (!a || !b) return (!a || json_is_null(a)) && (!b || json_is_null(b));
    return json_equal(a, b);
}

// A setting that is younger than the stored run was at its default then: `o`, if not NULL, tells whether it was given now.
static void compare_objects(const char *path, int *n, const char *prefix, json_t *stored, json_t *given, const struct options *o,
                            struct err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach(given, key, v)
    {
        if (is_free(key) || same(json_object_get(stored, key), v)) continue;
        if (o && !json_object_get(stored, key) && !opt_given(o, key)) continue;
        char *what = mem_printf("%s%s", prefix, key);
        differs(path, n, what, json_object_get(stored, key), v, err);
        mem_free(what);
    }
    json_object_foreach(stored, key, v)
    {
        if (is_free(key) || json_object_get(given, key)) continue;
        char *what = mem_printf("%s%s", prefix, key);
        differs(path, n, what, v, NULL, err);
        mem_free(what);
    }
}

enum status train_record_compare(const json_t *stored, const json_t *given, const struct options *o, const char *path, struct err *err)
{
    int n = 0;
    compare_objects(path, &n, "--", json_object_get(stored, "settings"), json_object_get(given, "settings"), o, err);
    const json_t *rows[2] = {json_object_get(stored, "rows"), json_object_get(given, "rows")};
    if (!same(json_object_get(rows[0], "sha256"), json_object_get(rows[1], "sha256")))
        differs(path, &n, "rows of --data", rows[0], rows[1], err);
    const json_t *student[2] = {json_object_get(stored, "student"), json_object_get(given, "student")};
    compare_objects(path, &n, "--student ", json_object_get(json_object_get(student[0], "identity"), "files"),
                    json_object_get(json_object_get(student[1], "identity"), "files"), NULL, err);
    const json_t *steps[2] = {json_object_get(stored, "n_step"), json_object_get(given, "n_step")};
    if (json_number_value(steps[1]) < json_number_value(steps[0])) differs(path, &n, "steps (they may only grow)", steps[0], steps[1], err);
    return n ? ST_BAD_INPUT : ST_OK;
}

// ---- the card ----

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "unknown";
}

// ", licence mit (README.md)": what the folder named; nothing if it named none.
static void card_licence(struct buf *b, const json_t *licence)
{
    if (licence) buf_printf(b, ", licence %s (%s)", text_of(licence, "id"), text_of(licence, "from"));
}

// Where a program must stop: see checkpoint_name_ends.
static void card_ends(struct buf *b, const json_t *ends)
{
    const char *token;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)ends, token, id)
        buf_printf(b, "An answer ends with `%s` (%lld); `eos_token_id` names it.\n\n", token, (long long)json_integer_value(id));
}

static void card_source(struct buf *b, const json_t *s)
{
    buf_printf(b, "- `%s` (%s, %lld rows, sha256 `%.16s…`", text_of(s, "path"), text_of(s, "kind"),
               (long long)json_integer_value(json_object_get(s, "n_row")), text_of(s, "sha256"));
    const json_t *targets = json_object_get(s, "targets");
    if (targets) buf_printf(b, ", targets %s:%lld", text_of(targets, "kind"), (long long)json_integer_value(json_object_get(targets, "k")));
    buf_puts(b, ")\n");
    if (!json_object_get(s, "teacher")) return;
    buf_printf(b, "  written by the teacher `%s`", text_of(s, "teacher"));
    card_licence(b, json_object_get(s, "teacher_licence"));
    buf_puts(b, "\n");
}

char *train_card(const json_t *record, int64_t step, int64_t n_tok)
{
    const json_t *settings = json_object_get(record, "settings"), *student = json_object_get(record, "student");
    struct buf b = {0};
    buf_puts(&b, "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- distillation\n---\n\n");
    buf_printf(&b, "# A student trained by distill %s\n\n", text_of(record, "version"));
    buf_printf(&b, "Begun from `%s` (%s", text_of(student, "path"), text_of(student, "model_type"));
    card_licence(&b, json_object_get(student, "licence"));
    buf_printf(&b, "). Step %lld of %lld, %lld tokens.\n\n", (long long)step,
               (long long)json_integer_value(json_object_get(record, "n_step")), (long long)n_tok);
    buf_printf(
        &b, "Loss: `%s`, weights of the teacher's part and of the text %g and %g, temperature %g. Optimizer %s, learning rate %g (%s).\n\n",
        text_of(settings, "loss"), json_number_value(json_object_get(settings, "kd-weight")),
        json_number_value(json_object_get(settings, "ce-weight")), json_number_value(json_object_get(settings, "kd-temperature")),
        text_of(settings, "optimizer"), json_number_value(json_object_get(settings, "lr")), text_of(settings, "schedule"));
    card_ends(&b, json_object_get(record, "ends"));
    buf_puts(&b, "Data:\n\n");
    size_t i;
    json_t *s;
    json_array_foreach(json_object_get(record, "data"), i, s) card_source(&b, s);
    buf_puts(&b, "\nAll settings and hashes are in `run.json`, the losses in `metrics.jsonl`. Licences and terms of the student, the "
                 "teacher and the "
                 "data apply to this model.\n");
    return b.data;
}
