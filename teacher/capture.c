// Capture inside decode. See capture.h.
#include "teacher/capture.h"

#include "kernels/base/mem.h"

#include <math.h>
#include <string.h>

static bool is_topk(const struct targets_spec *s)
{
    return s->kind == TARGETS_TOPK;
}

void capture_open(struct capture *c, const struct targets_spec *spec, int max_row)
{
    *c = (struct capture){.spec = *spec, .max_row = max_row};
    if (spec->kind == TARGETS_NONE) return;
    const size_t n = (size_t)max_row, k = (size_t)spec->k;
    c->ids = NEW_N(int32_t, n * k);
    c->log_z = NEW_N(float, n *(size_t)spec->n_temperature);
    if (is_topk(spec)) {
        c->logprob = NEW_N(float, n *k);
        c->tail_logprob = NEW_N(float, n);
    } else {
        c->count = NEW_N(int32_t, n * k);
    }
}

void capture_close(struct capture *c)
{
    mem_free(c->ids);
    mem_free(c->count);
    mem_free(c->logprob);
    mem_free(c->tail_logprob);
    mem_free(c->log_z);
    *c = (struct capture){0};
}

void capture_rows(struct capture *c, struct device *dev, struct tensor logits, int n_vocab, const struct sample_row *draw)
{
    const struct targets_spec *s = &c->spec;
    if (s->kind == TARGETS_NONE) return;
    const int64_t n = logits.shape[0];
    size_t mark = dev_mark(dev);
    struct tensor ids = dev_2d(dev, DT_I32, n, s->k), log_z = dev_2d(dev, DT_F32, n, s->n_temperature);
    if (is_topk(s)) {
        struct tensor logprob = dev_2d(dev, DT_F32, n, s->k), tail = dev_1d(dev, DT_F32, n);
        op_capture_topk(dev, ids, logprob, tail, log_z, logits, n_vocab, s->temperature);
        op_download(dev, c->logprob, logprob);
        op_download(dev, c->tail_logprob, tail);
    } else {
        struct tensor count = dev_2d(dev, DT_I32, n, s->k);
        op_capture_sampled(dev, ids, count, log_z, logits, n_vocab, s->temperature, draw);
        op_download(dev, c->count, count);
    }
    op_download(dev, c->ids, ids);
    op_download(dev, c->log_z, log_z);
    dev_release(dev, mark);
}

bool capture_append(const struct capture *c, int row, struct targets *t)
{
    const struct targets_spec *s = &c->spec;
    if (s->kind == TARGETS_NONE) return true;
    const size_t k = (size_t)s->k, n_t = (size_t)s->n_temperature, from = (size_t)row, to = (size_t)t->n_tok;
    for (size_t i = 0; i < n_t; i++)
        if (!isfinite(c->log_z[from * n_t + i])) return false;
    memcpy(t->ids + to * k, c->ids + from * k, k * sizeof *t->ids);
    memcpy(t->log_z + to * n_t, c->log_z + from * n_t, n_t * sizeof *t->log_z);
    if (is_topk(s)) {
        memcpy(t->logprob + to * k, c->logprob + from * k, k * sizeof *t->logprob);
        t->tail_logprob[to] = c->tail_logprob[from];
    } else {
        memcpy(t->count + to * k, c->count + from * k, k * sizeof *t->count);
    }
    t->n_tok++;
    return true;
}

void capture_reserve(struct targets *t, const struct targets_spec *s, int n_tok)
{
    if (s->kind == TARGETS_NONE) return;
    const size_t n = (size_t)n_tok, k = (size_t)s->k, n_t = (size_t)s->n_temperature;
    t->k = s->k;
    t->n_temperature = s->n_temperature;
    t->ids = mem_realloc(t->ids, n * k * sizeof *t->ids);
    t->log_z = mem_realloc(t->log_z, n * n_t * sizeof *t->log_z);
    if (is_topk(s)) {
        t->logprob = mem_realloc(t->logprob, n * k * sizeof *t->logprob);
        t->tail_logprob = mem_realloc(t->tail_logprob, n * sizeof *t->tail_logprob);
    } else {
        t->count = mem_realloc(t->count, n * k * sizeof *t->count);
    }
}
