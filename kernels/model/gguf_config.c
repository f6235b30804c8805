// GGUF's keys → what config.json would say. See gguf.h.
#include "kernels/model/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// All that the making of a configuration needs.
struct maker {
    const struct gguf *g;
    const struct gguf_family *family;
    json_t *keys;   // of the architecture, under their names without "llama."
    json_t *config; // being made
    struct err *err;
    char where[512]; // "FILE: llama"
};

// The f32 in the file, as the number of fewest digits that it is nearest to: 1e-06, not 9.99999997e-07.
static double shortest(double v)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtof(text, NULL) == (float)v) return strtod(text, NULL);
    }
    return v;
}

static bool has(const struct maker *m, const char *key)
{
    return json_object_get(m->keys, key) != NULL;
}
// Sizes that nothing has are made a size that config's reader refuses, and which can be added and subtracted.
static int64_t get_int(const struct maker *m, const char *key, int64_t def, bool required)
{
    int64_t v = json_get_int(m->keys, key, def, required, m->where, m->err);
    return v < -1 ? -1 : v > (int64_t)1 << 40 ? (int64_t)1 << 40 : v;
}
static double get_real(const struct maker *m, const char *key, double def, bool required)
{
    return shortest(json_get_real(m->keys, key, def, required, m->where, m->err));
}
static void set_int(struct maker *m, const char *name, int64_t v)
{
    json_object_set_new(m->config, name, json_integer(v));
}
static void set_real(struct maker *m, const char *name, double v)
{
    json_object_set_new(m->config, name, json_real(v));
}
static void set_bool(struct maker *m, const char *name, bool v)
{
    json_object_set_new(m->config, name, json_boolean(v));
}
static void copy_int(struct maker *m, const char *name, const char *key, bool required)
{
    if (required || has(m, key)) set_int(m, name, get_int(m, key, 0, required));
}
static bool has_tensor(const struct maker *m, const char *name)
{
    return gguf_find_tensor(m->g, name) != NULL;
}

// ---- parts ----

static void put_sizes(struct maker *m)
{
    const struct gguf_tensor *embed = gguf_find_tensor(m->g, "token_embd.weight");
    if (!embed) err_add(m->err, ST_BAD_INPUT, "%s: tensor token_embd.weight: missing", m->g->map.path);
    set_int(m, "vocab_size", embed ? embed->shape[0] : 1);
    copy_int(m, "hidden_size", "embedding_length", true);
    copy_int(m, "intermediate_size", "feed_forward_length", true);
    // Layers for the prediction of several tokens stand at the end and are counted among the blocks.
    set_int(m, "num_hidden_layers", get_int(m, "block_count", 1, true) - get_int(m, "nextn_predict_layers", 0, false));
    copy_int(m, "num_attention_heads", "attention.head_count", true);
    copy_int(m, "max_position_embeddings", "context_length", true);
    set_real(m, "rms_norm_eps", get_real(m, "attention.layer_norm_rms_epsilon", 1e-6, true));
    json_object_set_new(m->config, "hidden_act", json_string("silu"));
    set_bool(m, "tie_word_embeddings", !has_tensor(m, "output.weight"));
}

// Attention with heads of one size; MLA has its own.
static void put_gqa(struct maker *m)
{
    int64_t n_head = get_int(m, "attention.head_count", 1, false), d_model = get_int(m, "embedding_length", 1, false);
    int64_t d_head = get_int(m, "attention.key_length", n_head > 0 ? d_model / n_head : 1, false);
    int64_t d_value = get_int(m, "attention.value_length", d_head, false), d_rope = get_int(m, "rope.dimension_count", d_head, false);
    copy_int(m, "num_key_value_heads", "attention.head_count_kv", false);
    set_int(m, "head_dim", d_head);
    if (d_value != d_head || d_rope != d_head)
        err_add(m->err, ST_BAD_INPUT, "%s: attention.key_length %lld, value_length %lld and rope.dimension_count %lld differ; wanted equal",
                m->where, (long long)d_head, (long long)d_value, (long long)d_rope);
    bool qkv = has_tensor(m, "blk.0.attn_q.bias"), o = has_tensor(m, "blk.0.attn_output.bias");
    if (strcmp(m->family->model_type, "qwen2")) set_bool(m, "attention_bias", qkv || o);
    if (!strcmp(m->family->arch, "llama")) set_bool(m, "mlp_bias", has_tensor(m, "blk.0.ffn_gate.bias"));
}

static void put_mla(struct maker *m)
{
    bool absorbed = has(m, "attention.key_length_mla"); // files before 2025-04 keep kv_b whole, and plain lengths
    int64_t d_rope = get_int(m, "rope.dimension_count", 1, true);
    int64_t q_lora = get_int(m, "attention.q_lora_rank", 0, false);
    set_int(m, "num_key_value_heads", get_int(m, "attention.head_count", 1, false));
    json_object_set_new(m->config, "q_lora_rank", q_lora ? json_integer(q_lora) : json_null());
    copy_int(m, "kv_lora_rank", "attention.kv_lora_rank", true);
    set_int(m, "qk_rope_head_dim", d_rope);
    set_int(m, "qk_nope_head_dim", get_int(m, absorbed ? "attention.key_length_mla" : "attention.key_length", d_rope + 1, true) - d_rope);
    copy_int(m, "v_head_dim", absorbed ? "attention.value_length_mla" : "attention.value_length", true);
}

