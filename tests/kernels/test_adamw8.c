// AdamW with states of 8 bits: what stochastic rounding is for. Averages that move less than a code at a step still arrive where they
// should, weights that move less than a bf16 too; a part of a parameter is stepped as it is within the whole.
#include "tests/kernels/devices.h"

enum { N = 4096, N_BLOCK = N / OP_ADAMW8_BLOCK };
struct state {
    struct device dev;
    struct tensor w, m, v, m_unit, v_unit, grad;
};
static struct state state_open(const char *device, const float *w, const float *grad)
{
    struct state s = {0};
    struct err err = {0};
    ck_ok(dev_open(&s.dev, device, 1, &err));
    ck_ok(dev_reserve(&s.dev, 1 << 20, &err));
    s.w = dev_1d(&s.dev, DT_BF16, N);
    s.m = dev_1d(&s.dev, DT_U8, N);
    s.v = dev_1d(&s.dev, DT_U8, N);
    s.m_unit = dev_1d(&s.dev, DT_F32, N_BLOCK);
    s.v_unit = dev_1d(&s.dev, DT_F32, N_BLOCK);
    s.grad = dev_1d(&s.dev, DT_F32, N);
    struct tensor *zero[] = {&s.m, &s.v, &s.m_unit, &s.v_unit};
    for (int i = 0; i < 4; i++) op_zero(&s.dev, *zero[i]);
    op_upload(&s.dev, s.grad, w);
    op_copy(&s.dev, s.w, s.grad);
    op_upload(&s.dev, s.grad, grad);
    return s;
}
static struct adamw8 step_of(int64_t step, double lr, int64_t first)
{
    return (struct adamw8){.adamw = {.lr = lr, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-12, .grad_scale = 1, .step = step},
                           .seed = 3,
                           .stream = 4,
                           .first = first};
}
// Elements [first, first + n).
static void step_part(struct state *s, int64_t first, int64_t n, int64_t step, double lr)
{
    const struct adamw8 a = step_of(step, lr, first);
    const int64_t b = first / OP_ADAMW8_BLOCK, n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
    op_adamw8(&s->dev, tensor_rows(s->w, first, n), tensor_rows(s->m, first, n), tensor_rows(s->v, first, n),
              tensor_rows(s->m_unit, b, n_block), tensor_rows(s->v_unit, b, n_block), tensor_rows(s->grad, first, n), &a);
}
static void read_back(struct state *s, struct tensor x, void *to)
{
    struct err err = {0};
    op_download(&s->dev, to, x);
    ck_ok(dev_check(&s->dev, &err));
}
static double value_of(int code) // in units of its block
{
    return code < 16 ? code : (8 + code % 8) * exp2(code / 8 - 1);
}

// Gradients of many sizes, new ones at every step, and after a while a tenth of what they were for every second element, while its block's
// unit stays: what is kept, against the averages in double. A step takes a hundredth of v away, and codes are up to an eighth apart.
START_TEST(averages_arrive_on_average)
{
    static float w[N], grad[N], m_unit[N_BLOCK], v_unit[N_BLOCK];
    static uint8_t m[N], v[N];
    static double m_true[N], v_true[N];
    struct state s = state_open("cpu", w, grad);
    for (int t = 1; t <= 400; t++) {
        for (int i = 0; i < N; i++) {
            const double g =
                exp(1.5 * rng_normal(1, 2, (uint64_t)i)) * rng_normal(2, (uint64_t)t, (uint64_t)i) * (i % 2 && t > 100 ? 0.1 : 1);
            grad[i] = (float)g;
            m_true[i] = 0.9 * m_true[i] + 0.1 * g;
            v_true[i] = 0.99 * v_true[i] + 0.01 * g * g;
        }
        op_upload(&s.dev, s.grad, grad);
        step_part(&s, 0, N, t, 0);
    }
    read_back(&s, s.m, m);
    read_back(&s, s.v, v);
    read_back(&s, s.m_unit, m_unit);
    read_back(&s, s.v_unit, v_unit);
    double m_both = 0, m_self = 0, v_mean = 0, v_far = 0;
    for (int i = 0; i < N; i++) {
        int b = i / OP_ADAMW8_BLOCK;
        double m_now = value_of(m[i] & 127) * m_unit[b] * (m[i] & 128 ? -1 : 1), ratio = value_of(v[i]) * v_unit[b] / v_true[i];
        m_both += m_now * m_true[i];
        m_self += m_true[i] * m_true[i];
        v_mean += ratio / N;
        v_far += (ratio - 1) * (ratio - 1) / N;
    }
    // An element of v is off by about a third (what one rounding adds to it, up to an eighth, is kept for a hundred steps), the mean of
    // 4096 by a 64th of that, of which we allow five. Nearest rounding leaves v three times as large as it should be.
    ck_assert_msg(fabs(m_both / m_self - 1) < 0.02, "m is %.4f of the average", m_both / m_self);
    ck_assert_msg(fabs(v_mean - 1) < 0.025, "v is %.4f of the average", v_mean);
    ck_assert_msg(v_far < 0.4 * 0.4, "an element of v is off by %.3f", sqrt(v_far));
    dev_close(&s.dev);
}
END_TEST

