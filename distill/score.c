// distill score: what a model says of given tokens: its logits (--ids), or the log-likelihood of answers (--data).
//
//   documents → flat batches (several documents a forward, up to a budget of tokens) → hidden rows → the head, a chunk of rows at a time
//
// No more than one batch and one chunk of logits is in memory, so documents × vocabulary may be far larger than it.
#include "distill/chat_options.h"
#include "distill/command.h"
#include "distill/generator.h"
#include "distill/progress.h"
#include "distill/signals.h"
#include "kernels/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { BATCH_TOKENS = 2048, LOGITS_BYTES = 64 << 20 };

// clang-format off
static const struct option options[] = {
    {"model", OPT_STRING, .value = "DIR", .required = true, .help = "the model: a Hugging Face directory, or a GGUF file"},
    {"ids", OPT_STRING, .value = "F.jsonl", .help = "a JSON array of token ids a line; needs no tokenizer"},
    {"logits", OPT_STRING, .value = "OUT.safetensors", .help = "with --ids: tensors logits.0, logits.1, … f32 (n_tok, vocab), one a line"},
    {"data", OPT_STRING, .value = "F.jsonl", .help = "conversations, a line each: {\"id\"?, \"messages\"}"},
    {"out", OPT_STRING, .value = "OUT.jsonl", .help = "with --data: a line a row: id, n_tok (scored), nll (nats, summed over the scored tokens)"},
    CHAT_OPTIONS,
    FP8_OPTION,
    {0}};
// clang-format on

struct doc {
    int32_t *ids;  // (n)
    uint8_t *mask; // (n) NULL: every row's logits are wanted
    int n;
    json_t *id;
};

struct score {
    struct options *o;
    struct loaded loaded;
    const char *path;
    long last_line;
    struct doc *doc;
    size_t n_doc;
    int64_t n_tok;
    int max_row, max_doc, head_rows; // of a batch: rows, documents; rows of a chunk of logits
    int32_t *ints;                   // ids (n), positions (n), starts (n_doc + 1) of the batch in hand
    int32_t *row, *label;            // (max_row) rows of hidden that are wanted, and the token that follows each
    int32_t *row_doc;                // (max_row) document of each, within the batch
    void *host;                      // logits or losses of a chunk
    struct st_writer *logits;
    double *nll; // (n_doc)
    int *n_scored;
};

// ---- reading -------------------------------------------------------------------------------------------------------------------------

static void add_doc(struct score *s, struct doc doc)
{
    if ((s->n_doc & (s->n_doc - 1)) == 0) s->doc = mem_realloc(s->doc, sizeof *s->doc * (s->n_doc ? 2 * s->n_doc : 1));
    s->doc[s->n_doc++] = doc;
    s->n_tok += doc.n;
    if (doc.n > s->max_row) s->max_row = doc.n;
}

static enum status check_length(const struct score *s, size_t n, long line, struct err *err)
{
    const int64_t context = s->loaded.model->config.max_position;
    if (n < 1) return err_set(err, ST_BAD_INPUT, "%s:%ld: no tokens", s->path, line);
    if (context > 0 && (int64_t)n > context)
        return err_set(err, ST_BAD_INPUT, "%s:%ld: %zu tokens; the model's context is %lld (max_position_embeddings)", s->path, line, n,
                       (long long)context);
    return ST_OK;
}

static enum status read_ids(void *arg, json_t *row, long line, struct err *err)
{
    struct score *s = arg;
    // TRAP: jsonl_each passes over blank lines, and logits.N would no longer be line N's.
    if (line != s->last_line + 1)
        return err_set(err, ST_BAD_INPUT, "%s:%ld: an empty line; wanted a JSON array of token ids", s->path, s->last_line + 1);
    s->last_line = line;
    if (!json_is_array(row)) return err_set(err, ST_BAD_INPUT, "%s:%ld: wanted a JSON array of token ids, as in [1, 2, 3]", s->path, line);
    const size_t n = json_array_size(row);
    TRY(check_length(s, n, line, err));
    struct doc doc = {.ids = NEW_N(int32_t, n), .n = (int)n};
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(row, i);
        const bool whole = json_is_integer(id);
        if (!whole || json_integer_value(id) < 0 || json_integer_value(id) >= s->loaded.n_vocab) {
            mem_free(doc.ids);
            if (!whole) return err_set(err, ST_BAD_INPUT, "%s:%ld: element %zu is not an integer; wanted token ids", s->path, line, i);
            return err_set(err, ST_BAD_INPUT, "%s:%ld: element %zu is %lld; the model's tokens are 0 to %d", s->path, line, i,
                           (long long)json_integer_value(id), s->loaded.n_vocab - 1);
        }
        doc.ids[i] = (int32_t)json_integer_value(id);
    }
    add_doc(s, doc);
    return ST_OK;
}

