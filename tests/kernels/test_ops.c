// Every op, by its row in ops_ref*.c: on every instruction set of this machine, f32 and bf16, awkward shapes. A case is planned by a
// measuring run and given exactly the planned bytes; its outputs are compared with the reference, with the bits that two threads and three
// give, and for row ops with the bits of a row alone. Reference gradients are compared with finite differences of the reference forwards.
#include "kernels/base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "tests/gpu.h"
#include "tests/kernels/on_device.h"
#include "tests/kernels/ops_ref.h"
#include "tests/simt/simt_state.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

// Every backend there is: the instruction sets that this machine runs, and the GPU: emulated, or a real one.
static const struct backend *backends[N_CPU_ISA + 1];
static int n_backend;
enum { N_FAMILY = 4, SMALL = 100000 };
static const struct op_row *const all_rows[N_FAMILY] = {op_rows_plain, op_rows_heads, op_rows_loss, op_rows_fp8};
#define FOR_ALL_ROWS(row)                                                                                                                  \
    for (int family_ = 0; family_ < N_FAMILY; family_++)                                                                                   \
        for (const struct op_row *row = all_rows[family_]; row->name; row++)

START_TEST(every_entry_of_the_table_has_a_row)
{
    for (size_t off = offsetof(struct backend, upload); off < sizeof(struct backend); off += sizeof(void *)) {
        int found = 0;
        FOR_ALL_ROWS(row) found += row->offset == off;
        ck_assert_msg(found == 1, "the entry at offset %zu of struct backend has %d rows in tests/kernels/ops_ref*.c", off, found);
        void *entry;
        memcpy(&entry, (const char *)backends[_i] + off, sizeof entry);
        ck_assert_msg(entry != NULL, "%s lacks the entry at offset %zu", backends[_i]->name, off);
    }
}
END_TEST

// What a call leaves in the arguments' memory. first, n_row: only these rows of the BY_ROW arguments (n_row -1: all).
struct outcome {
    void *mem[MAX_ARG]; // on the host, after the call
    struct tensor x[MAX_ARG];
};
static struct outcome run(const struct op_row *row, const struct op_case *c, const char *device, int n_thread, int64_t first, int64_t n_row)
{
    struct outcome o = {0};
    struct err err = {0};
    struct device dev;
    struct tensor x[MAX_ARG];
    struct lent l = {.dev = &dev};
    ck_ok(dev_open(&dev, device, n_thread, &err));
    for (int i = 0; i < c->n_arg; i++) {
        o.mem[i] = mem_alloc(c->arg[i].size + 64);
        memcpy(o.mem[i], c->arg[i].init, c->arg[i].size);
        x[i] = o.x[i] = c->arg[i].t;
        x[i].data = o.x[i].data = o.mem[i];
        if (!(c->arg[i].flags & HOST)) x[i].data = lend_out(&l, tensor_1d(o.mem[i], DT_U8, (int64_t)c->arg[i].size)).data;
        if (n_row < 0 || !(c->arg[i].flags & BY_ROW)) continue;
        x[i] = tensor_rows(x[i], first, n_row);
        o.x[i] = tensor_rows(o.x[i], first, n_row);
    }
    dev_measure(&dev);
    row->call(&dev, c, x);
    for (int i = 0; i < c->n_arg; i++)
        ck_assert_msg(!memcmp(o.mem[i], c->arg[i].init, c->arg[i].size), "%s wrote to memory while measuring", row->name);
    size_t plan = dev.arena.peak;
    ck_ok(dev_reserve(&dev, plan, &err));
    row->call(&dev, c, x);
    ck_ok(dev_check(&dev, &err));
    ck_assert_msg(dev.arena.peak == plan, "%s: planned %zu bytes, took %zu", row->name, plan, dev.arena.peak);
    lent_back(&l);
    ck_ok(dev_check(&dev, &err));
    dev_close(&dev);
    return o;
}
static void outcome_free(struct outcome *o, const struct op_case *c)
{
    for (int i = 0; i < c->n_arg; i++) mem_free(o->mem[i]);
}

