// The LM head with its loss, piece by piece: logits of tokens × vocabulary never exist. Rows without loss are left out. The others go in
// blocks: of a block, chunk by chunk, logits, loss rows and their gradient; from the block's gradient dX and dW at once.
#pragma once
#include "kernels/model/model.h"

// What the teacher said of each loss row, host memory; k 0: nothing.
struct head_targets {
    int k;
    int32_t *ids;   // (n_loss, k), -1: unused
    float *logprob; // (n_loss, k) at T = 1
    float *tail;    // (n_loss)
    float *log_z1;  // (n_loss)
    float *log_zt;  // (n_loss)
};
// How many rows, by the vocabulary and dtype alone, so that results do not depend on the batch.
struct head_sizes {
    int64_t chunk; // whose f32 logits are there at once
    int64_t block; // whose gradients are: a chunk in f32, where they take the logits' place
};
struct head_sizes head_sizes(int64_t n_vocab, enum dtype t);
struct head_rows {
    int n_loss;
    struct tensor row;                  // i32 (n_loss), device: the flat row of each loss row
    struct tensor label;                // i32 (n_loss), device
    const struct head_targets *targets; // of these rows; NULL: none
    const struct head_sizes *size;      // NULL: head_sizes()
};

struct param *head_param(struct model *m); // lm_head.weight, or the embedding it is tied to
// ce, kd f32 (n_loss): nats of each loss row. dhidden A (n_tok, d): the gradient with respect to `hidden`, written, zero where there is no
// loss; the head's weight gradient is added to head_param's. dhidden none: values only (evaluation).
void head_loss(struct model *m, struct device *dev, struct tensor dhidden, struct tensor ce, struct tensor kd, struct tensor hidden,
               const struct head_rows *rows, const struct loss_mix *mix);
