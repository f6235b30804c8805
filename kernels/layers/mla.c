// Multi-head latent attention (DeepSeek-V2, 2024). Keys and values of all heads come from one latent row of kv_lora numbers, cached with
// one rotated key of d_rope shared by the heads: latent = [norm(c_kv) | rope(k_rope)].
//
// Two forms of the same product (a test holds them equal):
//   expanded  kv_b(latent) gives every head its own keys and values; attention as usual. Fewer operations for many rows: prefill and
//   scoring. absorbed  kv_b's two halves are moved to the query and the output: q' = q_nope · W_uk, attention over the latents themselves,
//   out = (attn · c_kv) · W_uv.
//             Reads the cache once for all heads: decode.
// TRAP: the inner norms use eps 1e-6 whatever rms_norm_eps says, as DeepSeek's code does.
#include "kernels/layers/layer.h"

static void mla_build(struct model *m, struct layer *l, const char *prefix)
{
    const struct model_config *c = &m->config;
    struct mla *a = &l->mla;
    a->n_head = (int)c->n_head;
    a->q_lora = (int)c->q_lora_rank;
    a->kv_lora = (int)c->kv_lora_rank;
    a->d_nope = (int)c->d_nope;
    a->d_rope = (int)c->d_rope;
    a->d_v = (int)c->d_v;
    a->scale = c->softmax_scale;
    const int64_t dq = c->n_head * (c->d_nope + c->d_rope);
    if (a->q_lora) {
        a->q_a = linear_build(m, prefix, "q_a_proj", a->q_lora, c->d_model, c->qkv_bias);
        a->q_a_norm = (struct norm){param_declare(m, prefix, "q_a_layernorm.weight", a->q_lora, 0), 1e-6f};
        a->q_b = linear_build(m, prefix, "q_b_proj", dq, a->q_lora, false);
    } else {
        a->q = linear_build(m, prefix, "q_proj", dq, c->d_model, false);
    }
    a->kv_a = linear_build(m, prefix, "kv_a_proj_with_mqa", c->kv_lora_rank + c->d_rope, c->d_model, c->qkv_bias);
    a->kv_a_norm = (struct norm){param_declare(m, prefix, "kv_a_layernorm.weight", c->kv_lora_rank, 0), 1e-6f};
    a->kv_b = linear_build(m, prefix, "kv_b_proj", c->n_head * (c->d_nope + c->d_v), c->kv_lora_rank, false);
    a->kv_b.w->multiplies = false; // the absorbed form has no activations to quantise for it; nor has DeepSeek's, its default
    a->o = linear_build(m, prefix, "o_proj", c->d_model, c->n_head * c->d_v, c->o_bias);
}

// A stack of packed matrices is one after the other, each head_bytes long.
static void pack_heads(struct device *dev, struct tensor out, struct tensor w, size_t head_bytes)
{
    for (int64_t h = 0; h < w.shape[0]; h++) {
        struct tensor from = tensor_2d((char *)w.data + (size_t)(h * w.stride[0]) * dtype_size(w.dtype), w.dtype, w.shape[1], w.shape[2]);
        struct tensor to = tensor_2d((char *)out.data + (size_t)h * head_bytes, out.dtype, w.shape[1], w.shape[2]);
        to.layout = LAYOUT_PANEL;
        op_pack(dev, to, from, TENSOR_NONE);
    }
}

