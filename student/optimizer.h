// AdamW over a model's parameters. A slot a parameter that is not frozen: the moments m and v, and a master weight in f32 where the
// weight itself is bf16; an f32 weight is its own master. Slots are found by the parameter's name.
#pragma once
#include "kernels/model/model.h"

struct slot {
    struct param *param;
    struct tensor weight, grad; // the parameter's, seen flat (n)
    struct tensor master, m, v; // f32 (n); master is the weight's own memory when that is f32
};
struct optimizer {
    struct slot *slot; // n_slot, in the order of the parameters
    size_t n_slot;
    struct tensor sumsq; // f64 in 8 bytes of device memory
};

// Slots of all parameters that have a gradient (model_alloc_grads first), from `a`; works while measuring. optimizer_free frees the table.
void optimizer_alloc(struct optimizer *o, struct model *m, struct arena *a);
void optimizer_free(struct optimizer *o);
void optimizer_begin(struct optimizer *o, struct device *dev); // moments zero, masters from the weights
void optimizer_zero_grads(struct optimizer *o, struct device *dev);
// Square root of the sum of squares over all gradients; waits for the device. Not finite if any gradient is not.
double optimizer_grad_norm(struct optimizer *o, struct device *dev);
// The factor that brings a gradient of that norm down to `clip` (0: no clipping), as torch's clip_grad_norm_: clip / (norm + 1e-6), at
// most 1.
float clip_factor(double norm, double clip);
// One update; a->weight_decay applies to parameters that decay only.
void optimizer_step(struct optimizer *o, struct device *dev, const struct adamw *a);
// After a master was replaced: the weights become its rounding.
void optimizer_weights_from_master(struct optimizer *o, struct device *dev);
