// A configuration → GGUF's keys, for what llama.cpp computes. See gguf.h.
#include "kernels/model/gguf.h"

#include <math.h>
#include <string.h>

struct keys {
    struct gguf_writer *w;
    const struct model_config *c;
    const struct gguf_family *family;
    const char *where;
    struct err *err;
    char name[96];
};

static const char *key(struct keys *k, const char *suffix)
{
    snprintf(k->name, sizeof k->name, "%s.%s", k->family->arch, suffix);
    return k->name;
}
static void put_int(struct keys *k, const char *suffix, int64_t v)
{
    gguf_put_u32(k->w, key(k, suffix), (uint32_t)v);
}
static void put_real(struct keys *k, const char *suffix, double v)
{
    gguf_put_f32(k->w, key(k, suffix), (float)v);
}

// ---- what llama.cpp would compute otherwise ----

static bool is_arch(const struct keys *k, const char *arch)
{
    return !strcmp(k->family->arch, arch);
}

#define REFUSE(...) err_add(k->err, ST_BAD_INPUT, __VA_ARGS__)

static void check_experts(const struct keys *k)
{
    const struct model_config *c = k->c;
    int64_t n_dense = 0;
    while (n_dense < c->n_layer && !c->moe_layer[n_dense]) n_dense++;
    if (is_arch(k, "qwen3moe") && n_dense)
        REFUSE("%s: mlp_only_layers, decoder_sparse_step: layer 0 is dense, but llama.cpp's qwen3moe has experts in every layer", k->where);
    for (int64_t i = n_dense; i < c->n_layer; i++)
        if (!c->moe_layer[i]) {
            REFUSE("%s: layer %lld is dense after layers with experts; llama.cpp's %s knows dense layers only before them", k->where,
                   (long long)i, k->family->arch);
            break;
        }
    if (is_arch(k, "deepseek2") && !c->n_shared) REFUSE("%s: n_shared_experts: 0; llama.cpp's deepseek2 wants shared experts", k->where);
    if (is_arch(k, "qwen3moe") && !c->router.norm_topk_prob)
        REFUSE("%s: norm_topk_prob: false; llama.cpp's qwen3moe always divides the weights by their sum", k->where);
}

static void check_rope(const struct keys *k)
{
    const struct rope_config *r = &k->c->rope;
    if (r->scaling == ROPE_LLAMA3 && !is_arch(k, "llama"))
        REFUSE("%s: rope_scaling: llama3; llama.cpp's %s does not read the table of it", k->where, k->family->arch);
    if (r->scaling == ROPE_YARN && r->exact_range)
        REFUSE("%s: rope_scaling: truncate: false; llama.cpp rounds the ends of YaRN's ramp to whole dimensions", k->where);
    if (r->scaling == ROPE_LINEAR && k->c->mla)
        REFUSE("%s: rope_scaling: linear; llama.cpp's deepseek2 then scales attention as for YaRN", k->where);
    if (r->scaling != ROPE_YARN || !k->c->mla) return;
    if (r->mscale != r->mscale_all_dim || r->mscale_all_dim == 0 || r->attention_factor != 0)
        REFUSE("%s: rope_scaling: mscale %g, mscale_all_dim %g; llama.cpp's deepseek2 knows YaRN only with both equal and not 0", k->where,
               r->mscale, r->mscale_all_dim);
}

static void check(const struct keys *k)
{
    const struct model_config *c = k->c;
    bool llama = is_arch(k, "llama");
    if (c->window && !llama)
        REFUSE("%s: sliding_window %d; llama.cpp's %s attends to everything. Where %d tokens are enough, set use_sliding_window to false",
               k->where, c->window, k->family->arch, c->window);
    if (c->o_bias && !llama) REFUSE("%s: attention_bias: true; llama.cpp's %s has no such biases", k->where, k->family->arch);
    if (c->router.n_expert) check_experts(k);
    check_rope(k);
}

// ---- parts ----

