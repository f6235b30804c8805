// config.json → struct model_config, for every family, guided by what its arch declares. All mismatches are reported at once.
#include "kernels/model/arch.h"
#include "kernels/model/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYER_MAX = 4096 }; // so that a lying file cannot ask for gigabytes

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

static void mla_read(struct model_config *c, const json_t *root, const char *where, struct err *err)
{
    c->mla = true;
    c->q_lora_rank = opt_size(root, "q_lora_rank", 0, 0, where, err);
    c->kv_lora_rank = want_size(root, "kv_lora_rank", where, err);
    c->d_nope = want_size(root, "qk_nope_head_dim", where, err);
    c->d_rope = want_size(root, "qk_rope_head_dim", where, err);
    c->d_v = want_size(root, "v_head_dim", where, err);
    c->d_head = c->d_nope + c->d_rope;
    c->n_kv_head = c->n_head;
    if (!json_get_bool(root, "rope_interleave", true, false, where, err))
        err_add(err, ST_BAD_INPUT, "%s: rope_interleave: false is not known; DeepSeek's checkpoints rotate adjacent pairs", where);
}

// ---- mixture of experts -----------------------------------------------------------------------------------------------------------------

// The number of experts, under the family's own key or an alias; several of them must agree.
static int64_t n_expert_read(const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    static const char *const keys[] = {"n_routed_experts", "num_experts", "num_local_experts"};
    const char *key = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(root, keys[i]);
        if (!v || json_is_null(v)) continue;
        if (key && !json_equal(v, json_object_get(root, key)))
            err_add(err, ST_BAD_INPUT, "%s: %s and %s differ; keep the one that holds", where, key, keys[i]);
        key = keys[i];
    }
    return want_size(root, key ? key : a->key_n_expert, where, err);
}

// Groups of experts. V3 (noaux_tc) always has them; V2 has them when topk_method says so.
static void groups_read(struct router *r, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const bool v3 = a->scoring == ROUTER_SIGMOID;
    const char *method = json_get_str(root, "topk_method", v3 ? "noaux_tc" : "greedy", false, where, err);
    const bool grouped = !strcmp(method, v3 ? "noaux_tc" : "group_limited_greedy") && a->mla;
    r->n_group = r->topk_group = 1;
    if (grouped) {
        r->n_group = (int)want_size(root, "n_group", where, err);
        r->topk_group = (int)want_size(root, "topk_group", where, err);
    } else if (v3 || strcmp(method, "greedy")) {
        err_add(err, ST_BAD_INPUT, "%s: topk_method: \"%s\" is not known to %s (known: %s)", where, method, a->model_type,
                v3       ? "noaux_tc"
                : a->mla ? "greedy, group_limited_greedy"
                         : "greedy");
    }
    if (r->top_k > r->n_expert || r->n_expert % r->n_group || r->topk_group > r->n_group ||
        r->top_k > r->n_expert / r->n_group * r->topk_group)
        err_add(err, ST_BAD_INPUT, "%s: %d experts in n_group %d, topk_group %d, num_experts_per_tok %d do not fit together", where,
                r->n_expert, r->n_group, r->topk_group, r->top_k);
    if (r->n_expert > OP_EXPERT_MAX) err_add(err, ST_BAD_INPUT, "%s: %d experts: at most %d can be", where, r->n_expert, OP_EXPERT_MAX);
}

static void router_read(struct router *r, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const bool v3 = a->scoring == ROUTER_SIGMOID;
    const char *known = v3 ? "sigmoid" : "softmax", *scoring = json_get_str(root, "scoring_func", known, false, where, err);
    r->scoring = a->scoring;
    if (strcmp(scoring, known))
        err_add(err, ST_BAD_INPUT, "%s: scoring_func: \"%s\" is not known to %s (known: %s)", where, scoring, a->model_type, known);
    r->n_expert = (int)n_expert_read(a, root, where, err);
    r->top_k = (int)want_size(root, "num_experts_per_tok", where, err);
    r->norm_topk_prob = json_get_bool(root, "norm_topk_prob", v3, false, where, err);
    r->scale = (float)json_get_real(root, "routed_scaling_factor", 1.0, v3, where, err);
    if (a->mla && !v3 && r->norm_topk_prob)
        err_add(err, ST_BAD_INPUT,
                "%s: norm_topk_prob: true is not known to %s: DeepSeek's code then drops routed_scaling_factor, "
                "transformers ignores it; no released model has it",
                where, a->model_type);
    if (!a->mla && r->scale != 1)
        err_add(err, ST_BAD_INPUT, "%s: routed_scaling_factor: %g is not known to %s (known: 1)", where, (double)r->scale, a->model_type);
    groups_read(r, a, root, where, err);
}

