// The reference of FP8 products: activations quantised by looking for the nearest of all e4m3 values, sums in double.
#include "tests/kernels/ops_ref.h"

#include <math.h>

#define R(i) (c->arg[i].ref)
#define N(i) tensor_numel(c->arg[i].t)
#define END (-1), (-1)

static int64_t blocks(int64_t n)
{
    return (n + 127) / 128;
}

// Magnitude `code` of e4m3, by definition.
static double magnitude(int code)
{
    return code >= 8 ? ldexp(8 + code % 8, code / 8 - 10) : ldexp(code, -9);
}

static double nearest(double x)
{
    int best = 0;
    for (int i = 1; i <= 126; i++) {
        const double d = fabs(magnitude(i) - fabs(x)), least = fabs(magnitude(best) - fabs(x));
        if (d < least || (d == least && i % 2 == 0)) best = i;
    }
    return copysign(magnitude(best), x);
}

// dim: rows, n, k, ue8m0, bias
static void setup(struct op_case *c) // out, x, w, scale, bias
{
    const int64_t n = c->dim[1], k = c->dim[2];
    arg_add(c, OUT | BY_ROW, c->dtype, 1, 0, rows(c), n, END)->len = (double)k;
    struct op_arg *x = arg_add(c, BY_ROW, c->dtype, 1, 0, rows(c), k, END);
    for (int64_t i = 0; i < N(1); i++)
        if (i % k / 128 == 1) arg_set(x, i, i / k % 2 ? 0 : x->ref[i] * 300); // blocks of zeros, and large ones
    struct op_arg *w = arg_add(c, IN, DT_E4M3, 100, 0, n, k, END), *scale = arg_add(c, IN, DT_F32, 1, 0, blocks(n), blocks(k), END);
    for (int64_t i = 0; i < N(2); i++) arg_set(w, i, nearest(w->ref[i]));
    for (int64_t i = 0; i < N(3); i++) arg_set(scale, i, fabs(scale->ref[i]) / 100);
    arg_add(c, IN, DT_F32, 1, 0, n, -1, END);
}
static void call(struct device *dev, const struct op_case *c, struct tensor *x)
{
    const struct tensor w = x[2];
    struct tensor p = w;
    p.dtype = dev->backend->fp8_weight;
    p.data = dev_1d(dev, DT_U8, (int64_t)op_pack_bytes(dev, p.dtype, w.shape[0], w.shape[1])).data;
    p.layout = LAYOUT_PANEL;
    op_pack(dev, p, w, TENSOR_NONE);
    op_fp8_linear(dev, x[0], x[1], p, x[3], c->dim[4] ? x[4] : TENSOR_NONE, c->dim[3] != 0);
}
static void ref(struct op_case *c)
{
    const int64_t n = c->dim[1], k = c->dim[2];
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = c->dim[4] ? R(4)[i % n] : 0;
    for (int64_t row = 0; row < rows(c); row++)
        for (int64_t b = 0; b < blocks(k); b++) {
            const int64_t end = b * 128 + 128 < k ? b * 128 + 128 : k;
            double amax = 1e-4;
            for (int64_t l = b * 128; l < end; l++) amax = fmax(amax, fabs(R(1)[row * k + l]));
            float s = (float)amax / 448.0f;
            if (c->dim[3]) s = (float)exp2(ceil(log2(s)));
            for (int64_t l = b * 128; l < end; l++) {
                const double q = nearest((double)((float)R(1)[row * k + l] / s)) * (double)s;
                for (int64_t j = 0; j < n; j++) R(0)[row * n + j] += q * R(2)[j * k + l] * R(3)[j / 128 * blocks(k) + b];
            }
        }
}

const struct op_row op_rows_fp8[] = {
    {OP_ROW(fp8_linear),
     setup,
     call,
     ref,
     {{1, 1, 1},
      {3, 33, 7, 1, 1},
      {NO_ROWS, 3, 4},
      {5, 129, 128, 0, 1},
      {13, 200, 300, 1},
      {29, 97, 257, 0, 1},
      {70, 130, 700},
      {150, 300, 400, 1, 1},
      {9, 140, 1200},
      {3, 530, 200}}},
    {0},
};
