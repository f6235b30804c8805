// Training against PyTorch's trajectories, and against itself where two ways must agree.
#include "student/head.h"
#include "student/plan.h"
#include "tests/gpu.h"
#include "tests/kernels/on_device.h"
#include "tests/student/train_fixture.h"

#include <math.h>

enum { N_RUN = 12 }; // of tests/golden/train/runs.json

static double num(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static struct train_options options_of(const json_t *run)
{
    struct err err = {0};
    struct train_options o = fixture_options();
    char loss[32];
    const char *kind = json_string_value(json_object_get(run, "loss_kind"));
    snprintf(loss, sizeof loss, strcmp(kind, "jsd") ? "%s" : "%s:%g", kind, num(run, "beta"));
    ck_ok(loss_parse(&o.loss, loss, &err));
    ck_ok(schedule_parse(&o.schedule, json_string_value(json_object_get(run, "schedule")), &err));
    o.ce_weight = num(run, "ce_weight");
    o.kd_weight = num(run, "kd_weight");
    o.kd_temperature = num(run, "temperature");
    o.kd_scale_t2 = json_is_true(json_object_get(run, "t2"));
    o.lr = num(run, "lr");
    o.weight_decay = num(run, "weight_decay");
    o.clip = num(run, "clip");
    o.warmup = (int64_t)num(run, "warmup");
    o.pack.batch_tokens = o.pack.micro_tokens = (int)num(run, "batch_tokens");
    return o;
}

static void near(const char *run, int step, const char *what, double got, double want, double rel)
{
    ck_assert_msg(fabs(got - want) <= rel * fmax(fabs(want), 1e-3), "%s, step %d: %s %.8g, PyTorch has %.8g", run, step, what, got, want);
}

static void check_weights(const struct fixture *f, const json_t *run, const char *name)
{
    const char *key;
    json_t *want;
    json_object_foreach(json_object_get(run, "final"), key, want)
    {
        const struct param *p = model_param(f->model, key);
        ck_assert_msg(p != NULL, "%s: no parameter %s", name, key);
        int64_t n = tensor_numel(p->weight);
        float *w = NEW_N(float, n);
        op_download(f->model->dev, w, p->weight);
        double sumsq = 0;
        for (int64_t i = 0; i < n; i++) sumsq += (double)w[i] * (double)w[i];
        // Adam divides by the root of tiny second moments: single weights may drift by a fraction of lr (3e-3) a step, the norm hardly.
        near(name, 10, key, sqrt(sumsq), num(want, "norm"), 1e-4);
        for (size_t i = 0; i < json_array_size(json_object_get(want, "first")); i++) {
            double x = json_number_value(json_array_get(json_object_get(want, "first"), i));
            ck_assert_msg(fabs((double)w[i] - x) < 3e-4, "%s: %s[%zu] is %.7g, PyTorch has %.7g", name, key, i, (double)w[i], x);
        }
        mem_free(w);
    }
}

START_TEST(losses_norms_and_weights_follow_pytorch)
{
    struct err err = {0};
    json_t *runs = NULL;
    ck_ok(json_read(&runs, test_golden("train/runs.json"), &err));
    ck_assert_int_eq((int)json_array_size(runs), N_RUN);
    const json_t *run = json_array_get(runs, (size_t)_i), *step;
    const char *name = json_string_value(json_object_get(run, "name"));
    const char *store = test_tmpdir();
    fixture_store(store, (int)num(run, "k"), (float)num(run, "temperature"));
    struct fixture f;
    fixture_open(&f, json_string_value(json_object_get(run, "arch")), DT_F32, store);
    struct train_options o = options_of(run);
    fixture_train(&f, &o);
    size_t s;
    json_array_foreach(json_object_get(run, "steps"), s, step)
    {
        struct step_result r = fixture_step(&f);
        int at = (int)s + 1;
        ck_assert_int_eq((int)r.n_loss, (int)num(step, "n_loss"));
        near(name, at, "loss", r.loss, num(step, "loss"), 2e-4);
        near(name, at, "ce", r.ce, num(step, "ce"), 2e-4);
        near(name, at, "kd", r.kd, num(step, "kd"), 2e-4);
        near(name, at, "gradient norm", r.grad_norm, num(step, "grad_norm"), 2e-3);
        near(name, at, "lr", r.lr, num(step, "lr"), 1e-9);
    }
    check_weights(&f, run, name);
    fixture_close(&f);
    json_decref(runs);
}
END_TEST

// ---- two ways that must agree ----

// Gradients of the first step (they stay after it), and its result.
static struct buf first_grads(const char *store, const char *loss, enum dtype dtype, int micro_tokens, int recompute, struct step_result *r)
{
    struct fixture f;
    struct train_options o = fixture_options_of(loss, strcmp(loss, "ce") ? 1 : 0, 1);
    o.pack.batch_tokens = 128;
    o.pack.micro_tokens = micro_tokens;
    o.recompute = recompute;
    fixture_open(&f, "qwen3", dtype, store);
    fixture_train(&f, &o);
    *r = fixture_step(&f);
    struct buf g = fixture_grads(&f);
    fixture_close(&f);
    return g;
}

START_TEST(accumulated_micro_batches_give_the_gradient_of_one_batch_up_to_rounding)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    struct step_result one, many;
    struct buf a = first_grads(store, "jsd:0.5", DT_F32, 128, RECOMPUTE_NONE, &one),
               b = first_grads(store, "jsd:0.5", DT_F32, 1, RECOMPUTE_NONE, &many);
    ck_assert_uint_eq(a.size, b.size);
    ck_assert_int_eq((int)one.n_loss, (int)many.n_loss);
    ck_assert_int_gt((int)one.n_loss, 60);
    ck_assert_double_eq_tol(one.loss, many.loss, 1e-6 * one.loss);
    ck_assert_double_eq_tol(one.grad_norm, many.grad_norm, 1e-5 * one.grad_norm);
    const float *x = (const float *)(const void *)a.data, *y = (const float *)(const void *)b.data;
    // Sums of up to 128 products in f32, in another order: some ulps of the largest gradients.
    for (size_t i = 0; i < a.size / 4; i++) ck_assert_double_eq_tol((double)x[i], (double)y[i], 2e-6 * one.grad_norm);
    buf_free(&a);
    buf_free(&b);
}
END_TEST

