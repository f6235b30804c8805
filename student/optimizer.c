// AdamW's state by parameter, the gradient's norm, the update.
#include "student/optimizer.h"

#include "kernels/base/rng.h"

#include <math.h>
#include <string.h>

const char *const optimizer_names[N_OPTIMIZER] = {"adamw", "adamw8"};
const char *const slot_part_names[N_SLOT_PART] = {"master", "m", "v", "m_unit", "v_unit"};

enum status optimizer_parse(enum optimizer_kind *out, const char *name, struct err *err)
{
    for (int i = 0; i < N_OPTIMIZER; i++) {
        *out = (enum optimizer_kind)i;
        if (!strcmp(name, optimizer_names[i])) return ST_OK;
    }
    return err_set(err, ST_BAD_INPUT, "optimizer \"%s\": wanted " OPTIMIZER_CHOICES, name);
}

static struct tensor flat(struct tensor t)
{
    return tensor_1d(t.data, t.dtype, tensor_numel(t));
}

static struct tensor alloc(struct arena *a, enum dtype t, int64_t n)
{
    return tensor_1d(arena_alloc(a, (size_t)n * dtype_size(t)), t, n);
}

// Where the kinds differ in what they keep; where they differ in what they do: update().
static void slot_alloc(struct slot *s, enum optimizer_kind kind, struct arena *a)
{
    const int64_t n = s->weight.shape[0], n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
    const bool exact = s->weight.dtype == DT_F32, small = kind == OPTIMIZER_ADAMW8 && !exact;
    s->part[SLOT_M] = alloc(a, small ? DT_U8 : DT_F32, n);
    s->part[SLOT_V] = alloc(a, small ? DT_U8 : DT_F32, n);
    s->part[SLOT_MASTER] = exact || small ? s->weight : alloc(a, DT_F32, n);
    if (!small) return;
    s->part[SLOT_M_UNIT] = alloc(a, DT_F32, n_block);
    s->part[SLOT_V_UNIT] = alloc(a, DT_F32, n_block);
}

static bool has_master(const struct slot *s)
{
    return s->part[SLOT_MASTER].data != s->weight.data;
}

void optimizer_alloc(struct optimizer *o, enum optimizer_kind kind, struct model *m, struct arena *a)
{
    *o = (struct optimizer){.slot = NEW_N(struct slot, m->n_param)};
    for (size_t i = 0; i < m->n_param; i++) {
        struct param *p = &m->params[i];
        if (tensor_none(p->grad)) continue;
        struct slot *s = &o->slot[o->n_slot++];
        *s = (struct slot){.param = p, .weight = flat(p->weight), .grad = flat(p->grad)};
        slot_alloc(s, kind, a);
    }
    o->sumsq = alloc(a, DT_U8, 8);
}

void optimizer_free(struct optimizer *o)
{
    mem_free(o->slot);
    *o = (struct optimizer){0};
}

void optimizer_begin(struct optimizer *o, struct device *dev)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) {
        for (int k = SLOT_M; k < N_SLOT_PART; k++)
            if (!tensor_none(s->part[k])) op_zero(dev, s->part[k]);
        if (has_master(s)) op_copy(dev, s->part[SLOT_MASTER], s->weight);
    }
}

void optimizer_weights_from_master(struct optimizer *o, struct device *dev)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++)
        if (has_master(s)) op_copy(dev, s->weight, s->part[SLOT_MASTER]);
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

static void update(const struct slot *s, struct device *dev, const struct adamw *a, uint64_t seed)
{
    const struct tensor *p = s->part;
    if (tensor_none(p[SLOT_M_UNIT])) {
        op_adamw(dev, s->weight, p[SLOT_MASTER], p[SLOT_M], p[SLOT_V], s->grad, a);
    } else {
        const struct adamw8 by_chance = {.adamw = *a, .seed = seed, .stream = rng_hash(s->param->name, strlen(s->param->name))};
        op_adamw8(dev, s->weight, p[SLOT_M], p[SLOT_V], p[SLOT_M_UNIT], p[SLOT_V_UNIT], s->grad, &by_chance);
    }
}

void optimizer_step(struct optimizer *o, struct device *dev, const struct adamw *a, uint64_t seed)
{
    for (struct slot *s = o->slot; s < o->slot + o->n_slot; s++) {
        struct adamw mine = *a;
        if (!s->param->decay) mine.weight_decay = 0;
        update(s, dev, &mine, seed);
    }
}
