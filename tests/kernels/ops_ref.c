// Arguments of op cases, and the references of memory and element-wise ops.
#include "tests/kernels/ops_ref.h"

#include "kernels/base/mem.h"
#include "kernels/base/rng.h"

#include <math.h>
#include <string.h>

int64_t rows(const struct op_case *c)
{
    return c->dim[0] == NO_ROWS ? 0 : c->dim[0];
}

static size_t offset_of(struct tensor t, int64_t i)
{
    int64_t off = 0;
    for (int d = t.rank - 1; d >= 0; d--) {
        off += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    return (size_t)off;
}
double tensor_get(struct tensor t, int64_t i)
{
    size_t off = offset_of(t, i);
    double d;
    switch (t.dtype) {
    case DT_F32:
        return ((float *)t.data)[off];
    case DT_BF16:
        return bf16_to_f32(((bf16 *)t.data)[off]);
    case DT_F16:
        return f16_to_f32(((f16 *)t.data)[off]);
    case DT_I32:
        return ((int32_t *)t.data)[off];
    case DT_E4M3:
        return e4m3_to_f32(((e4m3 *)t.data)[off]);
    default:
        if (t.shape[0] != 8) return ((uint8_t *)t.data)[off];
        memcpy(&d, t.data, 8);
        return d;
    }
}
void arg_set(struct op_arg *a, int64_t i, double v)
{
    struct tensor t = a->t;
    t.data = a->init;
    size_t off = offset_of(t, i);
    switch (t.dtype) {
    case DT_F32:
        ((float *)t.data)[off] = (float)v;
        break;
    case DT_BF16:
        ((bf16 *)t.data)[off] = f32_to_bf16((float)v);
        break;
    case DT_F16: // only multiples of 1/8 below 8 are asked for
        ((f16 *)t.data)[off] =
            (f16)((v < 0 ? 0x8000 : 0) |
                  (fabs(v) < 0.125 ? 0 : (ilogb(fabs(v)) + 15) << 10 | (int)((fabs(v) / exp2(ilogb(fabs(v))) - 1) * 1024)));
        break;
    case DT_I32:
        ((int32_t *)t.data)[off] = (int32_t)v;
        break;
    case DT_E4M3:
        ((e4m3 *)t.data)[off] = f32_to_e4m3((float)v);
        break;
    default:
        if (t.shape[0] == 8)
            memcpy(t.data, &v, 8);
        else
            ((uint8_t *)t.data)[off] = (uint8_t)v;
    }
    a->ref[i] = tensor_get(t, i);
}

struct op_arg *arg_add(struct op_case *c, int flags, enum dtype type, double size, int64_t pad, int64_t d0, int64_t d1, int64_t d2,
                       int64_t d3)
{
    struct op_arg *a = &c->arg[c->n_arg];
    int64_t shape[4] = {d0, d1, d2, d3}, n = 1;
    int rank = 0;
    while (rank < 4 && shape[rank] >= 0) rank++;
    shape[rank - 1] += pad;
    struct tensor t = rank == 1   ? tensor_1d(NULL, type, d0 + pad)
                      : rank == 2 ? tensor_2d(NULL, type, shape[0], shape[1])
                      : rank == 3 ? tensor_3d(NULL, type, shape[0], shape[1], shape[2])
                                  : tensor_4d(NULL, type, shape[0], shape[1], shape[2], shape[3]);
    *a = (struct op_arg){.t = t, .flags = flags, .len = 1};
    a->size = tensor_bytes(t);
    a->t.shape[rank - 1] -= pad;
    n = tensor_numel(a->t);
    a->init = mem_alloc(a->size + 64);
    a->ref = NEW_N(double, n + 1);
    if (type == DT_F32 || type == DT_BF16 || type == DT_E4M3)
        for (int64_t i = 0; i < n; i++) arg_set(a, i, size * rng_normal(11, (uint64_t)c->n_arg, (uint64_t)i));
    c->n_arg++;
    return a;
}
void case_free(struct op_case *c)
{
    for (int i = 0; i < c->n_arg; i++) {
        mem_free(c->arg[i].init);
        mem_free(c->arg[i].ref);
    }
    c->n_arg = 0;
}

#define R(i) (c->arg[i].ref)
#define N(i) tensor_numel(c->arg[i].t)
#define S(i, d) (c->arg[i].t.shape[d])
#define END (-1), (-1)

// ---- memory -----------------------------------------------------------------------------------------------------------------------------

static void setup_pair(struct op_case *c)
{
    arg_add(c, OUT, c->dtype, 1, 0, rows(c), c->dim[1], END)->len = 0;
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[1], END);
}
static void setup_upload(struct op_case *c)
{
    setup_pair(c);
    c->arg[1].flags |= HOST;
}
static void setup_download(struct op_case *c)
{
    setup_pair(c);
    c->arg[0].flags |= HOST;
}
static void call_upload(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_upload(dev, x[0], x[1].data);
}
static void call_download(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_download(dev, x[0].data, x[1]);
}
static void ref_same(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = R(1)[i];
}
static void call_zero(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_zero(dev, x[0]);
}
static void ref_zero(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = 0;
}
// dim[3]: 0 contiguous, 1 both strided, 2 x transposed; dim[4]: x is f16; dim[5]: out is of the other type
static void setup_copy(struct op_case *c)
{
    int64_t pad = c->dim[3] == 1 ? 3 : 0, n = rows(c);
    enum dtype other = c->dtype == DT_F32 ? DT_BF16 : DT_F32;
    arg_add(c, OUT, c->dim[5] ? other : c->dtype, 1, pad, n, c->dim[1], c->dim[2], -1);
    struct op_arg *x = c->dim[3] == 2 ? arg_add(c, IN, c->dim[4] ? DT_F16 : c->dtype, 1, 0, c->dim[2], c->dim[1], n, -1)
                                      : arg_add(c, IN, c->dim[4] ? DT_F16 : c->dtype, 1, pad, n, c->dim[1], c->dim[2], -1);
    if (c->dim[3] == 2) {
        struct tensor t = x->t;
        x->t.shape[0] = t.shape[2], x->t.stride[0] = t.stride[2], x->t.shape[2] = t.shape[0], x->t.stride[2] = t.stride[0];
        for (int64_t i = 0; i < N(1); i++) arg_set(x, i, rng_normal(3, 4, (uint64_t)i));
    }
    if (c->dim[4])
        for (int64_t i = 0; i < N(1); i++) arg_set(x, i, (double)(i % 100 - 50) / 8);
    c->arg[0].len = 0;
}
static void call_copy(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_copy(dev, x[0], x[1]);
}
static void ref_copy(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) arg_set(&c->arg[0], i, R(1)[i]);
}

