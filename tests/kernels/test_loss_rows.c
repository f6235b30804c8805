// Loss rows where the answer is known without a reference: equal distributions, limits, sampled targets, padding; and every divergence,
// temperature and kind of target by the gradient's finite differences (the reference of op_loss, made of values alone).
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "tests/gpu.h"
#include "tests/kernels/on_device.h"
#include "tests/kernels/ops_ref.h"
#include "tests/test.h"

#include <math.h>

// Each test runs on the CPU, and on the emulated GPU.
static const char *const devices[] = {"cpu", "cuda"};
enum { N = 6, V = 50, COLS = 56, K = 8 };
struct rows_of_loss {
    struct device dev;
    _Alignas(ARENA_ALIGN) float z[N][COLS], d[N][COLS]; // as they lie in step memory
    float ce[N], kd[N], logprob[N][V], tail[N], z1[N], zt[N];
    int32_t label[N], ids[N][V];
};
static void rows_open(struct rows_of_loss *r, const char *device)
{
    struct err err = {0};
    memset(r, 0, sizeof *r);
    ck_ok(dev_open(&r->dev, device, 1, &err));
    ck_ok(dev_reserve(&r->dev, 1 << 17, &err));
    for (int i = 0; i < N; i++) {
        r->label[i] = i * 5;
        for (int j = 0; j < COLS; j++) r->z[i][j] = j < V ? 2 * (float)rng_normal(4, (uint64_t)i, (uint64_t)j) : 1e30f; // padding
    }
}
static void try_loss(struct rows_of_loss *r, int k, struct loss_mix mix)
{
    mix.n_vocab = V;
    mix.grad_scale = 1;
    if (mix.kd_scale == 0) mix.kd_scale = 1;
    static float lp[N][V];
    static int32_t ids[N][V];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < k; j++) ((float *)lp)[i * k + j] = r->logprob[i][j], ((int32_t *)ids)[i * k + j] = r->ids[i][j];
    struct lent l = {.dev = &r->dev};
    struct loss_targets t = {lend_tensor(&l, tensor_2d(ids, DT_I32, N, k)), lend_tensor(&l, tensor_2d(lp, DT_F32, N, k)),
                             lend_tensor(&l, tensor_1d(r->tail, DT_F32, N)), lend_tensor(&l, tensor_1d(r->z1, DT_F32, N)),
                             lend_tensor(&l, tensor_1d(r->zt, DT_F32, N))};
    op_loss(&r->dev, lend_out(&l, tensor_2d(r->d, DT_F32, N, COLS)), lend_out(&l, tensor_1d(r->ce, DT_F32, N)),
            lend_out(&l, tensor_1d(r->kd, DT_F32, N)), lend_tensor(&l, tensor_2d(r->z, DT_F32, N, COLS)),
            lend_tensor(&l, tensor_1d(r->label, DT_I32, N)), &t, &mix);
    lent_back(&l);
}
static void run_loss(struct rows_of_loss *r, int k, struct loss_mix mix)
{
    struct err err = {0};
    try_loss(r, k, mix);
    ck_ok(dev_check(&r->dev, &err));
}
// Targets of the very logits, through op_capture_topk: what the pipeline would store.
static void capture(struct rows_of_loss *r, int k, float temperature)
{
    static float lp[N * V], zs[N][2];
    static int32_t ids[N * V];
    float t[2] = {1, temperature};
    struct err err = {0};
    struct lent l = {.dev = &r->dev};
    op_capture_topk(&r->dev, lend_out(&l, tensor_2d(ids, DT_I32, N, k)), lend_out(&l, tensor_2d(lp, DT_F32, N, k)),
                    lend_out(&l, tensor_1d(r->tail, DT_F32, N)), lend_out(&l, tensor_2d(zs, DT_F32, N, 2)),
                    lend_tensor(&l, tensor_2d(r->z, DT_F32, N, COLS)), V, t);
    lent_back(&l);
    ck_ok(dev_check(&r->dev, &err));
    for (int i = 0; i < N; i++) {
        r->z1[i] = zs[i][0];
        r->zt[i] = zs[i][1];
        for (int j = 0; j < k; j++) r->logprob[i][j] = lp[i * k + j], r->ids[i][j] = ids[i * k + j];
    }
}

static const struct {
    enum divergence kind;
    float beta;
} kinds[] = {{DIV_FKL, 0}, {DIV_RKL, 0}, {DIV_JSD, 0}, {DIV_JSD, 0.1f}, {DIV_JSD, 0.5f}, {DIV_JSD, 0.9f}, {DIV_JSD, 1}};
enum { N_KIND = sizeof kinds / sizeof *kinds };

