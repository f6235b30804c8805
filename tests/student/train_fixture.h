// What the suites of training share: the small students of tests/golden/train with their data, put through a real store.
#pragma once
#include "distill/registry.h"
#include "student/trainer.h"
#include "tests/test.h"

enum { FIXTURE_VOCAB = 96 };

// A store in `dir` with the rows of tests/golden/train/data.json. k > 0: targets topk:k of the made-up teacher, log Z at 1 and
// `temperature`; 0: none.
void fixture_store(const char *dir, int k, float temperature);
// The same with the teacher's logits for all generated tokens, row after row (n, FIXTURE_VOCAB), given.
void fixture_store_of(const char *dir, int k, float temperature, const float *logits);
// The rows of a store or JSONL made so.
void fixture_rows(struct rows *rows, const char *path);

struct fixture {
    struct device dev;
    struct comm comm;
    struct model *model;
    struct rows rows;
    struct trainer *trainer;
};
// Settings that the tests start from: ce, lr 3e-3, one micro-batch a step, no shuffle.
struct train_options fixture_options(void);
struct train_options fixture_options_of(const char *loss, double kd_weight, double ce_weight); // the same with another loss
// Loads tests/golden/train/ARCH and the rows; the trainer is opened by fixture_train, so that parameters can be frozen between.
// On one thread: the models are so small that a second only waits; fixture_open_threads for what is about threads.
void fixture_open(struct fixture *f, const char *arch, enum dtype dtype, const char *store);
void fixture_open_threads(struct fixture *f, const char *arch, enum dtype dtype, const char *store, int n_thread);
// Any student's folder, on a device by its name.
void fixture_open_model(struct fixture *f, const char *device, const char *dir, enum dtype dtype, const char *store, int n_thread);
void fixture_train(struct fixture *f, const struct train_options *opt);
// All at once, over a store of its own: fixture_store(…, k, 1), fixture_open and fixture_train.
void fixture_start(struct fixture *f, const char *arch, enum dtype dtype, int k, const struct train_options *opt);
void fixture_close(struct fixture *f);
// One step that must succeed.
struct step_result fixture_step(struct fixture *f);
// All weights, or all gradients (f32), as one piece of bytes; buf_free it.
struct buf fixture_weights(const struct fixture *f);
struct buf fixture_grads(const struct fixture *f);
