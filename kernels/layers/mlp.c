// Dense SwiGLU (Shazeer 2020): down(silu(gate x) * up x).
#include "kernels/layers/layer.h"

static void mlp_build(struct model *m, struct layer *l, const char *prefix)
{
    const struct model_config *c = &m->config;
    l->mlp.d_ff = c->d_ff;
    l->mlp.gate = linear_build(m, prefix, "gate_proj", c->d_ff, c->d_model, c->mlp_bias);
    l->mlp.up = linear_build(m, prefix, "up_proj", c->d_ff, c->d_model, c->mlp_bias);
    l->mlp.down = linear_build(m, prefix, "down_proj", c->d_model, c->d_ff, c->mlp_bias);
}

static void mlp_forward(const struct layer *l, struct run *run, struct tensor out, struct tensor x, struct saved *s)
{
    const struct mlp *f = &l->mlp;
    const bool keep = s != NULL, keep_act = keep && run->recompute != RECOMPUTE_CHEAP;
    size_t mark = dev_mark(run->dev);
    struct tensor gate = run_tensor(run, keep, x.dtype, x.shape[0], f->d_ff), up = run_tensor(run, keep, x.dtype, x.shape[0], f->d_ff);
    struct tensor act = run_tensor(run, keep_act, x.dtype, x.shape[0], f->d_ff);
    linear_forward(&f->gate, run, gate, x);
    linear_forward(&f->up, run, up, x);
    op_silu_mul(run->dev, act, gate, up);
    linear_forward(&f->down, run, out, act);
    if (keep) s->gate = gate, s->up = up;
    if (keep_act) s->act = act;
    dev_release(run->dev, mark);
}

static void mlp_backward(const struct layer *l, struct run *run, struct tensor dx, struct tensor dout, struct tensor x, struct saved *s)
{
    const struct mlp *f = &l->mlp;
    const int64_t n = x.shape[0];
    size_t mark = dev_mark(run->dev);
    struct tensor act = s->act;
    if (tensor_none(act)) {
        act = run_tensor(run, false, x.dtype, n, f->d_ff);
        op_silu_mul(run->dev, act, s->gate, s->up);
    }
    struct tensor dact = run_tensor(run, false, x.dtype, n, f->d_ff), dgate = run_tensor(run, false, x.dtype, n, f->d_ff);
    struct tensor dup = run_tensor(run, false, x.dtype, n, f->d_ff);
    linear_backward(&f->down, run, dact, false, dout, act);
    op_silu_mul_bwd(run->dev, dgate, dup, dact, s->gate, s->up);
    linear_backward(&f->gate, run, dx, false, dgate, x);
    linear_backward(&f->up, run, dx, true, dup, x);
    dev_release(run->dev, mark);
}

const struct layer_kind layer_mlp = {.name = "mlp", .build = mlp_build, .forward = mlp_forward, .backward = mlp_backward};