START_TEST(a_student_equal_to_its_teacher_has_no_loss_and_no_gradient)
{
    static struct rows_of_loss r;
    rows_open(&r, devices[_i]);
    for (int kind = 0; kind < N_KIND; kind++)
        for (int full = 0; full < 2; full++)
            for (int t = 0; t < 2; t++) {
                float temperature = t ? 2.5f : 1;
                capture(&r, full ? V : K, temperature);
                run_loss(&r, full ? V : K,
                         (struct loss_mix){.kd_weight = 1,
                                           .divergence = kinds[kind].kind,
                                           .beta = kinds[kind].beta,
                                           .temperature = temperature,
                                           .full = full});
                for (int i = 0; i < N; i++) {
                    // log-probabilities are rounded to f32 near 10: 1e-6 each
                    if (fabsf(r.kd[i]) > 2e-6f)
                        ck_abort_msg("kind %d full %d T %g row %d: divergence %g", kind, full, (double)temperature, i, (double)r.kd[i]);
                    for (int j = 0; j < COLS; j++)
                        if (fabsf(r.d[i][j]) > 3e-6f || (j >= V && r.d[i][j] != 0))
                            ck_abort_msg("kind %d full %d T %g row %d: gradient of %d: %g", kind, full, (double)temperature, i, j,
                                         (double)r.d[i][j]);
                }
            }
    dev_close(&r.dev);
}
END_TEST

START_TEST(divergences_are_not_negative_and_jsd_ends_in_the_two_kls)
{
    static struct rows_of_loss r;
    rows_open(&r, devices[_i]);
    capture(&r, K, 1);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < V; j++) r.z[i][j] = 2 * (float)rng_normal(5, (uint64_t)i, (uint64_t)j);
    float kd[N_KIND][N];
    for (int kind = 0; kind < N_KIND; kind++) {
        run_loss(&r, K, (struct loss_mix){.kd_weight = 1, .divergence = kinds[kind].kind, .beta = kinds[kind].beta, .temperature = 1});
        memcpy(kd[kind], r.kd, sizeof r.kd);
        for (int i = 0; i < N; i++) ck_assert_float_gt(r.kd[i], 0);
    }
    ck_assert_mem_eq(kd[0], kd[2], sizeof kd[0]); // β = 0: KL(P‖S)
    ck_assert_mem_eq(kd[1], kd[6], sizeof kd[0]); // β = 1: KL(S‖P)
    dev_close(&r.dev);
}
END_TEST

// Counts of N draws as targets (random-sampling KD, arXiv 2503.16870): weights c/N, no tail; the gradient must be S - P̂ on all ids.
START_TEST(sampled_targets_give_the_gradient_s_minus_p)
{
    static struct rows_of_loss r;
    rows_open(&r, devices[_i]);
    const int count[3] = {5, 2, 1};
    for (int i = 0; i < N; i++)
        for (int j = 0; j < K; j++) {
            r.ids[i][j] = j < 3 ? 7 * j + i : -1;
            r.logprob[i][j] = j < 3 ? logf((float)count[j] / 8) : 0;
        }
    run_loss(&r, K, (struct loss_mix){.kd_weight = 1, .divergence = DIV_FKL, .temperature = 1, .full = true});
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int j = 0; j < V; j++) sum += exp((double)r.z[i][j]);
        for (int j = 0; j < V; j++) {
            double p = 0, s = exp((double)r.z[i][j]) / sum;
            for (int k = 0; k < 3; k++) p += r.ids[i][k] == j ? count[k] / 8.0 : 0;
            if (fabs((double)r.d[i][j] - (s - p)) > 1e-6) ck_abort_msg("row %d id %d: %g, S - P is %g", i, j, (double)r.d[i][j], s - p);
        }
    }
    dev_close(&r.dev);
}
END_TEST