START_TEST(threads_do_not_change_a_gradient)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    for (int d = 0; d < 2; d++) {
        struct buf g[3];
        for (int i = 0; i < 3; i++) {
            struct fixture f;
            struct train_options o = fixture_options();
            o.pack.batch_tokens = o.pack.micro_tokens = 128;
            fixture_open_threads(&f, "qwen2", d ? DT_BF16 : DT_F32, store, 1 + i);
            fixture_train(&f, &o);
            fixture_step(&f);
            g[i] = fixture_grads(&f);
            fixture_close(&f);
        }
        for (int i = 1; i < 3; i++) ck_assert_msg(!memcmp(g[0].data, g[i].data, g[0].size), "%d threads, %s", i + 1, d ? "bf16" : "f32");
        for (int i = 0; i < 3; i++) buf_free(&g[i]);
    }
}
END_TEST

START_TEST(recompute_policies_give_the_same_bits)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    for (int d = 0; d < 2; d++) {
        struct step_result r[3];
        struct buf g[3];
        for (int p = 0; p < 3; p++) g[p] = first_grads(store, "fkl", d ? DT_BF16 : DT_F32, 40, p, &r[p]);
        for (int p = 1; p < 3; p++) {
            ck_assert_msg(g[p].size == g[0].size && !memcmp(g[p].data, g[0].data, g[0].size), "recompute %s differs from none in %s",
                          recompute_names[p], d ? "bf16" : "f32");
            ck_assert(r[p].loss >= r[0].loss && r[p].loss <= r[0].loss);
        }
        for (int p = 0; p < 3; p++) buf_free(&g[p]);
    }
}
END_TEST

// Rounded up for a device that records steps, a micro-batch gives what it gives as it is.
START_TEST(a_shape_made_to_repeat_changes_no_loss_and_no_gradient)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    struct step_result r[2];
    struct buf g[2];
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        struct train_options o = fixture_options_of("jsd:0.5", 1, 1);
        o.pack.batch_tokens = 128;
        o.pack.micro_tokens = 51;
        fixture_open(&f, "qwen2", DT_F32, store);
        fixture_train(&f, &o);
        struct batch *b = &f.trainer->batch;
        batch_free(b);
        batch_alloc(b, &f.trainer->plan.bounds, &f.trainer->use, i == 1);
        r[i] = fixture_step(&f);
        ck_assert(i == (b->shape.n_row > b->m.n_row && b->shape.n_tok >= b->m.n_tok));
        g[i] = fixture_grads(&f);
        fixture_close(&f);
    }
    ck_assert_int_eq((int)r[0].n_loss, (int)r[1].n_loss);
    ck_assert_int_eq((int)r[0].n_tok, (int)r[1].n_tok);
    ck_assert_double_eq_tol(r[0].loss, r[1].loss, 1e-6 * r[0].loss);
    const float *x = (const float *)(const void *)g[0].data, *y = (const float *)(const void *)g[1].data;
    for (size_t i = 0; i < g[0].size / 4; i++) ck_assert_double_eq_tol((double)x[i], (double)y[i], 2e-6 * r[0].grad_norm);
    for (int i = 0; i < 2; i++) buf_free(&g[i]);
}
END_TEST

