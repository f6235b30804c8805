// Rows of random tokens, and a trainer over them with the settings of `distill train`: what the jobs train and memory run.
#include "tests/bench/rows.h"

struct rows made_up_rows(int n_row, int min_len, int max_len, int64_t n_vocab)
{
    struct rows r = {.v = NEW_N(struct row, n_row), .n = (size_t)n_row, .source = NEW(struct rows_source), .n_source = 1};
    r.source->path = mem_strdup("made up");
    for (int i = 0; i < n_row; i++) {
        struct row *w = &r.v[i];
        const int n = min_len + (int)((int64_t)(max_len - min_len) * (i * 7 % n_row) / (n_row > 1 ? n_row - 1 : 1));
        *w = (struct row){.ids = NEW_N(int32_t, n), .mask = NEW_N(uint8_t, n), .n_tok = n, .n_loss = n - 1};
        for (int k = 0; k < n; k++) {
            w->ids[k] = (int32_t)(rng_uniform(7, (uint64_t)i, (uint64_t)k) * (double)n_vocab);
            w->mask[k] = k > 0;
        }
        r.n_tok += n;
        r.n_loss += n - 1;
        if (n > r.max_tok) r.max_tok = n;
    }
    return r;
}

struct trainer *made_up_trainer(struct slice *s, struct rows *rows, struct comm *comm)
{
    struct err err = {0};
    struct train_options opt = {.ce_weight = 1,
                                .kd_temperature = 1,
                                .lr = 1e-5,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .clip = 1,
                                .schedule = SCHEDULE_CONSTANT,
                                .n_step = 1000,
                                .recompute = on_gpu() ? RECOMPUTE_AUTO : RECOMPUTE_NONE};
    must(loss_parse(&opt.loss, "ce", &err), &err);
    opt.pack = (struct pack_options){.batch_tokens = (int)rows->n_tok, .micro_tokens = (int)rows->n_tok};
    struct trainer *t = NULL;
    comm_open(comm);
    must(trainer_open(&t, s->model, comm, rows, &opt, &err), &err);
    return t;
}

double made_up_step(struct trainer *t, double *loss)
{
    struct err err = {0};
    struct step_result r;
    const double s = now_s();
    must(trainer_step(t, &r, &err), &err);
    *loss = r.loss;
    return now_s() - s;
}
