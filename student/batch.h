// A micro-batch on its way to the device: its flat tables, and what the teacher said of its loss rows, put into the one form that op_loss
// takes, whatever the stores hold.
#pragma once
#include "datasets/pack.h"
#include "student/head.h"
#include "student/loss.h"

// How the rows' targets are used in one run.
struct targets_use {
    bool on;     // the loss has a teacher's part
    bool full;   // the targets cover the vocabulary: no tail category
    int k;       // widest of the sources
    int n_vocab; // columns of the logits that count
    float temperature;
};
// Decides it and refuses what cannot be (ST_BAD_INPUT): rows without targets, targets of different kinds, sampled targets with another loss
// than fkl, a temperature whose log Z was not captured. n_vocab is the student's; a teacher with fewer columns masks the rest.
enum status targets_use_init(struct targets_use *out, const struct rows *rows, const struct loss_spec *loss, float temperature, int n_vocab,
                             struct err *err);

struct batch {
    struct micro m;
    // As the device is given it: m, or with `repeats` m rounded up, so that micro-batches of like size have one shape. What is added stands
    // behind: a row of tokens 0 without loss, then rows of no tokens. Few shapes are left: eight from a number of tokens to its double, and
    // from 2048 on each whole tile of 128 rows, which a product works on anyway.
    struct micro shape;
    bool repeats;
    struct micro_tables tables;
    struct head_targets targets; // k 0: none
};
// Host memory for micro-batches within bounds.
void batch_alloc(struct batch *b, const struct micro *bounds, const struct targets_use *use, bool repeats);
void batch_free(struct batch *b);
void batch_shape(struct batch *b, const struct micro *m); // sets m and shape alone, as a plan needs them
// Fills it with a micro-batch; reads stores.
enum status batch_load(struct batch *b, const struct pack *p, const struct micro *m, const struct targets_use *use, struct err *err);