// An addition rounds a partial sum by half a unit in the last place of f32; partial sums are about as large as the largest element (our
// numbers are normal, near 1), and the functions between (exp, division, square root) are good to a few units: the 8. bf16 keeps 8 bits.
static double tolerance(const struct op_arg *a, double largest, double want)
{
    if (a->len == 0 || a->t.dtype == DT_I32) return 0;
    double t = FLT_EPSILON * (a->len + 8) * fmax(1, largest) + a->slack;
    return a->t.dtype == DT_BF16 ? t + fabs(want) / 256 : t;
}

static void compare(const char *what, const struct op_case *c, const struct outcome *o)
{
    for (int i = 0; i < c->n_arg; i++) {
        const struct op_arg *a = &c->arg[i];
        int64_t n = tensor_numel(a->t);
        double largest = 0;
        if (!(a->flags & OUT)) continue;
        for (int64_t j = 0; j < n; j++)
            if (isfinite(a->ref[j])) largest = fmax(largest, fabs(a->ref[j]));
        for (int64_t j = 0; j < n; j++) {
            double got = tensor_get(o->x[i], j), want = a->ref[j], tol = tolerance(a, largest, want);
            if (got == want || fabs(got - want) <= tol) continue; // TRAP: ck_assert_msg writes to a file even when all is well
            ck_abort_msg("%s: argument %d, element %lld: %.9g, wanted %.9g within %.2g", what, i, (long long)j, got, want, tol);
        }
    }
}

static void case_name(char *buf, size_t n, const struct op_row *row, const struct op_case *c, const char *device)
{
    size_t at = (size_t)snprintf(buf, n, "%s %s %s", row->name, device, dtype_name(c->dtype));
    for (int i = 0; i < MAX_DIM; i++) at += (size_t)snprintf(buf + at, n - at, " %lld", (long long)c->dim[i]);
}

static void check_threads(const char *what, const struct op_row *row, const struct op_case *c, const char *device,
                          const struct outcome *one)
{
    for (int n_thread = 2; n_thread <= 3; n_thread++) {
        struct outcome o = run(row, c, device, n_thread, 0, -1);
        for (int i = 0; i < c->n_arg; i++)
            ck_assert_msg(!memcmp(o.mem[i], one->mem[i], c->arg[i].size), "%s: argument %d differs with %d threads", what, i, n_thread);
        outcome_free(&o, c);
    }
}

static void check_row_alone(const char *what, const struct op_row *row, const struct op_case *c, const char *device,
                            const struct outcome *all)
{
    int64_t n = -1;
    for (int i = 0; i < c->n_arg; i++)
        if ((c->arg[i].flags & (OUT | BY_ROW)) == (OUT | BY_ROW)) n = c->arg[i].t.shape[0];
    if (n < 2) return;
    for (int64_t r = n / 2; r < n; r += n / 2 + 1) {
        struct outcome o = run(row, c, device, 1, r, 1);
        for (int i = 0; i < c->n_arg; i++) {
            if ((c->arg[i].flags & (OUT | BY_ROW)) != (OUT | BY_ROW)) continue;
            struct tensor a = o.x[i], b = tensor_rows(all->x[i], r, 1);
            for (int64_t j = 0; j < tensor_numel(a); j++) {
                double u = tensor_get(a, j), v = tensor_get(b, j);
                if (memcmp(&u, &v, sizeof u))
                    ck_abort_msg("%s: row %lld alone differs from itself among others: %.9g %.9g", what, (long long)r, u, v);
            }
        }
        outcome_free(&o, c);
    }
}

// The reference is made once for all instruction sets.
static void check_case(const struct op_row *row, struct op_case *c)
{
    struct outcome one[N_CPU_ISA + 1];
    char what[160];
    row->setup(c);
    size_t size = 0;
    for (int i = 0; i < c->n_arg; i++) size += c->arg[i].size;
    if (getenv("OPS_SMALL") && size > SMALL) {
        case_free(c);
        return;
    }
    for (int i = 0; i < n_backend; i++) one[i] = run(row, c, backends[i]->name, 1, 0, -1);
    row->ref(c);
    for (int i = 0; i < n_backend; i++) {
        case_name(what, sizeof what, row, c, backends[i]->name);
        compare(what, c, &one[i]);
        if (backends[i]->host_memory) check_threads(what, row, c, backends[i]->name, &one[i]);
        check_row_alone(what, row, c, backends[i]->name, &one[i]);
        outcome_free(&one[i], c);
    }
    case_free(c);
}