START_TEST(small_steps_arrive_on_average)
{
    static float w[N], grad[N];
    static bf16 after[N];
    for (int i = 0; i < N; i++) w[i] = 1, grad[i] = i % 2 ? -1 : 1;
    struct state s = state_open("cpu", w, grad);
    for (int t = 1; t <= 50; t++) step_part(&s, 0, N, t, 1e-4); // bf16 below 1 are 2^-8 apart, above it 2^-7
    read_back(&s, s.w, after);
    double down = 0, up = 0;
    for (int i = 0; i < N; i++) *(i % 2 ? &up : &down) += (double)bf16_to_f32(after[i]) / (N / 2.0);
    // 50 steps of 1e-4; of 2048 elements that are a gap of 2^-7 off at most, the mean is off by 2^-7 / 2 / 45 at most, as a deviation
    ck_assert_msg(fabs(1 - down - 50e-4) < 3 * 0x1p-8 / 45 && fabs(up - 1 - 50e-4) < 3 * 0x1p-8 / 45, "moved by %g and %g, wanted 0.005",
                  down - 1, up - 1);
    dev_close(&s.dev);
}
END_TEST

static const struct backend *backends[N_CPU_ISA + 1];
START_TEST(a_part_is_stepped_as_in_the_whole) // _i: backend
{
    static float w[N], grad[N];
    static bf16 after[3][N];
    static uint8_t m[3][N], v[3][N];
    for (int i = 0; i < N; i++) w[i] = (float)rng_normal(1, 1, (uint64_t)i), grad[i] = (float)rng_normal(1, 2, (uint64_t)i);
    for (int k = 0; k < 3; k++) { // whole; in two parts; whole with the draws of other steps
        struct state s = state_open(backends[_i]->name, w, grad);
        for (int t = 1; t <= 3; t++) {
            const int64_t cut = k == 1 ? 5 * OP_ADAMW8_BLOCK : 0;
            if (cut) step_part(&s, 0, cut, t, 1e-3);
            step_part(&s, cut, N - cut, k == 2 ? t + 1 : t, 1e-3);
        }
        read_back(&s, s.w, after[k]);
        read_back(&s, s.m, m[k]);
        read_back(&s, s.v, v[k]);
        dev_close(&s.dev);
    }
    ck_assert(!memcmp(after[0], after[1], sizeof after[0]) && !memcmp(m[0], m[1], N) && !memcmp(v[0], v[1], N));
    ck_assert(memcmp(after[0], after[2], sizeof after[0]) && memcmp(m[0], m[2], N) && memcmp(v[0], v[2], N));
}
END_TEST

START_TEST(what_is_not_finite_shows)
{
    static float w[N], grad[N];
    static bf16 after[N];
    struct state s = state_open("cpu", w, grad);
    grad[7] = NAN;
    op_upload(&s.dev, s.grad, grad);
    step_part(&s, 0, N, 1, 1e-3);
    read_back(&s, s.w, after);
    for (int i = 0; i < N; i++) ck_assert(isnan(bf16_to_f32(after[i])) == (i == 7));
    dev_close(&s.dev);
}
END_TEST

START_TEST(wrong_parts_are_refused)
{
    static float w[N], grad[N];
    struct err err = {0};
    struct state s = state_open("cpu", w, grad);
    struct adamw8 a = step_of(1, 0, 100);
    op_adamw8(&s.dev, s.w, s.m, s.v, s.m_unit, s.v_unit, s.grad, &a);
    ck_fails(dev_check(&s.dev, &err), ST_FAIL, "a part that begins at 100: wanted a multiple of 256");
    a = step_of(1 << 24, 0, 0);
    op_adamw8(&s.dev, s.w, s.m, s.v, s.m_unit, s.v_unit, s.grad, &a);
    ck_fails(dev_check(&s.dev, &err), ST_FAIL, "step 16777216: wanted 1 to 16777215");
    a = step_of(1, 0, 0);
    op_adamw8(&s.dev, s.w, s.m, s.v, tensor_rows(s.m_unit, 0, 3), s.v_unit, s.grad, &a);
    ck_fails(dev_check(&s.dev, &err), ST_FAIL, "m_unit: wanted f32 (16) contiguous, found f32 (3)");
    dev_close(&s.dev);
}
END_TEST

Suite *suite_adamw8(void)
{
    const int n_backend = device_list(backends);
    Suite *s = suite_create("adamw8");
    TCase *t = tcase_create("adamw8");
    tcase_add_test(t, averages_arrive_on_average);
    tcase_add_test(t, small_steps_arrive_on_average);
    tcase_add_loop_test(t, a_part_is_stepped_as_in_the_whole, 0, n_backend);
    tcase_add_test(t, what_is_not_finite_shows);
    tcase_add_test(t, wrong_parts_are_refused);
    suite_add_tcase(s, t);
    return s;
}