static bool (*real_step_begin)(struct device *dev, const void *key, size_t n);
static int n_replayed;
static bool count_step_begin(struct device *dev, const void *key, size_t n)
{
    const bool again = real_step_begin(dev, key, n);
    n_replayed += again;
    return again;
}

// On a GPU: an epoch is two steps of different shapes, recorded in the second epoch and replayed in the third. An evaluation whose step
// memory is larger begins anew with that. Of bf16, which the emulation is slow in, two rows, a step an epoch.
static const struct {
    enum dtype dtype;
    enum recompute recompute;
    int n_row, n_step, eval_after, n_replayed;
} recorded[] = {{DT_F32, RECOMPUTE_LAYER, 0, 10, 4, 2}, {DT_BF16, RECOMPUTE_NONE, 2, 3, 0, 1}};
START_TEST(steps_that_are_recorded_leave_the_bits_of_steps_that_are_not)
{
    if (!test_gpu()) return;
    setenv("DISTILL_TEST_DEVICE", "cuda", 1);
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    struct buf w[2];
    double eval[2] = {0};
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        struct fixture f;
        struct step_result r;
        struct train_options o = fixture_options_of("fkl", 1, 1);
        o.pack.batch_tokens = o.pack.micro_tokens = 128;
        o.recompute = (int)recorded[_i].recompute;
        fixture_open(&f, "qwen3", recorded[_i].dtype, store);
        const size_t n_row = f.rows.n;
        if (recorded[_i].n_row) f.rows.n = (size_t)recorded[_i].n_row;
        struct backend counting = *f.dev.backend;
        real_step_begin = counting.step_begin;
        counting.step_begin = count_step_begin;
        f.dev.backend = &counting;
        f.dev.sync = i == 0; // then nothing is recorded
        fixture_train(&f, &o);
        n_replayed = 0;
        for (int step = 1; step <= recorded[_i].n_step; step++) {
            fixture_step(&f);
            if (step == recorded[_i].eval_after) ck_ok(trainer_eval(f.trainer, &f.rows, &f.trainer->use, &r, &err));
        }
        ck_assert_int_eq(n_replayed, i ? recorded[_i].n_replayed : 0);
        if (recorded[_i].eval_after) eval[i] = r.loss;
        w[i] = fixture_weights(&f);
        f.rows.n = n_row;
        fixture_close(&f);
    }
    ck_assert(eval[0] >= eval[1] && eval[0] <= eval[1]);
    ck_assert(w[0].size == w[1].size && !memcmp(w[0].data, w[1].data, w[0].size));
    for (int i = 0; i < 2; i++) buf_free(&w[i]);
}
END_TEST

// What a plan for the bounds of all micro-batches rests on.
START_TEST(rounded_shapes_grow_with_what_they_hold)
{
    struct batch b = {.repeats = true};
    struct micro last = {0};
    for (int n = 1; n <= 20000; n += n < 4200 ? 1 : 97) {
        batch_shape(&b, &(struct micro){.n_row = 1 + n / 40, .n_tok = n, .n_loss = n / 2, .max_len = 1 + n / 3});
        const struct micro *s = &b.shape;
        ck_assert(s->n_tok >= n && s->n_tok - n < 128 && (s->n_tok - n) * 8 <= n);
        ck_assert(s->n_row > b.m.n_row && s->max_len >= b.m.max_len && s->max_len >= s->n_tok - n && s->n_loss == b.m.n_loss);
        ck_assert(s->n_tok >= last.n_tok && s->n_row >= last.n_row && s->max_len >= last.max_len);
        last = *s;
    }
}
END_TEST

// A step of micro-batches of 30 tokens with the room for losses that was taken, with room for one of them; a micro-batch larger than a
// step.
static const struct {
    int batch_tokens, micro_tokens;
    bool little;
} rooms[] = {{128, 30, false}, {128, 30, true}, {20, 128, false}};
START_TEST(losses_have_room_or_make_it)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    struct step_result r[3];
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        struct train_options o = fixture_options();
        o.pack.batch_tokens = rooms[i].batch_tokens;
        o.pack.micro_tokens = rooms[i].micro_tokens;
        fixture_open(&f, "qwen2", DT_F32, store);
        fixture_train(&f, &o);
        if (i < 2) ck_assert_int_gt(f.trainer->losses.room, f.trainer->plan.bounds.n_loss);
        if (rooms[i].little) f.trainer->losses.room = f.trainer->plan.bounds.n_loss;
        r[i] = fixture_step(&f);
        fixture_close(&f);
    }
    ck_assert(r[0].loss >= r[1].loss && r[0].loss <= r[1].loss);
}
END_TEST

