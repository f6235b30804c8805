// Grouped-query attention (Ainslie et al. 2023) as Qwen and Llama have it: optional biases, optional RMSNorm on each head of q and k
// (Qwen3), rotary embedding in the half order, causal, optional sliding window.
#include "kernels/layers/layer.h"

static void gqa_build(struct model *m, struct layer *l, const char *prefix)
{
    const struct model_config *c = &m->config;
    struct gqa *g = &l->gqa;
    g->n_head = (int)c->n_head;
    g->n_kv = (int)c->n_kv_head;
    g->d_head = (int)c->d_head;
    g->scale = c->softmax_scale;
    g->window = c->window_layer && c->window_layer[l->index] ? c->window : 0;
    g->q = linear_build(m, prefix, "q_proj", c->n_head * c->d_head, c->d_model, c->qkv_bias);
    g->k = linear_build(m, prefix, "k_proj", c->n_kv_head * c->d_head, c->d_model, c->qkv_bias);
    g->v = linear_build(m, prefix, "v_proj", c->n_kv_head * c->d_head, c->d_model, c->qkv_bias);
    g->o = linear_build(m, prefix, "o_proj", c->d_model, c->n_head * c->d_head, c->o_bias);
    if (!c->qk_norm) return;
    g->q_norm = (struct norm){param_declare(m, prefix, "q_norm.weight", c->d_head, 0), c->rms_norm_eps};
    g->k_norm = (struct norm){param_declare(m, prefix, "k_norm.weight", c->d_head, 0), c->rms_norm_eps};
}

static struct attention flat_attention(const struct run *run, const struct gqa *g)
{
    return (struct attention){.n_seg = run->seg->n_seg,
                              .max_len = run->seg->max_len,
                              .q_start = run->seg->start,
                              .k_start = run->seg->start,
                              .scale = g->scale,
                              .window = g->window};
}

// x (n_tok, h * d_head) normalised by head (if the model does) and rotated, into out; rstd (n_tok * h) if kept.
static void norm_rotate(const struct layer *l, struct run *run, const struct norm *norm, struct tensor out, struct tensor raw,
                        struct tensor rstd, int n_head)
{
    if (norm->w) norm_forward(norm, run, tensor_heads(out, n_head), tensor_heads(raw, n_head), rstd);
    op_rope(run->dev, tensor_heads(out, n_head), run->seg, l->model->inv_freq, l->model->rope_mscale, l->model->arch->rope_order, false);
}

static void gqa_forward(const struct layer *l, struct run *run, struct tensor out, struct tensor x, struct saved *s)
{
    const struct gqa *g = &l->gqa;
    const bool normed = g->q_norm.w != NULL, keep = s != NULL;
    const bool keep_rotated = keep && !(normed && run->recompute == RECOMPUTE_CHEAP); // with q/k norms the raw values suffice
    const int64_t n = x.shape[0], dq = (int64_t)g->n_head * g->d_head, dkv = (int64_t)g->n_kv * g->d_head;
    size_t mark = dev_mark(run->dev);
    struct tensor q = run_tensor(run, keep_rotated, x.dtype, n, dq), k = run_tensor(run, keep_rotated, x.dtype, n, dkv);
    struct tensor v = run_tensor(run, keep, x.dtype, n, dkv), attn = run_tensor(run, keep, x.dtype, n, dq);
    struct tensor q_raw = normed ? run_tensor(run, keep, x.dtype, n, dq) : q, k_raw = normed ? run_tensor(run, keep, x.dtype, n, dkv) : k;
    struct tensor lse = keep ? run_tensor(run, true, DT_F32, n, g->n_head) : TENSOR_NONE;
    struct tensor q_rstd = keep && normed ? run_rstd(run, n * g->n_head) : TENSOR_NONE;
    struct tensor k_rstd = keep && normed ? run_rstd(run, n * g->n_kv) : TENSOR_NONE;

    linear_forward(&g->q, run, q_raw, x);
    linear_forward(&g->k, run, k_raw, x);
    linear_forward(&g->v, run, v, x);
    norm_rotate(l, run, &g->q_norm, q, q_raw, q_rstd, g->n_head);
    norm_rotate(l, run, &g->k_norm, k, k_raw, k_rstd, g->n_kv);
    struct tensor qh = tensor_heads(q, g->n_head), kh = tensor_heads(k, g->n_kv), vh = tensor_heads(v, g->n_kv),
                  oh = tensor_heads(attn, g->n_head);
    if (run->mode == RUN_FLAT) {
        struct attention a = flat_attention(run, g);
        op_attention(run->dev, oh, lse, qh, kh, vh, &a);
    } else {
        struct tensor keys = run->kv->keys[l->index], values = run->kv->values[l->index];
        op_kv_write(run->dev, keys, kh, run->seg);
        op_kv_write(run->dev, values, vh, run->seg);
        op_attention_paged(run->dev, oh, qh, keys, values, run->seg, g->scale, g->window);
    }
    linear_forward(&g->o, run, out, attn);
    if (keep) {
        s->v = v, s->attn = attn, s->lse = lse;
        if (keep_rotated) s->q = q, s->k = k;
        if (normed) s->q_raw = q_raw, s->k_raw = k_raw, s->q_rstd = q_rstd, s->k_rstd = k_rstd;
    }
    dev_release(run->dev, mark);
}