// The halves of kv_b by head, for the absorbed form: uk (h, kv_lora, nope) is the transposed upper part, uv (h, v, kv_lora) the lower part.
static void mla_derive(struct model *m, struct layer *l)
{
    struct mla *a = &l->mla;
    struct device *dev = m->dev;
    const int64_t h = a->n_head, r = a->kv_lora, span = a->d_nope + a->d_v;
    size_t uk_bytes = op_pack_bytes(dev, m->dtype, r, a->d_nope), uv_bytes = op_pack_bytes(dev, m->dtype, a->d_v, r);
    a->uk = tensor_3d(arena_alloc(&m->weights, uk_bytes * (size_t)h), m->dtype, h, r, a->d_nope);
    a->uv = tensor_3d(arena_alloc(&m->weights, uv_bytes * (size_t)h), m->dtype, h, a->d_v, r);
    a->uk.layout = a->uv.layout = LAYOUT_PANEL;
    if (m->weights.measuring) return;
    // kv_b itself is packed: its rows come back by multiplying the identity, exactly (one product by 1, the rest by 0).
    size_t mark = dev_mark(dev);
    struct tensor eye = dev_2d(dev, m->dtype, r, r), kv_b = dev_2d(dev, m->dtype, r, h * span); // kv_b transposed: (r, h * span)
    float *host = NEW_N(float, r *r);
    for (int64_t i = 0; i < r; i++) host[i * r + i] = 1;
    struct tensor eye32 = dev_2d(dev, DT_F32, r, r);
    op_upload(dev, eye32, host);
    op_copy(dev, eye, eye32);
    op_linear(dev, kv_b, eye, a->kv_b.w->weight, TENSOR_NONE);
    mem_free(host);
    struct tensor uk = dev_3d(dev, m->dtype, h, r, a->d_nope), uv = dev_3d(dev, m->dtype, h, a->d_v, r);
    struct tensor by_head = {.data = kv_b.data, .dtype = m->dtype, .rank = 3, .shape = {h, r, a->d_nope}, .stride = {span, h * span, 1}};
    op_copy(dev, uk, by_head);
    by_head.data = (char *)kv_b.data + (size_t)a->d_nope * dtype_size(m->dtype);
    by_head.shape[1] = a->d_v, by_head.shape[2] = r;
    by_head.stride[1] = 1, by_head.stride[2] = h * span;
    op_copy(dev, uv, by_head);
    pack_heads(dev, a->uk, uk, uk_bytes);
    pack_heads(dev, a->uv, uv, uv_bytes);
    dev_release(dev, mark);
}

static struct tensor rotated(const struct layer *l, struct run *run, struct tensor x)
{
    op_rope(run->dev, x, run->seg, l->model->inv_freq, l->model->rope_mscale, l->model->arch->rope_order, false);
    return x;
}

// q (n, h, nope + rope), its rope part rotated.
static struct tensor queries(const struct layer *l, struct run *run, struct tensor x)
{
    const struct mla *a = &l->mla;
    const int64_t n = x.shape[0];
    struct tensor q = dev_2d(run->dev, x.dtype, n, (int64_t)a->n_head * (a->d_nope + a->d_rope));
    if (a->q_lora) {
        size_t mark = dev_mark(run->dev);
        struct tensor low = dev_2d(run->dev, x.dtype, n, a->q_lora), normed = dev_2d(run->dev, x.dtype, n, a->q_lora);
        linear_forward(&a->q_a, run, low, x);
        norm_forward(&a->q_a_norm, run, normed, low, TENSOR_NONE);
        linear_forward(&a->q_b, run, q, normed);
        dev_release(run->dev, mark);
    } else {
        linear_forward(&a->q, run, q, x);
    }
    q = tensor_heads(q, a->n_head);
    rotated(l, run, tensor_cols(q, a->d_nope, a->d_rope));
    return q;
}

// latent (n, 1, kv_lora + rope): what the cache holds.
static struct tensor latents(const struct layer *l, struct run *run, struct tensor x)
{
    const struct mla *a = &l->mla;
    const int64_t n = x.shape[0], width = a->kv_lora + a->d_rope;
    struct tensor latent = dev_3d(run->dev, x.dtype, n, 1, width);
    size_t mark = dev_mark(run->dev);
    struct tensor raw = dev_3d(run->dev, x.dtype, n, 1, width), c = dev_3d(run->dev, x.dtype, n, 1, a->kv_lora);
    linear_forward(&a->kv_a, run, tensor_flat(raw), x);
    norm_forward(&a->kv_a_norm, run, c, tensor_cols(raw, 0, a->kv_lora), TENSOR_NONE);
    op_copy(run->dev, tensor_cols(latent, 0, a->kv_lora), c);
    op_copy(run->dev, tensor_cols(latent, a->kv_lora, a->d_rope), tensor_cols(raw, a->kv_lora, a->d_rope));
    rotated(l, run, tensor_cols(latent, a->kv_lora, a->d_rope));
    dev_release(run->dev, mark);
    return latent;
}

