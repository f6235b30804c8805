// The step, read top to bottom in trainer_step; before it what one micro-batch does, after it evaluation. Planning is in plan.c.
#include "student/trainer.h"

#include "student/plan.h"

#include <math.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct tensor upload_i32(struct device *dev, const int32_t *host, int n)
{
    struct tensor t = dev_1d(dev, DT_I32, n);
    op_upload(dev, t, host);
    return t;
}

void micro_run(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward)
{
    struct device *dev = t->dev;
    struct model *m = t->model;
    const struct micro_tables *h = &b->tables;
    const int n = b->m.n_tok, n_loss = b->m.n_loss;
    size_t mark = dev_mark(dev), kept = arena_mark(&t->keep);

    struct tensor ids = upload_i32(dev, h->ids, n), start = upload_i32(dev, h->start, b->m.n_row + 1), pos = upload_i32(dev, h->pos, n);
    struct segments seg = {
        .n_seg = b->m.n_row, .n_tok = n, .max_len = b->m.max_len, .max_pos = b->m.max_len, .start = start.data, .pos = pos.data};
    struct head_rows rows = {.n_loss = n_loss, .targets = use->on ? &b->targets : NULL};
    rows.row = upload_i32(dev, h->loss_row, n_loss);
    rows.label = upload_i32(dev, h->label, n_loss);
    rows.loss_of = upload_i32(dev, h->loss_of, n);
    struct tensor ce = dev_1d(dev, DT_F32, n_loss), kd = dev_1d(dev, DT_F32, n_loss);

    struct run run = {.dev = dev, .mode = RUN_FLAT, .seg = &seg, .recompute = t->plan.recompute};
    if (backward) run.keep = &t->keep, run.saved = t->saved;
    struct tensor dhidden = backward ? dev_2d(dev, m->dtype, n, m->config.d_model) : TENSOR_NONE;
    size_t inner = dev_mark(dev);
    struct tensor hidden = dev_2d(dev, m->dtype, n, m->config.d_model);
    model_forward(m, &run, hidden, ids);
    head_loss(m, dev, dhidden, ce, kd, hidden, &rows, mix);
    dev_release(dev, inner);
    if (backward) model_backward(m, &run, dhidden, ids);

    op_download(dev, t->row_ce, ce);
    op_download(dev, t->row_kd, kd);
    arena_release(&t->keep, kept);
    dev_release(dev, mark);
}

static struct loss_mix mix_of(const struct trainer *t, const struct targets_use *use, double n_valid)
{
    const struct train_options *o = &t->opt;
    return (struct loss_mix){
        .ce_weight = (float)o->ce_weight,
        .kd_weight = use->on ? (float)o->kd_weight : 0,
        .divergence = use->on ? o->loss.kind->divergence : DIV_NONE,
        .beta = o->loss.beta,
        .temperature = (float)o->kd_temperature,
        .kd_scale = o->kd_scale_t2 ? (float)(o->kd_temperature * o->kd_temperature) : 1,
        .grad_scale = n_valid > 0 ? (float)(1 / n_valid) : 0,
        .full = use->full,
        .n_vocab = use->n_vocab,
    };
}

// Sums, in double and in the order of the rows.
struct sums {
    double ce, kd, n_tok, n_loss;
};

// This rank's micro-batches of one step of `pack`: every size-th, from its own rank on.
static enum status run_step_of(struct trainer *t, const struct pack *pack, size_t step, const struct targets_use *use,
                               const struct loss_mix *mix, bool backward, struct sums *sum, struct err *err)
{
    size_t first = pack->step_first[step];
    for (int i = 0;; i++) {
        struct micro m = pack_micro(pack, step, first);
        if (!m.n_row) return dev_check(t->dev, err);
        first += (size_t)m.n_row;
        if (i % t->comm->size != t->comm->rank) continue;
        TRY(batch_load(&t->batch, pack, &m, use, err));
        TRY(plan_fit(t, &t->batch, use, mix, backward, err));
        mem_forbid(true);
        micro_run(t, &t->batch, use, mix, backward);
        mem_forbid(false);
        TRY(dev_check(t->dev, err));
        for (int k = 0; k < m.n_loss; k++) {
            sum->ce += (double)t->row_ce[k];
            sum->kd += (double)t->row_kd[k];
        }
        sum->n_tok += m.n_tok;
        sum->n_loss += m.n_loss;
    }
}

