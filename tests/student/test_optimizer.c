// The kinds of optimizer: what they keep, that 8 bits learn what 32 do, and that 7.6 thousand million parameters fit an H100 of 80 GB.
#include "kernels/base/rng.h"
#include "kernels/cuda/cuda.h"
#include "student/plan.h"
#include "tests/simt/simt_state.h"
#include "tests/student/train_fixture.h"

#include <math.h>

static struct train_options options(enum optimizer_kind kind)
{
    struct train_options o = fixture_options_of("fkl", 1, 0.5);
    o.optimizer = kind, o.seed = 5;
    return o;
}

// Weights after n steps of qwen3 from tests/golden/train, and the loss of each.
static struct buf train(enum dtype dtype, const struct train_options *o, int n_step, double *loss)
{
    struct fixture f;
    fixture_start(&f, "qwen3", dtype, 8, o);
    for (int s = 0; s < n_step; s++) {
        const double l = fixture_step(&f).loss;
        if (loss) loss[s] = l;
    }
    struct buf w = fixture_weights(&f);
    fixture_close(&f);
    return w;
}

static bool same_bytes(const struct buf *a, const struct buf *b)
{
    return a->size == b->size && !memcmp(a->data, b->data, a->size);
}

START_TEST(names_are_read_and_others_are_told_those_there_are)
{
    struct err err = {0};
    enum optimizer_kind kind;
    for (int i = 0; i < N_OPTIMIZER; i++) {
        ck_ok(optimizer_parse(&kind, optimizer_names[i], &err));
        ck_assert_int_eq((int)kind, i);
    }
    ck_fails(optimizer_parse(&kind, "sgd", &err), ST_BAD_INPUT, "wanted adamw|adamw8");
}
END_TEST

START_TEST(a_bf16_matrix_has_two_codes_a_weight_and_all_else_is_as_with_adamw)
{
    struct fixture f;
    const struct train_options o = options(OPTIMIZER_ADAMW8);
    fixture_start(&f, "qwen3", DT_BF16, 8, &o);
    int n_small = 0;
    for (const struct slot *s = f.trainer->optimizer.slot; s < f.trainer->optimizer.slot + f.trainer->optimizer.n_slot; s++) {
        const bool small = s->param->rank == 2;
        const int64_t n = s->weight.shape[0];
        n_small += small;
        ck_assert_msg((s->weight.dtype == DT_BF16) == small, "%s", s->param->name);
        ck_assert_msg(s->part[SLOT_MASTER].data == s->weight.data, "%s: a second copy", s->param->name);
        for (int k = SLOT_M; k <= SLOT_V; k++)
            ck_assert_msg(tensor_bytes(s->part[k]) == (size_t)n * (small ? 1 : 4), "%s.%s", s->param->name, slot_part_names[k]);
        for (int k = SLOT_M_UNIT; k <= SLOT_V_UNIT; k++)
            ck_assert_msg(small ? s->part[k].shape[0] == (n + 255) / 256 : tensor_none(s->part[k]), "%s.%s", s->param->name,
                          slot_part_names[k]);
    }
    ck_assert_int_gt(n_small, 0);
    char text[300];
    train_plan_describe(&f.trainer->plan, text, sizeof text);
    ck_assert_msg(strstr(text, "gradients and optimizer (adamw8) ") != NULL, "%s", text);
    fixture_close(&f);
}
END_TEST

START_TEST(weights_in_f32_are_updated_alike_by_both)
{
    struct train_options o = options(OPTIMIZER_ADAMW), o8 = options(OPTIMIZER_ADAMW8);
    struct buf a = train(DT_F32, &o, 5, NULL), b = train(DT_F32, &o8, 5, NULL);
    ck_assert(same_bytes(&a, &b));
    buf_free(&a);
    buf_free(&b);
}
END_TEST

START_TEST(losses_with_8_bits_stay_close_to_those_with_32)
{
    enum { N = 20 };
    double loss[2][N];
    for (int k = 0; k < 2; k++) {
        struct train_options o = options(k ? OPTIMIZER_ADAMW8 : OPTIMIZER_ADAMW);
        struct buf w = train(DT_BF16, &o, N, loss[k]);
        buf_free(&w);
    }
    ck_assert_double_lt(loss[0][N - 1], 0.8 * loss[0][0]); // else there is nothing to be close in
    for (int s = 0; s < N; s++) ck_assert_double_eq_tol(loss[1][s], loss[0][s], 0.03 * loss[0][s]);
}
END_TEST

