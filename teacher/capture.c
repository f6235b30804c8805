// Capture inside decode. See capture.h.
#include "teacher/capture.h"

#include "kernels/base/mem.h"

#include <math.h>
#include <string.h>

static bool is_topk(const struct targets_spec *s)
{
    return s->kind == TARGETS_TOPK;
}

// Where the fields of a block of n rows begin, and where it ends.
struct fields {
    size_t ids, second, tail, log_z, size; // second: logprob, or counts of sampled targets
};
static struct fields fields_of(const struct targets_spec *s, int n)
{
    const size_t row = sizeof(float) * (size_t)n, k = (size_t)s->k;
    const size_t size[4] = {row * k, row * k, is_topk(s) ? row : 0, row * (size_t)s->n_temperature};
    size_t at[5] = {0};
    for (int i = 0; i < 4; i++) at[i + 1] = at[i] + (size[i] + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return (struct fields){at[0], at[1], at[2], at[3], at[4]};
}

size_t capture_bytes(const struct capture *c, int n)
{
    return c->spec.kind == TARGETS_NONE ? 0 : fields_of(&c->spec, n).size;
}

void capture_rows(const struct capture *c, struct device *dev, void *block, struct tensor logits, int n_vocab,
                  const struct sample_row *draw)
{
    const struct targets_spec *s = &c->spec;
    if (s->kind == TARGETS_NONE) return;
    const int n = (int)logits.shape[0];
    const struct fields f = fields_of(s, n);
    char *at = block;
    struct tensor ids = tensor_2d(at + f.ids, DT_I32, n, s->k), log_z = tensor_2d(at + f.log_z, DT_F32, n, s->n_temperature);
    struct tensor second = tensor_2d(at + f.second, is_topk(s) ? DT_F32 : DT_I32, n, s->k);
    if (is_topk(s))
        op_capture_topk(dev, ids, second, tensor_1d(at + f.tail, DT_F32, n), log_z, logits, n_vocab, s->temperature);
    else
        op_capture_sampled(dev, ids, second, log_z, logits, n_vocab, s->temperature, draw);
}

void capture_take(struct capture *c, int n, const void *block)
{
    const struct targets_spec *s = &c->spec;
    if (s->kind == TARGETS_NONE) return;
    const struct fields f = fields_of(s, n);
    const char *at = block;
    const void *second = at + f.second;
    c->ids = (const void *)(at + f.ids);
    c->log_z = (const void *)(at + f.log_z);
    c->logprob = is_topk(s) ? second : NULL;
    c->count = is_topk(s) ? NULL : second;
    c->tail_logprob = is_topk(s) ? (const void *)(at + f.tail) : NULL;
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
