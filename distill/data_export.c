// distill data export: a store as files that others load: messages as JSONL, token ids and targets as one safetensors file.
#include "distill/command.h"
#include "distill/data.h"
#include "distill/signals.h"
#include "kernels/base/rng.h"
#include "kernels/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

struct place {
    size_t first, index; // where the prompt first appeared; the sample
    int sample;
};

static int by_prompt_then_sample(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

size_t *data_order(const struct store *s)
{
    size_t n = store_n_sample(s), n_slot = 64;
    while (n_slot < 2 * n) n_slot *= 2;
    struct place *place = NEW_N(struct place, n);
    size_t *slot = NEW_N(size_t, n_slot), *order = NEW_N(size_t, n); // slot: the first sample of a prompt + 1
    for (size_t i = 0; i < n; i++) {
        const char *id = store_id(s, i, &place[i].sample, NULL);
        size_t k = rng_hash(id, strlen(id)) & (n_slot - 1);
        while (slot[k] && strcmp(store_id(s, slot[k] - 1, NULL, NULL), id) != 0) k = (k + 1) & (n_slot - 1);
        if (!slot[k]) slot[k] = i + 1;
        place[i].first = slot[k] - 1;
        place[i].index = i;
    }
    qsort(place, n, sizeof *place, by_prompt_then_sample);
    for (size_t i = 0; i < n; i++) order[i] = place[i].index;
    mem_free(place);
    mem_free(slot);
    return order;
}

// Ctrl-C before sample i: what was written of the file goes.
static enum status go_on(const struct store *s, size_t i, const char *path, struct err *err)
{
    if (!stop_requested()) return ST_OK;
    return err_set(err, ST_INTERRUPTED, "stopped after %zu of %zu samples; %s was not written", i, store_n_sample(s), path);
}

// ---- messages

static enum status put_message_lines(const struct store *s, const size_t *order, struct file_out *f, const char *path, struct err *err)
{
    struct buf line = {0};
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < store_n_sample(s); i++) {
        struct sample x;
        if ((st = go_on(s, i, path, err)) || (st = store_read(s, order[i], &x, NULL, err))) break;
        // The same members with the same types in every line: `datasets` makes columns of them.
        json_t *row = json_pack("{s:s, s:i, s:O, s:s, s:s?}", "id", x.id, "sample", x.sample, "messages", x.messages, "finish_reason",
                                x.finish_reason, "answer", x.answer);
        buf_clear(&line);
        json_append_line(&line, row);
        json_decref(row);
        st = file_out_put(f, line.data, line.size, err);
        sample_free(&x);
    }
    buf_free(&line);
    return st;
}

static enum status export_messages(const struct store *s, const size_t *order, const char *path, struct err *err)
{
    struct file_out *f;
    TRY(file_out_open(&f, path, err));
    enum status st = put_message_lines(s, order, f, path, err);
    if (!st) return file_out_commit(f, err);
    file_out_abort(f);
    return st;
}

// ---- targets

// A tensor of the export, filled sample by sample: so that nothing has to be held, each is one walk over the frames.
struct column {
    const char *name, *dtype;
    int rank;
    int64_t width; // of a row; rank 1: 1
    const void *(*rows)(const struct targets *t);
};

static const void *rows_ids(const struct targets *t)
{
    return t->ids;
}
static const void *rows_logprob(const struct targets *t)
{
    return t->logprob;
}
static const void *rows_tail(const struct targets *t)
{
    return t->tail_logprob;
}
static const void *rows_count(const struct targets *t)
{
    return t->count;
}
static const void *rows_log_z(const struct targets *t)
{
    return t->log_z;
}

static enum status put_offsets(const struct store *s, const size_t *order, struct st_writer *w, struct err *err)
{
    int64_t at = 0;
    TRY(st_put(w, &at, sizeof at, err));
    for (size_t i = 0; i < store_n_sample(s); i++) {
        int n_tok;
        store_id(s, order[i], NULL, &n_tok);
        at += n_tok;
        TRY(st_put(w, &at, sizeof at, err));
    }
    return ST_OK;
}

static enum status put_token_ids(const struct store *s, const size_t *order, struct st_writer *w, const char *path, struct err *err)
{
    for (size_t i = 0; i < store_n_sample(s); i++) {
        struct sample x;
        TRY(go_on(s, i, path, err));
        TRY(store_read(s, order[i], &x, NULL, err));
        enum status st = st_put(w, x.token_ids, sizeof(int32_t) * (size_t)x.n_tok, err);
        sample_free(&x);
        TRY(st);
    }
    return ST_OK;
}

static enum status put_column(const struct store *s, const size_t *order, const struct column *c, struct st_writer *w, const char *path,
                              struct err *err)
{
    for (size_t i = 0; i < store_n_sample(s); i++) {
        struct targets t;
        TRY(go_on(s, i, path, err));
        TRY(store_read_targets(s, order[i], &t, err));
        enum status st = st_put(w, c->rows(&t), 4 * (size_t)t.n_tok * (size_t)c->width, err); // all are of 4 bytes
        targets_free(&t);
        TRY(st);
    }
    return ST_OK;
}

