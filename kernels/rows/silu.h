// SwiGLU's nonlinearity: silu(g) = g * sigmoid(g), and the gradient of silu(g) * u.
#pragma once
#include "kernels/rows/row.h"

ROW_FN ROW_T row_sigmoid(ROW_T x)
{
    return ROW_SET(1.0f) / (ROW_SET(1.0f) + ROW_EXP(-x));
}
ROW_FN ROW_T row_silu_mul(ROW_T g, ROW_T u)
{
    return g * row_sigmoid(g) * u;
}
// d silu(g) / dg = s (1 + g (1 - s))
ROW_FN void row_silu_mul_bwd(ROW_T *dg, ROW_T *du, ROW_T dout, ROW_T g, ROW_T u)
{
    ROW_T s = row_sigmoid(g);
    *du = dout * (g * s);
    *dg = dout * u * (s * (ROW_SET(1.0f) + g * (ROW_SET(1.0f) - s)));
}