START_TEST(vanishing_probabilities_stay_finite)
{
    static struct rows_of_loss r;
    rows_open(&r, devices[_i]);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < V; j++) r.z[i][j] = j == i ? 200 : -200;
    capture(&r, K, 1); // logprob -400, tail nothing
    for (int i = 0; i < N; i++)
        for (int j = 0; j < V; j++) r.z[i][j] = j == 49 - i ? 300 : -300;
    for (int i = 0; i < N; i++) r.logprob[i][K - 1] = -INFINITY;
    for (int kind = 0; kind < N_KIND; kind++)
        for (int k = 0; k < 2; k++) {
            run_loss(
                &r, K,
                (struct loss_mix){
                    .ce_weight = 1, .kd_weight = 1, .divergence = kinds[kind].kind, .beta = kinds[kind].beta, .temperature = 1, .full = k});
            for (int i = 0; i < N; i++) {
                if (!isfinite(r.kd[i]) || !isfinite(r.ce[i]))
                    ck_abort_msg("kind %d row %d: kd %g ce %g", kind, i, (double)r.kd[i], (double)r.ce[i]);
                for (int j = 0; j < V; j++)
                    if (!isfinite(r.d[i][j])) ck_abort_msg("kind %d row %d id %d: gradient %g", kind, i, j, (double)r.d[i][j]);
            }
        }
    dev_close(&r.dev);
}
END_TEST

// All mixes by the row of op_loss: its reference takes finite differences of values computed from the definitions.
START_TEST(gradients_agree_with_finite_differences_for_every_mix)
{
    const struct op_row *row = op_rows_loss;
    while (strcmp(row->name, "loss")) row++;
    for (int mix = 0; mix < 9; mix++)
        for (int t = 5; t <= 20; t += 5)
            for (int full = 0; full < 2; full++) {
                const int64_t dim[MAX_DIM] = {5, 45, 40, full ? 40 : 9, mix, t};
                struct op_case c = {.dtype = DT_F32, .dim = dim};
                struct tensor x[MAX_ARG], there[MAX_ARG];
                struct device dev;
                struct lent l = {.dev = &dev};
                struct err err = {0};
                ck_ok(dev_open(&dev, devices[_i], 1, &err));
                ck_ok(dev_reserve(&dev, 1 << 16, &err));
                row->setup(&c);
                for (int i = 0; i < c.n_arg; i++) {
                    x[i] = c.arg[i].t;
                    x[i].data = c.arg[i].init;
                    there[i] = i < 3 ? lend_out(&l, x[i]) : lend_tensor(&l, x[i]);
                }
                row->call(&dev, &c, there);
                lent_back(&l);
                ck_ok(dev_check(&dev, &err));
                row->ref(&c);
                for (int i = 0; i < 3; i++)
                    for (int64_t j = 0; j < tensor_numel(x[i]); j++) {
                        double got = tensor_get(x[i], j), want = c.arg[i].ref[j];
                        // f32 log-probabilities near 10, at T = 0.5 doubled: 2e-6 of terms near 1
                        if (fabs(got - want) > 5e-6 * (1 + fabs(want)))
                            ck_abort_msg("mix %d T %d/10 full %d: argument %d element %d: %.8g, wanted %.8g", mix, t, full, i, (int)j, got,
                                         want);
                    }
                case_free(&c);
                dev_close(&dev);
            }
}
END_TEST

START_TEST(labels_and_targets_beyond_the_vocabulary_are_refused)
{
    static struct rows_of_loss r;
    struct err err = {0};
    rows_open(&r, devices[_i]);
    capture(&r, K, 1);
    const struct loss_mix mix = {.ce_weight = 1, .kd_weight = 1, .divergence = DIV_FKL, .temperature = 1};
    r.label[3] = V;
    try_loss(&r, K, mix);
    ck_fails(dev_check(&r.dev, &err), ST_FAIL, "outside the vocabulary of 50");
    r.label[3] = 0;
    r.ids[5][2] = COLS;
    try_loss(&r, K, mix);
    ck_fails(dev_check(&r.dev, &err), ST_FAIL, "outside the vocabulary of 50");
    r.ids[5][2] = 7;
    run_loss(&r, K, mix);
    dev_close(&r.dev);
}
END_TEST

Suite *suite_loss_rows(void)
{
    const int n = 1 + test_gpu();
    Suite *s = suite_create("loss_rows");
    TCase *t = tcase_create("loss_rows");
    tcase_add_loop_test(t, a_student_equal_to_its_teacher_has_no_loss_and_no_gradient, 0, n);
    tcase_add_loop_test(t, divergences_are_not_negative_and_jsd_ends_in_the_two_kls, 0, n);
    tcase_add_loop_test(t, sampled_targets_give_the_gradient_s_minus_p, 0, n);
    tcase_add_loop_test(t, vanishing_probabilities_stay_finite, 0, n);
    tcase_add_loop_test(t, gradients_agree_with_finite_differences_for_every_mix, 0, n);
    tcase_add_loop_test(t, labels_and_targets_beyond_the_vocabulary_are_refused, 0, n);
    suite_add_tcase(s, t);
    return s;
}