// ---- element-wise and row-wise -------------------------------------------------------------------------------------------------------

static void setup_add(struct op_case *c)
{
    for (int i = 0; i < 3; i++) arg_add(c, i == 0 ? OUT | BY_ROW : BY_ROW, c->dtype, 1, 0, rows(c), c->dim[1], END);
}
static void call_add(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_add(dev, x[0], x[1], x[2]);
}
static void ref_add(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = R(1)[i] + R(2)[i];
}

// dim: rows, vocabulary, d, table is of the other type
static void setup_embed(struct op_case *c)
{
    enum dtype other = c->dtype == DT_F32 ? DT_BF16 : DT_F32;
    arg_add(c, OUT | BY_ROW, c->dtype, 1, 0, rows(c), c->dim[2], END);
    arg_add(c, IN, c->dim[3] ? other : c->dtype, 1, 0, c->dim[1], c->dim[2], END);
    struct op_arg *id = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(id, i, (double)rng_below(5, 0, (uint64_t)i, (uint64_t)c->dim[1]));
}
static void call_embed(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_embed(dev, x[0], x[1], x[2]);
}
// The packed table must read as the plain one does: this is what shows op_pack's order, and the panel form of op_embed.
static void call_pack(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    struct tensor panel = tensor_2d(dev_1d(dev, DT_U8, (int64_t)op_pack_bytes(dev, x[1].dtype, x[1].shape[0], x[1].shape[1])).data,
                                    x[1].dtype, x[1].shape[0], x[1].shape[1]);
    panel.layout = LAYOUT_PANEL;
    op_pack(dev, panel, x[1], TENSOR_NONE);
    op_embed(dev, x[0], panel, x[2]);
}
static void ref_embed(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = R(1)[(int64_t)R(2)[i / S(0, 1)] * S(0, 1) + i % S(0, 1)];
}
static void setup_embed_bwd(struct op_case *c)
{
    arg_add(c, OUT, DT_F32, 1, 0, c->dim[1], c->dim[2], END)->len = (double)rows(c);
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[2], END);
    struct op_arg *id = arg_add(c, IN, DT_I32, 0, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(id, i, (double)rng_below(5, 0, (uint64_t)i, (uint64_t)c->dim[1]));
}
static void call_embed_bwd(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_embed_bwd(dev, x[0], x[1], x[2]);
}
static void ref_embed_bwd(struct op_case *c)
{
    for (int64_t i = 0; i < N(1); i++) R(0)[(int64_t)R(2)[i / S(1, 1)] * S(1, 1) + i % S(1, 1)] += R(1)[i];
}

