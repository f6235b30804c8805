// Memory against what is free, by the code that will take it: models built from config.json alone, run over nothing (docs/design.md).
#include "distill/compute.h"
#include "distill/doctor.h"
#include "distill/registry.h"
#include "student/plan.h"
#include "teacher/engine.h"

#include <string.h>

struct model_options exam_model_options(const struct exam *x, const struct side *s, enum model_use use)
{
    return (struct model_options){.archs = all_archs,
                                  .use = use,
                                  .dtype = run_dtype(x->o),
                                  .fp8_activations = s == &x->teacher && use == MODEL_GENERATE && opt_bool(x->o, "fp8-activations")};
}

struct model *plan_model(struct exam *x, const struct side *s, enum model_use use, struct err *err)
{
    struct model *m = NULL;
    struct model_options mo = exam_model_options(x, s, use);
    mo.plan = true;
    mo.random_init = !mo.fp8_activations || !s->n_weight; // which weights are in FP8 stands with them alone
    return model_load(&m, &x->dev, s->dir, &mo, err) ? NULL : m;
}

static int longest(const struct exam *x, bool prompts)
{
    int n = 0;
    for (size_t i = 0; i < x->n_data; i++) {
        int m = prompts ? x->data[i].longest_prompt : x->data[i].longest;
        if (m > n) n = m;
    }
    return n;
}

// ---- generation -------------------------------------------------------------------------------------------------------------------------

static void plan_gen(struct exam *x, struct finding *f, struct model *m)
{
    struct err err = {0};
    const int64_t context = m->config.max_position, max_tokens = opt_int(x->o, "max-tokens");
    int64_t prompt = longest(x, true) ? longest(x, true) : 1024;
    if (prompt > context / 2 && !longest(x, true)) prompt = context / 2;
    if (prompt < 1) prompt = 1;
    int64_t len = prompt + max_tokens < context ? prompt + max_tokens : context;
    struct engine_options eo = {.eos = (int32_t[]){0},
                                .batch_tokens = (int)opt_int(x->o, "batch-tokens"),
                                .max_prompt = (int)prompt,
                                .max_len = (int)(len > prompt ? len : prompt + 1)};
    targets_spec_parse(&eo.targets, "topk:64", NULL, (int)m->config.n_vocab, &err);
    struct engine_plan p;
    if (engine_plan(&p, m, &eo, &err)) {
        say(f, V_FAIL, "%s", err.text);
        return;
    }
    const size_t weights = m->weights.peak, least = weights + p.step_bytes + (size_t)p.n_page_least * p.page_bytes,
                 all = weights + p.step_bytes + (size_t)p.n_page * p.page_bytes, free_bytes = dev_available_bytes(&x->dev);
    say(f, V_OK, "weights %s in %s, step %s, keys and values %s for one sample of %d tokens, %s for %d together; %s are free",
        size_text(weights).s, dtype_name(m->dtype), size_text(p.step_bytes).s, size_text((size_t)p.n_page_least * p.page_bytes).s,
        eo.max_len, size_text((size_t)p.n_page * p.page_bytes).s, eo.batch_tokens, size_text(free_bytes).s);
    number(f, "weights_bytes", (double)weights);
    number(f, "step_bytes", (double)p.step_bytes);
    number(f, "page_bytes", (double)p.page_bytes);
    number(f, "need_bytes", (double)least);
    number(f, "need_all_bytes", (double)all);
    number(f, "free_bytes", (double)free_bytes);
    if (least > free_bytes) {
        say(f, V_FAIL, "%s are lacking for a single sample", size_text(least - free_bytes).s);
        if (weights > free_bytes)
            fix(f, "the weights alone do not fit: a machine with more than %s, or a smaller teacher", size_text(least).s);
        else
            fix(f, "lower --max-tokens or --batch-tokens");
    } else if (all > free_bytes) {
        size_t n = (free_bytes - weights - p.step_bytes) / 4 * 3 / p.page_bytes / (size_t)p.n_page_least;
        say(f, V_WARN, "at their longest about %zu samples fit together, not %d: slower, with the same result", n ? n : 1, eo.batch_tokens);
        fix(f, "lower --max-tokens, or leave it so");
    }
}

void check_memory_gen(struct exam *x, struct finding *f)
{
    struct err err = {0};
    struct model *m = plan_model(x, x->side, MODEL_GENERATE, &err);
    if (m)
        plan_gen(x, f, m);
    else {
        say(f, V_FAIL, "%s", err.text);
        fix(f, "gen would refuse it, too: mend what is named%s",
            opt_bool(x->o, "fp8-activations") ? ", or leave --fp8-activations out" : "");
    }
    model_free(m);
}

// ---- training ---------------------------------------------------------------------------------------------------------------------------

