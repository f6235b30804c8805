// One AdamW step of one element (Loshchilov & Hutter 2019), in the order of operations of torch.optim.AdamW on a single tensor: scalars
// computed in double, each rounded once to f32.
#pragma once
#include "kernels/ops.h"
#include "kernels/rows/row.h"

struct adamw_row { // what adamw_prepare makes of struct adamw
    float decay, grad_scale, beta2, one_minus_beta1, one_minus_beta2, minus_step, bias2_sqrt, eps;
};
static inline struct adamw_row adamw_prepare(const struct adamw *a)
{
    double bias1 = 1 - pow(a->beta1, (double)a->step), bias2 = 1 - pow(a->beta2, (double)a->step);
    return (struct adamw_row){
        .decay = (float)(1 - a->lr * a->weight_decay),
        .grad_scale = a->grad_scale,
        .beta2 = (float)a->beta2,
        .one_minus_beta1 = (float)(1 - a->beta1),
        .one_minus_beta2 = (float)(1 - a->beta2),
        .minus_step = (float)(-(a->lr / bias1)),
        .bias2_sqrt = (float)sqrt(bias2),
        .eps = (float)a->eps,
    };
}
ROW_FN void row_adamw(ROW_T *w, ROW_T *m, ROW_T *v, ROW_T g, const struct adamw_row *a)
{
    g = g * ROW_SET(a->grad_scale);
    ROW_T x = *w * ROW_SET(a->decay);
    // torch.lerp picks the end it starts from by the weight's size
    if (a->one_minus_beta1 < 0.5f)
        *m = *m + ROW_SET(a->one_minus_beta1) * (g - *m);
    else
        *m = g - (g - *m) * (ROW_SET(1.0f) - ROW_SET(a->one_minus_beta1));
    *v = *v * ROW_SET(a->beta2) + ROW_SET(a->one_minus_beta2) * g * g;
    ROW_T denom = ROW_SQRT(*v) / ROW_SET(a->bias2_sqrt) + ROW_SET(a->eps);
    *w = x + ROW_SET(a->minus_step) * *m / denom;
}
