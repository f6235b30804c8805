// Attention by cuDNN, on the emulated GPU and an emulated library (tests/simt/cudnn.cc): what it is asked and what it is not, that its
// results stand where ours would, and that a library that is not there, too old, wrong or unsteady costs nothing but time.
#include "tests/kernels/devices.h"
#include "tests/kernels/on_device.h"
#include "tests/simt/simt_state.h"

#include <unistd.h>

struct shape {
    int n_head, n_kv, dk, dv, window, pad; // pad: elements between heads
    int n_seg, len[5];
};
static const struct shape shape[] = {
    {2, 1, 64, 64, 0, 0, 3, {37, 70, 1}}, {1, 1, 128, 128, 0, 0, 1, {130}},   {3, 1, 16, 16, 0, 0, 5, {0, 13, 0, 40, 0}},
    {2, 1, 64, 32, 9, 0, 2, {80, 20}},    {2, 2, 32, 48, 0, 16, 2, {20, 40}}, {1, 1, 192, 128, 0, 8, 1, {20}},
    {1, 1, 256, 256, 12, 0, 2, {23, 1}},  {2, 2, 64, 64, 1000, 0, 1, {9}}, // a window that hides nothing
};
enum { N_SHAPE = sizeof shape / sizeof *shape };

// mode: DISTILL_CUDNN, which is read when attention first comes.
static void open_gpu(struct device *dev, const char *mode, const char *library)
{
    simt_devices(1);
    mode ? setenv("DISTILL_CUDNN", mode, 1) : unsetenv("DISTILL_CUDNN");
    library ? setenv("DISTILL_SIMT_CUDNN", library, 1) : unsetenv("DISTILL_SIMT_CUDNN");
    device_open(dev, "cuda", 0);
    dev->batch_invariant = false;
}
static void aside(void) // the cache of choices, in a folder of the test's
{
    setenv("XDG_CACHE_HOME", test_tmpdir(), 1);
}

// A call's tensors on the host, and its results.
struct call {
    struct attention a;
    int32_t start[6];
    struct tensor q, k, v, g, out, lse, dq, dk, dv;
    bool apart; // keys have starts of their own, of the same values
};
static void call_make(struct call *c, const struct shape *s, enum dtype t)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < s->n_seg; i++) {
        c->start[i + 1] = c->start[i] + s->len[i];
        if (s->len[i] > c->a.max_len) c->a.max_len = s->len[i];
    }
    c->a.n_seg = s->n_seg, c->a.scale = 1 / sqrtf((float)s->dk), c->a.window = s->window;
    const int n = c->start[s->n_seg], pad = s->pad;
    c->q = make(t, n, s->n_head, s->dk, pad, 1), c->k = make(t, n, s->n_kv, s->dk, pad, 2), c->v = make(t, n, s->n_kv, s->dv, 0, 3);
    c->g = make(t, n, s->n_head, s->dv, pad, 4), c->out = make(t, n, s->n_head, s->dv, 0, 5), c->lse = make(DT_F32, n, 0, s->n_head, 0, 6);
    c->dq = make(t, n, s->n_head, s->dk, pad, 7), c->dk = make(t, n, s->n_kv, s->dk, 0, 8), c->dv = make(t, n, s->n_kv, s->dv, pad, 9);
}
static void forward(struct device *dev, struct call *c)
{
    struct lent l = {.dev = dev};
    struct attention a = c->a;
    a.q_start = lend(&l, c->start, sizeof(int32_t) * (size_t)(a.n_seg + 1));
    a.k_start = c->apart ? lend(&l, c->start, sizeof(int32_t) * (size_t)(a.n_seg + 1)) : a.q_start;
    struct tensor out = lend_out(&l, c->out), lse = lend_out(&l, c->lse), q = lend_tensor(&l, c->q), k = lend_tensor(&l, c->k),
                  v = lend_tensor(&l, c->v);
    PLANNED(dev, op_attention(dev, out, lse, q, k, v, &a));
    lent_back(&l);
}
static void backward(struct device *dev, struct call *c)
{
    struct lent l = {.dev = dev};
    struct attention a = c->a;
    a.q_start = lend(&l, c->start, sizeof(int32_t) * (size_t)(a.n_seg + 1));
    a.k_start = c->apart ? lend(&l, c->start, sizeof(int32_t) * (size_t)(a.n_seg + 1)) : a.q_start;
    struct tensor dq = lend_out(&l, c->dq), dk = lend_out(&l, c->dk), dv = lend_out(&l, c->dv), g = lend_tensor(&l, c->g),
                  q = lend_tensor(&l, c->q), k = lend_tensor(&l, c->k), v = lend_tensor(&l, c->v), out = lend_tensor(&l, c->out),
                  lse = lend_tensor(&l, c->lse);
    PLANNED(dev, op_attention_bwd(dev, dq, dk, dv, g, q, k, v, out, lse, &a));
    lent_back(&l);
}
// How far x is from y, in their largest value.
static double off_by(struct tensor x, struct tensor y)
{
    double most = 0, size = 0;
    for (int64_t i = 0; i < tensor_numel(x); i++) {
        want(isfinite(at(x, i)), "[%ld]: %g, wanted %g", (long)i, at(x, i), at(y, i));
        most = fmax(most, fabs(at(x, i) - at(y, i)));
        size = fmax(size, fabs(at(y, i)));
    }
    return size > 0 ? most / size : most;
}
static bool same(struct tensor x, struct tensor y)
{
    for (int64_t i = 0; i < tensor_numel(x); i++)
        if (at(x, i) != at(y, i)) return false;
    return true;
}

