// config.json → struct model_config, for every family, guided by what its arch declares. All mismatches are reported at once.
#include "kernels/model/arch.h"

#include <math.h>
#include <string.h>

static int64_t want_size(const json_t *o, const char *key, const char *where, struct err *err)
{
    int64_t v = json_get_int(o, key, 1, true, where, err);
    if (v < 1 || v > INT32_MAX) {
        err_add(err, ST_BAD_INPUT, "%s: %s: wanted a positive integer, found %lld", where, key, (long long)v);
        return 1;
    }
    return v;
}
static int64_t opt_size(const json_t *o, const char *key, int64_t def, int64_t min, const char *where, struct err *err)
{
    int64_t v = json_get_int(o, key, def, false, where, err);
    if (v < min || v > INT32_MAX) {
        err_add(err, ST_BAD_INPUT, "%s: %s: wanted an integer ≥ %lld, found %lld", where, key, (long long)min, (long long)v);
        return def;
    }
    return v;
}

// rope_theta and rope_scaling (transformers 4), or rope_parameters (5) with rope_theta inside; the type's key is rope_type or type.
static void rope_read(struct rope_config *r, const json_t *root, const char *where, struct err *err)
{
    const json_t *p = json_object_get(root, "rope_parameters");
    if (!json_is_object(p)) p = json_object_get(root, "rope_scaling");
    const json_t *theta_in = json_object_get(p, "rope_theta") ? p : root;
    *r = (struct rope_config){.theta = json_get_real(theta_in, "rope_theta", 10000.0, false, where, err), .factor = 1};
    if (!(r->theta > 0)) err_add(err, ST_BAD_INPUT, "%s: rope_theta: wanted a positive number", where);
    if (!json_is_object(p)) return;
    const char *type = json_get_str(p, "rope_type", json_get_str(p, "type", "default", false, where, err), false, where, err);
    if (!strcmp(type, "default")) return;
    if (!strcmp(type, "llama3")) {
        r->scaling = ROPE_LLAMA3;
    } else if (!strcmp(type, "yarn")) {
        r->scaling = ROPE_YARN;
    } else {
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: type \"%s\" is not known (known: default, llama3, yarn)", where, type);
        return;
    }
    bool llama3 = r->scaling == ROPE_LLAMA3;
    r->original_max_position = json_get_int(p, "original_max_position_embeddings",
                                            json_get_int(root, "max_position_embeddings", 0, false, where, err), llama3, where, err);
    r->factor = json_get_real(p, "factor", 0, llama3, where, err);
    if (r->factor == 0 && r->original_max_position > 0) // YaRN without a factor: the ratio of the contexts, as transformers
        r->factor = json_get_real(root, "max_position_embeddings", 1, false, where, err) / (double)r->original_max_position;
    r->low_freq_factor = json_get_real(p, "low_freq_factor", 1, llama3, where, err);
    r->high_freq_factor = json_get_real(p, "high_freq_factor", 4, llama3, where, err);
    r->beta_fast = json_get_real(p, "beta_fast", 32, false, where, err);
    r->beta_slow = json_get_real(p, "beta_slow", 1, false, where, err);
    r->mscale = json_get_real(p, "mscale", 0, false, where, err);
    r->mscale_all_dim = json_get_real(p, "mscale_all_dim", 0, false, where, err);
    r->attention_factor = json_get_real(p, "attention_factor", 0, false, where, err);
    if (!(r->factor > 0) || r->original_max_position < 1)
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: factor and original_max_position_embeddings must be positive", where);
}

static void mla_read(struct model_config *c, const json_t *root, const char *where, struct err *err)
{
    c->mla = true;
    c->q_lora_rank = json_get_int(root, "q_lora_rank", 0, false, where, err);
    c->kv_lora_rank = want_size(root, "kv_lora_rank", where, err);
    c->d_nope = want_size(root, "qk_nope_head_dim", where, err);
    c->d_rope = want_size(root, "qk_rope_head_dim", where, err);
    c->d_v = want_size(root, "v_head_dim", where, err);
    c->d_head = c->d_nope + c->d_rope;
    c->n_kv_head = c->n_head;
    if (!json_get_bool(root, "rope_interleave", true, false, where, err))
        err_add(err, ST_BAD_INPUT, "%s: rope_interleave: false is not known; DeepSeek's checkpoints rotate adjacent pairs", where);
}