// dim: rows, heads (0: rank 2), d, pad
static struct op_arg *add_rows(struct op_case *c, int flags, int64_t pad)
{
    return c->dim[1] ? arg_add(c, flags, c->dtype, 1, pad, rows(c), c->dim[1], c->dim[2], -1)
                     : arg_add(c, flags, c->dtype, 1, pad, rows(c), c->dim[2], END);
}
static const double NORM_EPS = 1e-5f;
static double norm_rstd(const double *x, int64_t d)
{
    double s = 0;
    for (int64_t j = 0; j < d; j++) s += x[j] * x[j];
    return 1 / sqrt(s / (double)d + NORM_EPS);
}
static void setup_rmsnorm(struct op_case *c)
{
    add_rows(c, OUT | BY_ROW, c->dim[3])->len = (double)c->dim[2];
    add_rows(c, BY_ROW, 2 * c->dim[3]);
    arg_add(c, IN, DT_F32, 1, 0, c->dim[2], -1, END);
    // one rstd a row of d: its own shape is not the rows', so it is left out of the case of one row alone by having heads
    arg_add(c, c->dim[1] ? OUT : OUT | BY_ROW, DT_F32, 1, 0, rows(c) * (c->dim[1] ? c->dim[1] : 1), -1, END)->len = (double)c->dim[2];
}
static void call_rmsnorm(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct tensor rstd = x[3];
    if (c->dim[1] && rstd.shape[0] != x[1].shape[0] * x[1].shape[1]) rstd = TENSOR_NONE;
    op_rmsnorm(dev, x[0], x[1], x[2], (float)NORM_EPS, rstd);
}
static void ref_rmsnorm(struct op_case *c)
{
    int64_t d = c->dim[2];
    for (int64_t r = 0; r < N(1) / d; r++) {
        R(3)[r] = norm_rstd(R(1) + r * d, d);
        for (int64_t j = 0; j < d; j++) R(0)[r * d + j] = R(1)[r * d + j] * R(3)[r] * R(2)[j];
    }
}
// dim[4]: accumulate
static void setup_rmsnorm_bwd(struct op_case *c)
{
    int64_t d = c->dim[2], n;
    add_rows(c, OUT, c->dim[3])->len = (double)d;
    arg_add(c, OUT, DT_F32, 1, 0, d, -1, END);
    add_rows(c, IN, c->dim[3]);
    add_rows(c, IN, 2 * c->dim[3]);
    arg_add(c, IN, DT_F32, 1, 0, d, -1, END);
    n = N(3) / d;
    c->arg[1].len = (double)n;
    struct op_arg *rstd = arg_add(c, IN, DT_F32, 1, 0, n, -1, END);
    for (int64_t r = 0; r < n; r++) arg_set(rstd, r, norm_rstd(R(3) + r * d, d));
}
static void call_rmsnorm_bwd(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_rmsnorm_bwd(dev, x[0], x[1], x[2], x[3], x[4], x[5], c->dim[4] != 0);
}
static void ref_rmsnorm_bwd(struct op_case *c)
{
    int64_t d = c->dim[2];
    const double *w = R(4);
    for (int64_t r = 0; r < N(3) / d; r++) {
        const double *x = R(3) + r * d, *g = R(2) + r * d, rs = R(5)[r];
        double dot = 0, *dx = R(0) + r * d;
        for (int64_t j = 0; j < d; j++) dot += g[j] * w[j] * x[j];
        for (int64_t j = 0; j < d; j++) {
            dx[j] = (c->dim[4] ? dx[j] : 0) + rs * g[j] * w[j] - x[j] * rs * rs * rs * dot / (double)d;
            R(1)[j] += g[j] * x[j] * rs;
        }
    }
}

