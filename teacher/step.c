// One step of the engine: the rows of a forward are laid out, run, and tokens are drawn from the last row of each sequence.
//
//   step_prefill   the next chunk of each prompt, as many as fit; where a prompt ends, the first token of all its samples
//   step_decode    the last token of each sequence that runs
//
// The plan runs the same text over the largest step that can come, with no memory behind it (dev_measure).
#include "kernels/base/half.h"
#include "kernels/base/mem.h"
#include "teacher/engine_internal.h"

#include <math.h>
#include <string.h>

enum { DECODE_BOUND = 1024 }; // positions: a decode step is told its largest in these steps, so that a device can know it again

// Says where the integers of a step of n_tok rows in n_seg segments lie in e->ints.
static void lay_out(struct engine *e, enum run_mode mode, int n_tok, int n_seg)
{
    e->step = (struct step){.mode = mode, .n_tok = n_tok, .n_seg = n_seg};
    e->ids = e->ints;
    e->pos = e->ids + n_tok;
    e->start = e->pos + n_tok;
    e->k_start = e->start + n_seg + 1;
    e->page = e->k_start + n_seg + 1;
    e->start[0] = e->k_start[0] = 0;
}

// Fills segment s: n rows from position `from` of a document whose tokens are ids (ids[0] stands at `from`).
static void put_segment(struct engine *e, int s, const int32_t *ids, int from, int n, const int32_t *page, int n_page)
{
    struct step *step = &e->step;
    const int32_t row = e->start[s];
    memcpy(e->ids + row, ids, sizeof *ids * (size_t)n);
    for (int i = 0; i < n; i++) e->pos[row + i] = from + i;
    e->start[s + 1] = row + n;
    e->k_start[s + 1] = e->k_start[s] + from + n;
    memcpy(e->page + (size_t)s * (size_t)e->max_page, page, sizeof *page * (size_t)n_page);
    memset(e->page + (size_t)s * (size_t)e->max_page + n_page, 0, sizeof *page * (size_t)(e->max_page - n_page));
    step->n_key = e->k_start[s + 1];
    if (n > step->max_len) step->max_len = n;
    if (from + n > step->max_pos) step->max_pos = from + n;
}

typedef void (*on_layer)(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight);

// hidden (n_tok, d_model) of the step that is laid out.
static void forward(struct engine *e, struct tensor hidden, on_layer tell, void *arg)
{
    const struct step *s = &e->step;
    struct device *dev = e->m->dev;
    struct tensor ints = dev_1d(dev, DT_I32, (e->page - e->ints) + (int64_t)s->n_seg * e->max_page);
    op_upload(dev, ints, e->ints);
    const int32_t *at = ints.data;
    struct segments seg = {.n_seg = s->n_seg,
                           .n_tok = s->n_tok,
                           .max_len = s->max_len,
                           .max_pos = s->max_pos,
                           .pos = at + (e->pos - e->ints),
                           .start = at + (e->start - e->ints),
                           .page = at + (e->page - e->ints),
                           .max_page = e->max_page,
                           .page_len = e->kv.page_len};
    struct run run = {.dev = dev, .mode = s->mode, .seg = &seg, .kv = &e->kv, .on_layer = tell, .on_layer_arg = arg};
    if (s->mode == RUN_PREFILL) {
        run.k_start = at + (e->k_start - e->ints);
        run.n_key = s->n_key;
    }
    // Decode repeats itself: the same rows over the same memory, while the bound on positions grows in steps.
    const bool repeats = s->mode == RUN_DECODE && !tell;
    if (repeats) seg.max_pos = (s->max_pos + DECODE_BOUND - 1) / DECODE_BOUND * DECODE_BOUND;
    if (seg.max_pos > e->max_len) seg.max_pos = e->max_len;
    struct {
        const void *model, *hidden, *ints;
        int64_t n_tok, n_seg, max_pos;
    } key = {e->m, hidden.data, ints.data, s->n_tok, s->n_seg, seg.max_pos};
    if (!repeats || !dev_step_begin(dev, &key, sizeof key)) model_forward(e->m, &run, hidden, tensor_rows(ints, 0, s->n_tok));
    if (repeats) dev_step_end(dev);
}

// The rows of hidden that draw_row names; no copy where they follow each other.
static struct tensor rows_of(struct engine *e, struct tensor hidden, int n)
{
    struct device *dev = e->m->dev;
    bool in_order = !dev->measuring;
    for (int i = 1; i < n && in_order; i++) in_order = e->draw_row[i] == e->draw_row[0] + i;
    if (in_order) return tensor_rows(hidden, e->draw_row[0], n);
    struct tensor row = dev_1d(dev, DT_I32, n), out = dev_2d(dev, hidden.dtype, n, hidden.shape[1]);
    op_upload(dev, row, e->draw_row);
    op_gather_rows(dev, out, hidden, row);
    return out;
}