// P is rounded to bf16 by our kernels and not by this library, the results by both.
START_TEST(it_does_what_our_kernels_do)
{
    struct device ours, theirs;
    struct call a, b;
    call_make(&a, &shape[_i], DT_BF16), call_make(&b, &shape[_i], DT_BF16);
    open_gpu(&ours, "0", NULL);
    forward(&ours, &a), backward(&ours, &a);
    ck_assert_int_eq(simt_cudnn_runs(), 0);
    open_gpu(&theirs, "1", NULL);
    forward(&theirs, &b);
    ck_assert_int_eq(simt_cudnn_runs(), 3); // once, again for the same bits, and for good
    ck_assert_double_lt(off_by(b.out, a.out), 1.0 / 128);
    ck_assert_double_lt(off_by(b.lse, a.lse), 1e-5);
    forward(&theirs, &b);
    ck_assert_int_eq(simt_cudnn_runs(), 4);
    ck_assert_int_eq(cuda_library_attentions(&theirs), 2);
    const struct tensor first = b.out;
    b.out = a.out, b.lse = a.lse;
    backward(&theirs, &b);
    ck_assert_int_eq(simt_cudnn_runs(), 7);
    ck_assert_double_lt(off_by(b.dq, a.dq), 1.0 / 64);
    ck_assert_double_lt(off_by(b.dk, a.dk), 1.0 / 64);
    ck_assert_double_lt(off_by(b.dv, a.dv), 1.0 / 64);
    b.lse = TENSOR_NONE; // the same plan, the same bits
    b.out = make(DT_BF16, a.out.shape[0], a.out.shape[1], a.out.shape[2], 0, 10);
    forward(&theirs, &b);
    ck_assert_int_eq(simt_cudnn_runs(), 8);
    ck_assert(same(b.out, first));
    dev_close(&ours), dev_close(&theirs);
}
END_TEST

// Sizes are rounded up: other segments of about the same sizes have the same plan.
START_TEST(plans_are_few)
{
    struct device dev;
    open_gpu(&dev, "1", NULL);
    static const struct shape near[] = {
        {2, 1, 32, 32, 0, 0, 3, {70, 100, 20}}, {2, 1, 32, 32, 0, 0, 4, {128, 1, 30, 31}}, {2, 1, 32, 32, 0, 0, 3, {5, 6, 7}}};
    for (int i = 0; i < 3; i++) {
        struct call c;
        call_make(&c, &near[i], DT_BF16);
        forward(&dev, &c);
        ck_assert_int_eq(simt_cudnn_runs(), 3 + i);
    }
    dev_close(&dev);
}
END_TEST