static void fill_result(const struct trainer *t, const struct sums *s, const struct targets_use *use, struct step_result *out)
{
    const struct train_options *o = &t->opt;
    const double n = s->n_loss > 0 ? s->n_loss : 1, t2 = o->kd_scale_t2 ? o->kd_temperature * o->kd_temperature : 1;
    out->ce = s->ce / n;
    out->kd = s->kd / n;
    out->has_kd = use->on;
    out->loss = o->ce_weight * out->ce + (use->on ? o->kd_weight * t2 * out->kd : 0);
    out->n_tok = (int64_t)s->n_tok;
    out->n_loss = (int64_t)s->n_loss;
}

enum status trainer_step(struct trainer *t, struct step_result *out, struct err *err)
{
    const struct train_options *o = &t->opt;
    const double start = now_s();
    const size_t step = pack_seek(&t->pack, t->step);
    *out = (struct step_result){.step = t->step + 1, .epoch = t->pack.epoch};

    // Means are over the valid tokens of all micro-batches of all ranks, so these are counted first.
    const struct loss_mix mix = mix_of(t, &t->use, pack_n_loss(&t->pack, step));
    struct sums sum = {0};
    optimizer_zero_grads(&t->optimizer, t->dev);
    TRY(run_step_of(t, &t->pack, step, &t->use, &mix, true, &sum, err));

    for (size_t i = 0; i < t->optimizer.n_slot; i++) comm_all_reduce_sum(t->comm, t->dev, t->optimizer.slot[i].grad);
    comm_all_reduce_sum_host(t->comm, &sum.ce, sizeof sum / sizeof(double));
    fill_result(t, &sum, &t->use, out);

    out->grad_norm = optimizer_grad_norm(&t->optimizer, t->dev);
    TRY(dev_check(t->dev, err));
    if (!isfinite(out->loss) || !isfinite(out->grad_norm))
        return err_set(err, ST_FAIL,
                       "step %lld: the %s is not a finite number (loss %g, gradient norm %g); the weights were not updated. Lower --lr, "
                       "lengthen --warmup, or look for damaged data",
                       (long long)out->step, isfinite(out->loss) ? "gradient" : "loss", out->loss, out->grad_norm);

    out->lr = schedule_lr(o->schedule, o->lr, o->warmup, o->n_step, out->step);
    struct adamw a = {
        .lr = out->lr, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .weight_decay = o->weight_decay, .step = out->step};
    a.grad_scale = clip_factor(out->grad_norm, o->clip);
    mem_forbid(true);
    optimizer_step(&t->optimizer, t->dev, &a, o->seed);
    mem_forbid(false);
    TRY(dev_check(t->dev, err));
    t->step++;
    out->t_s = now_s() - start;
    return ST_OK;
}

enum status trainer_eval(struct trainer *t, const struct rows *rows, const struct targets_use *use, struct step_result *out,
                         struct err *err)
{
    const double start = now_s();
    *out = (struct step_result){.step = t->step, .epoch = t->pack.epoch};
    struct pack pack;
    struct pack_options po = {.batch_tokens = t->opt.pack.micro_tokens, .micro_tokens = t->opt.pack.micro_tokens};
    pack_open(&pack, rows, &po);
    struct micro bounds = pack_bounds(rows, po.micro_tokens);
    struct batch mine = t->batch; // the trainer's is too small perhaps, and its targets may be of other width
    float *row_ce = t->row_ce, *row_kd = t->row_kd;
    batch_alloc(&t->batch, &bounds, use);
    t->row_ce = NEW_N(float, bounds.n_loss + 1);
    t->row_kd = NEW_N(float, bounds.n_loss + 1);

    const struct loss_mix mix = mix_of(t, use, 1);
    struct sums sum = {0};
    enum status st = ST_OK;
    for (size_t step = 0; !st && step < pack.n_step; step++) st = run_step_of(t, &pack, step, use, &mix, false, &sum, err);
    comm_all_reduce_sum_host(t->comm, &sum.ce, sizeof sum / sizeof(double));
    fill_result(t, &sum, use, out);
    out->t_s = now_s() - start;

    batch_free(&t->batch);
    mem_free(t->row_ce);
    mem_free(t->row_kd);
    t->batch = mine;
    t->row_ce = row_ce;
    t->row_kd = row_kd;
    pack_close(&pack);
    return st;
}