START_TEST(what_is_planned_without_weights_is_what_is_taken)
{
    struct err err = {0};
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    for (int d = 0; d < 3; d++) // f32, bf16, bf16 with 8-bit states
        for (int policy = 0; policy < 3; policy++) {
            struct fixture f;
            struct device dev;
            struct model *m;
            struct train_plan plans[3];
            struct train_options o = fixture_options_of("fkl", 1, 1);
            o.recompute = policy;
            o.optimizer = d == 2 ? OPTIMIZER_ADAMW8 : OPTIMIZER_ADAMW;
            fixture_open(&f, "qwen3", d ? DT_BF16 : DT_F32, store);
            fixture_train(&f, &o);
            const struct train_plan *taken = &f.trainer->plan, *p = &plans[policy];
            struct model_options mo = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = f.model->dtype, .random_init = true, .plan = true};
            ck_ok(dev_open(&dev, test_device(), 1, &err));
            ck_ok(model_load(&m, &dev, f.model->dir, &mo, &err));
            ck_ok(train_plan_policies(plans, m, &o, &taken->bounds, &f.trainer->use, &err));
            ck_assert_uint_eq(p->weights, taken->weights);
            ck_assert_uint_eq(p->state, taken->state);
            ck_assert_uint_eq(p->keep, taken->keep);
            ck_assert_uint_eq(p->step, taken->step);
            model_free(m);
            dev_close(&dev);
            fixture_close(&f);
        }
}
END_TEST

START_TEST(bf16_stays_close_to_f32)
{
    struct step_result r[2][10];
    for (int d = 0; d < 2; d++) {
        struct fixture f;
        const struct train_options o = fixture_options_of("fkl", 1, 0.5);
        fixture_start(&f, "qwen2", d ? DT_BF16 : DT_F32, 8, &o);
        for (int s = 0; s < 10; s++) r[d][s] = fixture_step(&f);
        fixture_close(&f);
    }
    // bf16 keeps 8 bits: half a percent a value, less in the mean over some 30 tokens.
    for (int s = 0; s < 10; s++) ck_assert_double_eq_tol(r[1][s].loss, r[0][s].loss, 0.01 * r[0][s].loss);
    for (int s = 0; s < 10; s++) ck_assert_double_eq_tol(r[1][s].grad_norm, r[0][s].grad_norm, 0.05 * r[0][s].grad_norm);
    ck_assert_double_lt(r[1][9].loss, 0.8 * r[1][0].loss);
}
END_TEST

// head_loss in one call against the same rows in three, in f32 with the sizes it takes, in bf16 with blocks of more chunks than one.
START_TEST(the_head_does_not_depend_on_where_its_chunks_end)
{
    enum { N = 1500, D = 32 };
    const enum dtype t = _i ? DT_BF16 : DT_F32;
    const struct head_sizes small = {.chunk = 96, .block = 224};
    struct err err = {0};
    const char *store = test_tmpdir();
    fixture_store(store, 0, 1);
    struct fixture f;
    fixture_open(&f, "qwen2", t, store);
    ck_assert_int_lt((int)head_sizes(FIXTURE_VOCAB, DT_F32).block, N); // else nothing is tested
    struct arena a;
    ck_ok(dev_arena(&f.dev, &a, "test", 64 << 20, &err));
    ck_ok(dev_reserve(&f.dev, 64 << 20, &err));
    model_alloc_grads(f.model, &a);
    struct tensor dw = head_param(f.model)->grad, exact = tensor_2d(arena_alloc(&a, N * D * 4), DT_F32, N, D),
                  x = tensor_2d(arena_alloc(&a, N * D * 4), t, N, D), dxs = tensor_2d(arena_alloc(&a, N * D * 4), t, N, D),
                  ces = tensor_1d(arena_alloc(&a, N * 4), DT_F32, N), kd = tensor_1d(arena_alloc(&a, N * 4), DT_F32, N),
                  indices = tensor_1d(arena_alloc(&a, N * 4), DT_I32, N), labels = tensor_1d(arena_alloc(&a, N * 4), DT_I32, N);
    float *hidden = NEW_N(float, N *D), *dx[2], *ce[2], *w[2];
    int32_t *index = NEW_N(int32_t, N), *label = NEW_N(int32_t, N);
    for (int i = 0; i < N * D; i++) hidden[i] = (float)sin(0.7 * i + 0.01 * (i % 97));
    for (int i = 0; i < N; i++) index[i] = i, label[i] = i * 7 % FIXTURE_VOCAB;
    op_upload(&f.dev, exact, hidden);
    op_copy(&f.dev, x, exact);
    op_upload(&f.dev, indices, index);
    op_upload(&f.dev, labels, label);
    struct loss_mix mix = {.ce_weight = 1, .temperature = 1, .kd_scale = 1, .grad_scale = 1.0f / N, .n_vocab = FIXTURE_VOCAB};
    for (int way = 0; way < 2; way++) {
        op_zero(&f.dev, dw);
        dx[way] = NEW_N(float, N *D), ce[way] = NEW_N(float, N), w[way] = NEW_N(float, FIXTURE_VOCAB *D);
        for (int first = 0, n; first < N; first += n) {
            n = way ? 500 : N;
            struct head_rows rows = {.n_loss = n, .row = tensor_rows(indices, 0, n), .label = tensor_rows(labels, first, n)};
            if (way && t == DT_BF16) rows.size = &small;
            head_loss(f.model, &f.dev, tensor_rows(dxs, first, n), tensor_rows(ces, first, n), tensor_rows(kd, 0, n),
                      tensor_rows(x, first, n), &rows, &mix);
        }
        op_copy(&f.dev, exact, dxs);
        op_download(&f.dev, dx[way], exact);
        op_download(&f.dev, ce[way], ces);
        op_download(&f.dev, w[way], dw);
    }
    ck_ok(dev_check(&f.dev, &err));
    // A row's products are sums of 32 or 96 terms, whose order GEMM may choose by the number of rows; dW sums N terms of size 1/N. In bf16
    // a gradient of such a sum may round to its neighbour, 1/256 away.
    const double off = t == DT_BF16 ? 1.0 / 256 : 1e-6;
    for (int i = 0; i < N; i++) ck_assert_double_eq_tol((double)ce[0][i], (double)ce[1][i], 2e-6 * (double)ce[0][i]);
    for (int i = 0; i < N * D; i++) ck_assert_double_eq_tol((double)dx[0][i], (double)dx[1][i], off / N);
    for (int i = 0; i < FIXTURE_VOCAB * D; i++) ck_assert_double_eq_tol((double)w[0][i], (double)w[1][i], t == DT_BF16 ? 1e-6 : 1e-7);
    for (int way = 0; way < 2; way++) mem_free(dx[way]), mem_free(ce[way]), mem_free(w[way]);
    mem_free(hidden), mem_free(index), mem_free(label);
    arena_free(&a);
    fixture_close(&f);
}
END_TEST