static enum status read_data(void *arg, json_t *row, long line, struct err *err)
{
    struct score *s = arg;
    const json_t *messages = json_object_get(row, "messages");
    json_t *id = json_object_get(row, "id");
    if (!json_is_array(messages))
        return err_set(err, ST_BAD_INPUT, "%s:%ld: \"messages\": wanted an array of {role, content}", s->path, line);
    struct ids ids = {0};
    uint8_t *mask = NULL;
    enum status st = chat_training_row(s->loaded.chat, row, &ids, &mask, NULL, err);
    if (st)
        err_prefix(err, "%s:%ld", s->path, line);
    else
        st = check_length(s, ids.n, line, err);
    if (st) {
        ids_free(&ids);
        mem_free(mask);
        return st;
    }
    mask[0] = 0; // nothing comes before the first token to predict it
    add_doc(s, (struct doc){.ids = ids.v, .mask = mask, .n = (int)ids.n, .id = id ? json_incref(id) : json_integer(line - 1)});
    return ST_OK;
}

// ---- running -------------------------------------------------------------------------------------------------------------------------

// Runs the batch that lies in ints; n_tok rows, n_doc segments.
static void forward(struct score *s, struct tensor hidden, int n_tok, int n_doc, int max_len)
{
    struct device *dev = &s->loaded.dev;
    struct tensor ints = dev_1d(dev, DT_I32, 2 * n_tok + n_doc + 1);
    op_upload(dev, ints, s->ints);
    const int32_t *at = ints.data;
    struct segments seg = {
        .n_seg = n_doc, .n_tok = n_tok, .max_len = max_len, .max_pos = max_len, .pos = at + n_tok, .start = at + 2 * n_tok};
    struct run run = {.dev = dev, .mode = RUN_FLAT, .seg = &seg};
    model_forward(s->loaded.model, &run, hidden, tensor_rows(ints, 0, n_tok));
}

// Logits of n wanted rows, from `first` of the list on: to the host as they are, or as the loss of the token that follows.
static void head(struct score *s, struct tensor hidden, int first, int n)
{
    struct device *dev = &s->loaded.dev;
    struct model *m = s->loaded.model;
    size_t mark = dev_mark(dev);
    struct tensor logits = dev_2d(dev, DT_F32, n, m->config.n_vocab), row = dev_1d(dev, DT_I32, n),
                  rows = dev_2d(dev, hidden.dtype, n, hidden.shape[1]);
    op_upload(dev, row, s->row + first);
    op_gather_rows(dev, rows, hidden, row);
    model_logits(m, dev, logits, rows);
    if (opt_str(s->o, "ids")) {
        op_download(dev, s->host, logits);
    } else {
        struct tensor label = dev_1d(dev, DT_I32, n), ce = dev_1d(dev, DT_F32, n), kd = dev_1d(dev, DT_F32, n);
        struct loss_targets none = {0};
        // All columns of the head count, those beyond the tokenizer's ids too: as in training, and in PyTorch's cross-entropy.
        struct loss_mix mix = {.ce_weight = 1, .temperature = 1, .n_vocab = (int)m->config.n_vocab};
        op_upload(dev, label, s->label + first);
        op_loss(dev, logits, ce, kd, logits, label, &none, &mix);
        op_download(dev, s->host, ce);
    }
    dev_release(dev, mark);
}