// By environment, while a kernel is being written, and for tests/gpu-check: OPS="add,rope" these alone (OPS="?": their names),
// OPS_DEVICE=cuda on this backend alone, OPS_SMALL=1 in small shapes alone.
static bool asked_for(const char *name)
{
    const char *list = getenv("OPS");
    const size_t n = strlen(name);
    for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, name, n)) return true;
    return !list;
}

START_TEST(every_op_agrees_with_its_reference) // _i: family
{
    for (const struct op_row *row = all_rows[_i]; row->name; row++) {
        if (!asked_for(row->name)) continue;
        for (int s = 0; s < MAX_SHAPE && row->dim[s][0]; s++)
            for (int d = 0; d < 2; d++) check_case(row, &(struct op_case){.dtype = d ? DT_BF16 : DT_F32, .dim = row->dim[s]});
    }
}
END_TEST

// ---- gradients -----------------------------------------------------------------------------------------------------------------------

// For the forward's output y and the backward's dout: the derivative of Σ dout · y by finite differences of the reference forward.
struct grad_row {
    const char *bwd, *fwd;
    int dout, n_share, share[4][2], n_grad,
        grad[3][2]; // share: (bwd, fwd) arguments that are the same; grad: (bwd, fwd) derivative and of what
};
static const struct grad_row grad_rows[] = {
    {"rmsnorm_bwd", "rmsnorm", 2, 2, {{3, 1}, {4, 2}}, 2, {{0, 1}, {1, 2}}},
    {"silu_mul_bwd", "silu_mul", 2, 2, {{3, 1}, {4, 2}}, 2, {{0, 1}, {1, 2}}},
    {"embed_bwd", "embed", 1, 1, {{2, 2}}, 1, {{0, 1}}},
    {"linear_bwd_x", "linear", 1, 1, {{2, 2}}, 1, {{0, 1}}},
    {"linear_bwd_w", "linear", 1, 1, {{2, 1}}, 1, {{0, 2}}},
    {"attention_bwd", "attention", 3, 3, {{4, 2}, {5, 3}, {6, 4}}, 3, {{0, 2}, {1, 3}, {2, 4}}},
};
static const struct op_row *row_named(const char *name)
{
    FOR_ALL_ROWS(row)
    if (!strcmp(row->name, name)) return row;
    ck_abort_msg("no row %s", name);
}

static double weighted(const struct op_row *fwd, struct op_case *f, const double *dout)
{
    double sum = 0;
    fwd->ref(f);
    for (int64_t i = 0; i < tensor_numel(f->arg[0].t); i++) sum += dout[i] * f->arg[0].ref[i];
    return sum;
}

