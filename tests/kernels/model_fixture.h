// A loaded model with a device of its own, and the forms of forward that tests compare.
#pragma once
#include "distill/registry.h"
#include "kernels/layers/layer.h"
#include "tests/test.h"

struct fixture {
    struct device dev;
    struct model *model;
    struct st_set ref; // reference.safetensors beside the model; n 0 when there is none
};
const char *golden_model(const char *name); // the folder of tests/golden/models/NAME
void model_fixture_open(struct fixture *f, const char *dir, enum model_use use, enum dtype dtype, const char *device);
void model_fixture_close(struct fixture *f);
const float *ref_f32(const struct fixture *f, const char *name, int64_t *n); // NULL if not there
const int32_t *ref_i32(const struct fixture *f, const char *name, int64_t *n);

// logits f32 (n, v), caller's memory, of documents packed one after the other: lengths sum to n.
void fixture_flat(struct fixture *f, float *logits, const int32_t *ids, const int *length, int n_doc);
// The same, telling `watch` of every layer (run->on_layer).
typedef void layer_watch_fn(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight);
void fixture_flat_watched(struct fixture *f, float *logits, const int32_t *ids, const int *length, int n_doc, layer_watch_fn *watch,
                          void *arg);
// The same of one document through the cache: prefilled in chunks of `chunk` rows up to n_prefill, then one decode step a token.
void fixture_cached(struct fixture *f, float *logits, const int32_t *ids, int n, int chunk, int n_prefill);
double max_abs(const float *x, int64_t n);
double max_diff(const float *a, const float *b, int64_t n);

float *fixture_values(struct fixture *f, struct tensor x); // of an f32 tensor, on the host; mem_free it

// What a training step needs beside a model loaded for training.
struct trained {
    struct arena grads, keep;
    struct saved *saved;
};
void trained_open(struct trained *t, struct fixture *f);
void trained_close(struct trained *t);
// One forward (and backward, its gradients afterwards in the params) of n_doc packed documents; returns loss = sum(hidden * g).
double trained_step(struct fixture *f, struct trained *t, const int32_t *ids, const int *length, int n_doc, const float *g,
                    enum recompute recompute, bool backward);