// Which layers have experts: DeepSeek says it by first_k_dense_replace and moe_layer_freq, Qwen by mlp_only_layers and decoder_sparse_step.
static void moe_layers_read(struct model_config *c, const json_t *root, const char *where, struct err *err)
{
    const int64_t first = opt_size(root, "first_k_dense_replace", 0, 0, where, err),
                  freq = opt_size(root, "moe_layer_freq", 1, 1, where, err);
    const int64_t step = opt_size(root, "decoder_sparse_step", 1, 1, where, err);
    const json_t *dense = json_object_get(root, "mlp_only_layers"), *v;
    size_t k;
    c->moe_layer = NEW_N(bool, c->n_layer);
    for (int64_t i = 0; i < c->n_layer; i++) c->moe_layer[i] = i >= first && i % freq == 0 && (i + 1) % step == 0;
    if (dense && !json_is_null(dense) && !json_is_array(dense))
        err_add(err, ST_BAD_INPUT, "%s: mlp_only_layers: wanted an array of layers", where);
    json_array_foreach(dense, k, v)
    {
        int64_t i = json_is_integer(v) ? json_integer_value(v) : -1;
        if (i < 0)
            err_add(err, ST_BAD_INPUT, "%s: mlp_only_layers: entry %zu: wanted a layer's number", where, k);
        else if (i < c->n_layer)
            c->moe_layer[i] = false;
    }
}

static void moe_read(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    router_read(&c->router, a, root, where, err);
    c->d_ff_expert = want_size(root, "moe_intermediate_size", where, err);
    c->n_shared = a->key_n_shared ? opt_size(root, a->key_n_shared, 0, 0, where, err) : 0;
    moe_layers_read(c, root, where, err);
}

// eos_token_id: an integer or an array of them.
static void eos_add(struct model_config *c, const json_t *v, const char *where, struct err *err)
{
    size_t n = json_is_array(v) ? json_array_size(v) : v && !json_is_null(v);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(e) || json_integer_value(e) > INT32_MAX) {
            err_add(err, ST_BAD_INPUT, "%s: eos_token_id: wanted a token id or an array of them", where);
            return;
        }
        int32_t id = (int32_t)json_integer_value(e);
        bool known = id < 0 || c->n_eos == (int)(sizeof c->eos / sizeof *c->eos);
        for (int k = 0; k < c->n_eos; k++) known |= c->eos[k] == id;
        if (!known) c->eos[c->n_eos++] = id;
    }
}

// ---- sliding window ---------------------------------------------------------------------------------------------------------------------

// From which layer on the keys give a window; n_layer: none.
static int64_t window_first(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const json_t *size = json_object_get(root, "sliding_window");
    const bool set = size ? !json_is_null(size) : a->window >= WINDOW_ALL_IF_USED; // Qwen's files may leave it out: 4096
    const bool used = json_get_bool(root, "use_sliding_window", a->window <= WINDOW_IF_SET, false, where, err);
    if (!set || !used) return c->n_layer;
    c->window = (int)opt_size(root, "sliding_window", 4096, 1, where, err);
    if (a->window == WINDOW_NONE)
        err_add(err, ST_BAD_INPUT, "%s: sliding_window: %d is not known to %s (known: null)", where, c->window, a->model_type);
    if (a->window == WINDOW_IF_USED) return opt_size(root, "max_window_layers", 28, 0, where, err);
    if (a->window == WINDOW_ALL_IF_USED && opt_size(root, "max_window_layers", 0, 0, where, err))
        err_add(err, ST_BAD_INPUT, "%s: max_window_layers: transformers 4 and 5 differ on it in %s with a sliding window (known: 0)", where,
                a->model_type);
    return 0;
}