static void put_experts(struct maker *m)
{
    copy_int(m, "num_experts_per_tok", "expert_used_count", true);
    copy_int(m, "moe_intermediate_size", "expert_feed_forward_length", true);
    if (!strcmp(m->family->arch, "qwen3moe")) {
        copy_int(m, "num_experts", "expert_count", true);
        set_bool(m, "norm_topk_prob", true); // whatever a key says: llama.cpp's qwen3moe knows no other way
        return;
    }
    copy_int(m, "n_routed_experts", "expert_count", true);
    set_int(m, "n_shared_experts", get_int(m, "expert_shared_count", 0, false));
    set_int(m, "first_k_dense_replace", get_int(m, "leading_dense_block_count", 0, false));
    set_int(m, "moe_layer_freq", 1);
    set_real(m, "routed_scaling_factor", get_real(m, "expert_weights_scale", 1, false));
    set_bool(m, "norm_topk_prob", json_get_bool(m->keys, "expert_weights_norm", false, false, m->where, m->err));
    int64_t n_group = get_int(m, "expert_group_count", 1, false);
    set_int(m, "n_group", n_group);
    set_int(m, "topk_group", get_int(m, "expert_group_used_count", n_group, false));
    bool v3 = !strcmp(m->family->model_type, "deepseek_v3");
    json_object_set_new(m->config, "scoring_func", json_string(v3 ? "sigmoid" : "softmax"));
    json_object_set_new(m->config, "topk_method", json_string(v3 ? "noaux_tc" : n_group > 1 ? "group_limited_greedy" : "greedy"));
}

// llama3's table of divisors, the only scaling that stands among the tensors. NULL with an error line if it is not llama3's.
static json_t *divisors(struct maker *m, const struct gguf_tensor *t, double theta)
{
    int64_t d_rope = json_integer_value(json_object_get(m->config, "head_dim"));
    json_t *r = t->type == GGML_F32 && t->rank == 1 && t->shape[0] == d_rope / 2
                    ? gguf_llama3_config((const float *)(const void *)t->data, d_rope, theta)
                    : NULL;
    if (!r)
        err_add(m->err, ST_BAD_INPUT, "%s: tensor %s: wanted %lld divisors of rotary frequencies as llama3's scaling makes them",
                m->g->map.path, t->name, (long long)(d_rope / 2));
    return r;
}

static json_t *yarn(struct maker *m)
{
    double factor = get_real(m, "rope.scaling.factor", 1, true);
    json_t *r =
        json_pack("{s:s, s:f, s:I, s:f, s:f}", "rope_type", "yarn", "factor", factor, "original_max_position_embeddings",
                  (json_int_t)get_int(m, "rope.scaling.original_context_length", 1, true), "beta_fast",
                  get_real(m, "rope.scaling.yarn_beta_fast", 32, false), "beta_slow", get_real(m, "rope.scaling.yarn_beta_slow", 1, false));
    if (!strcmp(m->family->arch, "deepseek2")) { // 0.1 * mscale_all_dim, and mscale is equal to it
        double mscale = shortest(get_real(m, "rope.scaling.yarn_log_multiplier", 0.1, true) * 10);
        json_object_set_new(r, "mscale", json_real(mscale));
        json_object_set_new(r, "mscale_all_dim", json_real(mscale));
    } else if (has(m, "rope.scaling.yarn_attn_factor")) {
        json_object_set_new(r, "attention_factor", json_real(get_real(m, "rope.scaling.yarn_attn_factor", 1, false)));
    } else if (has(m, "rope.scaling.attn_factor")) { // on top of YaRN's own 0.1 ln(factor) + 1
        json_object_set_new(r, "attention_factor", json_real(get_real(m, "rope.scaling.attn_factor", 1, false) * (0.1 * log(factor) + 1)));
    }
    return r;
}

static void put_rope(struct maker *m)
{
    double theta = get_real(m, "rope.freq_base", 10000, false), factor = get_real(m, "rope.scaling.factor", 1, false);
    const struct gguf_tensor *table = gguf_find_tensor(m->g, "rope_freqs.weight");
    const char *type = json_get_str(m->keys, "rope.scaling.type", factor == 1 ? "none" : "linear", false, m->where, m->err);
    json_t *scaling = NULL;
    set_real(m, "rope_theta", theta);
    if (table)
        scaling = divisors(m, table, theta);
    else if (!strcmp(type, "yarn"))
        scaling = yarn(m);
    else if (strcmp(type, "none") && !(factor == 1 && !strcmp(type, "linear")))
        scaling = json_pack("{s:s, s:f}", "rope_type", type, "factor", factor); // config's reader knows it or names it
    json_object_set_new(m->config, "rope_scaling", scaling ? scaling : json_null());
}