// What the first step makes of a parameter: op_adamw8 on its weights before, its gradient (which stays) and states of zero, drawing by the
// run's seed and the parameter's name.
START_TEST(what_is_drawn_hangs_on_the_seed_and_the_name)
{
    struct fixture f;
    struct train_options o = options(OPTIMIZER_ADAMW8);
    o.clip = 0;
    fixture_start(&f, "qwen3", DT_BF16, 8, &o);
    struct buf begin = fixture_weights(&f);
    const double lr = fixture_step(&f).lr;
    size_t at = 0;
    for (size_t i = 0; i < f.model->n_param; at += tensor_bytes(f.model->params[i].weight), i++) {
        const struct slot *s = &f.trainer->optimizer.slot[i];
        if (s->weight.dtype != DT_BF16) continue;
        const int64_t n = s->weight.shape[0], n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
        struct adamw8 a = {.seed = o.seed, .stream = rng_hash(s->param->name, strlen(s->param->name))};
        a.adamw = (struct adamw){lr, o.beta1, o.beta2, o.eps, o.weight_decay, 1, 1};
        uint8_t *m = NEW_N(uint8_t, n), *v = NEW_N(uint8_t, n);
        float *m_unit = NEW_N(float, n_block), *v_unit = NEW_N(float, n_block);
        struct tensor w = tensor_1d(begin.data + at, DT_BF16, n);
        op_adamw8(&f.dev, w, tensor_1d(m, DT_U8, n), tensor_1d(v, DT_U8, n), tensor_1d(m_unit, DT_F32, n_block),
                  tensor_1d(v_unit, DT_F32, n_block), s->grad, &a);
        ck_assert_msg(!memcmp(w.data, s->weight.data, 2 * (size_t)n), "%s: the weights", s->param->name);
        ck_assert_msg(!memcmp(m, s->part[SLOT_M].data, (size_t)n), "%s: m", s->param->name);
        ck_assert_msg(!memcmp(v, s->part[SLOT_V].data, (size_t)n), "%s: v", s->param->name);
        mem_free(m);
        mem_free(v);
        mem_free(m_unit);
        mem_free(v_unit);
    }
    buf_free(&begin);
    fixture_close(&f);
}
END_TEST

// Weights of about 0.05 have bf16 neighbours 2e-4 apart: rounded to nearest, steps of 1e-5 would leave nearly all of them where they are.
// By chance they go as far as f32 masters do: the slope of one movement on the other is 1.
START_TEST(steps_far_below_the_gap_between_bf16_move_weights_as_far_as_f32_masters)
{
    struct fixture f[2];
    double slope_num = 0, slope_den = 0;
    for (int k = 0; k < 2; k++) {
        struct train_options o = options(k ? OPTIMIZER_ADAMW8 : OPTIMIZER_ADAMW);
        o.lr = 1e-5, o.weight_decay = 0;
        fixture_start(&f[k], "qwen3", DT_BF16, 8, &o);
    }
    struct buf begin = fixture_weights(&f[0]);
    for (int k = 0; k < 2; k++)
        for (int s = 0; s < 10; s++) fixture_step(&f[k]);
    size_t at = 0;
    int64_t n_moved[2] = {0, 0}; // of the weights as the forward pass sees them
    for (size_t i = 0; i < f[0].model->n_param; at += tensor_bytes(f[0].model->params[i].weight), i++) {
        const struct slot *s[2] = {&f[0].trainer->optimizer.slot[i], &f[1].trainer->optimizer.slot[i]};
        if (s[0]->weight.dtype != DT_BF16) continue;
        const bf16 *w0 = (const bf16 *)(const void *)(begin.data + at), *w32 = s[0]->weight.data, *w8 = s[1]->weight.data;
        const float *master = s[0]->part[SLOT_MASTER].data;
        for (int64_t j = 0; j < s[0]->weight.shape[0]; j++) {
            const double from = (double)bf16_to_f32(w0[j]), by = (double)master[j] - from;
            slope_num += ((double)bf16_to_f32(w8[j]) - from) * by;
            slope_den += by * by;
            n_moved[0] += w32[j] != w0[j];
            n_moved[1] += w8[j] != w0[j];
        }
    }
    ck_assert_msg(fabs(slope_num / slope_den - 1) < 0.05, "%g as far", slope_num / slope_den);
    ck_assert_msg(n_moved[1] > n_moved[0], "%lld weights moved, rounded to nearest %lld", (long long)n_moved[1], (long long)n_moved[0]);
    buf_free(&begin);
    for (int k = 0; k < 2; k++) fixture_close(&f[k]);
}
END_TEST