static void put_metadata(struct st_writer *w, const struct targets_spec *spec)
{
    struct buf text = {0};
    for (int i = 0; i < spec->n_temperature; i++) buf_printf(&text, "%s%g", i ? "," : "", (double)spec->temperature[i]);
    if (text.size) st_metadata(w, "temperatures", text.data); // of log_z's columns
    buf_clear(&text);
    data_describe_targets(&text, spec);
    st_metadata(w, "targets", text.data);
    buf_free(&text);
}

static enum status export_targets(const struct store *s, const size_t *order, const char *path, struct err *err)
{
    const struct targets_spec *spec = store_spec(s);
    const struct column topk[] = {{"topk_ids", "I32", 2, spec->k, rows_ids},
                                  {"topk_logprobs", "F32", 2, spec->k, rows_logprob},
                                  {"tail_logprob", "F32", 1, 1, rows_tail},
                                  {"log_z", "F32", 2, spec->n_temperature, rows_log_z}};
    const struct column sampled[] = {{"sampled_ids", "I32", 2, spec->k, rows_ids},
                                     {"sampled_counts", "I32", 2, spec->k, rows_count},
                                     {"log_z", "F32", 2, spec->n_temperature, rows_log_z}};
    const struct column *c = spec->kind == TARGETS_TOPK ? topk : sampled;
    int n_column = spec->kind == TARGETS_TOPK ? 4 : spec->kind == TARGETS_SAMPLED ? 3 : 0;
    int64_t n = (int64_t)store_n_sample(s), n_tok = 0;
    for (size_t i = 0; i < store_n_sample(s); i++) {
        int one;
        store_id(s, i, NULL, &one);
        n_tok += one;
    }
    struct st_writer *w;
    TRY(st_create(&w, path, err));
    st_declare(w, "offsets", "I64", 1, (int64_t[]){n + 1});
    st_declare(w, "ids", "I32", 1, (int64_t[]){n_tok});
    for (int k = 0; k < n_column; k++) st_declare(w, c[k].name, c[k].dtype, c[k].rank, (int64_t[]){n_tok, c[k].width});
    put_metadata(w, spec);
    enum status st = st_begin(w, err);
    if (!st) st = put_offsets(s, order, w, err);
    if (!st) st = put_token_ids(s, order, w, path, err);
    for (int k = 0; !st && k < n_column; k++) st = put_column(s, order, &c[k], w, path, err);
    if (!st) return st_finish(w, err);
    st_abort(w);
    return st;
}

// ---- the command

static const struct option options[] = {
    {"messages", OPT_STRING, .value = "F.jsonl",
     .help = "write the conversations, a line a sample: id, sample, messages, finish_reason, answer"},
    {"targets", OPT_STRING, .value = "F.safetensors",
     .help = "write the generated tokens and the teacher's distributions: offsets, ids, topk_ids, topk_logprobs, tail_logprob, log_z"},
    {0}};

static enum status run(struct options *o, struct err *err)
{
    const char *messages = opt_str(o, "messages"), *targets = opt_str(o, "targets");
    if (!messages && !targets)
        return err_set(err, ST_BAD_INPUT, "nothing to do: give --messages F.jsonl, --targets F.safetensors, or both");
    struct store *s;
    TRY(store_open_read(&s, opt_arg(o, 0), err));
    size_t *order = data_order(s);
    enum status st = ST_OK;
    if (messages) st = export_messages(s, order, messages, err);
    if (!st && targets) st = export_targets(s, order, targets, err);
    size_t n = store_n_sample(s);
    mem_free(order);
    struct err ignored = {0};
    store_close(s, &ignored);
    if (st) return st;
    if (opt_bool(o, "json")) {
        struct buf out = {0};
        json_t *j = json_pack("{s:I, s:s?, s:s?}", "n_sample", (json_int_t)n, "messages", messages, "targets", targets);
        json_append_line(&out, j);
        fwrite(out.data, 1, out.size, stdout);
        json_decref(j);
        buf_free(&out);
    } else if (!opt_bool(o, "quiet")) {
        if (messages) fprintf(stderr, "%zu samples: conversations in %s\n", n, messages);
        if (targets) fprintf(stderr, "%zu samples: tokens and targets in %s\n", n, targets);
    }
    return ST_OK;
}

const struct command command_data_export = {
    .name = "data export",
    .summary = "write a store's conversations and targets as files that other tools load",
    .args = "STORE",
    .n_arg_min = 1,
    .n_arg_max = 1,
    .notes = "Samples stand by prompt, in the order in which the prompts first appear in the store, then by\n"
             "sample number. offsets[i] is the first row of sample i, its last element the number of rows.\n",
    .options = options,
    .saves_on_stop = true,
    .run = run,
};
