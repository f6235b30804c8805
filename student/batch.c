// Micro-batches: tables from pack, targets from the stores.
#include "student/batch.h"

#include <math.h>
#include <string.h>

// ---- what the stores allow ----

static int n_vocab_of(const struct rows_source *src)
{
    const json_t *identity = json_object_get(store_manifest(src->store), "identity");
    const json_t *n = json_object_get(identity, "n_vocab");
    if (!n) n = json_object_get(json_object_get(identity, "teacher"), "n_vocab");
    return json_is_integer(n) ? (int)json_integer_value(n) : 0;
}

static int find_temperature(const struct targets_spec *spec, float t)
{
    for (int i = 0; i < spec->n_temperature; i++)
        if (fabsf(spec->temperature[i] - t) <= 1e-6f * t) return i;
    return -1;
}

static enum status check_temperature(const struct rows_source *src, float temperature, struct err *err)
{
    if (temperature == 1) return ST_OK;
    if (src->spec.kind == TARGETS_SAMPLED)
        return err_set(err, ST_BAD_INPUT, "--kd-temperature %g: the targets of %s were sampled at temperature 1 and hold for that alone",
                       (double)temperature, src->path);
    if (find_temperature(&src->spec, 1) >= 0 && find_temperature(&src->spec, temperature) >= 0) return ST_OK;
    struct buf have = {0};
    for (int i = 0; i < src->spec.n_temperature; i++) buf_printf(&have, "%s%g", i ? "," : "", (double)src->spec.temperature[i]);
    err_set(
        err, ST_BAD_INPUT,
        "--kd-temperature %g: store %s has the teacher's log Z at temperature %s only, and without it the mass of the tokens that were not "
        "kept is unknown. Use one of those, or capture again: distill gen --target-temperatures 1,%g",
        (double)temperature, src->path, have.size ? have.data : "(none)", (double)temperature);
    buf_free(&have);
    return ST_BAD_INPUT;
}

enum status targets_use_init(struct targets_use *u, const struct rows *rows, const struct loss_spec *loss, float temperature, int n_vocab,
                             struct err *err)
{
    *u = (struct targets_use){.n_vocab = n_vocab, .temperature = temperature};
    if (loss->kind->divergence == DIV_NONE) return ST_OK;
    u->on = true;
    bool sampled = false;
    for (int i = 0; i < rows->n_source; i++) {
        const struct rows_source *src = &rows->source[i];
        if (src->spec.kind == TARGETS_NONE)
            return err_set(err, ST_BAD_INPUT,
                           "--loss %s compares with the teacher's distributions, and %s has none. Use --loss ce, or capture them: "
                           "distill gen --targets topk:64",
                           loss->kind->name, src->path);
        bool is_sampled = src->spec.kind == TARGETS_SAMPLED;
        if (is_sampled && !loss->kind->sampled)
            return err_set(err, ST_BAD_INPUT,
                           "--loss %s: the targets of %s are samples, for which only fkl is an unbiased loss. Use --loss fkl, or capture "
                           "with distill gen --targets topk:64",
                           loss->kind->name, src->path);
        if (i && is_sampled != sampled)
            return err_set(err, ST_BAD_INPUT, "the targets of %s and %s are of different kinds (top-k and samples): train on one of them",
                           rows->source[0].path, src->path);
        sampled = is_sampled;
        TRY(check_temperature(src, temperature, err));
        int theirs = n_vocab_of(src);
        if (theirs > 0 && theirs < u->n_vocab) u->n_vocab = theirs;
        if (src->spec.k > u->k) u->k = src->spec.k;
    }
    // Samples are a whole distribution on few tokens: like full targets they know no tail.
    int n_full = 0;
    for (int i = 0; i < rows->n_source; i++) n_full += sampled || rows->source[i].spec.k >= u->n_vocab;
    if (n_full && n_full < rows->n_source)
        return err_set(err, ST_BAD_INPUT, "some of the stores hold the whole vocabulary and some only the top of it: train on one kind");
    u->full = n_full > 0;
    return ST_OK;
}

// ---- memory ----

static int power_of_two(int n)
{
    int p = 1;
    while (p < n) p *= 2;
    return p;
}

void batch_shape(struct batch *b, const struct micro *m)
{
    enum { TILE = 128 };
    b->m = b->shape = *m;
    if (!b->repeats) return;
    const int eighth = power_of_two(m->n_tok) / 16, each = eighth < 1 ? 1 : eighth > TILE ? TILE : eighth;
    b->shape.n_tok = (m->n_tok + each - 1) / each * each;
    b->shape.n_row = power_of_two(m->n_row + 1);
    b->shape.max_len = power_of_two(m->max_len > TILE ? m->max_len : TILE);
}