// ---- the teacher is the student ----

START_TEST(a_teacher_that_is_the_student_gives_no_divergence)
{
    struct err err = {0};
    const char *plain = test_tmpdir();
    fixture_store(plain, 0, 1);
    struct fixture f;
    fixture_open(&f, "qwen3", DT_F32, plain);
    float *logits = NEW_N(float, f.rows.n_loss *FIXTURE_VOCAB), *at = logits;
    ck_ok(dev_reserve(&f.dev, 16 << 20, &err));
    for (size_t i = 0; i < f.rows.n; i++) { // a row a forward: what the trainer packs must be the same
        const struct row *r = &f.rows.v[i];
        int32_t pos[128], start[2] = {0, r->n_tok};
        for (int k = 0; k < r->n_tok; k++) pos[k] = k;
        struct segments seg = {
            .n_seg = 1,
            .n_tok = r->n_tok,
            .max_len = r->n_tok,
            .max_pos = r->n_tok,
        };
        struct run run = {.dev = &f.dev, .mode = RUN_FLAT, .seg = &seg};
        size_t mark = dev_mark(&f.dev);
        struct tensor hidden = dev_2d(&f.dev, DT_F32, r->n_tok, 32), out = dev_2d(&f.dev, DT_F32, r->n_tok, FIXTURE_VOCAB);
        struct lent l = {.dev = &f.dev};
        seg.start = lend(&l, start, sizeof start), seg.pos = lend(&l, pos, (size_t)r->n_tok * sizeof *pos);
        model_forward(f.model, &run, hidden, lend_tensor(&l, tensor_1d((void *)(uintptr_t)r->ids, DT_I32, r->n_tok)));
        model_logits(f.model, &f.dev, out, hidden);
        lent_back(&l);
        int n = r->n_tok - r->n_prompt;
        op_download(&f.dev, at, tensor_rows(out, r->n_prompt - 1, n));
        at += n * FIXTURE_VOCAB;
        dev_release(&f.dev, mark);
    }
    ck_ok(dev_check(&f.dev, &err));
    fixture_close(&f);
    static const char *const losses[] = {"fkl", "rkl", "jsd:0.3"};
    for (int k = 0; k < 12; k++) { // top 8 and a tail, or the whole vocabulary, at T = 1 and 2
        const char *store = test_tmpdir();
        float t = k & 1 ? 2 : 1;
        fixture_store_of(store, k & 2 ? FIXTURE_VOCAB : 8, t, logits);
        struct train_options o = fixture_options_of(losses[k / 4], 1, 0);
        o.kd_temperature = (double)t;
        fixture_open(&f, "qwen3", DT_F32, store);
        fixture_train(&f, &o);
        struct step_result r = fixture_step(&f);
        // Log-probabilities in f32 of size 5 are off by 5e-7 at most; the divergence is of second order in that but for rounding.
        ck_assert_msg(fabs(r.kd) < 2e-6, "%s, k %d, T %g: kd %g", losses[k / 4], k & 2 ? FIXTURE_VOCAB : 8, (double)t, r.kd);
        ck_assert_msg(r.grad_norm < 2e-5, "%s, k %d, T %g: gradient norm %g", losses[k / 4], k & 2 ? FIXTURE_VOCAB : 8, (double)t,
                      r.grad_norm);
        ck_assert_double_gt(r.ce, 1);
        fixture_close(&f);
    }
    mem_free(logits);
}
END_TEST