static void moe_read(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    struct router *r = &c->router;
    r->n_expert = (int)want_size(root, a->key_n_expert, where, err);
    r->top_k = (int)want_size(root, "num_experts_per_tok", where, err);
    r->n_group = (int)opt_size(root, "n_group", 1, 1, where, err);
    r->topk_group = (int)opt_size(root, "topk_group", r->n_group, 1, where, err);
    r->norm_topk_prob = json_get_bool(root, "norm_topk_prob", a->scoring == ROUTER_SIGMOID, false, where, err);
    r->scale = (float)json_get_real(root, "routed_scaling_factor", 1.0, false, where, err);
    r->scoring = a->scoring;
    const char *scoring = json_get_str(root, "scoring_func", r->scoring == ROUTER_SIGMOID ? "sigmoid" : "softmax", false, where, err);
    if (!strcmp(scoring, "sigmoid"))
        r->scoring = ROUTER_SIGMOID;
    else if (!strcmp(scoring, "softmax"))
        r->scoring = ROUTER_SOFTMAX;
    else
        err_add(err, ST_BAD_INPUT, "%s: scoring_func: \"%s\" is not known (known: sigmoid, softmax)", where, scoring);
    if (a->mla) {
        const char *method = json_get_str(root, "topk_method", "noaux_tc", false, where, err);
        if (strcmp(method, "noaux_tc")) err_add(err, ST_BAD_INPUT, "%s: topk_method: \"%s\" is not known (known: noaux_tc)", where, method);
    }
    if (r->top_k > r->n_expert || r->n_expert % r->n_group || r->topk_group > r->n_group ||
        r->top_k > r->n_expert / r->n_group * r->topk_group)
        err_add(err, ST_BAD_INPUT, "%s: %d experts in n_group %d, topk_group %d, num_experts_per_tok %d do not fit together", where,
                r->n_expert, r->n_group, r->topk_group, r->top_k);
    c->d_ff_expert = want_size(root, "moe_intermediate_size", where, err);
    c->n_shared = a->key_n_shared ? json_get_int(root, a->key_n_shared, 0, false, where, err) : 0;
    int64_t first = json_get_int(root, "first_k_dense_replace", 0, false, where, err),
            freq = opt_size(root, "moe_layer_freq", 1, 1, where, err);
    c->moe_layer = NEW_N(bool, c->n_layer);
    for (int64_t i = 0; i < c->n_layer; i++) c->moe_layer[i] = i >= first && i % freq == 0;
}

// eos_token_id: an integer or an array of them.
static void eos_add(struct model_config *c, const json_t *v)
{
    size_t n = json_is_array(v) ? json_array_size(v) : json_is_integer(v);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        int32_t id = json_is_integer(e) ? (int32_t)json_integer_value(e) : -1;
        bool known = id < 0 || c->n_eos == (int)(sizeof c->eos / sizeof *c->eos);
        for (int k = 0; k < c->n_eos; k++) known |= c->eos[k] == id;
        if (!known) c->eos[c->n_eos++] = id;
    }
}

static void common_read(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    snprintf(c->model_type, sizeof c->model_type, "%s", a->model_type);
    c->n_vocab = want_size(root, "vocab_size", where, err);
    c->d_model = want_size(root, "hidden_size", where, err);
    c->d_ff = want_size(root, "intermediate_size", where, err);
    c->n_layer = want_size(root, "num_hidden_layers", where, err);
    c->n_head = want_size(root, "num_attention_heads", where, err);
    c->n_kv_head = opt_size(root, "num_key_value_heads", c->n_head, 1, where, err);
    c->d_head = opt_size(root, "head_dim", a->d_head_default ? a->d_head_default : c->d_model / c->n_head, 1, where, err);
    c->max_position = opt_size(root, "max_position_embeddings", 2048, 1, where, err);
    c->rms_norm_eps = (float)json_get_real(root, "rms_norm_eps", 1e-6, false, where, err);
    c->tied = json_get_bool(root, "tie_word_embeddings", false, false, where, err);
    c->qk_norm = a->qk_norm;
    bool bias = a->attention_bias_key && json_get_bool(root, "attention_bias", false, false, where, err);
    c->qkv_bias = a->qkv_bias || bias;
    c->o_bias = bias;
    c->mlp_bias = a->mlp_bias_key && json_get_bool(root, "mlp_bias", false, false, where, err);
    if (a->window_key && json_get_bool(root, "use_sliding_window", false, false, where, err)) {
        c->window = (int)opt_size(root, "sliding_window", 4096, 1, where, err);
        c->window_first_layer = (int)opt_size(root, "max_window_layers", 28, 0, where, err);
    }
    const char *act = json_get_str(root, "hidden_act", "silu", false, where, err);
    if (strcmp(act, "silu")) err_add(err, ST_BAD_INPUT, "%s: hidden_act: \"%s\" is not known (known: silu)", where, act);
    if (!a->mla && c->n_head % c->n_kv_head)
        err_add(err, ST_BAD_INPUT, "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", where,
                (long long)c->n_head, (long long)c->n_kv_head);
    if (json_object_get(root, "quantization_config") && !json_is_null(json_object_get(root, "quantization_config")))
        err_add(err, ST_BAD_INPUT, "%s: quantization_config: quantised checkpoints are not read yet; use the BF16, F16 or F32 weights",
                where);
    rope_read(&c->rope, root, where, err);
    c->bos = (int32_t)json_get_int(root, "bos_token_id", -1, false, where, err);
}

static enum status arch_find(const struct arch **arch, const json_t *root, const struct arch *const *archs, const char *where,
                             struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    for (; *archs && !*arch; archs++)
        if ((type && !strcmp((*archs)->model_type, type)) || (!type && name && !strcmp((*archs)->class_name, name))) *arch = *archs;
    return *arch ? ST_OK
                 : err_set(err, ST_BAD_INPUT, "%s: model_type: \"%s\" (architectures: \"%s\") is not a known architecture", where,
                           type ? type : "missing", name ? name : "missing");
}

