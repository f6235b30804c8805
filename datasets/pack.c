// Orders, steps and micro-batches of rows, and the flat tables of one micro-batch.
#include "datasets/pack.h"

#include "kernels/base/rng.h"

#include <string.h>

static const uint64_t ORDER_STREAM = 0x6f72646572000000u; // "order": epochs count up from it

static void lay_out(struct pack *p, int64_t epoch)
{
    const size_t n = p->rows->n;
    p->epoch = epoch;
    for (size_t i = 0; i < n; i++) p->order[i] = (uint32_t)i;
    if (p->opt.shuffle) rng_shuffle(p->opt.seed, ORDER_STREAM + (uint64_t)epoch, p->order, n);
    p->n_step = 0;
    int64_t n_tok = 0;
    for (size_t i = 0; i < n; i++) {
        int len = p->rows->v[p->order[i]].n_tok;
        if (i == 0 || n_tok + len > p->opt.batch_tokens) {
            p->step_first[p->n_step++] = i;
            n_tok = 0;
        }
        n_tok += len;
    }
    p->step_first[p->n_step] = n;
}

void pack_open(struct pack *p, const struct rows *rows, const struct pack_options *opt)
{
    *p = (struct pack){.rows = rows, .opt = *opt};
    if (rows->n > UINT32_MAX) BUG("more than 2^32 rows");
    p->order = NEW_N(uint32_t, rows->n);
    p->step_first = NEW_N(size_t, rows->n + 1);
    lay_out(p, 0);
}

void pack_close(struct pack *p)
{
    mem_free(p->order);
    mem_free(p->step_first);
    *p = (struct pack){0};
}

size_t pack_seek(struct pack *p, int64_t s)
{
    if (s < p->epoch_step) {
        p->epoch_step = 0;
        lay_out(p, 0);
    }
    while (s - p->epoch_step >= (int64_t)p->n_step) {
        p->epoch_step += (int64_t)p->n_step;
        lay_out(p, p->epoch + 1);
    }
    return (size_t)(s - p->epoch_step);
}

int64_t pack_count(struct pack *p, int64_t n_epoch)
{
    pack_seek(p, 0);
    while (p->epoch + 1 < n_epoch) pack_seek(p, p->epoch_step + (int64_t)p->n_step);
    return p->epoch_step + (int64_t)p->n_step;
}

static const struct row *row_at(const struct pack *p, size_t i)
{
    return &p->rows->v[p->order[i]];
}

int pack_n_loss(const struct pack *p, size_t step)
{
    int n = 0;
    for (size_t i = p->step_first[step]; i < p->step_first[step + 1]; i++) n += row_at(p, i)->n_loss;
    return n;
}

int pack_n_tok(const struct pack *p, size_t step)
{
    int n = 0;
    for (size_t i = p->step_first[step]; i < p->step_first[step + 1]; i++) n += row_at(p, i)->n_tok;
    return n;
}

struct micro pack_micro(const struct pack *p, size_t step, size_t first)
{
    struct micro m = {.first = first};
    for (size_t i = first; i < p->step_first[step + 1]; i++) {
        const struct row *r = row_at(p, i);
        if (m.n_row && m.n_tok + r->n_tok > p->opt.micro_tokens) break;
        m.n_row++;
        m.n_tok += r->n_tok;
        m.n_loss += r->n_loss;
        if (r->n_tok > m.max_len) m.max_len = r->n_tok;
    }
    return m;
}

struct micro pack_bounds(const struct rows *rows, int micro_tokens)
{
    int64_t most = micro_tokens > rows->max_tok ? micro_tokens : rows->max_tok;
    if (most > rows->n_tok) most = rows->n_tok;
    int shortest = rows->max_tok;
    for (size_t i = 0; i < rows->n; i++)
        if (rows->v[i].n_tok < shortest) shortest = rows->v[i].n_tok;
    int64_t n_row = most / shortest;
    if (n_row > (int64_t)rows->n) n_row = (int64_t)rows->n;
    int64_t n_loss = most < rows->n_loss ? most : rows->n_loss;
    return (struct micro){.n_row = (int)n_row, .n_tok = (int)most, .n_loss = (int)n_loss, .max_len = rows->max_tok};
}

void pack_fill(const struct pack *p, const struct micro *m, struct micro_tables *t)
{
    int at = 0, n_loss = 0;
    for (int s = 0; s < m->n_row; s++) {
        const struct row *r = row_at(p, m->first + (size_t)s);
        t->start[s] = at;
        memcpy(t->ids + at, r->ids, (size_t)r->n_tok * sizeof(int32_t));
        for (int i = 0; i < r->n_tok; i++) {
            bool loss = i + 1 < r->n_tok && r->mask[i + 1];
            t->pos[at + i] = i;
            if (!loss) continue;
            t->loss_row[n_loss] = at + i;
            t->label[n_loss++] = r->ids[i + 1];
        }
        at += r->n_tok;
    }
    t->start[m->n_row] = at;
}
