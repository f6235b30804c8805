// A model: parameters by name, layers in order, one forward text for training, scoring, prefill and decode, one backward.
//
//   main → distill/gen.c → teacher/engine.c → model_forward → layers/ (block_forward)          the forward pass
//   main → distill/train.c → student/trainer.c → model_forward, student/head.c, model_backward  the training step
#pragma once
#include "kernels/model/arch.h"
#include "kernels/model/safetensors.h"

struct param {
    char *name; // Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
    int rank;
    int64_t shape[4];
    struct tensor weight; // run dtype (matrices) or f32 (rank 1, router gate); panel layout in a model for generation
    struct tensor grad;   // f32, rows; none until model_alloc_grads, none when frozen
    struct tensor scale;  // weight holds e4m3 values, and these are the scales of their blocks: see op_fp8_linear; none: weight is as it is
    bool multiplies;      // a linear map of activations: may be multiplied in FP8 …
    bool in_fp8;          // … and is
    bool decay;           // weight decay applies: matrices only
    bool frozen;          // no gradient, no optimizer slot
    char file_dtype[12];  // of the checkpoint it came from: what saving restores ("BF16")
};

// Where an expert's weights are. Expert weights are reached only through this table.
struct place {
    int rank; // of the process that holds it
    enum { PLACE_DEVICE, PLACE_HOST, PLACE_DISK } where;
    int slot; // index among the slots there
};

enum recompute {
    RECOMPUTE_NONE,
    RECOMPUTE_CHEAP,
    RECOMPUTE_LAYER
}; // what backward computes again: nothing; norms and SwiGLU products; whole layers

enum model_use {
    MODEL_GENERATE, // weights packed once into panels: batch-invariant kernels (gen, eval, score)
    MODEL_TRAIN,    // weights in rows, gradients possible
};
struct model_options {
    const struct arch *const *archs; // NULL-terminated, from distill/registry.c
    enum model_use use;
    enum dtype dtype; // of matrices and activations: DT_F32 or DT_BF16
    bool random_init; // fresh weights from config.json by `seed` (normal, 0.02; norms 1), no safetensors needed
    uint64_t seed;
    // MODEL_GENERATE: what the checkpoint holds in FP8 is multiplied in FP8, activations quantised as DeepSeek does. Not for random
    // weights, but for a plan of them.
    bool fp8_activations;
    // A plan: config.json and the headers of the weight files are checked (with random_init config.json alone), but no weight is read and
    // no memory taken. The model is for measuring passes only; weights.peak is what loading would take.
    bool plan;
};

struct block; // layers/layer.h
struct model {
    struct model_config config;
    const struct arch *arch;
    enum model_use use;
    enum dtype dtype;
    struct device *dev;   // borrowed
    struct arena weights; // owns all weights
    struct param *params; // n_param, in the file's customary order; a tied head is not among them twice
    size_t n_param;
    struct block *blocks;                    // n_layer
    struct param *embed, *final_norm, *head; // head is embed when tied
    struct place *place;                     // (n_layer, n_expert) or NULL
    struct tensor inv_freq;                  // f32 (d_rope/2)
    float rope_mscale;
    char *dir; // where it was loaded from
};

// Loads config.json and the safetensors of DIR onto the device. Needs no tokenizer. NaN or infinity in a weight, a missing tensor, a wrong
// shape: ST_BAD_INPUT with every one of them listed. Out of memory is known before reading (needed against free).
enum status model_load(struct model **out, struct device *dev, const char *dir, const struct model_options *opt, struct err *err);
void model_free(struct model *m);
// What model_load checks before it reads a weight: that the source holds exactly the parameters that config asks for.
struct source;
enum status model_check(const struct model_config *config, const struct arch *arch, const struct source *src, const char *dir,
                        struct err *err);
struct param *model_param(struct model *m, const char *name); // NULL if none
int64_t model_n_weight(const struct model *m);                // number of scalars
// f32 gradients of every parameter that is not frozen, from `a` (works while measuring).
void model_alloc_grads(struct model *m, struct arena *a);

// The KV cache: pages of page_len positions for every layer. GQA: keys and values (n_page, page_len, n_kv, d_head); MLA: one latent
// (n_page, page_len, 1, kv_lora_rank + d_rope).
struct kv_cache {
    int n_page, page_len;
    struct tensor *keys, *values; // (n_layer) each; values none for MLA
    struct arena arena;
};
size_t kv_bytes_per_page(const struct model *m, int page_len);
enum status kv_open(struct kv_cache *kv, const struct model *m, int n_page, int page_len, struct err *err);
void kv_close(struct kv_cache *kv);

enum run_mode {
    RUN_FLAT,    // whole documents, no cache: training and scoring
    RUN_PREFILL, // rows of prompts: written to the cache; attention over the cache up to each row (MLA: expanded)
    RUN_DECODE,  // one row a sequence, typically (MLA: absorbed)
};
// One forward over the rows of `seg`.
struct run {
    struct device *dev;
    enum run_mode mode;
    const struct segments *seg;
    struct kv_cache *kv; // NULL iff RUN_FLAT
    // Training only (NULL / ignored else): values kept for backward come from `keep`, which the caller marks before and releases after the
    // step.
    struct arena *keep;
    struct saved *saved; // filled by model_forward: one a layer, from model_saved_alloc
    enum recompute recompute;
    // Absolute rows of keys in RUN_PREFILL for MLA's expanded form: k_start (n_seg+1) device i32, n_key its last value.
    const int32_t *k_start;
    int n_key;
    // For tests and --trace: called with every block's output (layer -1: embedding) and, in MoE layers, its routing; NULL else.
    void (*on_layer)(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight);
    void *on_layer_arg;
};
// hidden A (n_tok, d_model) ← final norm's output for ids i32 (n_tok) (device memory). Failures stick in the device.
void model_forward(struct model *m, struct run *run, struct tensor hidden, struct tensor ids);
// logits f32 (n, n_vocab) = hidden (n, d_model) · headᵀ.
void model_logits(struct model *m, struct device *dev, struct tensor logits, struct tensor hidden);
// dhidden A (n_tok, d_model): gradient with respect to model_forward's output; it is overwritten. Adds to params' grad (head's gradient is
// the caller's: student/head.c).
void model_backward(struct model *m, struct run *run, struct tensor dhidden, struct tensor ids);
struct saved *model_saved_alloc(const struct model *m); // host table; mem_free it
// NULL if the model can be trained, else the name of a layer kind without a backward: "moe", in a DeepSeek without experts "mla".
const char *model_untrainable(const struct model *m);