// ---- other forms of targets ----

// Every draw fell on the label: the samples say what the text says, so their divergence is its cross-entropy.
START_TEST(samples_that_all_fell_on_the_label_give_the_cross_entropy_and_only_fkl_takes_them)
{
    struct err err = {0};
    const char *plain = test_tmpdir(), *dir = test_tmpdir();
    fixture_store(plain, 0, 1);
    struct targets_spec spec = {.kind = TARGETS_SAMPLED, .k = 4, .n_temperature = 1, .temperature = {1}};
    struct store *from, *to;
    json_t *identity = json_object();
    ck_ok(store_open_read(&from, plain, &err));
    ck_ok(store_open_write(&to, dir, identity, &spec, &err));
    for (size_t i = 0; i < store_n_sample(from); i++) {
        struct sample s;
        struct targets t;
        ck_ok(store_read(from, i, &s, NULL, &err));
        targets_alloc(&t, &spec, s.n_tok);
        for (int k = 0; k < s.n_tok * 4; k++) {
            t.ids[k] = k % 4 ? -1 : s.token_ids[k / 4];
            t.count[k] = k % 4 ? 0 : 4;
        }
        ck_ok(store_append(to, &s, &t, &err));
        targets_free(&t);
        sample_free(&s);
    }
    ck_ok(store_close(from, &err));
    ck_ok(store_close(to, &err));
    json_decref(identity);
    struct fixture f;
    struct train_options o = fixture_options_of("fkl", 1, 1);
    fixture_open(&f, "qwen3", DT_F32, dir);
    fixture_train(&f, &o);
    struct step_result r = fixture_step(&f);
    ck_assert_double_eq_tol(r.kd, r.ce, 1e-6 * r.ce);
    struct targets_use use;
    ck_ok(loss_parse(&o.loss, "rkl", &err));
    ck_fails(targets_use_init(&use, &f.rows, &o.loss, 1, FIXTURE_VOCAB, &err), ST_BAD_INPUT, "only fkl");
    ck_ok(loss_parse(&o.loss, "fkl", &err));
    ck_fails(targets_use_init(&use, &f.rows, &o.loss, 2, FIXTURE_VOCAB, &err), ST_BAD_INPUT, "sampled at temperature 1");
    fixture_close(&f);
}
END_TEST

START_TEST(columns_beyond_the_smaller_vocabulary_leave_a_whole_distribution)
{
    struct err err = {0};
    for (int full = 0; full < 2; full++) {
        const char *dir = test_tmpdir();
        fixture_store(dir, full ? FIXTURE_VOCAB : 8, 2);
        struct rows rows;
        fixture_rows(&rows, dir);
        struct loss_spec fkl;
        struct targets_use use;
        ck_ok(loss_parse(&fkl, "fkl", &err));
        ck_ok(targets_use_init(&use, &rows, &fkl, 2, 80, &err)); // a student of 80 tokens, a teacher of 96
        ck_assert(use.n_vocab == 80 && use.full == (full == 1));
        struct pack p;
        pack_open(&p, &rows, &(struct pack_options){.batch_tokens = 128, .micro_tokens = 128});
        struct micro bounds = pack_bounds(&rows, 128), m = pack_micro(&p, 0, 0);
        struct batch b;
        batch_alloc(&b, &bounds, &use, false);
        ck_ok(batch_load(&b, &p, &m, &use, &err));
        const struct head_targets *t = &b.targets;
        int n_gone = 0;
        for (int i = 0; i < m.n_loss; i++) {
            double sum = full ? 0 : exp((double)t->tail[i]), sum_t = 0;
            for (int j = 0; j < t->k; j++) {
                int32_t id = t->ids[i * t->k + j];
                ck_assert_int_lt(id, 80);
                n_gone += id < 0;
                if (id < 0) continue;
                double lp = (double)t->logprob[i * t->k + j];
                sum += exp(lp);
                sum_t += exp((lp + (double)t->log_z1[i]) / 2 - (double)t->log_zt[i]);
            }
            ck_assert_double_eq_tol(sum, 1, 1e-5);
            if (full) ck_assert_double_eq_tol(sum_t, 1, 1e-5);
        }
        ck_assert_int_gt(n_gone, 0);
        batch_free(&b);
        pack_close(&p);
        rows_free(&rows);
    }
}
END_TEST

// ---- what must not move ----