// layer_types (transformers 5) is the truth for those families whose code reads it, and must agree with the keys in the others.
static void window_read(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const int64_t first = window_first(c, a, root, where, err);
    const json_t *types = json_object_get(root, "layer_types");
    const bool given = types && !json_is_null(types);
    bool any = false;
    if (given && (!json_is_array(types) || json_array_size(types) != (size_t)c->n_layer))
        err_add(err, ST_BAD_INPUT, "%s: layer_types: wanted an array of num_hidden_layers = %lld names", where, (long long)c->n_layer);
    c->window_layer = NEW_N(bool, c->n_layer);
    for (int64_t i = 0; i < c->n_layer; i++) {
        const char *kind = json_string_value(json_array_get(types, (size_t)i));
        bool slides = i >= first, typed = kind ? !strcmp(kind, "sliding_attention") : slides;
        if (given && kind && !typed && strcmp(kind, "full_attention"))
            err_add(err, ST_BAD_INPUT, "%s: layer_types: \"%s\" of layer %lld is not known (known: full_attention, sliding_attention)",
                    where, kind, (long long)i);
        else if (typed && !c->window)
            err_add(err, ST_BAD_INPUT, "%s: layer_types: layer %lld slides, but sliding_window is off", where, (long long)i);
        else if (a->window != WINDOW_IF_USED && typed != slides)
            err_add(err, ST_BAD_INPUT, "%s: layer_types: \"%s\" of layer %lld is not what sliding_window says; %s has one kind of layer",
                    where, kind, (long long)i, a->model_type);
        any |= c->window_layer[i] = typed;
    }
    if (any) return;
    mem_free(c->window_layer);
    c->window_layer = NULL;
    c->window = 0;
}

// ---- what all families have -------------------------------------------------------------------------------------------------------------

// Keys of other families that change the numbers: refused by name unless they say what this family does anyway. JSON's false and true
// count as 0 and 1, null and empty arrays as absent.
static void foreign_keys(const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const bool moe = a->key_n_expert != NULL;
    const struct {
        const char *key;
        double harmless; // NAN: no value is
        bool known;
    } keys[] = {
        {"attention_logit_softcapping", 0, false},
        {"attn_logit_softcapping", 0, false},
        {"final_logit_softcapping", 0, false},
        {"partial_rotary_factor", 1, false},
        {"rotary_pct", 1, false},
        {"rotary_dim", NAN, false},
        {"no_rope_layers", NAN, false},
        {"no_rope_layer_interval", NAN, false},
        {"query_pre_attn_scalar", NAN, false},
        {"attention_multiplier", NAN, false},
        {"residual_multiplier", 1, false},
        {"embedding_multiplier", 1, false},
        {"logits_scaling", 1, false},
        {"logit_scale", 1, false},
        {"scale_emb", 1, false},
        {"scale_depth", NAN, false},
        {"dim_model_base", NAN, false},
        {"clip_qkv", NAN, false},
        {"attention_chunk_size", NAN, false},
        {"use_bidirectional_attention", 0, false},
        {"is_causal", 1, false},
        {"alibi", 0, false},
        {"index_topk", NAN, false},
        {"per_layer_config", NAN, false},
        {"use_mrope", 0, false},
        {"shared_expert_intermediate_size", 0, false},
        {"use_mla", a->mla, false},
        {"qk_norm", a->qk_norm, false},
        {"use_qk_norm", a->qk_norm, false},
        {"qk_layernorm", a->qk_norm, false},
        {"attention_bias", 0, a->attention_bias_key},
        {"mlp_bias", 0, a->mlp_bias_key},
        {"n_routed_experts", 0, moe},
        {"num_experts", 0, moe},
        {"num_local_experts", 0, moe},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(root, keys[i].key);
        const bool none = !v || json_is_null(v) || (json_is_array(v) && !json_array_size(v));
        const bool number = json_is_boolean(v) || json_is_number(v);
        if (none || keys[i].known || (number && (json_is_number(v) ? json_number_value(v) : json_is_true(v)) == keys[i].harmless)) continue;
        char *found = json_dumps(v, JSON_ENCODE_ANY);
        err_add(err, ST_BAD_INPUT, "%s: %s: %.40s is not known to %s, and would change its numbers", where, keys[i].key, found,
                a->model_type);
        free(found);
    }
}

