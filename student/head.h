// The LM head with its loss, chunk by chunk: logits of tokens × vocabulary never exist. Rows without loss are dropped first; for each
// chunk of the others: logits, loss rows, their gradient in the same memory, and from that dX and dW at once.
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
struct head_rows {
    int n_loss;
    struct tensor row;                  // i32 (n_loss), device: the flat row of each loss row
    struct tensor label;                // i32 (n_loss), device
    struct tensor loss_of;              // i32 (n_tok), device: a flat row's loss row, n_loss if it has none
    const struct head_targets *targets; // of these rows; NULL: none
};

struct param *head_param(struct model *m); // lm_head.weight, or the embedding it is tied to
// Rows a chunk: what keeps its logits near 256 MiB, by the vocabulary alone, so that results do not depend on the batch.
int64_t head_chunk(int64_t n_vocab);
// ce, kd f32 (n_loss): nats of each loss row. dhidden A (n_tok, d): the gradient with respect to `hidden`, written, zero where there is no
// loss; the head's weight gradient is added to head_param's. dhidden none: values only (evaluation).
void head_loss(struct model *m, struct device *dev, struct tensor dhidden, struct tensor ce, struct tensor kd, struct tensor hidden,
               const struct head_rows *rows, const struct loss_mix *mix);
