// Rows from stores and JSONL: reading, cutting, checking ids, and the checksum by which a resumed run knows its data again.
#include "datasets/rows.h"

#include "datasets/jsonl.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Takes ids and mask over. Cuts, counts, checks.
static enum status rows_push(struct rows *r, struct row row, const struct rows_options *opt, struct err *err)
{
    enum status st = ST_OK;
    if (row.n_tok == 0) {
        st = err_set(err, ST_BAD_INPUT, "a row without tokens");
        goto refuse;
    }
    if (row.n_tok > opt->max_len) {
        r->n_cut++;
        r->n_tok_cut += (size_t)(row.n_tok - opt->max_len);
        row.n_tok = opt->max_len;
    }
    for (int i = 0; i < row.n_tok; i++) {
        if (row.ids[i] >= 0 && row.ids[i] < opt->n_vocab) continue;
        st = err_set(err, ST_BAD_INPUT, "token id %d is outside the student's vocabulary of %d: the data was made with another tokenizer",
                     row.ids[i], opt->n_vocab);
        goto refuse;
    }
    row.mask[0] = 0; // nothing stands before it that could predict it
    row.n_loss = 0;
    for (int i = 0; i < row.n_tok; i++) row.n_loss += row.mask[i];
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 256;
        r->v = mem_realloc(r->v, r->cap * sizeof *r->v);
    }
    r->v[r->n++] = row;
    r->n_tok += row.n_tok;
    r->n_loss += row.n_loss;
    r->n_without_loss += row.n_loss == 0;
    if (row.n_tok > r->max_tok) r->max_tok = row.n_tok;
    r->source[row.source].n_row++;
    return ST_OK;
refuse:
    mem_free(row.ids);
    mem_free(row.mask);
    return st;
}

// ---- JSONL ----

struct reading {
    struct rows *rows;
    const struct rows_options *opt;
    const char *path;
    int32_t end; // of a turn by the template; -1: none, or it is among the ends already
};

// A row may have been cut before its end.
static void note_end(struct reading *rd)
{
    const struct row *row = &rd->rows->v[rd->rows->n - 1];
    for (int i = 0; i < row->n_tok && rd->end >= 0; i++)
        if (row->mask[i] && row->ids[i] == rd->end) ids_add(&rd->rows->ends, rd->end), rd->end = -1;
}

