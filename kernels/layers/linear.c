// What the layer kinds share: declaring parameters, linear maps, norms, and where a value is put.
#include "kernels/layers/layer.h"

#include <string.h>

struct param *param_declare(struct model *m, const char *prefix, const char *name, int64_t rows, int64_t cols)
{
    struct param *p = &m->params[m->n_param++];
    *p = (struct param){.name = mem_printf("%s%s", prefix, name), .rank = cols ? 2 : 1, .shape = {rows, cols}, .decay = cols != 0};
    return p;
}

struct linear linear_build(struct model *m, const char *prefix, const char *name, int64_t n, int64_t k, bool bias)
{
    struct linear l = {.ue8m0 = m->config.fp8.ue8m0};
    char text[64];
    snprintf(text, sizeof text, "%s.weight", name);
    l.w = param_declare(m, prefix, text, n, k);
    l.w->multiplies = true;
    snprintf(text, sizeof text, "%s.bias", name);
    if (bias) l.b = param_declare(m, prefix, text, n, 0);
    return l;
}

void linear_forward(const struct linear *l, struct run *run, struct tensor out, struct tensor x)
{
    const struct tensor bias = l->b ? l->b->weight : TENSOR_NONE;
    if (tensor_none(l->w->scale))
        op_linear(run->dev, out, x, l->w->weight, bias);
    else
        op_fp8_linear(run->dev, out, x, l->w->weight, l->w->scale, bias, l->ue8m0);
}

void linear_backward(const struct linear *l, struct run *run, struct tensor dx, bool accumulate, struct tensor dout, struct tensor x)
{
    if (!tensor_none(l->w->grad)) op_linear_bwd_w(run->dev, l->w->grad, dout, x);
    if (l->b && !tensor_none(l->b->grad)) op_bias_bwd(run->dev, l->b->grad, dout);
    if (!tensor_none(dx)) op_linear_bwd_x(run->dev, dx, dout, l->w->weight, accumulate);
}

void norm_forward(const struct norm *n, struct run *run, struct tensor out, struct tensor x, struct tensor rstd)
{
    op_rmsnorm(run->dev, out, x, n->w->weight, n->eps, rstd);
}

void norm_backward(const struct norm *n, struct run *run, struct tensor dx, struct tensor dout, struct tensor x, struct tensor rstd,
                   bool accumulate)
{
    op_rmsnorm_bwd(run->dev, dx, n->w->grad, dout, x, n->w->weight, rstd, accumulate);
}

struct tensor run_tensor(struct run *run, bool kept, enum dtype t, int64_t rows, int64_t cols)
{
    size_t bytes = (size_t)rows * (size_t)cols * dtype_size(t);
    return tensor_2d(arena_alloc(kept ? run->keep : &run->dev->arena, bytes), t, rows, cols);
}

struct tensor run_rstd(struct run *run, int64_t rows)
{
    return tensor_1d(arena_alloc(run->keep, (size_t)rows * sizeof(float)), DT_F32, rows);
}