enum status model_config_parse(struct model_config *c, const struct arch **arch, const json_t *root, const json_t *generation,
                               const char *where, const struct arch *const *archs, struct err *err)
{
    *c = (struct model_config){.bos = -1};
    *arch = NULL;
    err->code = ST_OK;
    if (!json_is_object(root)) return err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object", where);
    if (arch_find(arch, root, archs, where, err)) {
        struct buf known = {0};
        for (; *archs; archs++) buf_printf(&known, "%s%s", known.size ? ", " : "", (*archs)->model_type);
        err_add(err, ST_BAD_INPUT, "known architectures: %s", known.data);
        buf_free(&known);
        return err->code;
    }
    common_read(c, *arch, root, where, err);
    if ((*arch)->mla) mla_read(c, root, where, err);
    if ((*arch)->key_n_expert) moe_read(c, *arch, root, where, err);
    eos_add(c, json_object_get(generation, "eos_token_id"));
    eos_add(c, json_object_get(root, "eos_token_id"));
    int64_t d_rope = c->mla ? c->d_rope : c->d_head;
    if (d_rope % 2) err_add(err, ST_BAD_INPUT, "%s: the rotated head size %lld is odd", where, (long long)d_rope);
    if (err->code) {
        model_config_free(c);
        return err->code;
    }
    float inv_freq[2], mscale, softmax_factor;
    rope_frequencies(&c->rope, 2, inv_freq, &mscale, &softmax_factor);
    c->softmax_scale = (float)(1.0 / sqrt((double)c->d_head)) * (c->mla ? softmax_factor : 1.0f);
    return ST_OK;
}

enum status model_config_read(struct model_config *c, const struct arch **arch, const char *dir, const struct arch *const *archs,
                              struct err *err)
{
    *c = (struct model_config){.bos = -1};
    *arch = NULL;
    err->code = ST_OK;
    char *path = path_join(dir, "config.json"), *gen_path = path_join(dir, "generation_config.json");
    json_t *root = NULL, *gen = NULL;
    enum status st = json_read(&root, path, err);
    if (!st && file_exists(gen_path)) st = json_read(&gen, gen_path, err);
    if (!st) st = model_config_parse(c, arch, root, gen, path, archs, err);
    json_decref(root);
    json_decref(gen);
    mem_free(path);
    mem_free(gen_path);
    return st;
}

void model_config_free(struct model_config *c)
{
    mem_free(c->moe_layer);
    c->moe_layer = NULL;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

// YaRN (Peng et al. 2023, as DeepSeek and transformers apply it): frequencies above beta_fast rotations in the original context stay, those
// below beta_slow are divided by factor, a ramp between.
static void yarn(const struct rope_config *r, int64_t d, float *inv_freq)
{
    double span = 2 * log(r->theta);
    double low = floor((double)d * log((double)r->original_max_position / (r->beta_fast * 2 * M_PI)) / span);
    double high = ceil((double)d * log((double)r->original_max_position / (r->beta_slow * 2 * M_PI)) / span);
    if (low < 0) low = 0;
    if (high > (double)(d - 1)) high = (double)(d - 1);
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < d / 2; i++) {
        double ramp = ((double)i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        inv_freq[i] = (float)(inv_freq[i] / r->factor * ramp + inv_freq[i] * (1 - ramp));
    }
}

// Llama 3.1: wavelengths over original/low are divided by factor, those under original/high stay, a smooth blend between.
static void llama3(const struct rope_config *r, int64_t d, float *inv_freq)
{
    double orig = (double)r->original_max_position;
    for (int64_t i = 0; i < d / 2; i++) {
        double inv = inv_freq[i], wavelength = 2 * M_PI / inv;
        if (wavelength > orig / r->low_freq_factor) {
            inv_freq[i] = (float)(inv / r->factor);
        } else if (wavelength >= orig / r->high_freq_factor) {
            double smooth = (orig / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            inv_freq[i] = (float)((1 - smooth) * inv / r->factor + smooth * inv);
        }
    }
}

void rope_frequencies(const struct rope_config *r, int64_t d, float *inv_freq, float *mscale, float *softmax_factor)
{
    for (int64_t i = 0; i < d / 2; i++) inv_freq[i] = (float)(1.0 / pow(r->theta, (double)(2 * i) / (double)d));
    *mscale = *softmax_factor = 1;
    if (r->scaling == ROPE_LLAMA3) llama3(r, d, inv_freq);
    if (r->scaling != ROPE_YARN) return;
    yarn(r, d, inv_freq);
    if (r->attention_factor != 0)
        *mscale = (float)r->attention_factor;
    else if (r->mscale != 0 && r->mscale_all_dim != 0)
        *mscale = (float)(yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim));
    else
        *mscale = (float)yarn_mscale(r->factor, 1);
    if (r->mscale_all_dim != 0) {
        double m = yarn_mscale(r->factor, r->mscale_all_dim);
        *softmax_factor = (float)(m * m);
    }
}