static enum status plan_step(struct train_plan plans[3], struct model *m, enum optimizer_kind kind, int micro, int len, struct err *err)
{
    const int n_vocab = (int)m->config.n_vocab;
    struct train_options opt = {.kd_temperature = 1, .optimizer = kind};
    TRY(loss_parse(&opt.loss, "fkl", err));
    struct targets_use use = {.on = true, .k = n_vocab < 64 ? n_vocab : 64, .n_vocab = n_vocab, .temperature = 1};
    struct micro bounds = {.n_row = (micro + len - 1) / len, .n_tok = micro, .n_loss = micro, .max_len = len};
    return train_plan_policies(plans, m, &opt, &bounds, &use, err);
}

// The largest micro-batch, by halves, that fits with whole layers computed again; 0: none.
static int smaller(struct model *m, enum optimizer_kind kind, int micro, int len, size_t free_bytes)
{
    struct train_plan plans[3];
    struct err ignored = {0};
    while ((micro /= 2) >= 64) {
        if (len > micro) len = micro;
        if (!plan_step(plans, m, kind, micro, len, &ignored) && train_plan_bytes(&plans[RECOMPUTE_LAYER]) <= free_bytes) return micro;
    }
    return 0;
}

// What to do where no recompute policy fits: p is the plan as asked for.
static void lighter(struct exam *x, struct finding *f, struct model *m, enum optimizer_kind kind, const struct train_plan *p, int micro,
                    int len)
{
    struct train_plan small[3];
    struct err ignored = {0};
    const size_t free_bytes = dev_available_bytes(&x->dev);
    if (kind == OPTIMIZER_ADAMW && m->dtype == DT_BF16 && !plan_step(small, m, OPTIMIZER_ADAMW8, micro, len, &ignored) &&
        train_plan_bytes(&small[RECOMPUTE_LAYER]) <= free_bytes) {
        fix(f, "--optimizer adamw8 fits: %s with --recompute layer", size_text(train_plan_bytes(&small[RECOMPUTE_LAYER])).s);
        return;
    }
    if (p->weights + p->state > free_bytes) {
        fix(f, "weights, gradients and optimizer alone take %s: a smaller student or a larger machine", size_text(p->weights + p->state).s);
        return;
    }
    const int n = smaller(m, kind, micro, len, free_bytes);
    if (n)
        fix(f, "--micro-tokens %d fits, with --max-len %d at most", n, n);
    else
        fix(f, "a smaller student or a larger machine");
}

static void plan_train(struct exam *x, struct finding *f, struct model *m)
{
    struct err err = {0};
    struct train_plan p[3];
    const int64_t context = m->config.max_position, micro = opt_int(x->o, "micro-tokens");
    int64_t len = opt_has(x->o, "max-len") ? opt_int(x->o, "max-len") : micro;
    if (len > context) len = context;
    if (longest(x, false) && longest(x, false) < len) len = longest(x, false);
    const int64_t tokens = micro > len ? micro : len;
    enum optimizer_kind kind;
    if (optimizer_parse(&kind, opt_str(x->o, "optimizer"), &err) || plan_step(p, m, kind, (int)tokens, (int)len, &err)) {
        say(f, V_FAIL, "%s", err.text);
        return;
    }
    const size_t free_bytes = dev_available_bytes(&x->dev);
    int policy = RECOMPUTE_NONE;
    while (policy < RECOMPUTE_LAYER && train_plan_bytes(&p[policy]) > free_bytes) policy++;
    say(f, V_OK,
        "%lld tokens a micro-batch in %s: weights %s, gradients and optimizer (%s) %s, step and what backward keeps %s (recompute "
        "none), "
        "%s (cheap), %s (layer); %s are free",
        (long long)tokens, dtype_name(m->dtype), size_text(p[0].weights).s, optimizer_names[kind], size_text(p[0].state).s,
        size_text(p[0].keep + p[0].step).s, size_text(p[1].keep + p[1].step).s, size_text(p[2].keep + p[2].step).s,
        size_text(free_bytes).s);
    for (int i = 0; i < 3; i++) {
        char key[40];
        snprintf(key, sizeof key, "need_%s_bytes", recompute_names[i]);
        number(f, key, (double)train_plan_bytes(&p[i]));
    }
    number(f, "weights_bytes", (double)p[0].weights);
    number(f, "state_bytes", (double)p[0].state);
    number(f, "free_bytes", (double)free_bytes);
    if (train_plan_bytes(&p[policy]) <= free_bytes) {
        say(f, V_OK, "fits with --recompute %s", recompute_names[policy]);
        return;
    }
    say(f, V_FAIL, "%s are lacking even with --recompute layer", size_text(train_plan_bytes(&p[policy]) - free_bytes).s);
    lighter(x, f, m, kind, &p[0], (int)tokens, (int)len);
}

void check_memory_train(struct exam *x, struct finding *f)
{
    struct err err = {0};
    const char *cannot = NULL;
    struct model *m = plan_model(x, x->side, MODEL_TRAIN, &err);
    if (!m)
        say(f, V_FAIL, "%s", err.text);
    else if ((cannot = model_untrainable(m)))
        say(f, V_SKIP, "layers of kind %s cannot be trained (see architecture)", cannot);
    else
        plan_train(x, f, m);
    model_free(m);
}