// dim: tokens, heads, d, pad, order, inverse
static void setup_rope(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, c->dtype, 1, c->dim[3], rows(c), c->dim[1], c->dim[2], -1)->len = 4;
    struct op_arg *pos = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(pos, i, (double)(i < 4 ? i : i * 3989 % 131072));
    struct op_arg *f = arg_add(c, IN, DT_F32, 0, 0, c->dim[2] / 2, -1, END);
    for (int64_t i = 0; i < c->dim[2] / 2; i++) arg_set(f, i, pow(10000, -2.0 * (double)i / (double)c->dim[2]));
}
static void call_rope(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct segments seg = {.n_tok = (int)x[0].shape[0], .pos = x[1].data};
    op_rope(dev, x[0], &seg, x[2], 1.25f, (enum rope_order)c->dim[4], c->dim[5] != 0);
}
static void ref_rope(struct op_case *c)
{
    int64_t d = c->dim[2], half = d / 2;
    for (int64_t r = 0; r < N(0) / d; r++)
        for (int64_t i = 0; i < half; i++) {
            double *x = R(0) + r * d, a = (double)((float)R(1)[r / c->dim[1]] * (float)R(2)[i]);
            double *p = c->dim[4] == ROPE_HALF ? x + i : x + 2 * i, *q = c->dim[4] == ROPE_HALF ? x + half + i : x + 2 * i + 1;
            double u = *p, v = *q, s = 1.25 * sin(c->dim[5] ? -a : a), co = 1.25 * cos(a);
            *p = u * co - v * s;
            *q = v * co + u * s;
        }
}

static void setup_silu(struct op_case *c)
{
    for (int i = 0; i < 3; i++) arg_add(c, i == 0 ? OUT | BY_ROW : BY_ROW, c->dtype, 3, i ? c->dim[2] : 0, rows(c), c->dim[1], END);
}
static void call_silu(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_silu_mul(dev, x[0], x[1], x[2]);
}
static void ref_silu(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = R(1)[i] / (1 + exp(-R(1)[i])) * R(2)[i];
}
static void setup_silu_bwd(struct op_case *c)
{
    for (int i = 0; i < 5; i++) arg_add(c, i < 2 ? OUT | BY_ROW : BY_ROW, c->dtype, 2, i > 2 ? c->dim[2] : 0, rows(c), c->dim[1], END);
}
static void call_silu_bwd(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_silu_mul_bwd(dev, x[0], x[1], x[2], x[3], x[4]);
}
static void ref_silu_bwd(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) {
        double g = R(3)[i], s = 1 / (1 + exp(-g));
        R(0)[i] = R(2)[i] * R(4)[i] * (s + g * s * (1 - s));
        R(1)[i] = R(2)[i] * g * s;
    }
}

static void setup_bias_bwd(struct op_case *c)
{
    arg_add(c, OUT, DT_F32, 1, 0, c->dim[1], -1, END)->len = (double)rows(c);
    arg_add(c, IN, c->dtype, 1, c->dim[2], rows(c), c->dim[1], END);
}
static void call_bias_bwd(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_bias_bwd(dev, x[0], x[1]);
}
static void ref_bias_bwd(struct op_case *c)
{
    for (int64_t i = 0; i < N(1); i++) R(0)[i % c->dim[1]] += R(1)[i];
}

static void setup_nonfinite(struct op_case *c) // count, x
{
    arg_add(c, OUT, DT_I32, 0, 0, 1, -1, END);
    struct op_arg *x = arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[1], END);
    for (int64_t i = 0; i < tensor_numel(x->t); i += 7 + i % 50) arg_set(x, i, i % 3 ? (i % 2 ? INFINITY : -INFINITY) : NAN);
}
static void call_nonfinite(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_nonfinite(dev, x[0], x[1]);
}
static void ref_nonfinite(struct op_case *c)
{
    for (int64_t i = 0; i < tensor_numel(c->arg[1].t); i++) c->arg[0].ref[0] += !isfinite(c->arg[1].ref[i]);
}

