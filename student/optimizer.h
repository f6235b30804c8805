// AdamW over a model's parameters. A slot a parameter that is not frozen; what it keeps from step to step has names, by which the
// checkpoint knows it too. Slots are found by the parameter's name.
//
//   adamw    12 bytes a parameter: m and v in f32, and a master weight in f32 where the weight is bf16
//   adamw8   2 bytes a parameter: m and v are codes of 8 bits in units of their block, and the bf16 weight is the only one (op_adamw8).
//            Parameters that are f32 in the run (norms, biases, all of them with --dtype f32) are updated as by adamw.
#pragma once
#include "kernels/model/model.h"

enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_ADAMW8, N_OPTIMIZER };
#define OPTIMIZER_CHOICES "adamw|adamw8"               // as the option takes them
extern const char *const optimizer_names[N_OPTIMIZER]; // in the same order
enum status optimizer_parse(enum optimizer_kind *out, const char *name, struct err *err);

enum slot_part {
    SLOT_MASTER, // the exact value of the weight: f32 (n), or the weight's own memory where that is exact
    SLOT_M,      // the moments: f32 (n), or u8 (n) …
    SLOT_V,
    SLOT_M_UNIT, // … in these units, f32 (⌈n / OP_ADAMW8_BLOCK⌉); none with f32 moments
    SLOT_V_UNIT,
    N_SLOT_PART
};
extern const char *const slot_part_names[N_SLOT_PART]; // "master", "m", "v", "m_unit", "v_unit"

struct slot {
    struct param *param;
    struct tensor weight, grad; // the parameter's, seen flat (n)
    struct tensor part[N_SLOT_PART];
};
struct optimizer {
    struct slot *slot; // n_slot, in the order of the parameters
    size_t n_slot;
    struct tensor sumsq; // f64 in 8 bytes of device memory
};

// Slots of all parameters that have a gradient (model_alloc_grads first), from `a`; works while measuring. optimizer_free frees the table.
void optimizer_alloc(struct optimizer *o, enum optimizer_kind kind, struct model *m, struct arena *a);
void optimizer_free(struct optimizer *o);
void optimizer_begin(struct optimizer *o, struct device *dev); // moments zero, masters from the weights
void optimizer_zero_grads(struct optimizer *o, struct device *dev);
// Square root of the sum of squares over all gradients; waits for the device. Not finite if any gradient is not.
double optimizer_grad_norm(struct optimizer *o, struct device *dev);
// The factor that brings a gradient of that norm down to `clip` (0: no clipping), as torch's clip_grad_norm_: clip / (norm + 1e-6), at
// most 1.
float clip_factor(double norm, double clip);
// One update; a->weight_decay applies to parameters that decay only. What is rounded by chance draws from (seed, parameter's name, a->step,
// element): the same after a resume and on any rank.
void optimizer_step(struct optimizer *o, struct device *dev, const struct adamw *a, uint64_t seed);
// After a master was replaced: the weights become its rounding.
void optimizer_weights_from_master(struct optimizer *o, struct device *dev);