static void check_grad(const struct grad_row *g, const int64_t *dim)
{
    const struct op_row *bwd = row_named(g->bwd), *fwd = row_named(g->fwd);
    struct op_case b = {.dtype = DT_F32, .dim = dim}, f = {.dtype = DT_F32, .dim = dim};
    bwd->setup(&b);
    fwd->setup(&f);
    for (int i = 0; i < g->n_share; i++)
        memcpy(f.arg[g->share[i][1]].ref, b.arg[g->share[i][0]].ref, (size_t)tensor_numel(b.arg[g->share[i][0]].t) * sizeof(double));
    double *before[3];
    for (int i = 0; i < g->n_grad; i++) { // what the gradient is added to
        size_t size = (size_t)tensor_numel(b.arg[g->grad[i][0]].t) * sizeof(double);
        before[i] = mem_alloc(size + 8);
        memcpy(before[i], b.arg[g->grad[i][0]].ref, size);
    }
    bwd->ref(&b);
    for (int i = 0; i < g->n_grad; i++) {
        double *x = f.arg[g->grad[i][1]].ref, *dx = b.arg[g->grad[i][0]].ref;
        for (int64_t j = 0; j < tensor_numel(b.arg[g->grad[i][0]].t); j++) {
            const double h = 1e-4, keep = x[j];
            x[j] = keep + h;
            double up = weighted(fwd, &f, b.arg[g->dout].ref);
            x[j] = keep - h;
            double slope = (up - weighted(fwd, &f, b.arg[g->dout].ref)) / (2 * h);
            x[j] = keep;
            // h² times the third derivative, and saved values (rstd, lse) that were rounded to f32: 1e-6 of numbers near 1
            double tol = 3e-6 * (1 + fabs(slope));
            // some ops add to what was there, some only on request
            if (fabs(dx[j] - before[i][j] - slope) <= tol || fabs(dx[j] - slope) <= tol) continue;
            ck_abort_msg("%s: argument %d, element %lld: %.9g, finite differences give %.9g", g->bwd, g->grad[i][0], (long long)j, dx[j],
                         slope);
        }
        mem_free(before[i]);
    }
    case_free(&b);
    case_free(&f);
}

START_TEST(reference_gradients_agree_with_finite_differences)
{
    for (size_t i = 0; i < sizeof grad_rows / sizeof *grad_rows; i++) {
        const struct op_row *bwd = row_named(grad_rows[i].bwd);
        for (int s = 0; s < MAX_SHAPE && bwd->dim[s][0]; s++) {
            struct op_case b = {.dtype = DT_F32, .dim = bwd->dim[s]};
            bwd->setup(&b);
            bool small = tensor_numel(b.arg[grad_rows[i].dout].t) < 700;
            case_free(&b);
            if (small) check_grad(&grad_rows[i], bwd->dim[s]);
        }
    }
}
END_TEST

// ---- errors --------------------------------------------------------------------------------------------------------------------------

START_TEST(wrong_arguments_are_named_and_stick)
{
    struct err err = {0};
    struct device dev;
    float x[32], w[8];
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    op_rmsnorm(&dev, tensor_2d(x, DT_F32, 4, 8), tensor_2d(x, DT_F32, 4, 8), tensor_1d(w, DT_F32, 7), 1e-5f, TENSOR_NONE);
    op_add(&dev, TENSOR_NONE, TENSOR_NONE, TENSOR_NONE); // the first failure is the one told
    ck_fails(dev_check(&dev, &err), ST_FAIL, "op_rmsnorm on cpu");
    op_rmsnorm(&dev, tensor_2d(x, DT_F32, 4, 8), tensor_2d(x, DT_F32, 4, 8), tensor_1d(w, DT_F32, 7), 1e-5f, TENSOR_NONE);
    ck_fails(dev_check(&dev, &err), ST_FAIL, "w: wanted f32 (8) contiguous, found f32 (7)");
    op_add(&dev, tensor_2d(x, DT_F32, 4, 8), tensor_2d(x, DT_F32, 4, 8), tensor_cols(tensor_2d(x, DT_F32, 2, 16), 0, 8));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "b: wanted f32 (4, 8) contiguous, found f32 (2, 8) strides (16, 1)");
    int32_t id[2] = {0, 9};
    op_embed(&dev, tensor_2d(x, DT_F32, 2, 2), tensor_2d(w, DT_F32, 4, 2), tensor_1d(id, DT_I32, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "token id 9 in row 1: the vocabulary has 4");
    struct backend lame = *dev.backend;
    lame.add = NULL;
    dev.backend = &lame;
    op_add(&dev, tensor_2d(x, DT_F32, 4, 4), tensor_2d(x, DT_F32, 4, 4), tensor_2d(x, DT_F32, 4, 4));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "op_add on cpu");
    dev_close(&dev);
}
END_TEST