static enum status read_line(void *arg, json_t *line_json, long line, struct err *err)
{
    struct reading *rd = arg;
    const json_t *messages = json_object_get(line_json, "messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return err_set(err, ST_BAD_INPUT, "%s:%ld: messages: wanted a non-empty array of {\"role\":…, \"content\":…}", rd->path, line);
    struct ids ids = {0};
    bool reasoning = false;
    struct row row = {.source = rd->rows->n_source - 1, .index = rd->rows->source[rd->rows->n_source - 1].n_row};
    enum status st = chat_training_row(rd->opt->chat, line_json, &ids, &row.mask, &reasoning, err);
    if (st) {
        ids_free(&ids);
        return err_prefix(err, "%s:%ld", rd->path, line);
    }
    row.ids = ids.v;
    row.n_tok = (int)ids.n;
    rd->rows->n_reasoning_added += reasoning;
    st = rows_push(rd->rows, row, rd->opt, err);
    if (st) return err_prefix(err, "%s:%ld", rd->path, line);
    note_end(rd);
    return ST_OK;
}

static enum status read_jsonl(struct rows *r, const char *path, const struct rows_options *opt, struct err *err)
{
    if (!opt->chat)
        return err_set(err, ST_BAD_INPUT, "%s: conversations need the student's chat template: %s", path,
                       opt->chat_why ? opt->chat_why : "it has none");
    TRY(file_sha256(path, r->source[r->n_source - 1].sha256, err));
    struct reading rd = {r, opt, path, chat_end_token(opt->chat)};
    size_t n_skipped = 0;
    enum status st = jsonl_each(path, opt->skip_bad, &n_skipped, read_line, &rd, err);
    r->n_skipped += n_skipped;
    return st;
}

// ---- store ----

// The manifest's hash of the teacher's tokenizer. NULL if it does not say.
static const char *store_tokenizer(const struct store *s)
{
    const json_t *identity = json_object_get(store_manifest(s), "identity");
    return json_string_value(json_object_get(json_object_get(identity, "tokenizer"), "sha256"));
}

const char *rows_teacher(const struct rows_source *src)
{
    return src->store ? json_string_value(json_object_get(json_object_get(store_manifest(src->store), "info"), "teacher_path")) : NULL;
}

static enum status check_tokenizer(const struct rows_source *src, const struct rows_options *opt, struct err *err)
{
    const char *theirs = store_tokenizer(src->store);
    if (!opt->tokenizer || !theirs) return ST_OK;
    const char *ours = tokenizer_sha256(opt->tokenizer);
    if (!strcmp(theirs, ours)) return ST_OK;
    const char *name = rows_teacher(src);
    return err_set(
        err, ST_BAD_INPUT,
        "the tokenizers differ: store %s was written with that of its teacher %s (tokenizer.json sha256 %.16s…), the student %s has "
        "another (%.16s…). Token ids would mean other words. Use a student with the teacher's tokenizer, or train on the text alone: "
        "distill data export --messages, then --data on that file",
        src->path, name ? name : "(not named there)", theirs, opt->tokenizer_dir ? opt->tokenizer_dir : "", ours);
}

static enum status read_store(struct rows *r, const char *path, const struct rows_options *opt, struct err *err)
{
    struct rows_source *src = &r->source[r->n_source - 1];
    TRY(store_open_read(&src->store, path, err));
    src->spec = *store_spec(src->store);
    TRY(check_tokenizer(src, opt, err));
    char *manifest = path_join(path, "manifest.json");
    enum status st = file_sha256(manifest, src->sha256, err);
    mem_free(manifest);
    if (st) return st;
    for (size_t i = 0; i < store_n_sample(src->store); i++) {
        struct sample s = {0};
        TRY(store_read(src->store, i, &s, NULL, err));
        if (!strcmp(s.finish_reason, "error") || !strcmp(s.finish_reason, "refusal") || s.n_tok == 0) {
            r->n_skipped++;
            sample_free(&s);
            continue;
        }
        struct row row = {.source = r->n_source - 1, .index = i, .n_prompt = s.n_prompt, .n_tok = s.n_prompt + s.n_tok};
        row.ids = NEW_N(int32_t, row.n_tok);
        row.mask = NEW_N(uint8_t, row.n_tok);
        if (s.n_prompt) memcpy(row.ids, s.prompt_ids, (size_t)s.n_prompt * sizeof(int32_t));
        memcpy(row.ids + s.n_prompt, s.token_ids, (size_t)s.n_tok * sizeof(int32_t));
        memset(row.mask + s.n_prompt, 1, (size_t)s.n_tok);
        st = rows_push(r, row, opt, err);
        if (st) err_prefix(err, "%s: sample %s/%d", path, s.id, s.sample);
        if (!st && !strcmp(s.finish_reason, "stop") && row.n_tok <= opt->max_len) ids_add(&r->ends, s.token_ids[s.n_tok - 1]);
        sample_free(&s);
        if (st) return st;
    }
    return ST_OK;
}

// ---- all ----

static void checksum(struct rows *r)
{
    // A hash of hashes: one buffer of 64 bytes a row instead of all rows in one piece.
    struct buf all = {0};
    char hex[65];
    for (size_t i = 0; i < r->n; i++) {
        struct buf one = {0};
        buf_put(&one, r->v[i].ids, (size_t)r->v[i].n_tok * sizeof(int32_t));
        buf_put(&one, r->v[i].mask, (size_t)r->v[i].n_tok);
        sha256_hex(one.data, one.size, hex);
        buf_put(&all, hex, 64);
        buf_free(&one);
    }
    sha256_hex(all.data ? all.data : "", all.size, r->sha256);
    buf_free(&all);
}

enum status rows_load(struct rows *r, const char *paths, const struct rows_options *opt, struct err *err)
{
    *r = (struct rows){0};
    enum status st = ST_OK;
    for (const char *p = paths; !st && p;) {
        const char *comma = strchr(p, ',');
        char *path = comma ? mem_strndup(p, (size_t)(comma - p)) : mem_strdup(p);
        p = comma ? comma + 1 : NULL;
        if (!*path) {
            mem_free(path);
            continue;
        }
        r->source = mem_realloc(r->source, (size_t)(r->n_source + 1) * sizeof *r->source);
        r->source[r->n_source++] = (struct rows_source){.path = path};
        st = is_dir(path) ? read_store(r, path, opt, err) : read_jsonl(r, path, opt, err);
    }
    if (!st && r->n == 0) st = err_set(err, ST_BAD_INPUT, "%s: holds no rows to train on", paths);
    if (st) {
        rows_free(r);
        return st;
    }
    checksum(r);
    return ST_OK;
}

void rows_free(struct rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        mem_free(r->v[i].ids);
        mem_free(r->v[i].mask);
    }
    struct err ignored;
    for (int i = 0; i < r->n_source; i++) {
        if (r->source[i].store) store_close(r->source[i].store, &ignored);
        mem_free(r->source[i].path);
    }
    mem_free(r->v);
    mem_free(r->source);
    ids_free(&r->ends);
    *r = (struct rows){0};
}

enum status rows_targets(const struct rows *r, size_t i, struct targets *out, struct err *err)
{
    const struct row *row = &r->v[i];
    const struct rows_source *src = &r->source[row->source];
    struct sample s = {0};
    *out = (struct targets){0};
    TRY(store_read(src->store, row->index, &s, out, err));
    // A row cut at max_len has more targets than tokens; fewer would be a store at odds with itself.
    enum status st = out->n_tok == s.n_tok
                         ? ST_OK
                         : err_set(err, ST_FAIL, "%s: sample %s/%d has %d tokens and targets for %d; run distill data verify %s", src->path,
                                   s.id, s.sample, s.n_tok, out->n_tok, src->path);
    sample_free(&s);
    if (st) targets_free(out);
    return st;
}