START_TEST(frozen_parameters_get_no_gradient_no_slot_and_stay)
{
    const char *store = test_tmpdir(), *frozen = "model.layers.0.mlp.up_proj.weight", *head = "lm_head.weight";
    fixture_store(store, 0, 1);
    struct fixture f;
    fixture_open(&f, "qwen2", DT_F32, store);
    model_param(f.model, frozen)->frozen = model_param(f.model, head)->frozen = true;
    struct train_options o = fixture_options();
    fixture_train(&f, &o);
    ck_assert_uint_eq(f.trainer->optimizer.n_slot, f.model->n_param - 2);
    struct buf before = fixture_weights(&f);
    for (int s = 0; s < 3; s++) fixture_step(&f);
    struct buf after = fixture_weights(&f);
    size_t at = 0;
    for (size_t i = 0; i < f.model->n_param; i++) {
        const struct param *p = &f.model->params[i];
        bool same = !memcmp(before.data + at, after.data + at, tensor_bytes(p->weight));
        at += tensor_bytes(p->weight);
        ck_assert_msg(same == p->frozen, "%s %s", p->name, same ? "did not move" : "moved");
        ck_assert_msg(tensor_none(p->grad) == p->frozen, "%s: gradient", p->name);
    }
    buf_free(&before);
    buf_free(&after);
    fixture_close(&f);
}
END_TEST

START_TEST(a_step_without_loss_tokens_has_loss_0_and_changes_nothing)
{
    const char *store = test_tmpdir();
    fixture_store(store, 8, 1);
    struct fixture f;
    fixture_open(&f, "qwen3", DT_F32, store);
    for (size_t i = 0; i < f.rows.n; i++) {
        memset(f.rows.v[i].mask, 0, (size_t)f.rows.v[i].n_tok);
        f.rows.v[i].n_loss = 0;
    }
    f.rows.n_loss = 0;
    struct train_options o = fixture_options_of("rkl", 1, 1);
    o.weight_decay = 0;
    fixture_train(&f, &o);
    struct buf before = fixture_weights(&f);
    struct step_result r = fixture_step(&f);
    ck_assert(r.loss <= 0 && r.loss >= 0 && r.grad_norm <= 0 && r.n_loss == 0);
    struct buf after = fixture_weights(&f);
    ck_assert(!memcmp(before.data, after.data, before.size));
    buf_free(&before);
    buf_free(&after);
    fixture_close(&f);
}
END_TEST

START_TEST(a_loss_that_is_not_finite_stops_before_the_update)
{
    struct err err = {0};
    struct fixture f;
    struct train_options o = fixture_options();
    o.lr = 1e30;
    fixture_start(&f, "qwen3", DT_F32, 0, &o);
    struct step_result r;
    fixture_step(&f);
    struct buf before = fixture_weights(&f);
    enum status st = ST_OK;
    for (int s = 0; s < 3 && !st; s++) {
        buf_free(&before);
        before = fixture_weights(&f);
        st = trainer_step(f.trainer, &r, &err);
    }
    ck_fails(st, ST_FAIL, "not a finite number");
    struct buf after = fixture_weights(&f);
    ck_assert(!memcmp(before.data, after.data, before.size));
    buf_free(&before);
    buf_free(&after);
    fixture_close(&f);
}
END_TEST

START_TEST(evaluation_is_the_loss_of_the_next_step_and_leaves_the_run_as_it_is)
{
    struct err err = {0};
    struct fixture f;
    struct train_options o = fixture_options_of("fkl", 1, 1);
    o.pack.batch_tokens = 1000;
    fixture_start(&f, "llama", DT_F32, 8, &o);
    struct step_result r, eval;
    fixture_step(&f);
    ck_ok(trainer_eval(f.trainer, &f.rows, &f.trainer->use, &eval, &err));
    r = fixture_step(&f);
    ck_assert_double_eq_tol(eval.loss, r.loss, 1e-6 * r.loss);
    ck_assert_double_eq_tol(eval.kd, r.kd, 1e-6 * r.kd);
    ck_assert_int_eq((int)eval.n_loss, (int)r.n_loss);
    fixture_close(&f);
}
END_TEST

// ---- refusals ----