// Undoes rotation and norm: d(rotated) → d(raw), in place where there is no norm.
static struct tensor norm_rotate_backward(const struct layer *l, struct run *run, const struct norm *norm, struct tensor d,
                                          struct tensor raw, struct tensor rstd, int n_head)
{
    op_rope(run->dev, tensor_heads(d, n_head), run->seg, l->model->inv_freq, l->model->rope_mscale, l->model->arch->rope_order, true);
    if (!norm->w) return d;
    struct tensor d_raw = run_tensor(run, false, d.dtype, d.shape[0], d.shape[1]);
    norm_backward(norm, run, tensor_heads(d_raw, n_head), tensor_heads(d, n_head), tensor_heads(raw, n_head), rstd, false);
    return d_raw;
}

static void gqa_backward(const struct layer *l, struct run *run, struct tensor dx, struct tensor dout, struct tensor x, struct saved *s)
{
    const struct gqa *g = &l->gqa;
    const int64_t n = x.shape[0], n_q = (int64_t)g->n_head * g->d_head, n_kv = (int64_t)g->n_kv * g->d_head;
    size_t mark = dev_mark(run->dev);
    struct tensor q = s->q, k = s->k;
    if (tensor_none(q)) {
        q = run_tensor(run, false, x.dtype, n, n_q);
        k = run_tensor(run, false, x.dtype, n, n_kv);
        norm_rotate(l, run, &g->q_norm, q, s->q_raw, TENSOR_NONE, g->n_head);
        norm_rotate(l, run, &g->k_norm, k, s->k_raw, TENSOR_NONE, g->n_kv);
    }
    struct tensor dattn = run_tensor(run, false, x.dtype, n, n_q), dq = run_tensor(run, false, x.dtype, n, n_q);
    struct tensor dk = run_tensor(run, false, x.dtype, n, n_kv), dv = run_tensor(run, false, x.dtype, n, n_kv);
    linear_backward(&g->o, run, dattn, false, dout, s->attn);
    struct attention a = flat_attention(run, g);
    op_attention_bwd(run->dev, tensor_heads(dq, g->n_head), tensor_heads(dk, g->n_kv), tensor_heads(dv, g->n_kv),
                     tensor_heads(dattn, g->n_head), tensor_heads(q, g->n_head), tensor_heads(k, g->n_kv), tensor_heads(s->v, g->n_kv),
                     tensor_heads(s->attn, g->n_head), s->lse, &a);
    dq = norm_rotate_backward(l, run, &g->q_norm, dq, s->q_raw, s->q_rstd, g->n_head);
    dk = norm_rotate_backward(l, run, &g->k_norm, dk, s->k_raw, s->k_rstd, g->n_kv);
    linear_backward(&g->q, run, dx, false, dq, x);
    linear_backward(&g->k, run, dx, true, dk, x);
    linear_backward(&g->v, run, dx, true, dv, x);
    dev_release(run->dev, mark);
}

const struct layer_kind layer_gqa = {.name = "gqa", .build = gqa_build, .forward = gqa_forward, .backward = gqa_backward};