// One batch: documents first .. first + n_doc.
static enum status score_batch(struct score *s, size_t first, int n_doc, struct err *err)
{
    struct device *dev = &s->loaded.dev;
    int n_tok = 0, n_row = 0, max_len = 0;
    for (int d = 0; d < n_doc; d++) n_tok += s->doc[first + (size_t)d].n;
    int32_t *ids = s->ints, *pos = ids + n_tok, *start = pos + n_tok;
    start[0] = 0;
    for (int d = 0; d < n_doc; d++) {
        const struct doc *doc = &s->doc[first + (size_t)d];
        for (int i = 0; i < doc->n; i++) {
            ids[start[d] + i] = doc->ids[i];
            pos[start[d] + i] = i;
            bool last = i + 1 == doc->n;
            if (doc->mask && (last || !doc->mask[i + 1])) continue;
            s->row[n_row] = start[d] + i;
            s->label[n_row] = last ? -1 : doc->ids[i + 1];
            s->row_doc[n_row++] = d;
        }
        start[d + 1] = start[d] + doc->n;
        if (doc->n > max_len) max_len = doc->n;
    }
    size_t mark = dev_mark(dev);
    struct tensor hidden = dev_2d(dev, s->loaded.model->dtype, n_tok, s->loaded.model->config.d_model);
    size_t inner = dev_mark(dev);
    mem_forbid(true);
    forward(s, hidden, n_tok, n_doc, max_len);
    dev_release(dev, inner);
    mem_forbid(false);
    enum status st = ST_OK;
    for (int at = 0; !st && at < n_row; at += s->head_rows) {
        const int n = n_row - at < s->head_rows ? n_row - at : s->head_rows;
        mem_forbid(true);
        head(s, hidden, at, n);
        mem_forbid(false);
        st = dev_check(dev, err);
        if (!st && s->logits) st = st_put(s->logits, s->host, (size_t)n * (size_t)s->loaded.n_vocab * sizeof(float), err);
        for (int i = 0; !st && !s->logits && i < n; i++) {
            size_t d = first + (size_t)s->row_doc[at + i];
            s->nll[d] += (double)((const float *)s->host)[i];
            s->n_scored[d]++;
        }
    }
    dev_release(dev, mark);
    return st ? st : dev_check(dev, err);
}

// Plans the largest batch and takes its memory.
static enum status take_memory(struct score *s, struct err *err)
{
    struct device *dev = &s->loaded.dev;
    const struct model *m = s->loaded.model;
    const int longest = s->max_row;
    if (s->max_row < BATCH_TOKENS) s->max_row = (int)(s->n_tok < BATCH_TOKENS ? s->n_tok : BATCH_TOKENS);
    s->max_doc = (int)(s->n_doc < (size_t)s->max_row ? s->n_doc : (size_t)s->max_row);
    int64_t fit = LOGITS_BYTES / (m->config.n_vocab * (int64_t)sizeof(float));
    s->head_rows = fit > s->max_row ? s->max_row : fit < 1 ? 1 : (int)fit;
    s->ints = NEW_N(int32_t, 3 * (size_t)s->max_row + 1);
    s->row = NEW_N(int32_t, s->max_row);
    s->label = NEW_N(int32_t, s->max_row);
    s->row_doc = NEW_N(int32_t, s->max_row);
    s->host = mem_alloc((size_t)s->head_rows * (opt_str(s->o, "ids") ? (size_t)m->config.n_vocab : 1) * sizeof(float));
    dev_measure(dev);
    struct tensor hidden = dev_2d(dev, m->dtype, s->max_row, m->config.d_model);
    size_t inner = dev_mark(dev);
    forward(s, hidden, s->max_row, s->max_doc, longest);
    dev_release(dev, inner);
    head(s, hidden, 0, s->head_rows);
    TRY(dev_check(dev, err));
    return dev_reserve(dev, dev->arena.peak, err);
}

static enum status score_all(struct score *s, struct err *err)
{
    TRY(take_memory(s, err));
    struct progress p = progress_start("score", "row", (int64_t)s->n_doc, 0, "tok", opt_bool(s->o, "quiet"));
    p.plain_every_s = 1;
    int64_t n_tok = 0;
    enum status st = ST_OK;
    for (size_t first = 0; !st && first < s->n_doc;) {
        int n_doc = 0, n = 0;
        while (first + (size_t)n_doc < s->n_doc && n_doc < s->max_doc && (!n_doc || n + s->doc[first + (size_t)n_doc].n <= s->max_row))
            n += s->doc[first + (size_t)n_doc++].n;
        st = score_batch(s, first, n_doc, err);
        first += (size_t)n_doc;
        n_tok += n;
        if (!st) progress_step(&p, (int64_t)first, n_tok, NULL);
        if (!st && first < s->n_doc && stop_requested())
            st = err_set(err, ST_INTERRUPTED, "stopped after %zu of %zu rows; %s was not written", first, s->n_doc,
                         opt_str(s->o, opt_str(s->o, "ids") ? "logits" : "out"));
    }
    progress_end(&p);
    return st;
}

// ---- the two forms -------------------------------------------------------------------------------------------------------------------