static void put_attention(struct keys *k)
{
    const struct model_config *c = k->c;
    put_int(k, "attention.head_count", c->n_head);
    put_int(k, "attention.head_count_kv", c->mla ? 1 : c->n_kv_head); // MLA runs absorbed: all heads share one latent key
    put_real(k, "attention.layer_norm_rms_epsilon", (double)c->rms_norm_eps);
    if (!c->mla) {
        put_int(k, "attention.key_length", c->d_head);
        put_int(k, "attention.value_length", c->d_head);
        if (is_arch(k, "llama")) put_int(k, "rope.dimension_count", c->d_head);
        if (c->window) put_int(k, "attention.sliding_window", c->window);
        return;
    }
    // llama.cpp asks for q_lora_rank in all but DeepSeek-V2-Lite's shapes; 0 tells it that there is none.
    put_int(k, "attention.q_lora_rank", c->q_lora_rank);
    put_int(k, "attention.kv_lora_rank", c->kv_lora_rank);
    put_int(k, "attention.key_length", c->kv_lora_rank + c->d_rope);
    put_int(k, "attention.value_length", c->kv_lora_rank);
    put_int(k, "attention.key_length_mla", c->d_nope + c->d_rope);
    put_int(k, "attention.value_length_mla", c->d_v);
    put_int(k, "rope.dimension_count", c->d_rope);
}

static void put_rope(struct keys *k)
{
    const struct rope_config *r = &k->c->rope;
    put_real(k, "rope.freq_base", r->theta);
    if (r->scaling == ROPE_PLAIN || r->scaling == ROPE_LLAMA3) return; // llama3's is a tensor
    gguf_put_string(k->w, key(k, "rope.scaling.type"), r->scaling == ROPE_YARN ? "yarn" : "linear");
    put_real(k, "rope.scaling.factor", r->factor);
    if (r->scaling == ROPE_LINEAR) return;
    put_int(k, "rope.scaling.original_context_length", r->original_max_position);
    put_real(k, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_real(k, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (k->c->mla) {
        put_real(k, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
        return;
    }
    // llama.cpp multiplies cosines and sines by 0.1 ln(factor) + 1, and by this.
    float one[1], mscale, softmax;
    rope_frequencies(r, 2, one, &mscale, &softmax);
    double own = r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1;
    if (fabs((double)mscale / own - 1) > 1e-6) put_real(k, "rope.scaling.attn_factor", (double)mscale / own);
}

static void put_experts(struct keys *k)
{
    const struct model_config *c = k->c;
    const struct router *r = &c->router;
    put_int(k, "expert_count", r->n_expert);
    put_int(k, "expert_used_count", r->top_k);
    put_int(k, "expert_feed_forward_length", c->d_ff_expert);
    if (!is_arch(k, "deepseek2")) return;
    int64_t n_dense = 0;
    while (n_dense < c->n_layer && !c->moe_layer[n_dense]) n_dense++;
    put_int(k, "leading_dense_block_count", n_dense);
    put_int(k, "expert_shared_count", c->n_shared);
    put_real(k, "expert_weights_scale", (double)r->scale);
    gguf_put_bool(k->w, key(k, "expert_weights_norm"), r->norm_topk_prob);
    put_int(k, "expert_gating_func", r->scoring == ROUTER_SIGMOID ? 2 : 1);
    // All groups allowed is no restriction, and llama.cpp refuses it where there is more than one.
    bool grouped = r->topk_group < r->n_group;
    put_int(k, "expert_group_count", grouped ? r->n_group : 1);
    put_int(k, "expert_group_used_count", grouped ? r->topk_group : 1);
}

enum status gguf_put_config(struct gguf_writer *w, const struct model_config *c, enum ggml_type type, const char **note, const char *where,
                            struct err *err)
{
    struct keys keys = {.w = w, .c = c, .where = where, .err = err, .family = gguf_family_of_type(c->model_type)}, *k = &keys;
    *note = NULL;
    if (!k->family)
        return err_set(err, ST_BAD_INPUT, "%s: model_type: \"%s\" has no architecture in GGUF that distill knows", where, c->model_type);
    err->code = ST_OK;
    check(k);
    if (err->code) return err->code;
    gguf_put_string(w, "general.architecture", k->family->arch);
    gguf_put_u32(w, "general.file_type", type == GGML_F32 ? 0 : type == GGML_F16 ? 1 : type == GGML_Q8_0 ? 7 : 32);
    gguf_put_u32(w, "general.quantization_version", 2);
    put_int(k, "block_count", c->n_layer);
    put_int(k, "context_length", c->max_position);
    put_int(k, "embedding_length", c->d_model);
    put_int(k, "feed_forward_length", c->d_ff);
    put_int(k, "vocab_size", c->n_vocab);
    put_attention(k);
    put_rope(k);
    if (c->router.n_expert) put_experts(k);
    if (c->window) *note = "llama.cpp attends to all tokens, not to a sliding window: texts longer than it get other answers there";
    return ST_OK;
}
