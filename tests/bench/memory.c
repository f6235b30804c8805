// Peak resident memory of training against its plan: anonymous pages above what the process held at its start, sampled by a thread all
// along, from loading the model to the end of the second step.
#include "student/trainer.h"
#include "tests/bench/bench.h"
#include "tests/bench/rows.h"

static void measure(const char *name, const char *json, enum dtype dtype)
{
    struct slice s;
    struct comm comm;
    double loss;
    struct watch *watch = watch_begin("RssAnon:");
    slice_open(&s, json, NULL, MODEL_TRAIN, dtype);
    struct rows rows = made_up_rows(3, 298, 384, s.model->config.n_vocab);
    struct trainer *t = made_up_trainer(&s, &rows, &comm);
    for (int i = 0; i < 2; i++) made_up_step(t, &loss);
    const double above = (double)watch_end(watch);
    const struct train_plan *p = &t->plan;
    const double plan = (double)train_plan_bytes(p), mib = 1 << 20;
    row(text("peak memory of training, %s, %s", name, dtype_name(dtype)), text("%.0f MiB above start", above / mib),
        text("planned %.0f MiB (weights %.0f, gradients and optimizer %.0f, kept %.0f, step %.0f); %+.2f%%", plan / mib,
             (double)p->weights / mib, (double)p->state / mib, (double)p->keep / mib, (double)p->step / mib, 100 * (above / plan - 1)),
        above / plan);
    trainer_close(t);
    comm_close(&comm);
    rows_free(&rows);
    slice_close(&s);
}

void job_memory(void)
{
    measure("Qwen2.5-0.5B slice", slice_qwen, DT_F32);
    measure("Qwen2.5-0.5B slice", slice_qwen, DT_BF16);
}