// Ids are data: they are found wrong while an op runs, and told at the next check.
START_TEST(ids_out_of_range_are_told) // _i: backend
{
    simt_devices(1);
    struct err err = {0};
    struct device dev;
    const int32_t id[] = {0, 9, 3, -1};
    simt_devices(1);
    ck_ok(dev_open(&dev, backends[_i]->name, 1, &err));
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    dev.sync = true; // waits for every op
    struct tensor ids = dev_1d(&dev, DT_I32, 4), table = dev_2d(&dev, DT_F32, 4, 8), rows = dev_2d(&dev, DT_F32, 2, 8);
    struct tensor first = dev_1d(&dev, DT_I32, 5), row = dev_1d(&dev, DT_I32, 4), at = dev_2d(&dev, DT_I32, 2, 2);
    op_upload(&dev, ids, id);
    op_zero(&dev, table);
    op_zero(&dev, rows);
    ck_ok(dev_check(&dev, &err));
    op_embed(&dev, rows, table, tensor_rows(ids, 0, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "token id 9 in row 1: the vocabulary has 4");
    op_embed(&dev, rows, table, tensor_rows(ids, 2, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "token id -1 in row 1: the vocabulary has 4");
    op_embed_bwd(&dev, table, rows, tensor_rows(ids, 0, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "token id 9 in row 1: the vocabulary has 4");
    op_embed_bwd(&dev, table, rows, tensor_rows(ids, 2, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "token id -1 in row 1: the vocabulary has 4");
    op_gather_rows(&dev, rows, table, tensor_rows(ids, 0, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "row 9: there are 4");
    op_scatter_rows(&dev, table, rows, tensor_rows(ids, 0, 2));
    ck_fails(dev_check(&dev, &err), ST_FAIL, "op_scatter_rows on");
    op_moe_sort(&dev, first, tensor_rows(row, 0, 2), tensor_2d(at.data, DT_I32, 2, 1), tensor_2d(ids.data, DT_I32, 2, 1), 4);
    ck_fails(dev_check(&dev, &err), ST_FAIL, "expert 9 of token 1: there are 4");
    op_embed(&dev, tensor_rows(rows, 0, 1), table, tensor_rows(ids, 2, 1)); // and what was told is over
    ck_ok(dev_check(&dev, &err));
    dev_close(&dev);
}
END_TEST

START_TEST(unknown_devices_are_refused_by_name)
{
    struct err err = {0};
    struct device dev;
    ck_fails(dev_open(&dev, "tpu", 1, &err), ST_BAD_INPUT, "Known: cpu");
    ck_fails(dev_open(&dev, "cpu:sse9", 1, &err), ST_BAD_INPUT, "It runs: cpu, cpu:generic");
    dev_close(&dev); // of nothing
}
END_TEST

static void find_backends(void)
{
    struct err err = {0};
    const char *only = getenv("OPS_DEVICE");
    n_backend = cpu_backend_list(backends);
    if (test_gpu() && !cuda_backend(&backends[n_backend], "cuda", &err)) n_backend++;
    int n = 0;
    for (int i = 0; i < n_backend; i++)
        if (!only || !strncmp(backends[i]->name, only, strlen(only))) backends[n++] = backends[i];
    n_backend = n;
}

static void print_names(void)
{
    FOR_ALL_ROWS(row) printf("op: %s\n", row->name);
}

Suite *suite_ops(void)
{
    Suite *s = suite_create("ops");
    TCase *t = tcase_create("ops");
    const char *list = getenv("OPS");
    if (list && !strcmp(list, "?")) {
        print_names();
        return s;
    }
    find_backends();
    if (list) {
        tcase_add_loop_test(t, every_op_agrees_with_its_reference, 0, N_FAMILY);
        suite_add_tcase(s, t);
        return s;
    }
    tcase_add_loop_test(t, every_entry_of_the_table_has_a_row, 0, n_backend);
    tcase_add_loop_test(t, every_op_agrees_with_its_reference, 0, N_FAMILY);
    tcase_add_test(t, reference_gradients_agree_with_finite_differences);
    tcase_add_test(t, wrong_arguments_are_named_and_stick);
    tcase_add_loop_test(t, ids_out_of_range_are_told, 0, n_backend);
    tcase_add_test(t, unknown_devices_are_refused_by_name);
    suite_add_tcase(s, t);
    return s;
}