void batch_alloc(struct batch *b, const struct micro *bounds, const struct targets_use *use, bool repeats)
{
    *b = (struct batch){.repeats = repeats};
    batch_shape(b, bounds);
    const struct micro *m = &b->shape;
    const int n_loss = m->n_loss ? m->n_loss : 1;
    b->tables = (struct micro_tables){.ids = NEW_N(int32_t, m->n_tok),
                                      .pos = NEW_N(int32_t, m->n_tok),
                                      .start = NEW_N(int32_t, m->n_row + 1),
                                      .loss_row = NEW_N(int32_t, n_loss),
                                      .label = NEW_N(int32_t, n_loss)};
    if (!use->on) return;
    struct head_targets *t = &b->targets;
    t->k = use->k;
    t->ids = NEW_N(int32_t, (size_t)n_loss * (size_t)t->k);
    t->logprob = NEW_N(float, (size_t)n_loss *(size_t)t->k);
    t->tail = NEW_N(float, n_loss);
    t->log_z1 = NEW_N(float, n_loss);
    t->log_zt = NEW_N(float, n_loss);
}

void batch_free(struct batch *b)
{
    struct micro_tables *t = &b->tables;
    struct head_targets *g = &b->targets;
    void *all[] = {t->ids, t->pos, t->start, t->loss_row, t->label, g->ids, g->logprob, g->tail, g->log_z1, g->log_zt};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    *b = (struct batch){0};
}

// ---- targets ----

static float log_add(float a, float b)
{
    float hi = a > b ? a : b, lo = a > b ? b : a;
    return isinf(hi) && hi < 0 ? hi : hi + log1pf(expf(lo - hi));
}

// Ids beyond the columns that count: padding of a teacher with a larger table. Their mass goes to the tail; where there is none, the rest
// is made a distribution again, at both temperatures, from the logits that logprob + log Z are.
static void drop_beyond(struct head_targets *t, size_t row, const struct targets_use *use)
{
    int32_t *ids = t->ids + row * (size_t)t->k;
    float *lp = t->logprob + row * (size_t)t->k;
    int n_dropped = 0;
    for (int j = 0; j < t->k; j++) {
        if (ids[j] < use->n_vocab) continue;
        if (!use->full) t->tail[row] = log_add(t->tail[row], lp[j]);
        ids[j] = -1;
        n_dropped++;
    }
    if (!n_dropped || !use->full) return;
    double sum1 = 0, sum_t = 0;
    const double z1 = t->log_z1[row], zt = t->log_zt[row], temp = use->temperature;
    for (int j = 0; j < t->k; j++) {
        if (ids[j] < 0) continue;
        sum1 += exp((double)lp[j]);
        sum_t += exp(((double)lp[j] + z1) / temp - zt);
    }
    for (int j = 0; j < t->k; j++) lp[j] -= (float)log(sum1);
    t->log_z1[row] = (float)(z1 + log(sum1));
    t->log_zt[row] = (float)(zt + log(sum_t));
}

// Loss row `row` gets row `from` of a sample's targets.
static void put_row(struct head_targets *t, size_t row, const struct targets *s, int from, const struct targets_spec *spec,
                    const struct targets_use *use)
{
    int32_t *ids = t->ids + row * (size_t)t->k;
    float *lp = t->logprob + row * (size_t)t->k;
    const size_t at = (size_t)from * (size_t)s->k;
    for (int j = 0; j < t->k; j++) {
        bool there = j < s->k && s->ids[at + (size_t)j] >= 0;
        ids[j] = there ? s->ids[at + (size_t)j] : -1;
        lp[j] = !there ? -INFINITY : s->count ? logf((float)s->count[at + (size_t)j] / (float)spec->k) : s->logprob[at + (size_t)j];
    }
    t->tail[row] = s->tail_logprob ? s->tail_logprob[from] : -INFINITY;
    const float *z = s->log_z + (size_t)from * (size_t)s->n_temperature;
    int one = find_temperature(spec, 1), other = find_temperature(spec, use->temperature);
    t->log_z1[row] = one >= 0 ? z[one] : 0;
    t->log_zt[row] = other >= 0 ? z[other] : 0;
    drop_beyond(t, row, use);
}

// The rows of shape that m does not have.
static void fill_up(const struct micro *m, const struct micro *shape, struct micro_tables *t)
{
    for (int i = m->n_tok; i < shape->n_tok; i++) {
        t->ids[i] = 0;
        t->pos[i] = i - m->n_tok;
    }
    for (int s = m->n_row + 1; s <= shape->n_row; s++) t->start[s] = shape->n_tok;
}

enum status batch_load(struct batch *b, const struct pack *p, const struct micro *m, const struct targets_use *use, struct err *err)
{
    batch_shape(b, m);
    pack_fill(p, m, &b->tables);
    fill_up(m, &b->shape, &b->tables);
    if (!use->on) return ST_OK;
    size_t at = 0;
    for (int s = 0; s < m->n_row; s++) {
        const size_t i = p->order[m->first + (size_t)s];
        const struct row *r = &p->rows->v[i];
        if (!r->n_loss) continue;
        struct targets t;
        TRY(rows_targets(p->rows, i, &t, err));
        for (int k = 1; k < r->n_tok; k++)
            if (r->mask[k]) put_row(&b->targets, at++, &t, k - r->n_prompt, &p->rows->source[r->source].spec, use);
        targets_free(&t);
    }
    return ST_OK;
}
