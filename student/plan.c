// Plans: measuring passes, the choice of a recompute policy, reserving, and the opening and closing of a trainer.
#include "student/plan.h"

#include <stdio.h>
#include <string.h>

const char *const recompute_names[3] = {"none", "cheap", "layer"};

// Room left to the system and to the program's own tables when "auto" asks whether a policy fits.
static size_t usable(size_t free_bytes)
{
    return free_bytes - free_bytes / 20;
}

// Runs micro_run over measuring arenas in place of the trainer's; tells how much of `keep` and of the step memory it took.
static enum status measure(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix,
                           bool backward, size_t *keep, size_t *step, struct err *err)
{
    struct arena real_keep = t->keep, real_step = t->dev->arena;
    bool was = t->dev->measuring;
    arena_measure(&t->keep, "kept for backward");
    arena_measure(&t->dev->arena, real_step.name);
    t->dev->measuring = true;
    micro_run(t, b, use, mix, backward);
    *keep = t->keep.peak;
    *step = t->dev->arena.peak;
    t->keep = real_keep;
    t->dev->arena = real_step;
    t->dev->measuring = was;
    return dev_check(t->dev, err);
}

enum status plan_fit(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward,
                     struct err *err)
{
    size_t keep, step;
    TRY(measure(t, b, use, mix, backward, &keep, &step, err));
    if (keep > t->keep.size) {
        arena_free(&t->keep);
        TRY(dev_arena(t->dev, &t->keep, "kept for backward", keep, err));
        t->plan.keep = keep;
    }
    if (step > t->dev->arena.size) {
        TRY(dev_reserve(t->dev, step, err));
        t->plan.step = step;
    }
    return ST_OK;
}

static void losses_lay_out(struct row_losses *l, int n)
{
    l->room = n;
    l->n = 0;
    l->ce = tensor_1d(arena_alloc(&l->arena, sizeof(float) * (size_t)n), DT_F32, n);
    l->kd = tensor_1d(arena_alloc(&l->arena, sizeof(float) * (size_t)n), DT_F32, n);
}

static size_t measure_losses(struct row_losses *l, int n) // and lays them out without memory
{
    arena_measure(&l->arena, "losses");
    losses_lay_out(l, n);
    return l->arena.peak;
}

enum status plan_losses(struct trainer *t, int n, struct err *err)
{
    struct row_losses *l = &t->losses, planned = {0};
    if (n <= l->room && l->host) return ST_OK;
    const size_t size = measure_losses(&planned, n);
    struct arena more;
    TRY(dev_arena(t->dev, &more, "losses", size, err));
    arena_free(&l->arena);
    mem_free(l->host);
    *l = (struct row_losses){.arena = more, .host = NEW_N(float, n)};
    losses_lay_out(l, n);
    t->plan.losses = size;
    return ST_OK;
}

static int at_least_one(int n)
{
    return n > 0 ? n : 1;
}

static void measure_state(struct trainer *t)
{
    struct arena a;
    struct optimizer o;
    arena_measure(&a, "gradients and optimizer");
    model_alloc_grads(t->model, &a);
    optimizer_alloc(&o, t->opt.optimizer, t->model, &a);
    optimizer_free(&o);
    t->plan.state = a.peak;
    t->plan.optimizer = t->opt.optimizer;
}

static enum status too_little(const struct trainer *t, size_t need, size_t free_bytes, struct err *err)
{
    const double gib = 1 << 30;
    char plan[400];
    train_plan_describe(&t->plan, plan, sizeof plan);
    return err_set(err, ST_FAIL,
                   "out of memory before starting: training needs %.2f GiB beside the weights and %.2f GiB are free (%s). Lower "
                   "--micro-tokens (now %d) "
                   "or --max-len (longest row: %d)%s%s",
                   (double)need / gib, (double)free_bytes / gib, plan, t->opt.pack.micro_tokens, t->rows->max_tok,
                   t->plan.recompute == RECOMPUTE_LAYER ? "; --recompute layer is in use already" : ", or use --recompute layer",
                   t->opt.optimizer == OPTIMIZER_ADAMW && t->model->dtype == DT_BF16 ? ", or --optimizer adamw8" : "");
}

// The loss of the run, as far as memory hangs on it.
static struct loss_mix mix_of(const struct trainer *t)
{
    return (struct loss_mix){.ce_weight = 1,
                             .kd_weight = t->use.on ? 1 : 0,
                             .divergence = t->use.on ? t->opt.loss.kind->divergence : DIV_NONE,
                             .beta = t->opt.loss.beta,
                             .temperature = (float)t->opt.kd_temperature,
                             .n_vocab = t->use.n_vocab};
}

// The first policy, from the fastest on, under which everything fits; the thriftiest if none does.
static enum status choose(struct trainer *t, struct err *err)
{
    const struct loss_mix mix = mix_of(t);
    const size_t free_bytes = dev_available_bytes(t->dev) + t->plan.losses; // those are there already
    const int from = t->opt.recompute == RECOMPUTE_AUTO ? RECOMPUTE_NONE : t->opt.recompute;
    const int to = t->opt.recompute == RECOMPUTE_AUTO ? RECOMPUTE_LAYER : t->opt.recompute;
    batch_shape(&t->batch, &t->plan.bounds);
    for (int policy = from; policy <= to; policy++) {
        t->plan.recompute = (enum recompute)policy;
        TRY(measure(t, &t->batch, &t->use, &mix, true, &t->plan.keep, &t->plan.step, err));
        if (train_plan_bytes(&t->plan) - t->plan.weights <= usable(free_bytes)) return ST_OK;
    }
    size_t need = train_plan_bytes(&t->plan) - t->plan.weights;
    return need <= free_bytes ? ST_OK : too_little(t, need, free_bytes, err);
}