START_TEST(targets_that_do_not_fit_the_loss_are_refused)
{
    struct err err = {0};
    const char *none = test_tmpdir(), *top = test_tmpdir();
    fixture_store(none, 0, 1);
    fixture_store(top, 8, 1.5f);
    struct loss_spec fkl;
    ck_ok(loss_parse(&fkl, "fkl", &err));
    struct rows rows;
    struct targets_use use;
    fixture_rows(&rows, none);
    ck_fails(targets_use_init(&use, &rows, &fkl, 1, FIXTURE_VOCAB, &err), ST_BAD_INPUT, "has none");
    rows_free(&rows);
    fixture_rows(&rows, top);
    ck_fails(targets_use_init(&use, &rows, &fkl, 2, FIXTURE_VOCAB, &err), ST_BAD_INPUT, "at temperature 1,1.5 only");
    ck_ok(targets_use_init(&use, &rows, &fkl, 1.5f, FIXTURE_VOCAB, &err));
    ck_assert(use.on && !use.full && use.k == 8 && use.n_vocab == FIXTURE_VOCAB);
    ck_ok(targets_use_init(&use, &rows, &fkl, 1, 200, &err)); // the student's table is padded: the teacher's 96 columns count
    ck_assert_int_eq(use.n_vocab, FIXTURE_VOCAB);
    rows_free(&rows);
    struct loss_spec bad;
    ck_fails(loss_parse(&bad, "kl", &err), ST_BAD_INPUT, "Known: ce, fkl, rkl, jsd:B");
    ck_fails(loss_parse(&bad, "jsd", &err), ST_BAD_INPUT, "jsd:0.5");
    ck_fails(loss_parse(&bad, "jsd:1.5", &err), ST_BAD_INPUT, "0 <= B <= 1");
    ck_fails(loss_parse(&bad, "fkl:2", &err), ST_BAD_INPUT, "takes no number");
    ck_ok(loss_parse(&bad, "jsd:0.25", &err));
    ck_assert_double_eq_tol((double)bad.beta, 0.25, 1e-7);
}
END_TEST

START_TEST(schedules_warm_up_from_the_first_step_and_then_follow_transformers)
{
    ck_assert_double_eq_tol(schedule_lr(SCHEDULE_COSINE, 1, 4, 10, 1), 0.25, 1e-12);
    ck_assert_double_eq_tol(schedule_lr(SCHEDULE_COSINE, 1, 4, 10, 4), 1, 1e-12);
    // transformers at optimizer index i = step - 1: 0.5 (1 + cos(pi (i - warmup) / (n - warmup)))
    ck_assert_double_eq_tol(schedule_lr(SCHEDULE_COSINE, 1, 4, 10, 8), 0.5 * (1 + cos(M_PI * 3 / 6)), 1e-12);
    ck_assert_double_eq_tol(schedule_lr(SCHEDULE_LINEAR, 2, 0, 10, 10), 0.2, 1e-12);
    ck_assert_double_eq_tol(schedule_lr(SCHEDULE_CONSTANT, 2, 0, 10, 10), 2, 1e-12);
    ck_assert_double_gt(schedule_lr(SCHEDULE_LINEAR, 1, 10, 10, 10), 0.99); // warm-up to the end
}
END_TEST

Suite *suite_trainer(void)
{
    Suite *s = suite_create("trainer");
    TCase *golden = tcase_create("golden"), *ways = tcase_create("ways"), *rest = tcase_create("rest");
    tcase_add_loop_test(golden, losses_norms_and_weights_follow_pytorch, 0, N_RUN);
    tcase_add_test(ways, accumulated_micro_batches_give_the_gradient_of_one_batch_up_to_rounding);
    tcase_add_test(ways, threads_do_not_change_a_gradient);
    tcase_add_test(ways, recompute_policies_give_the_same_bits);
    tcase_add_test(ways, a_shape_made_to_repeat_changes_no_loss_and_no_gradient);
    tcase_add_loop_test(ways, steps_that_are_recorded_leave_the_bits_of_steps_that_are_not, 0, 2);
    tcase_add_test(ways, rounded_shapes_grow_with_what_they_hold);
    tcase_add_test(ways, losses_have_room_or_make_it);
    tcase_add_test(ways, what_is_planned_without_weights_is_what_is_taken);
    tcase_add_test(ways, bf16_stays_close_to_f32);
    tcase_add_loop_test(ways, the_head_does_not_depend_on_where_its_chunks_end, 0, 2);
    tcase_add_test(ways, a_teacher_that_is_the_student_gives_no_divergence);
    tcase_add_test(ways, evaluation_is_the_loss_of_the_next_step_and_leaves_the_run_as_it_is);
    tcase_add_test(rest, samples_that_all_fell_on_the_label_give_the_cross_entropy_and_only_fkl_takes_them);
    tcase_add_test(rest, columns_beyond_the_smaller_vocabulary_leave_a_whole_distribution);
    tcase_add_test(rest, frozen_parameters_get_no_gradient_no_slot_and_stay);
    tcase_add_test(rest, a_step_without_loss_tokens_has_loss_0_and_changes_nothing);
    tcase_add_test(rest, a_loss_that_is_not_finite_stops_before_the_update);
    tcase_add_test(rest, targets_that_do_not_fit_the_loss_are_refused);
    tcase_add_test(rest, schedules_warm_up_from_the_first_step_and_then_follow_transformers);
    suite_add_tcase(s, golden);
    suite_add_tcase(s, ways);
    suite_add_tcase(s, rest);
    return s;
}