static enum status score_ids(struct score *s, struct err *err)
{
    TRY(loaded_model(&s->loaded, s->o, opt_str(s->o, "model"), err));
    TRY(jsonl_each(s->path, false, NULL, read_ids, s, err));
    if (!s->n_doc) return err_set(err, ST_BAD_INPUT, "%s: there is no line in it", s->path);
    TRY(st_create(&s->logits, opt_str(s->o, "logits"), err));
    for (size_t i = 0; i < s->n_doc; i++) {
        char name[32];
        snprintf(name, sizeof name, "logits.%zu", i);
        st_declare(s->logits, name, "F32", 2, (int64_t[]){s->doc[i].n, s->loaded.n_vocab});
    }
    enum status st = st_begin(s->logits, err);
    if (!st) st = score_all(s, err);
    struct st_writer *w = s->logits;
    s->logits = NULL;
    if (!st) return st_finish(w, err);
    st_abort(w);
    return st;
}

static enum status write_scores(struct score *s, struct err *err)
{
    struct file_out *out = NULL;
    TRY(file_out_open(&out, opt_str(s->o, "out"), err));
    struct buf line = {0};
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < s->n_doc; i++) {
        json_t *row = json_pack("{s:O, s:i, s:f}", "id", s->doc[i].id, "n_tok", s->n_scored[i], "nll", s->nll[i]);
        buf_clear(&line);
        json_append_line(&line, row);
        json_decref(row);
        st = file_out_put(out, line.data, line.size, err);
    }
    buf_free(&line);
    if (!st) return file_out_commit(out, err);
    file_out_abort(out);
    return st;
}

static enum status score_data(struct score *s, struct err *err)
{
    TRY(loaded_text(&s->loaded, s->o, opt_str(s->o, "model"), err));
    TRY(jsonl_each(s->path, false, NULL, read_data, s, err));
    if (!s->n_doc) return err_set(err, ST_BAD_INPUT, "%s: there is no line in it", s->path);
    s->nll = NEW_N(double, s->n_doc);
    s->n_scored = NEW_N(int, s->n_doc);
    TRY(score_all(s, err));
    return write_scores(s, err);
}

static void report(const struct score *s, double t_s)
{
    double nll = 0;
    int64_t n_scored = 0;
    for (size_t i = 0; s->nll && i < s->n_doc; i++) nll += s->nll[i], n_scored += s->n_scored[i];
    json_t *j = json_pack("{s:I, s:I, s:f}", "rows", (json_int_t)s->n_doc, "tokens", (json_int_t)s->n_tok, "t_s", t_s);
    if (s->nll) {
        json_object_set_new(j, "scored", json_integer((json_int_t)n_scored));
        json_object_set_new(j, "nll_mean", n_scored ? json_real(nll / (double)n_scored) : json_null());
    }
    struct buf line = {0};
    json_append_line(&line, j);
    if (opt_bool(s->o, "json"))
        fwrite(line.data, 1, line.size, stdout);
    else if (s->nll && !opt_bool(s->o, "quiet"))
        fprintf(stderr, "score: %zu rows, %lld tokens scored, %.5f nats a token\n", s->n_doc, (long long)n_scored,
                n_scored ? nll / (double)n_scored : 0.0);
    buf_free(&line);
    json_decref(j);
}

static enum status run(struct options *o, struct err *err)
{
    const bool ids = opt_str(o, "ids"), data = opt_str(o, "data");
    if (ids == data || ids != (opt_str(o, "logits") != NULL) || data != (opt_str(o, "out") != NULL))
        return err_set(err, ST_BAD_INPUT, "wanted --ids F.jsonl with --logits OUT.safetensors, or --data F.jsonl with --out OUT.jsonl");
    struct score s = {.o = o, .path = opt_str(o, ids ? "ids" : "data")};
    struct progress clock = progress_start("score", "row", 0, 0, NULL, true);
    enum status st = ids ? score_ids(&s, err) : score_data(&s, err);
    if (!st) report(&s, progress_elapsed_s(&clock));
    for (size_t i = 0; i < s.n_doc; i++) {
        mem_free(s.doc[i].ids);
        mem_free(s.doc[i].mask);
        json_decref(s.doc[i].id);
    }
    mem_free(s.doc);
    mem_free(s.ints);
    mem_free(s.row);
    mem_free(s.label);
    mem_free(s.row_doc);
    mem_free(s.host);
    mem_free(s.nll);
    mem_free(s.n_scored);
    loaded_close(&s.loaded);
    return st;
}

const struct command command_score = {
    .name = "score",
    .summary = "logits of given token ids, or the likelihood of given answers",
    .notes = "Scored: the assistant's turns, reasoning included, and their end tokens, as in training.",
    .options = options,
    .computes = true,
    .saves_on_stop = true,
    .run = run,
};