static void put_window(struct maker *m)
{
    int64_t window = get_int(m, "attention.sliding_window", 0, false);
    if (!window) return;
    set_int(m, "sliding_window", window);
    if (!strcmp(m->family->arch, "llama"))
        m->family = gguf_family_of_type("mistral");
    else
        err_add(m->err, ST_BAD_INPUT, "%s: attention.sliding_window %lld: which layers have it is not said there", m->where,
                (long long)window);
}

static void put_tokens(struct maker *m)
{
    json_t *t = gguf_json(m->g, "tokenizer.ggml."), *eos = json_array();
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (int i = 0; i < 3; i++) {
        json_t *id = json_object_get(t, ends[i]);
        if (json_is_integer(id) && !(i && json_equal(id, json_object_get(t, ends[0])))) json_array_append(eos, id);
    }
    json_t *bos = json_object_get(t, "tokenizer.ggml.bos_token_id"), *pad = json_object_get(t, "tokenizer.ggml.padding_token_id");
    json_object_set(m->config, "bos_token_id", bos ? bos : json_null());
    json_object_set(m->config, "eos_token_id",
                    json_array_size(eos) > 1 ? eos
                    : json_array_size(eos)   ? json_array_get(eos, 0)
                                             : json_null());
    if (pad) json_object_set(m->config, "pad_token_id", pad);
    json_decref(eos);
    json_decref(t);
}

// What kind of model it is: the first family of the architecture, and among DeepSeek's the one that the router says.
static enum status find_family(struct maker *m, const json_t *general)
{
    const char *path = m->g->map.path, *arch = json_get_str(general, "general.architecture", "", true, path, m->err);
    struct buf known = {0};
    if (m->err->code) return m->err->code;
    for (const struct gguf_family *f = gguf_families; f->arch; f++) {
        if (!m->family && !strcmp(f->arch, arch)) m->family = f;
        if (f == gguf_families || strcmp(f->arch, f[-1].arch)) buf_printf(&known, "%s%s", known.size ? ", " : "", f->arch);
    }
    if (!m->family) err_set(m->err, ST_BAD_INPUT, "%s: general.architecture: \"%s\" is not known (known: %s)", path, arch, known.data);
    buf_free(&known);
    if (!m->family) return m->err->code;
    snprintf(m->where, sizeof m->where, "%s: %s", path, arch);
    char prefix[64];
    int n = snprintf(prefix, sizeof prefix, "%s.", arch);
    json_t *all = gguf_json(m->g, prefix), *v;
    const char *key;
    json_object_foreach(all, key, v) json_object_set(m->keys, key + n, v);
    json_decref(all);
    if (!strcmp(arch, "deepseek2") && get_int(m, "expert_gating_func", 1, false) != 2) m->family = gguf_family_of_type("deepseek_v2");
    return m->err->code;
}

static enum status make(struct maker *m, const json_t *general)
{
    const char *path = m->g->map.path;
    TRY(find_family(m, general));
    json_t *split = gguf_json(m->g, "split.");
    int64_t n_part = json_get_int(split, "split.count", 1, false, path, m->err);
    json_decref(split);
    if (n_part > 1)
        return err_set(m->err, ST_BAD_INPUT, "%s: one of %lld parts of a model; put them together first (llama-gguf-split --merge)", path,
                       (long long)n_part);
    put_sizes(m);
    if (strcmp(m->family->arch, "deepseek2"))
        put_gqa(m);
    else
        put_mla(m);
    if (has(m, "expert_count")) {
        if (!strcmp(m->family->arch, "llama") || !strncmp(m->family->model_type, "qwen2", 5) || !strcmp(m->family->model_type, "qwen3"))
            err_add(m->err, ST_BAD_INPUT, "%s: expert_count: %s with experts (Mixtral) is not known", m->where, m->family->arch);
        else
            put_experts(m);
    }
    put_rope(m);
    put_window(m);
    put_tokens(m);
    int64_t file_type = json_get_int(general, "general.file_type", 1, false, path, m->err);
    json_object_set_new(m->config, "torch_dtype", json_string(file_type == 0 ? "float32" : file_type == 1 ? "float16" : "bfloat16"));
    json_object_set_new(m->config, "model_type", json_string(m->family->model_type));
    json_object_set_new(m->config, "architectures", json_pack("[s]", m->family->class_name));
    return m->err->code;
}

enum status gguf_config(json_t **config, const struct gguf *g, struct err *err)
{
    struct maker m = {.g = g, .keys = json_object(), .config = json_object(), .err = err};
    json_t *general = gguf_json(g, "general.");
    err->code = ST_OK;
    enum status st = make(&m, general);
    json_decref(general);
    json_decref(m.keys);
    *config = st ? NULL : m.config;
    if (st) json_decref(m.config);
    return st;
}

enum status gguf_config_read(json_t **config, const char *path, struct err *err)
{
    struct gguf g;
    *config = NULL;
    TRY(gguf_open(&g, path, err));
    enum status st = gguf_config(config, &g, err);
    gguf_close(&g);
    return st;
}