static void common_read(struct model_config *c, const struct arch *a, const json_t *root, const char *where, struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    snprintf(c->model_type, sizeof c->model_type, "%s", type ? type : a->model_type);
    c->n_vocab = want_size(root, "vocab_size", where, err);
    c->d_model = want_size(root, "hidden_size", where, err);
    c->d_ff = want_size(root, "intermediate_size", where, err);
    c->n_layer = want_size(root, "num_hidden_layers", where, err);
    if (c->n_layer > LAYER_MAX) {
        err_add(err, ST_BAD_INPUT, "%s: num_hidden_layers: %lld: at most %d can be", where, (long long)c->n_layer, LAYER_MAX);
        c->n_layer = 1;
    }
    c->n_head = want_size(root, "num_attention_heads", where, err);
    c->n_kv_head = opt_size(root, "num_key_value_heads", c->n_head, 1, where, err);
    c->d_head = opt_size(root, "head_dim", a->d_head_default ? a->d_head_default : c->d_model / c->n_head, 1, where, err);
    c->max_position = opt_size(root, "max_position_embeddings", 2048, 1, where, err);
    c->rms_norm_eps = (float)json_get_real(root, "rms_norm_eps", 1e-6, false, where, err);
    if (!(c->rms_norm_eps >= 0)) err_add(err, ST_BAD_INPUT, "%s: rms_norm_eps: wanted a number ≥ 0", where);
    c->tied = json_get_bool(root, "tie_word_embeddings", false, false, where, err);
    c->qk_norm = a->qk_norm;
    foreign_keys(a, root, where, err);
    bool bias = a->attention_bias_key && json_get_bool(root, "attention_bias", false, false, where, err);
    c->qkv_bias = a->qkv_bias || bias;
    c->o_bias = bias;
    c->mlp_bias = a->mlp_bias_key && json_get_bool(root, "mlp_bias", false, false, where, err);
    window_read(c, a, root, where, err);
    const char *act = json_get_str(root, "hidden_act", "silu", false, where, err);
    if (strcmp(act, "silu")) err_add(err, ST_BAD_INPUT, "%s: hidden_act: \"%s\" is not known (known: silu)", where, act);
    if (!a->mla && c->n_head % c->n_kv_head)
        err_add(err, ST_BAD_INPUT, "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", where,
                (long long)c->n_head, (long long)c->n_kv_head);
    fp8_config_read(&c->fp8, root, where, err);
    rope_config_read(&c->rope, root, where, err);
    // YaRN switched on by hand, as Qwen documents it, leaves max_position_embeddings at the original context.
    const double stretched = c->rope.scaling == ROPE_YARN ? c->rope.factor * (double)c->rope.original_max_position : 0;
    if (stretched > (double)c->max_position && stretched <= INT32_MAX) c->max_position = (int64_t)stretched;
    c->bos = (int32_t)json_get_int(root, "bos_token_id", -1, false, where, err);
}

// Widths that are products: beyond this a lying file could make a tensor's bytes wrap round.
static void widths_check(const struct model_config *c, const char *where, struct err *err)
{
    const struct {
        const char *what;
        int64_t n, each;
    } widths[] = {{"num_attention_heads", c->n_head, c->d_head},
                  {"num_key_value_heads", c->n_kv_head, c->d_head},
                  {"num_attention_heads", c->n_head, c->d_nope + c->d_v},
                  {"n_shared_experts", c->n_shared, c->d_ff_expert}};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if (widths[i].each && widths[i].n > INT32_MAX / widths[i].each)
            err_add(err, ST_BAD_INPUT, "%s: %s: %lld of width %lld are more than %d together", where, widths[i].what,
                    (long long)widths[i].n, (long long)widths[i].each, INT32_MAX);
}

static enum status arch_find(const struct arch **arch, const json_t *root, const struct arch *const *archs, const char *where,
                             struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    for (; *archs && !*arch; archs++)
        if (type ? !strcmp((*archs)->model_type, type) || ((*archs)->also_type && !strcmp((*archs)->also_type, type))
                 : name && !strcmp((*archs)->class_name, name))
            *arch = *archs;
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
        for (; *archs; archs++) {
            buf_printf(&known, "%s%s", known.size ? ", " : "", (*archs)->model_type);
            if ((*archs)->also_type) buf_printf(&known, ", %s", (*archs)->also_type);
        }
        err_add(err, ST_BAD_INPUT, "known architectures: %s", known.data);
        buf_free(&known);
        return err->code;
    }
    common_read(c, *arch, root, where, err);
    if ((*arch)->mla) mla_read(c, root, where, err);
    if ((*arch)->key_n_expert) moe_read(c, *arch, root, where, err);
    widths_check(c, where, err);
    eos_add(c, json_object_get(generation, "eos_token_id"), "generation_config.json", err);
    eos_add(c, json_object_get(root, "eos_token_id"), where, err);
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
    enum status st = gguf_is(dir) ? gguf_config_read(&root, dir, err) : json_read(&root, path, err);
    if (!st && file_exists(gen_path)) st = json_read(&gen, gen_path, err);
    if (!st) st = model_config_parse(c, arch, root, gen, gguf_is(dir) ? dir : path, archs, err);
    json_decref(root);
    json_decref(gen);
    mem_free(path);
    mem_free(gen_path);
    return st;
}

void model_config_free(struct model_config *c)
{
    mem_free(c->moe_layer);
    mem_free(c->window_layer);
    c->moe_layer = c->window_layer = NULL;
}
