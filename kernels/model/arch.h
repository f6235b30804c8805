// What an architecture declares: one file of data in teacher/arch or student/arch, one line in distill/registry.c.
#pragma once
#include "kernels/base/json.h"
#include "kernels/model/fp8.h"
#include "kernels/ops.h"

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };
struct rope_config {
    double theta;
    enum rope_scaling scaling;
    double factor, low_freq_factor, high_freq_factor, beta_fast, beta_slow, mscale, mscale_all_dim;
    int64_t original_max_position; // 0: not given
    double attention_factor;       // 0: not given
    bool exact_range;              // YaRN's "truncate": false
};

// Which layers have the sliding window that config.json's sliding_window gives.
enum window_rule {
    WINDOW_NONE,        // none; one in the file is refused
    WINDOW_IF_SET,      // all, unless sliding_window is null or use_sliding_window false (Mistral)
    WINDOW_ALL_IF_USED, // all if use_sliding_window (Qwen3-MoE)
    WINDOW_IF_USED,     // if use_sliding_window: those that layer_types says, without it from max_window_layers on (Qwen2, Qwen3)
};

// A model's hyper-parameters, the same struct for every family, filled from config.json. Names are those of the files, units are elements.
struct model_config {
    char model_type[64];
    int64_t n_vocab, d_model, d_ff, n_layer, n_head, n_kv_head, d_head, max_position;
    float rms_norm_eps;
    bool tied; // tie_word_embeddings: lm_head.weight is embed_tokens.weight
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    int window;         // sliding window: a query sees its last `window` keys; 0: none
    bool *window_layer; // (n_layer) which layers have it, mem_alloc'ed; NULL: none
    struct rope_config rope;
    bool mla;
    int64_t q_lora_rank, kv_lora_rank, d_nope, d_rope, d_v; // mla (q_lora_rank 0: plain q_proj)
    float softmax_scale;
    struct router router; // n_expert 0: dense
    int64_t d_ff_expert, n_shared;
    bool *moe_layer; // (n_layer) mem_alloc'ed; NULL when dense
    struct fp8_config fp8;
    int32_t bos, eos[8]; // from config.json / generation_config.json; n_eos of them
    int n_eos;
};

struct arch {
    const char *model_type; // config.json's model_type: "deepseek_v3"
    const char *also_type;  // another model_type for the same data ("kimi_k2"), or NULL
    const char *class_name; // architectures[0]: "DeepseekV3ForCausalLM"
    bool mla, qk_norm, qkv_bias;
    bool attention_bias_key; // config's attention_bias puts biases on q, k, v and o (MLA: q_a, kv_a and o)
    bool mlp_bias_key;       // config's mlp_bias puts biases on gate, up and down
    enum window_rule window;
    int d_head_default; // when config has no head_dim; 0: hidden_size / num_attention_heads
    enum rope_order rope_order;
    enum router_scoring scoring;             // MoE families only
    const char *key_n_expert, *key_n_shared; // "n_routed_experts" (its aliases are read too); NULL: dense family
};

// A config.json already in memory, of one of the NULL-terminated `archs` (unknown: ST_BAD_INPUT listing the known). `generation` is
// generation_config.json (its eos_token_id counts too) or NULL; `where` names the source in messages. All mismatches at once.
enum status model_config_parse(struct model_config *out, const struct arch **arch, const json_t *config, const json_t *generation,
                               const char *where, const struct arch *const *archs, struct err *err);
// The same of DIR's config.json and, if it is there, generation_config.json; or of what the keys of a GGUF file at that path amount to.
enum status model_config_read(struct model_config *out, const struct arch **arch, const char *dir, const struct arch *const *archs,
                              struct err *err);
void model_config_free(struct model_config *c);
// rope_theta and rope_scaling (transformers 4), or rope_parameters (5) with rope_theta inside; the type's key is rope_type or type.
void rope_config_read(struct rope_config *r, const json_t *root, const char *where, struct err *err);
// inv_freq[d_rope/2] and the factor on cos and sin; *softmax_factor multiplies the softmax scale (YaRN's mscale_all_dim²). Formulas: see
// rope.c.
void rope_frequencies(const struct rope_config *r, int64_t d_rope, float *inv_freq, float *mscale, float *softmax_factor);