static const struct {
    const char *library, *mode, *said; // said: a line; NULL: none
    int n_run;
} troubles[] = {
    {"old", NULL, NULL, 0},
    {"refuses", NULL, NULL, 0},
    {"none", NULL, NULL, 0},
    {"fails", NULL, NULL, 0},
    {"none", "1", "cuDNN was not found", 0},
    {"old", "1", "older than 9.21", 0},
    {"refuses", "1", "has no plan (forward, heads 2/1 of 32 and 32): an engine", 0},
    {"greedy", "1", "has no plan (backward, heads 2/1 of 32 and 32): its workspace", 0},
    {"wrong", "1", "does not agree with our own (forward, heads 2/1 of 32 and 32", 2},
    {"restless", "1", "does not give the same bits again", 4},
    {"wrong", NULL, "does not agree", 2},
};
START_TEST(trouble_with_it_leaves_our_results)
{
    struct device ours, theirs;
    struct call a, b;
    const struct shape few = {2, 1, 32, 32, 0, 0, 1, {65}}; // worth measuring
    char path[] = "/tmp/distill-said.XXXXXX", said[4096] = "";
    aside();
    if (!strcmp(troubles[_i].library, "none")) setenv("DISTILL_SIMT_NO_LIBRARY", "cudnn", 1);
    call_make(&a, &few, DT_BF16), call_make(&b, &few, DT_BF16);
    open_gpu(&ours, "0", NULL);
    forward(&ours, &a), backward(&ours, &a);
    const int said_to = mkstemp(path), was = dup(2);
    ck_assert_int_ge(said_to, 0);
    fflush(stderr), dup2(said_to, 2);
    open_gpu(&theirs, troubles[_i].mode, troubles[_i].library);
    for (int i = 0; i < 2; i++) forward(&theirs, &b), backward(&theirs, &b);
    fflush(stderr), dup2(was, 2);
    ck_assert_int_ge(pread(said_to, said, sizeof said - 1, 0), 0);
    unlink(path);
    ck_assert_int_eq(simt_cudnn_runs(), troubles[_i].n_run);
    ck_assert_int_eq(cuda_library_attentions(&theirs), 0);
    ck_assert(same(a.out, b.out) && same(a.lse, b.lse) && same(a.dq, b.dq) && same(a.dk, b.dk) && same(a.dv, b.dv));
    if (troubles[_i].said)
        ck_assert_msg(strstr(said, troubles[_i].said) != NULL, "said: %s", said);
    else
        ck_assert_str_eq(said, "");
    dev_close(&ours), dev_close(&theirs);
}
END_TEST

START_TEST(what_it_is_not_asked)
{
    struct device dev;
    struct call c;
    const struct shape narrow = {2, 1, 24, 32, 0, 0, 1, {20}}, close = {2, 1, 32, 32, 0, 4, 1, {20}}, usual = shape[2];
    open_gpu(&dev, "1", NULL);
    call_make(&c, &usual, DT_F32);
    forward(&dev, &c), backward(&dev, &c);
    call_make(&c, &narrow, DT_BF16); // heads of 24
    forward(&dev, &c), backward(&dev, &c);
    call_make(&c, &close, DT_BF16); // heads that do not begin at 16 bytes
    forward(&dev, &c), backward(&dev, &c);
    call_make(&c, &usual, DT_BF16);
    c.apart = true; // queries over keys that need not be theirs
    forward(&dev, &c), backward(&dev, &c);
    c.apart = false;
    dev.batch_invariant = true;
    forward(&dev, &c), backward(&dev, &c);
    dev_close(&dev);
    open_gpu(&dev, "0", NULL);
    forward(&dev, &c), backward(&dev, &c);
    dev_close(&dev);
    simt_fail("arch", 1, 80);
    open_gpu(&dev, "1", NULL);
    backward(&dev, &c); // whose sums it makes in one order on sm_90 alone
    ck_assert_int_eq(simt_cudnn_runs(), 0);
    forward(&dev, &c);
    ck_assert_int_eq(simt_cudnn_runs(), 3);
    dev_close(&dev);
}
END_TEST