// What comes back of n draws: a number of each row of hidden, f32 (n), the tokens, i32 (n), and what is captured; the first two are this
// long.
static size_t column_bytes(int n)
{
    return ((size_t)n * sizeof(float) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
}

size_t draw_back(const struct engine *e, int n)
{
    return 2 * column_bytes(n) + capture_bytes(&e->capture, n);
}

// Draws the next token of the n sequences draw_seq from rows draw_row of hidden. n ≤ head_rows, so that logits never hold more rows than
// planned.
static void draw(struct engine *e, struct tensor hidden, int n)
{
    struct device *dev = e->m->dev;
    if (!n || e->bad) return;
    size_t mark = dev_mark(dev);
    const size_t column = column_bytes(n);
    struct tensor logits = dev_2d(dev, DT_F32, n, e->m->config.n_vocab), back = dev_1d(dev, DT_U8, (int64_t)draw_back(e, n));
    char *at = back.data;
    struct tensor witness = tensor_2d(at, DT_F32, n, 1), token = tensor_1d(at + column, DT_I32, n);
    struct tensor stream = dev_1d(dev, DT_U8, (int64_t)sizeof(struct sample_row) * 2 * n);
    size_t inner = dev_mark(dev);
    struct tensor rows = rows_of(e, hidden, n), first = rows;
    first.shape[1] = 1;
    model_logits(e->m, dev, logits, rows);
    op_copy(dev, witness, first);
    dev_release(dev, inner);
    if (!dev->measuring) {
        for (int i = 0; i < n; i++) {
            const struct sequence *s = e->draw_seq[i];
            e->draw[i] = sampling_row(&s->group->sampling, s->seed, STREAM_TOKEN, s->n_tok);
            e->draw[n + i] = sampling_row(&s->group->sampling, s->seed, STREAM_CAPTURE, s->n_tok);
        }
    }
    op_upload(dev, stream, e->draw);
    const struct sample_row *row = stream.data;
    capture_rows(&e->capture, dev, at + 2 * column, logits, e->n_vocab, row + n);
    op_sample(dev, token, logits, e->n_vocab, row);
    op_download(dev, e->back, back);
    dev_release(dev, mark);
    if (dev->measuring || dev->error.code) return;
    const char *host = e->back;
    const float *number = (const void *)host;
    const int32_t *drawn = (const void *)(host + column);
    capture_take(&e->capture, n, host + 2 * column);
    for (int i = 0; i < n; i++) {
        struct sequence *s = e->draw_seq[i];
        // One column is witness enough: the final norm makes all of a row NaN when anything before it is not finite. Without this, sampling
        // would quietly take token 0 where no targets are captured.
        if (!isfinite(number[i]) || drawn[i] < 0 || drawn[i] >= e->n_vocab || !capture_append(&e->capture, i, &s->targets)) {
            e->bad = s;
            e->bad_row = e->draw_row[i];
            return;
        }
        sequence_take(e, s, drawn[i]);
    }
}

// ---- logits that are not numbers ------------------------------------------------------------------------------------------------------

struct culprit {
    struct device *dev;
    int row, layer;
    bool found;
    void *host;
};

static void look_at_layer(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight)
{
    struct culprit *c = arg;
    (void)expert, (void)weight;
    if (c->found || tensor_none(out)) return; // a call with the routing only
    op_download(c->dev, c->host, tensor_rows(out, c->row, 1));
    for (int64_t i = 0; i < out.shape[1] && !c->found; i++) {
        float x = out.dtype == DT_F32 ? ((const float *)c->host)[i] : bf16_to_f32(((const bf16 *)c->host)[i]);
        if (!isfinite(x)) c->found = true, c->layer = layer;
    }
}

// Runs the step's forward again (it writes the same cache) to find the first layer whose output is not a number.
static enum status report_bad(struct engine *e, struct err *err)
{
    struct device *dev = e->m->dev;
    const struct sequence *s = e->bad;
    struct culprit c = {.dev = dev, .row = e->bad_row, .host = NEW_N(float, e->m->config.d_model)};
    size_t mark = dev_mark(dev);
    forward(e, dev_2d(dev, e->m->dtype, e->step.n_tok, e->m->config.d_model), look_at_layer, &c);
    dev_release(dev, mark);
    mem_free(c.host);
    TRY(dev_check(dev, err));
    char where[80] = "in the head: all layers were finite";
    if (c.found && c.layer < 0) snprintf(where, sizeof where, "first in the embedding");
    if (c.found && c.layer >= 0) snprintf(where, sizeof where, "first in the output of layer %d of %d", c.layer, (int)e->m->config.n_layer);
    return err_set(err, ST_FAIL,
                   "%s: the logits of prompt \"%s\", sample %d, token %d are not finite, %s. Are the weights whole? Is %s enough for them?",
                   e->m->dir ? e->m->dir : "model", s->group->id, s->sample, s->n_tok, where, dtype_name(e->m->dtype));
}

static enum status finish(struct engine *e, struct err *err)
{
    mem_forbid(false);
    TRY(dev_check(e->m->dev, err));
    return e->bad ? report_bad(e, err) : ST_OK;
}

// ---- the two kinds ----------------------------------------------------------------------------------------------------------------------

// Rows of group g's next chunk: it ends at the next multiple of ENGINE_CHUNK, or with the prompt. By position only, never by what else
// runs.
static int chunk_len(const struct group *g)
{
    int end = (g->n_cached / ENGINE_CHUNK + 1) * ENGINE_CHUNK;
    return (end < g->n_prompt ? end : g->n_prompt) - g->n_cached;
}

enum status step_prefill(struct engine *e, struct err *err)
{
    struct device *dev = e->m->dev;
    int n_seg = 0, n_tok = 0, n_key = 0;
    for (; n_seg < e->n_prefill; n_seg++) {
        const struct group *g = e->prefill[n_seg];
        int n = chunk_len(g);
        if (n_seg && (n_tok + n > e->max_row || n_key + g->n_cached + n > e->max_key)) break;
        n_tok += n;
        n_key += g->n_cached + n;
    }
    mem_forbid(true);
    lay_out(e, RUN_PREFILL, n_tok, n_seg);
    for (int i = 0; i < n_seg; i++) {
        const struct group *g = e->prefill[i];
        put_segment(e, i, g->ids + g->n_cached, g->n_cached, chunk_len(g), g->page, g->n_page);
    }
    size_t mark = dev_mark(dev);
    struct tensor hidden = dev_2d(dev, e->m->dtype, n_tok, e->m->config.d_model);
    size_t inner = dev_mark(dev);
    forward(e, hidden, NULL, NULL);
    dev_release(dev, inner);
    int n_draw = 0;
    for (int i = 0; i < n_seg; i++) {
        struct group *g = e->prefill[i];
        g->n_cached += e->start[i + 1] - e->start[i];
        for (int j = 0; g->n_cached == g->n_prompt && j < g->n_sample; j++) {
            e->draw_row[n_draw] = e->start[i + 1] - 1;
            e->draw_seq[n_draw++] = g->seq[j];
            if (n_draw == e->head_rows) draw(e, hidden, n_draw), n_draw = 0;
        }
    }
    draw(e, hidden, n_draw);
    dev_release(dev, mark);
    e->stats.n_prefill_step++;
    e->stats.n_prompt_tok += n_tok;
    return finish(e, err);
}

enum status step_decode(struct engine *e, struct err *err)
{
    struct device *dev = e->m->dev;
    mem_forbid(true);
    lay_out(e, RUN_DECODE, e->n_run, e->n_run);
    for (int i = 0; i < e->n_run; i++) {
        const struct sequence *s = e->run[i];
        put_segment(e, i, s->token + s->n_tok - 1, s->group->n_prompt + s->n_tok - 1, 1, s->page, s->n_page);
    }
    size_t mark = dev_mark(dev);
    struct tensor hidden = dev_2d(dev, e->m->dtype, e->n_run, e->m->config.d_model);
    size_t inner = dev_mark(dev);
    forward(e, hidden, NULL, NULL);
    dev_release(dev, inner);
    for (int first = 0; first < e->n_run; first += e->head_rows) {
        int n = e->n_run - first < e->head_rows ? e->n_run - first : e->head_rows;
        for (int i = 0; i < n; i++) {
            e->draw_row[i] = first + i;
            e->draw_seq[i] = e->run[first + i];
        }
        draw(e, hidden, n);
    }
    dev_release(dev, mark);
    e->stats.n_decode_step++;
    return finish(e, err);
}

// ---- the plan ---------------------------------------------------------------------------------------------------------------------------

// No step has more rows, segments, keys or draws than this one; it need not be a possible one, for nothing is computed.
static size_t measure(struct engine *e, enum run_mode mode, int n_tok, int n_seg, int max_len)
{
    struct device *dev = e->m->dev;
    dev_measure(dev);
    lay_out(e, mode, n_tok, n_seg);
    e->step.max_len = max_len;
    e->step.max_pos = e->max_len;
    e->step.n_key = e->max_key;
    struct tensor hidden = dev_2d(dev, e->m->dtype, n_tok, e->m->config.d_model);
    size_t inner = dev_mark(dev);
    forward(e, hidden, NULL, NULL);
    dev_release(dev, inner);
    draw(e, hidden, e->head_rows);
    return dev->arena.peak;
}

size_t step_measure(struct engine *e)
{
    size_t prefill = measure(e, RUN_PREFILL, e->max_row, e->max_slot, ENGINE_CHUNK),
           decode = measure(e, RUN_DECODE, e->max_slot, e->max_slot, 1);
    return prefill > decode ? prefill : decode;
}
