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

static void head_run(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix,
                     struct tensor dhidden, struct tensor hidden)
{
    struct device *dev = t->dev;
    struct row_losses *l = &t->losses;
    const int n = b->m.n_loss, at = dev->measuring ? 0 : l->n;
    struct head_rows rows = {.n_loss = n, .targets = use->on ? &b->targets : NULL};
    rows.row = upload_i32(dev, b->tables.loss_row, n);
    rows.label = upload_i32(dev, b->tables.label, n);
    head_loss(t->model, dev, dhidden, tensor_rows(l->ce, at, n), tensor_rows(l->kd, at, n), hidden, &rows, mix);
    if (!dev->measuring) l->n += n;
}

void micro_run(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward)
{
    struct device *dev = t->dev;
    struct model *m = t->model;
    const struct micro_tables *h = &b->tables;
    const struct micro *s = &b->shape;
    const int n = s->n_tok;
    size_t mark = dev_mark(dev), kept = arena_mark(&t->keep);

    struct tensor ids = upload_i32(dev, h->ids, n), start = upload_i32(dev, h->start, s->n_row + 1), pos = upload_i32(dev, h->pos, n);
    struct segments seg = {
        .n_seg = s->n_row, .n_tok = n, .max_len = s->max_len, .max_pos = s->max_len, .start = start.data, .pos = pos.data};
    struct run run = {.dev = dev, .mode = RUN_FLAT, .seg = &seg, .recompute = t->plan.recompute};
    if (backward) run.keep = &t->keep, run.saved = t->saved;
    struct tensor dhidden = backward ? dev_2d(dev, m->dtype, n, m->config.d_model) : TENSOR_NONE;
    size_t inner = dev_mark(dev);
    struct tensor hidden = dev_2d(dev, m->dtype, n, m->config.d_model);

    // What hangs on the shape alone can be recorded. The head's loss rows are of another number each time, and it launches little.
    const struct {
        const void *trainer, *step;
        int64_t n_tok, n_row, max_len, backward;
    } key = {t, ids.data, n, s->n_row, s->max_len, backward};
    const bool again = dev_step_begin(dev, &key, sizeof key);
    if (!again) model_forward(m, &run, hidden, ids);
    if (backward)
        dev_step_pause(dev);
    else
        dev_step_end(dev);
    head_run(t, b, use, mix, dhidden, hidden);
    dev_release(dev, inner);
    if (backward) {
        dev_step_resume(dev);
        if (!again) model_backward(m, &run, dhidden, ids);
        dev_step_end(dev);
    }
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

static void sum_losses(struct trainer *t, struct sums *sum) // waits for the device
{
    struct row_losses *l = &t->losses;
    if (!l->n) return;
    op_download(t->dev, l->host, tensor_rows(l->ce, 0, l->n));
    for (int i = 0; i < l->n; i++) sum->ce += (double)l->host[i];
    op_download(t->dev, l->host, tensor_rows(l->kd, 0, l->n));
    for (int i = 0; i < l->n; i++) sum->kd += (double)l->host[i];
    l->n = 0;
}

// This rank's micro-batches of one step of `pack`: every size-th, from its own rank on. Does not wait for the device: their losses lie in
// t->losses at the end, but for those that had to make room.
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
        if (t->losses.n + m.n_loss > t->losses.room) sum_losses(t, sum);
        mem_forbid(true);
        micro_run(t, &t->batch, use, mix, backward);
        mem_forbid(false);
        TRY(dev_check(t->dev, err));
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
    t->losses.n = 0; // of a step that failed
    optimizer_zero_grads(&t->optimizer, t->dev);
    TRY(run_step_of(t, &t->pack, step, &t->use, &mix, true, &sum, err));

    for (size_t i = 0; i < t->optimizer.n_slot; i++) comm_all_reduce_sum(t->comm, t->dev, t->optimizer.slot[i].grad);
    out->grad_norm = optimizer_grad_norm(&t->optimizer, t->dev); // the first to wait for the device
    sum_losses(t, &sum);
    TRY(dev_check(t->dev, err));
    comm_all_reduce_sum_host(t->comm, &sum.ce, sizeof sum / sizeof(double));
    fill_result(t, &sum, &t->use, out);
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
    batch_alloc(&t->batch, &bounds, use, dev_records(t->dev));

    const struct loss_mix mix = mix_of(t, use, 1);
    struct sums sum = {0};
    t->losses.n = 0;
    enum status st = plan_losses(t, bounds.n_loss, err);
    for (size_t step = 0; !st && step < pack.n_step; step++) st = run_step_of(t, &pack, step, use, &mix, false, &sum, err);
    sum_losses(t, &sum);
    if (!st) st = dev_check(t->dev, err);
    comm_all_reduce_sum_host(t->comm, &sum.ce, sizeof sum / sizeof(double));
    fill_result(t, &sum, use, out);
    out->t_s = now_s() - start;

    batch_free(&t->batch);
    t->batch = mine;
    pack_close(&pack);
    return st;
}