const struct op_row op_rows_plain[] = {
    {OP_ROW(upload), setup_upload, call_upload, ref_same, {{1, 1}, {3, 7}, {NO_ROWS, 4}, {150, 901}}},
    {OP_ROW(download), setup_download, call_download, ref_same, {{1, 1}, {3, 7}, {NO_ROWS, 4}, {150, 901}}},
    {OP_ROW(zero), setup_pair, call_zero, ref_zero, {{1, 1}, {3, 7}, {NO_ROWS, 4}, {150, 901}}},
    {OP_ROW(copy),
     setup_copy,
     call_copy,
     ref_copy,
     {{1, 1, 1}, {3, 5, 19}, {3, 5, 19, 1}, {5, 3, 17, 2, 0, 1}, {4, 3, 33, 1, 1, 0}, {30, 11, 301, 0, 0, 1}, {NO_ROWS, 2, 3}}},
    {OP_ROW(pack), setup_embed, call_pack, ref_embed, {{1, 1, 1}, {5, 3, 7}, {40, 33, 65}, {40, 130, 257}}},
    {OP_ROW(nonfinite), setup_nonfinite, call_nonfinite, ref_nonfinite, {{1, 1}, {3, 37}, {NO_ROWS, 5}, {150, 901}}},
    {OP_ROW(add), setup_add, call_add, ref_add, {{1, 1}, {3, 37}, {NO_ROWS, 5}, {131, 1003}}},
    {OP_ROW(embed),
     setup_embed,
     call_embed,
     ref_embed,
     {{1, 1, 1}, {5, 3, 7}, {40, 33, 65, 1}, {NO_ROWS, 3, 4}, {450, 130, 257}, {9, 30, 2056}, {9, 30, 64, 1}}},
    {OP_ROW(embed_bwd),
     setup_embed_bwd,
     call_embed_bwd,
     ref_embed_bwd,
     {{1, 1, 1}, {5, 3, 7}, {40, 33, 65}, {NO_ROWS, 3, 4}, {450, 1500, 57}, {1030, 16, 264}, {4100, 30, 9}}},
    {OP_ROW(rmsnorm),
     setup_rmsnorm,
     call_rmsnorm,
     ref_rmsnorm,
     {{1, 0, 1}, {3, 0, 33, 5}, {5, 3, 65, 3}, {3, 0, 9001, 3}, {NO_ROWS, 0, 8}, {30, 0, 4097}, {60, 4, 512}}},
    {OP_ROW(rmsnorm_bwd),
     setup_rmsnorm_bwd,
     call_rmsnorm_bwd,
     ref_rmsnorm_bwd,
     {{1, 0, 1}, {5, 3, 33, 5, 1}, {3, 0, 9001, 3, 1}, {270, 0, 2055}, {NO_ROWS, 0, 8}, {20, 2, 512}, {2150, 4, 128}}},
    {OP_ROW(rope),
     setup_rope,
     call_rope,
     ref_rope,
     {{1, 1, 2},
      {5, 3, 64, 8},
      {5, 3, 66, 2, ROPE_PAIRS},
      {7, 2, 34, 0, ROPE_PAIRS, 1},
      {9, 1, 512, 0, ROPE_HALF, 1},
      {NO_ROWS, 2, 8},
      {60, 9, 128}}},
    {OP_ROW(silu_mul), setup_silu, call_silu, ref_silu, {{1, 1}, {3, 37, 4}, {NO_ROWS, 5}, {3, 9001, 2}, {51, 1003}}},
    {OP_ROW(silu_mul_bwd), setup_silu_bwd, call_silu_bwd, ref_silu_bwd, {{1, 1}, {3, 37, 4}, {NO_ROWS, 5}, {3, 9001, 2}, {51, 1003}}},
    {OP_ROW(bias_bwd), setup_bias_bwd, call_bias_bwd, ref_bias_bwd, {{1, 1}, {3, 37, 4}, {NO_ROWS, 5}, {400, 301, 2}, {137, 264}}},
    {0},
};