// ---- Qwen2.5-7B on one GPU ----

static const char Q7[] =
    "{\"model_type\":\"qwen2\",\"vocab_size\":152064,\"hidden_size\":3584,\"intermediate_size\":18944,\"num_hidden_layers\":28,"
    "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"max_position_embeddings\":32768,\"rope_theta\":1000000,"
    "\"tie_word_embeddings\":false}";

// Bytes of a step of 8192 tokens on the device, in all.
static size_t plan_7b(const char *device, enum optimizer_kind kind, enum recompute policy)
{
    struct err err = {0};
    struct device dev;
    struct model *m;
    struct train_plan plans[3];
    const char *dir = test_tmpdir();
    char *config = path_join(dir, "config.json");
    ck_ok(file_write_atomic(config, Q7, sizeof Q7 - 1, &err));
    mem_free(config);
    ck_ok(dev_open(&dev, device, 1, &err));
    struct model_options mo = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = DT_BF16, .random_init = true, .plan = true};
    ck_ok(model_load(&m, &dev, dir, &mo, &err));
    ck_assert_int_eq((int)(model_n_weight(m) / 1000000), 7615);
    struct train_options o = options(kind);
    struct targets_use use = {.on = true, .k = 64, .n_vocab = 152064, .temperature = 1};
    const struct micro bounds = {.n_row = 1, .n_tok = 8192, .n_loss = 8192, .max_len = 8192};
    ck_ok(train_plan_policies(plans, m, &o, &bounds, &use, &err));
    const struct train_plan *p = &plans[policy];
    char text[300];
    train_plan_describe(p, text, sizeof text);
    const size_t all = p->weights + p->state + p->keep + p->step;
    printf("Qwen2.5-7B on %s: %.2f GiB: %s\n", dev.backend->name, (double)all / (1 << 30), text);
    model_free(m);
    dev_close(&dev);
    return all;
}

// An H100 of 80 GB has 79.6 GiB, of which the driver's context and the libraries take about one: 78 are to be had.
START_TEST(a_full_fine_tune_of_7b_fits_80_gb_with_8_bit_states_and_with_no_others)
{
    const size_t gib = (size_t)1 << 30, most = 78 * gib;
    const bool cuda = cuda_backend && simt_devices;
    if (cuda) {
        simt_devices(1);
        simt_device_memory(80 * gib);
    }
    for (int d = 0; d < 1 + cuda; d++) {
        const char *device = d ? "cuda" : "cpu";
        ck_assert_uint_lt(plan_7b(device, OPTIMIZER_ADAMW8, RECOMPUTE_LAYER), most);
        ck_assert_uint_gt(plan_7b(device, OPTIMIZER_ADAMW, RECOMPUTE_LAYER), 120 * gib);
    }
}
END_TEST

Suite *suite_optimizer(void)
{
    Suite *s = suite_create("optimizer");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, names_are_read_and_others_are_told_those_there_are);
    tcase_add_test(t, a_bf16_matrix_has_two_codes_a_weight_and_all_else_is_as_with_adamw);
    tcase_add_test(t, weights_in_f32_are_updated_alike_by_both);
    tcase_add_test(t, losses_with_8_bits_stay_close_to_those_with_32);
    tcase_add_test(t, what_is_drawn_hangs_on_the_seed_and_the_name);
    tcase_add_test(t, steps_far_below_the_gap_between_bf16_move_weights_as_far_as_f32_masters);
    tcase_add_test(t, a_full_fine_tune_of_7b_fits_80_gb_with_8_bit_states_and_with_no_others);
    suite_add_tcase(s, t);
    return s;
}