// Forward both take two kernels here, so ours stays; backward ours take three and more.
START_TEST(the_faster_one_is_kept)
{
    struct device dev;
    struct call c, again;
    const struct shape large = {2, 1, 32, 32, 0, 0, 1, {100}}, small = {1, 1, 16, 16, 0, 0, 1, {9}};
    char path[512], line[2048];
    aside();
    call_make(&c, &large, DT_BF16), call_make(&again, &large, DT_BF16);
    open_gpu(&dev, NULL, NULL);
    forward(&dev, &c), backward(&dev, &c);
    const int n_run = simt_cudnn_runs();
    ck_assert_int_eq(n_run, 2 + 5 + 2 + 5 + 1); // the same bits again, 5 times measured; and backward for good
    forward(&dev, &c), backward(&dev, &c);
    ck_assert_int_eq(simt_cudnn_runs(), n_run + 1);
    call_make(&again, &small, DT_BF16); // not worth measuring
    forward(&dev, &again), backward(&dev, &again);
    ck_assert_int_eq(simt_cudnn_runs(), n_run + 1);
    dev_close(&dev);
    snprintf(path, sizeof path, "%s/distill/cudnn.txt", getenv("XDG_CACHE_HOME"));
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    int n_line = 0;
    while (fgets(line, sizeof line, f)) n_line += strstr(line, "|92801 ") != NULL;
    fclose(f);
    ck_assert_int_eq(n_line, 2);
    call_make(&again, &large, DT_BF16);
    open_gpu(&dev, NULL, NULL);
    forward(&dev, &again), backward(&dev, &again);
    ck_assert_int_eq(simt_cudnn_runs(), n_run + 2); // nothing is measured, and the same is chosen
    ck_assert(same(c.out, again.out) && same(c.dq, again.dq) && same(c.dk, again.dk) && same(c.dv, again.dv));
    dev_close(&dev);
    unlink(path);
}
END_TEST

// A step that is recorded: with a plan if there is one by then, by our kernels if not; nothing waits meanwhile.
START_TEST(a_recorded_step_makes_no_plan)
{
    struct device dev;
    struct err err = {0};
    open_gpu(&dev, "1", NULL);
    ck_ok(dev_reserve(&dev, 8 << 20, &err));
    const struct shape *s = &shape[0];
    for (int known = 0; known < 2; known++) {
        struct call c;
        struct lent l = {.dev = &dev};
        call_make(&c, s, DT_BF16);
        struct attention a = c.a;
        a.q_start = a.k_start = lend(&l, c.start, sizeof(int32_t) * (size_t)(a.n_seg + 1));
        struct tensor out = lend_out(&l, c.out), lse = lend_out(&l, c.lse), q = lend_tensor(&l, c.q), k = lend_tensor(&l, c.k),
                      v = lend_tensor(&l, c.v);
        for (int round = 0; round < 3; round++) {
            if (!dev_step_begin(&dev, &known, sizeof known) && (known || round)) op_attention(&dev, out, lse, q, k, v, &a);
            dev_step_end(&dev);
        }
        ck_ok(dev_check(&dev, &err));
        ck_assert_int_eq(simt_cudnn_runs(), known ? 3 + 1 : 0); // recorded once: a launch of it is none of the library's
        lent_back(&l);
        struct call want = c;
        want.out = make(DT_BF16, c.out.shape[0], c.out.shape[1], c.out.shape[2], 0, 11),
        want.lse = make(DT_F32, c.lse.shape[0], 0, c.lse.shape[1], 0, 12);
        struct device ours;
        open_gpu(&ours, "0", NULL);
        forward(&ours, &want);
        dev_close(&ours);
        setenv("DISTILL_CUDNN", "1", 1);
        ck_assert_double_lt(off_by(c.out, want.out), 1.0 / 128);
    }
    dev_close(&dev);
}
END_TEST

Suite *suite_cudnn(void)
{
    Suite *s = suite_create("cudnn");
    if (!simt_here()) {
        printf("skipped: suite cudnn (its library is emulated, as the GPU is)\n");
        return s;
    }
    TCase *t = tcase_create("cudnn");
    tcase_add_loop_test(t, it_does_what_our_kernels_do, 0, N_SHAPE);
    tcase_add_test(t, plans_are_few);
    tcase_add_loop_test(t, trouble_with_it_leaves_our_results, 0, sizeof troubles / sizeof *troubles);
    tcase_add_test(t, what_it_is_not_asked);
    tcase_add_test(t, the_faster_one_is_kept);
    tcase_add_test(t, a_recorded_step_makes_no_plan);
    suite_add_tcase(s, t);
    return s;
}
