// Mixture of experts (DeepSeekMoE, Dai et al. 2024): a router chooses top_k experts a token; rows are sorted by expert, each expert
// multiplies its own rows (grouped products), and the weighted results are summed back, with a shared expert beside them. Experts' weights
// are reached only through the placement table: today every place is a slot of this device; a rank or a host slot elsewhere is where the
// all-to-all and streaming will come in.
#include "kernels/layers/layer.h"

#include <string.h>

static void moe_build(struct model *m, struct layer *l, const char *prefix)
{
    const struct model_config *c = &m->config;
    struct moe *e = &l->moe;
    const int64_t n_expert = c->router.n_expert;
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    e->router = c->router;
    e->d_ff = c->d_ff_expert;
    e->place = m->place + (int64_t)l->index * n_expert;
    e->router_w = param_declare(m, prefix, "gate.weight", n_expert, c->d_model);
    if (m->arch->scoring == ROUTER_SIGMOID) e->router_bias = param_declare(m, prefix, "gate.e_score_correction_bias", n_expert, 0);
    for (int k = 0; k < 3; k++) e->expert_w[k] = NEW_N(struct param *, n_expert);
    for (int64_t i = 0; i < n_expert; i++)
        for (int k = 0; k < 3; k++) {
            char name[64];
            snprintf(name, sizeof name, "experts.%lld.%s.weight", (long long)i, names[k]);
            e->expert_w[k][i] = param_declare(m, prefix, name, k == 2 ? c->d_model : e->d_ff, k == 2 ? e->d_ff : c->d_model);
            e->expert_w[k][i]->multiplies = true;
        }
    if (!c->n_shared) return;
    char shared[160];
    snprintf(shared, sizeof shared, "%sshared_experts.", prefix);
    e->shared.d_ff = c->n_shared * e->d_ff;
    e->shared.gate = linear_build(m, shared, names[0], e->shared.d_ff, c->d_model, false);
    e->shared.up = linear_build(m, shared, names[1], e->shared.d_ff, c->d_model, false);
    e->shared.down = linear_build(m, shared, names[2], c->d_model, e->shared.d_ff, false);
}

// A table of pointers on the device.
static const void *pointers_up(struct model *m, const void *const *pointer, int n)
{
    const size_t bytes = sizeof *pointer * (size_t)n;
    struct tensor table = tensor_1d(arena_alloc(&m->weights, bytes), DT_U8, (int64_t)bytes);
    if (!m->weights.measuring) op_upload(m->dev, table, pointer);
    return table.data;
}

// Fills each slot table from the placement: the address of the expert's packed weights if its place is a device slot of ours, else NULL.
static void moe_derive(struct model *m, struct layer *l)
{
    struct moe *e = &l->moe;
    const int n_expert = e->router.n_expert;
    const void **slot = NEW_N(const void *, n_expert), **scale = NEW_N(const void *, n_expert);
    for (int k = 0; k < 3; k++) {
        const struct param *first = e->expert_w[k][0];
        for (int i = 0; i < n_expert; i++) {
            const struct place *p = &e->place[i];
            const bool here = p->rank == 0 && p->where == PLACE_DEVICE;
            slot[i] = here ? e->expert_w[k][p->slot]->weight.data : NULL;
            scale[i] = here ? e->expert_w[k][p->slot]->scale.data : NULL;
        }
        e->experts[k] = (struct expert_weights){
            .n_expert = n_expert, .n = first->shape[0], .k = first->shape[1], .dtype = first->weight.dtype, .ue8m0 = m->config.fp8.ue8m0};
        e->experts[k].slot = pointers_up(m, slot, n_expert);
        if (!tensor_none(first->scale)) e->experts[k].scale = pointers_up(m, scale, n_expert);
    }
    mem_free(slot);
    mem_free(scale);
}

static void shared_forward(const struct mlp *f, struct run *run, struct tensor out, struct tensor x)
{
    struct tensor gate = dev_2d(run->dev, x.dtype, x.shape[0], f->d_ff), up = dev_2d(run->dev, x.dtype, x.shape[0], f->d_ff);
    linear_forward(&f->gate, run, gate, x);
    linear_forward(&f->up, run, up, x);
    op_silu_mul(run->dev, gate, gate, up);
    linear_forward(&f->down, run, out, gate);
}

static void moe_forward(const struct layer *l, struct run *run, struct tensor out, struct tensor x, struct saved *s)
{
    (void)s;
    const struct moe *e = &l->moe;
    struct device *dev = run->dev;
    const int64_t n = x.shape[0], k = e->router.top_k, m = n * k, d = x.shape[1];
    size_t mark = dev_mark(dev);
    struct tensor logits = dev_2d(dev, DT_F32, n, e->router.n_expert), expert = dev_2d(dev, DT_I32, n, k),
                  weight = dev_2d(dev, DT_F32, n, k);
    struct tensor first = dev_1d(dev, DT_I32, e->router.n_expert + 1), row_token = dev_1d(dev, DT_I32, m),
                  token_row = dev_2d(dev, DT_I32, n, k);
    op_linear(dev, logits, x, e->router_w->weight, TENSOR_NONE);
    op_router(dev, expert, weight, logits, e->router_bias ? e->router_bias->weight : TENSOR_NONE, &e->router);
    op_moe_sort(dev, first, row_token, token_row, expert, e->router.n_expert);

    struct tensor rows = dev_2d(dev, x.dtype, m, d), gate = dev_2d(dev, x.dtype, m, e->d_ff), up = dev_2d(dev, x.dtype, m, e->d_ff);
    op_gather_rows(dev, rows, x, row_token);
    op_grouped_linear(dev, gate, rows, &e->experts[0], first);
    op_grouped_linear(dev, up, rows, &e->experts[1], first);
    op_silu_mul(dev, gate, gate, up);
    op_grouped_linear(dev, rows, gate, &e->experts[2], first);

    if (e->shared.d_ff)
        shared_forward(&e->shared, run, out, x);
    else
        op_zero(dev, out);
    op_moe_combine(dev, out, rows, token_row, weight);
    if (run->on_layer) run->on_layer(run->on_layer_arg, l->index, TENSOR_NONE, expert, weight);
    dev_release(dev, mark);
}

const struct layer_kind layer_moe = {.name = "moe", .build = moe_build, .derive = moe_derive, .forward = moe_forward};
