// Layers: what a decoder is made of. A kind is {build, forward, backward}, one file each:
//   gqa.c attention of Qwen and Llama · mla.c attention of DeepSeek · mlp.c dense SwiGLU · moe.c mixture of experts · block.c the decoder
//   layer that holds one of each between norms (the ONE text of a decoder layer, run by teacher and student alike).
//
// Shapes: n_tok rows; x, out A (n_tok, d_model). Temporaries come from the device's arena and are given back before returning; what
// backward needs comes from run->keep. A backward reads values a policy did not keep by computing them again with the same ops, hence the
// same bits.
#pragma once
#include "kernels/model/model.h"

struct linear {
    struct param *w, *b; // (n, k), (n) or NULL
    bool ue8m0;          // of scales of activations, where w is FP8
};
struct norm {
    struct param *w;
    float eps;
};

struct gqa {
    struct linear q, k, v, o;
    struct norm q_norm, k_norm; // w NULL: none
    int n_head, n_kv, d_head, window;
    float scale;
};
struct mla {
    struct linear q, q_a, q_b, kv_a, kv_b, o; // q alone, or q_a and q_b
    struct norm q_a_norm, kv_a_norm;
    struct tensor uk, uv; // kv_b by head, packed for the absorbed form: (h, kv_lora, nope) and (h, v, kv_lora)
    int n_head, q_lora, kv_lora, d_nope, d_rope, d_v;
    float scale;
};
struct mlp {
    struct linear gate, up, down;
    int64_t d_ff;
};
struct moe {
    struct param *router_w, *router_bias; // f32 (e, d); f32 (e) or NULL
    struct router router;
    struct mlp shared;                // d_ff 0: none
    struct param **expert_w[3];       // gate, up, down: (n_expert) parameters each
    struct expert_weights experts[3]; // their slots through the placement table
    const struct place *place;        // (n_expert)
    int64_t d_ff;
};

struct layer {
    const struct layer_kind *kind;
    int index; // of the decoder layer
    const struct model *model;
    union {
        struct gqa gqa;
        struct mla mla;
        struct mlp mlp;
        struct moe moe;
    };
};

// Values of one decoder layer kept for backward; a none tensor was not kept.
struct saved {
    struct tensor x, rstd1, h1;                                     // input, input norm
    struct tensor q_raw, k_raw, q_rstd, k_rstd, q, k, v, attn, lse; // gqa: before q/k norm, after rotation; attention's output
    struct tensor x_mid, rstd2, h2;                                 // after attention's residual, second norm
    struct tensor gate, up, act;                                    // mlp
};

struct layer_kind {
    const char *name;
    // Declares the parameters of layer l under `prefix` ("model.layers.0.self_attn.").
    void (*build)(struct model *m, struct layer *l, const char *prefix);
    // After the weights are there: tensors derived from them. May be NULL. Works while measuring the weights' arena.
    void (*derive)(struct model *m, struct layer *l);
    void (*forward)(const struct layer *l, struct run *run, struct tensor out, struct tensor x, struct saved *s);
    // dx A (n_tok, d_model) is written; gradients of parameters are added. NULL: this layer cannot be trained.
    void (*backward)(const struct layer *l, struct run *run, struct tensor dx, struct tensor dout, struct tensor x, struct saved *s);
};
extern const struct layer_kind layer_gqa, layer_mla, layer_mlp, layer_moe;

struct block {
    int index;
    struct norm norm1, norm2;
    struct layer attention, ffn;
};
void block_build(struct model *m, struct block *b, int index);
// s NULL: nothing is kept.
void block_forward(const struct block *b, struct run *run, struct tensor out, struct tensor x, struct saved *s);
// dx: on entry the gradient of the block's output, on return that of its input.
void block_backward(const struct block *b, struct run *run, struct tensor dx, struct saved *s);

// ---- helpers of the kinds (linear.c) ----------------------------------------------------------------------------------------------------
// Declares a parameter; 2-D matrices get the run dtype and decay, 1-D ones f32. Names are copied.
struct param *param_declare(struct model *m, const char *prefix, const char *name, int64_t rows, int64_t cols); // cols 0: one-dimensional
struct linear linear_build(struct model *m, const char *prefix, const char *name, int64_t n, int64_t k, bool bias);
void linear_forward(const struct linear *l, struct run *run, struct tensor out, struct tensor x);
// dx none: not wanted.
void linear_backward(const struct linear *l, struct run *run, struct tensor dx, bool accumulate, struct tensor dout, struct tensor x);
void norm_forward(const struct norm *n, struct run *run, struct tensor out, struct tensor x, struct tensor rstd);
void norm_backward(const struct norm *n, struct run *run, struct tensor dx, struct tensor dout, struct tensor x, struct tensor rstd,
                   bool accumulate);
// A value wanted by backward: kept (from run->keep) if `kept`, else step memory.
struct tensor run_tensor(struct run *run, bool kept, enum dtype t, int64_t rows, int64_t cols);
struct tensor run_rstd(struct run *run, int64_t rows); // f32 (rows), kept: what a norm's backward needs
