// AdamW's state by parameter, the gradient's norm, the update.
#include "student/optimizer.h"

#include <math.h>

static struct tensor flat(struct tensor t)
{
    return tensor_1d(t.data, t.dtype, tensor_numel(t));
}

void optimizer_alloc(struct optimizer *o, struct model *m, struct arena *a)
{
    *o = (struct optimizer){.slot = NEW_N(struct slot, m->n_param)};
    for (size_t i = 0; i < m->n_param; i++) {
        struct param *p = &m->params[i];
        if (tensor_none(p->grad)) continue;
        struct slot *s = &o->slot[o->n_slot++];
        int64_t n = tensor_numel(p->grad);
        size_t bytes = (size_t)n * sizeof(float);
        *s = (struct slot){.param = p, .weight = flat(p->weight), .grad = flat(p->grad)};
        s->m = tensor_1d(arena_alloc(a, bytes), DT_F32, n);
        s->v = tensor_1d(arena_alloc(a, bytes), DT_F32, n);
        s->master = s->weight.dtype == DT_F32 ? s->weight : tensor_1d(arena_alloc(a, bytes), DT_F32, n);
    }
    o->sumsq = tensor_1d(arena_alloc(a, 8), DT_U8, 8);
}

void optimizer_free(struct optimizer *o)
{
    mem_free(o->slot);
    *o = (struct optimizer){0};
}

void optimizer_begin(struct optimizer *o, struct device *dev)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) {
        op_zero(dev, s->m);
        op_zero(dev, s->v);
        if (s->master.data != s->weight.data) op_copy(dev, s->master, s->weight);
    }
}

void optimizer_weights_from_master(struct optimizer *o, struct device *dev)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++)
        if (s->master.data != s->weight.data) op_copy(dev, s->weight, s->master);
}

void optimizer_zero_grads(struct optimizer *o, struct device *dev)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) op_zero(dev, s->grad);
}

double optimizer_grad_norm(struct optimizer *o, struct device *dev)
{
    double sumsq = 0;
    op_zero(dev, o->sumsq);
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) op_sumsq(dev, o->sumsq, s->grad);
    op_download(dev, &sumsq, o->sumsq);
    return sqrt(sumsq);
}

float clip_factor(double norm, double clip)
{
    if (clip <= 0) return 1;
    double f = clip / (norm + 1e-6);
    return f < 1 ? (float)f : 1;
}

void optimizer_step(struct optimizer *o, struct device *dev, const struct adamw *a)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) {
        struct adamw mine = *a;
        if (!s->param->decay) mine.weight_decay = 0;
        op_adamw(dev, s->weight, s->master, s->m, s->v, s->grad, &mine);
    }
}