enum status plan_reserve(struct trainer *t, struct err *err)
{
    struct model *m = t->model;
    // The step memory of loading is given back before free memory is looked at.
    dev_measure(t->dev);
    // A step's loss rows, at most: of its tokens, or of the largest micro-batch that is measured.
    const struct pack_options *po = &t->opt.pack;
    const int most = po->batch_tokens > po->micro_tokens ? po->batch_tokens : po->micro_tokens;
    TRY(plan_losses(t, at_least_one(pack_bounds(t->rows, most).n_loss), err));
    t->plan.weights = m->weights.peak;
    measure_state(t);
    TRY(choose(t, err));
    TRY(dev_arena(t->dev, &t->state, "gradients and optimizer", t->plan.state, err));
    model_alloc_grads(m, &t->state);
    optimizer_alloc(&t->optimizer, t->opt.optimizer, m, &t->state);
    TRY(dev_arena(t->dev, &t->keep, "kept for backward", t->plan.keep, err));
    return dev_reserve(t->dev, t->plan.step, err);
}

size_t train_plan_bytes(const struct train_plan *p)
{
    return p->weights + p->state + p->keep + p->step + p->losses;
}

void train_plan_describe(const struct train_plan *p, char *text, size_t n)
{
    const double mib = 1 << 20;
    snprintf(text, n, "weights %.1f MiB, gradients and optimizer (%s) %.1f MiB, kept for backward %.1f MiB, step %.1f MiB; recompute %s",
             (double)p->weights / mib, optimizer_names[p->optimizer], (double)p->state / mib, (double)p->keep / mib,
             (double)(p->step + p->losses) / mib, recompute_names[p->recompute]);
}

size_t trainer_mem_bytes(const struct trainer *t)
{
    return t->plan.weights + t->state.peak + t->keep.peak + t->dev->arena.peak + t->losses.arena.peak;
}

static enum status check_trainable(const struct model *m, struct err *err)
{
    const char *cannot = model_untrainable(m);
    if (!cannot) return ST_OK;
    return err_set(err, ST_BAD_INPUT,
                   "%s: a model with layers of kind %s cannot be trained yet (they have no backward); take a dense student", m->dir,
                   cannot);
}

static void drop_grads(struct model *m) // they lay in an arena that is gone
{
    for (size_t i = 0; i < m->n_param; i++) m->params[i].grad = TENSOR_NONE;
}

enum status train_plan_policies(struct train_plan plans[3], struct model *m, const struct train_options *opt, const struct micro *bounds,
                                const struct targets_use *use, struct err *err)
{
    TRY(check_trainable(m, err));
    struct trainer t = {.opt = *opt, .model = m, .dev = m->dev, .use = *use, .saved = model_saved_alloc(m)};
    dev_measure(t.dev);
    batch_alloc(&t.batch, bounds, use, dev_records(t.dev));
    t.plan.bounds = *bounds;
    t.plan.losses =
        measure_losses(&t.losses, opt->pack.batch_tokens > bounds->n_loss ? opt->pack.batch_tokens : at_least_one(bounds->n_loss));
    t.plan.weights = m->weights.peak;
    measure_state(&t);
    const struct loss_mix mix = mix_of(&t);
    enum status st = ST_OK;
    for (int policy = RECOMPUTE_NONE; !st && policy <= RECOMPUTE_LAYER; policy++) {
        t.plan.recompute = (enum recompute)policy;
        st = measure(&t, &t.batch, use, &mix, true, &t.plan.keep, &t.plan.step, err);
        plans[policy] = t.plan;
    }
    drop_grads(m);
    batch_free(&t.batch);
    mem_free(t.saved);
    return st;
}

static enum status open_trainer(struct trainer *t, struct err *err)
{
    TRY(check_trainable(t->model, err));
    TRY(targets_use_init(&t->use, t->rows, &t->opt.loss, (float)t->opt.kd_temperature, (int)t->model->config.n_vocab, err));
    pack_open(&t->pack, t->rows, &t->opt.pack);
    t->plan.bounds = pack_bounds(t->rows, t->opt.pack.micro_tokens);
    batch_alloc(&t->batch, &t->plan.bounds, &t->use, dev_records(t->dev));
    t->saved = model_saved_alloc(t->model);
    TRY(plan_reserve(t, err));
    optimizer_begin(&t->optimizer, t->dev);
    return dev_check(t->dev, err);
}

enum status trainer_open(struct trainer **out, struct model *m, struct comm *comm, const struct rows *rows, const struct train_options *opt,
                         struct err *err)
{
    struct trainer *t = NEW(struct trainer);
    t->opt = *opt;
    t->model = m;
    t->dev = m->dev;
    t->comm = comm;
    t->rows = rows;
    enum status st = open_trainer(t, err);
    if (st) {
        trainer_close(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    if (t->rows && t->pack.order) pack_close(&t->pack);
    batch_free(&t->batch);
    optimizer_free(&t->optimizer);
    drop_grads(t->model);
    arena_free(&t->state);
    arena_free(&t->keep);
    arena_free(&t->losses.arena);
    mem_free(t->losses.host);
    mem_free(t->saved);
    mem_free(t);
}
