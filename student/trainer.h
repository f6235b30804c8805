// The trainer: one optimizer step is pack, forward, loss head, backward, reduce, clip, update.
//
// Memory has four arenas: the state (gradients and optimizer, lives with the trainer), `keep` (what forward keeps for backward), the losses
// of a step, and the device's step memory. trainer_open runs a whole step of the largest micro-batch in measuring mode for each recompute
// policy, takes the first that fits into what is free, and reserves exactly that. Nothing allocates while a micro-batch runs.
#pragma once
#include "kernels/comm/comm.h"
#include "student/batch.h"
#include "student/optimizer.h"
#include "student/schedule.h"

enum { RECOMPUTE_AUTO = -1 };                // beside enum recompute: by free memory
extern const char *const recompute_names[3]; // "none", "cheap", "layer"

struct train_options {
    struct loss_spec loss;
    double ce_weight, kd_weight;
    double kd_temperature;
    bool kd_scale_t2;                                 // multiply the teacher's part by T², which keeps its gradient's size
    double lr, beta1, beta2, eps, weight_decay, clip; // clip 0: none
    enum optimizer_kind optimizer;
    uint64_t seed; // of what the optimizer rounds by chance
    enum schedule schedule;
    int64_t warmup, n_step;
    struct pack_options pack;
    int recompute; // enum recompute or RECOMPUTE_AUTO
};

struct train_plan { // bytes
    size_t weights, state, keep, step, losses;
    enum recompute recompute;
    enum optimizer_kind optimizer;
    struct micro bounds; // of the largest micro-batch planned for
};

struct step_result {
    int64_t step, epoch; // 1-based step, 0-based epoch
    double loss, ce, kd; // token means before the update; loss = ce_weight ce + kd_weight kd (times T² with kd_scale_t2)
    bool has_kd;
    double lr, grad_norm;  // norm before clipping
    int64_t n_tok, n_loss; // over all ranks
    double t_s;            // seconds this step took
};

// The nats of each loss row, left on the device until the end of a step, so that nothing waits for it before.
struct row_losses {
    struct arena arena;
    struct tensor ce, kd; // f32 (room)
    float *host;          // (room)
    int room, n;          // rows there can be, rows there are
};

struct trainer {
    struct train_options opt;
    struct train_plan plan;
    struct model *model;     // borrowed
    struct device *dev;      // the model's
    struct comm *comm;       // borrowed
    const struct rows *rows; // borrowed
    struct targets_use use;
    struct pack pack;
    struct batch batch;
    struct arena state, keep;
    struct optimizer optimizer;
    struct saved *saved;
    struct row_losses losses;
    int64_t step; // done so far
};

// The model must be loaded for training, with parameters to be left alone marked frozen. ST_BAD_INPUT: a layer kind that cannot be trained,
// targets that do not fit the loss. ST_FAIL: not enough memory (needed against free, and what to lower).
enum status trainer_open(struct trainer **out, struct model *m, struct comm *comm, const struct rows *rows, const struct train_options *opt,
                         struct err *err);
void trainer_close(struct trainer *t);
// One optimizer step. ST_FAIL when loss or gradient is not finite: nothing was updated then.
enum status trainer_step(struct trainer *t, struct step_result *out, struct err *err);
// Token means over other rows, without gradients; the trainer's memory is used. `use` as from targets_use_init on those rows.
enum status trainer_eval(struct trainer *t, const struct rows *rows, const struct targets_use *use, struct step_result *out,
                         struct err *err);
size_t trainer_mem_bytes(const struct trainer *t); // weights, state, and the most that steps have used of their arenas
// "weights 1.23 GiB, gradients and optimizer (adamw8) …, kept for backward …, step …; recompute cheap"
size_t train_plan_bytes(const struct train_plan *p); // all of it
void train_plan_describe(const struct train_plan *p, char *text, size_t n);