static void attend_expanded(const struct mla *a, struct run *run, struct tensor out, struct tensor q, struct tensor latent,
                            const int32_t *k_start)
{
    struct device *dev = run->dev;
    const int64_t m = latent.shape[0], h = a->n_head;
    struct tensor c = dev_2d(dev, q.dtype, m, a->kv_lora), kv = dev_2d(dev, q.dtype, m, h * (a->d_nope + a->d_v));
    struct tensor k = dev_3d(dev, q.dtype, m, h, a->d_nope + a->d_rope);
    op_copy(dev, tensor_heads(c, 1), tensor_cols(latent, 0, a->kv_lora));
    linear_forward(&a->kv_b, run, kv, c);
    kv = tensor_heads(kv, h);
    op_copy(dev, tensor_cols(k, 0, a->d_nope), tensor_cols(kv, 0, a->d_nope));
    struct tensor shared = tensor_cols(latent, a->kv_lora, a->d_rope); // one rotated key for all heads
    shared.shape[1] = h;
    shared.stride[1] = 0;
    op_copy(dev, tensor_cols(k, a->d_nope, a->d_rope), shared);
    struct attention at = {
        .n_seg = run->seg->n_seg, .max_len = run->seg->max_len, .q_start = run->seg->start, .k_start = k_start, .scale = a->scale};
    op_attention(dev, out, TENSOR_NONE, q, k, tensor_cols(kv, a->d_nope, a->d_v), &at);
}

static void attend_absorbed(const struct mla *a, struct run *run, struct tensor out, struct tensor q, struct tensor pages)
{
    struct device *dev = run->dev;
    const int64_t n = q.shape[0], h = a->n_head;
    struct tensor qa = dev_3d(dev, q.dtype, n, h, a->kv_lora + a->d_rope), mixed = dev_3d(dev, q.dtype, n, h, a->kv_lora);
    op_head_linear(dev, tensor_cols(qa, 0, a->kv_lora), tensor_cols(q, 0, a->d_nope), a->uk);
    op_copy(dev, tensor_cols(qa, a->kv_lora, a->d_rope), tensor_cols(q, a->d_nope, a->d_rope));
    struct tensor values = pages;
    values.shape[3] = a->kv_lora;
    op_attention_paged(dev, mixed, qa, pages, values, run->seg, a->scale, 0);
    op_head_linear(dev, out, mixed, a->uv);
}

static void mla_forward(const struct layer *l, struct run *run, struct tensor out, struct tensor x, struct saved *s)
{
    (void)s;
    const struct mla *a = &l->mla;
    struct device *dev = run->dev;
    size_t mark = dev_mark(dev);
    struct tensor q = queries(l, run, x), latent = latents(l, run, x), heads = dev_3d(dev, x.dtype, x.shape[0], a->n_head, a->d_v);
    if (run->mode != RUN_FLAT) op_kv_write(dev, run->kv->keys[l->index], latent, run->seg);
    if (run->mode == RUN_FLAT) {
        attend_expanded(a, run, heads, q, latent, run->seg->start);
    } else if (run->mode == RUN_PREFILL) {
        struct tensor all = dev_3d(dev, x.dtype, run->n_key, 1, a->kv_lora + a->d_rope);
        op_kv_read(dev, all, run->kv->keys[l->index], run->seg, run->k_start);
        attend_expanded(a, run, heads, q, all, run->k_start);
    } else {
        attend_absorbed(a, run, heads, q, run->kv->keys[l->index]);
    }
    linear_forward(&a->o, run, out, tensor_flat(heads));
    dev_release(dev, mark);
}

const struct layer_kind layer_mla = {.name = "mla", .build = mla_build, .derive = mla_derive, .forward = mla_forward};
