// The decoder layer: x + attention(norm(x)), then + ffn(norm(.)). One text for teacher and student, training, scoring, prefill and decode.
#include "kernels/layers/layer.h"

void block_build(struct model *m, struct block *b, int index)
{
    const struct model_config *c = &m->config;
    char prefix[128], part[160];
    snprintf(prefix, sizeof prefix, "model.layers.%d.", index);
    b->index = index;
    b->attention = (struct layer){.kind = c->mla ? &layer_mla : &layer_gqa, .index = index, .model = m};
    b->ffn = (struct layer){.kind = c->moe_layer && c->moe_layer[index] ? &layer_moe : &layer_mlp, .index = index, .model = m};
    b->norm1 = (struct norm){param_declare(m, prefix, "input_layernorm.weight", c->d_model, 0), c->rms_norm_eps};
    snprintf(part, sizeof part, "%sself_attn.", prefix);
    b->attention.kind->build(m, &b->attention, part);
    b->norm2 = (struct norm){param_declare(m, prefix, "post_attention_layernorm.weight", c->d_model, 0), c->rms_norm_eps};
    snprintf(part, sizeof part, "%smlp.", prefix);
    b->ffn.kind->build(m, &b->ffn, part);
}

void block_forward(const struct block *b, struct run *run, struct tensor out, struct tensor x, struct saved *s)
{
    const bool keep = s != NULL, keep_norm = keep && run->recompute != RECOMPUTE_CHEAP;
    const int64_t n = x.shape[0], d = x.shape[1];
    size_t mark = dev_mark(run->dev);
    struct tensor rstd1 = keep ? run_rstd(run, n) : TENSOR_NONE, rstd2 = keep ? run_rstd(run, n) : TENSOR_NONE;
    struct tensor h1 = run_tensor(run, keep_norm, x.dtype, n, d), h2 = keep_norm ? run_tensor(run, true, x.dtype, n, d) : h1;
    struct tensor x_mid = run_tensor(run, keep, x.dtype, n, d), y = dev_2d(run->dev, x.dtype, n, d);

    norm_forward(&b->norm1, run, h1, x, rstd1);
    b->attention.kind->forward(&b->attention, run, y, h1, s);
    op_add(run->dev, x_mid, x, y);
    norm_forward(&b->norm2, run, h2, x_mid, rstd2);
    b->ffn.kind->forward(&b->ffn, run, y, h2, s);
    op_add(run->dev, out, x_mid, y);

    if (keep) s->x = x, s->rstd1 = rstd1, s->x_mid = x_mid, s->rstd2 = rstd2;
    if (keep_norm) s->h1 = h1, s->h2 = h2;
    dev_release(run->dev, mark);
}

// The norm's output that forward kept, or the same bits again.
static struct tensor normed(const struct norm *norm, struct run *run, struct tensor kept, struct tensor x)
{
    if (!tensor_none(kept)) return kept;
    struct tensor h = dev_2d(run->dev, x.dtype, x.shape[0], x.shape[1]);
    norm_forward(norm, run, h, x, TENSOR_NONE);
    return h;
}

void block_backward(const struct block *b, struct run *run, struct tensor dx, struct saved *s)
{
    size_t mark = dev_mark(run->dev);
    struct tensor dh = dev_2d(run->dev, dx.dtype, dx.shape[0], dx.shape[1]);
    size_t inner = dev_mark(run->dev);
    b->ffn.kind->backward(&b->ffn, run, dh, dx, normed(&b->norm2, run, s->h2, s->x_mid), s);
    dev_release(run->dev, inner);
    norm_backward(&b->norm2, run, dx, dh, s->x_mid, s->rstd2, true);
    b->attention.kind->backward(&b->attention, run, dh, dx, normed(&b->norm1, run, s->h1, s->x), s);
    dev_release(run->dev, inner);
    norm_backward(&b->norm1, run, dx, dh, s->x, s->rstd1, true);
    dev_release(run->dev, mark);
}
