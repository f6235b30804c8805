// Building, running forward and running backward. The forward pass is model_forward → block_forward (layers/block.c).
#include "kernels/model/model.h"

#include "kernels/layers/layer.h"

#include <string.h>

struct param *model_param(struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_param; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

int64_t model_n_weight(const struct model *m)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->n_param; i++) n += m->params[i].shape[0] * (m->params[i].rank == 2 ? m->params[i].shape[1] : 1);
    return n;
}

const char *model_untrainable(const struct model *m)
{
    for (int64_t i = 0; i < m->config.n_layer; i++)
        if (!m->blocks[i].ffn.kind->backward) return m->blocks[i].ffn.kind->name;
    for (int64_t i = 0; i < m->config.n_layer; i++)
        if (!m->blocks[i].attention.kind->backward) return m->blocks[i].attention.kind->name;
    return NULL;
}

void model_alloc_grads(struct model *m, struct arena *a)
{
    for (size_t i = 0; i < m->n_param; i++) {
        struct param *p = &m->params[i];
        if (p->frozen) continue;
        int64_t cols = p->rank == 2 ? p->shape[1] : 1;
        void *data = arena_alloc(a, (size_t)(p->shape[0] * cols) * sizeof(float));
        p->grad = p->rank == 2 ? tensor_2d(data, DT_F32, p->shape[0], cols) : tensor_1d(data, DT_F32, p->shape[0]);
    }
}

struct saved *model_saved_alloc(const struct model *m)
{
    return NEW_N(struct saved, m->config.n_layer + 1);
}

static void tell(struct run *run, int layer, struct tensor out)
{
    if (run->on_layer) run->on_layer(run->on_layer_arg, layer, out, TENSOR_NONE, TENSOR_NONE);
}

void model_forward(struct model *m, struct run *run, struct tensor hidden, struct tensor ids)
{
    const int64_t n = hidden.shape[0], d = hidden.shape[1];
    const bool train = run->saved != NULL, keep_all = train && run->recompute != RECOMPUTE_LAYER;
    if (train) memset(run->saved, 0, sizeof *run->saved * (size_t)(m->config.n_layer + 1));
    size_t mark = dev_mark(run->dev);
    struct tensor buffer[2] = {TENSOR_NONE, TENSOR_NONE}; // inference: input and output of a block in turn
    for (int i = 0; i < 2 && !train; i++) buffer[i] = run_tensor(run, false, hidden.dtype, n, d);

    struct tensor x = train ? run_tensor(run, true, hidden.dtype, n, d) : buffer[0];
    op_embed(run->dev, x, m->embed->weight, ids);
    tell(run, -1, x);
    for (int i = 0; i < m->config.n_layer; i++) {
        struct tensor out = train ? run_tensor(run, true, hidden.dtype, n, d) : buffer[(i + 1) % 2];
        block_forward(&m->blocks[i], run, out, x, keep_all ? &run->saved[i] : NULL);
        if (train) run->saved[i].x = x;
        tell(run, i, out);
        x = out;
    }
    struct norm final = {m->final_norm, m->config.rms_norm_eps};
    struct tensor rstd = train ? run_rstd(run, n) : TENSOR_NONE;
    norm_forward(&final, run, hidden, x, rstd);
    if (train) run->saved[m->config.n_layer] = (struct saved){.x = x, .rstd1 = rstd};
    dev_release(run->dev, mark);
}

void model_logits(struct model *m, struct device *dev, struct tensor logits, struct tensor hidden)
{
    op_linear(dev, logits, hidden, m->head->weight, TENSOR_NONE);
}

void model_backward(struct model *m, struct run *run, struct tensor dhidden, struct tensor ids)
{
    const int64_t n_layer = m->config.n_layer;
    size_t mark = dev_mark(run->dev);
    struct norm final = {m->final_norm, m->config.rms_norm_eps};
    struct saved *last = &run->saved[n_layer];
    struct tensor dx = dev_2d(run->dev, dhidden.dtype, dhidden.shape[0], dhidden.shape[1]);
    norm_backward(&final, run, dx, dhidden, last->x, last->rstd1, false);
    for (int64_t i = n_layer - 1; i >= 0; i--) {
        size_t kept = arena_mark(run->keep);
        if (run->recompute == RECOMPUTE_LAYER) { // the block's forward again, now keeping what its backward wants
            size_t inner = dev_mark(run->dev);
            struct tensor again = dev_2d(run->dev, dx.dtype, dx.shape[0], dx.shape[1]);
            block_forward(&m->blocks[i], run, again, run->saved[i].x, &run->saved[i]);
            dev_release(run->dev, inner);
        }
        block_backward(&m->blocks[i], run, dx, &run->saved[i]);
        arena_release(run->keep, kept);
    }
    if (!tensor_none(m->embed->grad)) op_embed_bwd(run->dev, m->embed->grad, dx, ids);
    dev_release(run->dev, mark);
}

size_t kv_bytes_per_page(const struct model *m, int page_len)
{
    const struct model_config *c = &m->config;
    size_t row = (size_t)(c->mla ? c->kv_lora_rank + c->d_rope : 2 * c->n_kv_head * c->d_head);
    return row * (size_t)page_len * (size_t)c->n_layer * dtype_size(m->dtype);
}

enum status kv_open(struct kv_cache *kv, const struct model *m, int n_page, int page_len, struct err *err)
{
    const struct model_config *c = &m->config;
    *kv = (struct kv_cache){.n_page = n_page, .page_len = page_len};
    size_t slack = (size_t)c->n_layer * 2 * ARENA_ALIGN;
    TRY(dev_arena(m->dev, &kv->arena, "KV cache", kv_bytes_per_page(m, page_len) * (size_t)n_page + slack, err));
    kv->keys = NEW_N(struct tensor, c->n_layer);
    kv->values = NEW_N(struct tensor, c->n_layer);
    const int64_t n_kv = c->mla ? 1 : c->n_kv_head, width = c->mla ? c->kv_lora_rank + c->d_rope : c->d_head;
    size_t bytes = (size_t)n_page * (size_t)page_len * (size_t)(n_kv * width) * dtype_size(m->dtype);
    for (int64_t i = 0; i < c->n_layer; i++) {
        kv->keys[i] = tensor_4d(arena_alloc(&kv->arena, bytes), m->dtype, n_page, page_len, n_kv, width);
        if (!c->mla) kv->values[i] = tensor_4d(arena_alloc(&kv->arena, bytes), m->dtype, n_page, page_len, n_kv, width);
    }
    return ST_OK;
}

void kv_close(struct kv_cache *kv)
{
    arena_free(&kv->arena);
    mem_free(kv->keys);
    mem_free(kv->values);
    *kv = (struct kv_cache){0};
}
