// config.json: the released files are read as they are, both ways of writing a thing mean the same, and what would change the numbers
// without being known is refused by name.
#include "distill/registry.h"
#include "tests/kernels/model_fixture.h"

#include <math.h>
#include <stdlib.h>

// The config of a golden (or JSON text), with the members of `patch` put over it; a null there removes nothing: null counts as absent.
static json_t *patched(const char *source, const char *patch)
{
    struct err err = {0};
    json_t *root, *over;
    if (*source == '{') {
        ck_ok(json_parse(&root, source, strlen(source), "test", 0, &err));
    } else {
        char *path = path_join(golden_model(source), "config.json");
        ck_ok(json_read(&root, path, &err));
        mem_free(path);
    }
    ck_ok(json_parse(&over, patch, strlen(patch), "patch", 0, &err));
    json_object_update(root, over);
    json_decref(over);
    return root;
}

static enum status parse(struct model_config *c, const char *source, const char *patch, struct err *err)
{
    const struct arch *arch;
    json_t *root = patched(source, patch);
    enum status st = model_config_parse(c, &arch, root, NULL, "config.json", all_archs, err);
    json_decref(root);
    return st;
}

static struct model_config parsed(const char *source, const char *patch)
{
    struct err err = {0};
    struct model_config c;
    ck_ok(parse(&c, source, patch, &err));
    return c;
}

// ---- released files ------------------------------------------------------------------------------------------------------------------

// Their own keys and values, those that say nothing of the numbers included.
static const char v2_lite[] =
    "{\"architectures\": [\"DeepseekV2ForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"auto_map\": "
    "{\"AutoConfig\": "
    "\"configuration_deepseek.DeepseekV2Config\"}, \"aux_loss_alpha\": 0.001, \"bos_token_id\": 100000, \"eos_token_id\": 100001, "
    "\"first_k_dense_replace\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 2048, \"initializer_range\": 0.02, \"intermediate_size\": "
    "10944, "
    "\"kv_lora_rank\": 512, \"max_position_embeddings\": 163840, \"model_type\": \"deepseek_v2\", \"moe_intermediate_size\": 1408, "
    "\"moe_layer_freq\": 1, \"n_group\": 1, \"n_routed_experts\": 64, \"n_shared_experts\": 2, \"norm_topk_prob\": false, "
    "\"num_attention_heads\": 16, \"num_experts_per_tok\": 6, \"num_hidden_layers\": 27, \"num_key_value_heads\": 16, \"pretraining_tp\": "
    "1, "
    "\"q_lora_rank\": null, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"rms_norm_eps\": 1e-06, \"rope_scaling\": "
    "{\"beta_fast\": 32, "
    "\"beta_slow\": 1, \"factor\": 40, \"mscale\": 0.707, \"mscale_all_dim\": 0.707, \"original_max_position_embeddings\": 4096, \"type\": "
    "\"yarn\"}, \"rope_theta\": 10000, \"routed_scaling_factor\": 1.0, \"scoring_func\": \"softmax\", \"seq_aux\": true, "
    "\"tie_word_embeddings\": false, \"topk_group\": 1, \"topk_method\": \"greedy\", \"torch_dtype\": \"bfloat16\", "
    "\"transformers_version\": "
    "\"4.33.1\", \"use_cache\": true, \"v_head_dim\": 128, \"vocab_size\": 102400}";
static const char kimi_k2[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"aux_loss_alpha\": 0.001, "
    "\"bos_token_id\": 163584, \"eos_token_id\": 163585, \"ep_size\": 1, \"first_k_dense_replace\": 1, \"hidden_act\": \"silu\", "
    "\"hidden_size\": "
    "7168, \"intermediate_size\": 18432, \"kv_lora_rank\": 512, \"max_position_embeddings\": 131072, \"model_type\": \"kimi_k2\", "
    "\"moe_intermediate_size\": 2048, \"moe_layer_freq\": 1, \"n_group\": 1, \"n_routed_experts\": 384, \"n_shared_experts\": 1, "
    "\"norm_topk_prob\": true, \"num_attention_heads\": 64, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 61, "
    "\"num_key_value_heads\": 64, "
    "\"num_nextn_predict_layers\": 0, \"pretraining_tp\": 1, \"q_lora_rank\": 1536, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, "
    "\"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"beta_fast\": 1.0, \"beta_slow\": 1.0, \"factor\": 32.0, \"mscale\": 1.0, "
    "\"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, \"type\": \"yarn\"}, \"rope_theta\": 50000.0, "
    "\"routed_scaling_factor\": 2.827, \"scoring_func\": \"sigmoid\", \"seq_aux\": true, \"tie_word_embeddings\": false, \"topk_group\": "
    "1, "
    "\"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\", \"v_head_dim\": 128, \"vocab_size\": 163840}";
static const char qwen3_30b[] =
    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 151643, "
    "\"decoder_sparse_step\": 1, \"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": 2048, "
    "\"intermediate_size\": 6144, \"max_position_embeddings\": 40960, \"max_window_layers\": 48, \"mlp_only_layers\": [], \"model_type\": "
    "\"qwen3_moe\", \"moe_intermediate_size\": 768, \"norm_topk_prob\": true, \"num_attention_heads\": 32, \"num_experts\": 128, "
    "\"num_experts_per_tok\": 8, \"num_hidden_layers\": 48, \"num_key_value_heads\": 4, \"output_router_logits\": false, \"rms_norm_eps\": "
    "1e-06, \"rope_scaling\": null, \"rope_theta\": 1000000.0, \"router_aux_loss_coef\": 0.001, \"sliding_window\": null, "
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"use_cache\": true, \"use_sliding_window\": false, \"vocab_size\": "
    "151936}";
static const char r1_distill_7b[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"attention_dropout\": 0.0, \"bos_token_id\": 151643, \"eos_token_id\": 151643, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 3584, \"intermediate_size\": 18944, \"max_position_embeddings\": 131072, "
    "\"max_window_layers\": "
    "28, \"model_type\": \"qwen2\", \"num_attention_heads\": 28, \"num_hidden_layers\": 28, \"num_key_value_heads\": 4, \"rms_norm_eps\": "
    "1e-06, "
    "\"rope_theta\": 10000, \"sliding_window\": 4096, \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"use_cache\": true, "
    "\"use_mrope\": false, \"use_sliding_window\": false, \"vocab_size\": 152064}";
static const char mistral_7b[] =
    "{\"architectures\": [\"MistralForCausalLM\"], \"bos_token_id\": 1, \"eos_token_id\": 2, \"hidden_act\": \"silu\", \"hidden_size\": "
    "4096, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 14336, \"max_position_embeddings\": 32768, \"model_type\": \"mistral\", "
    "\"num_attention_heads\": 32, \"num_hidden_layers\": 32, \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
    "\"sliding_window\": 4096, \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"use_cache\": true, \"vocab_size\": 32000}";

static int n_moe_layer(const struct model_config *c)
{
    int n = 0;
    for (int64_t i = 0; i < c->n_layer; i++) n += c->moe_layer[i];
    return n;
}

START_TEST(released_configs_of_deepseek_are_read)
{
    struct model_config c = parsed(v2_lite, "{}");
    ck_assert_int_eq(n_moe_layer(&c), 26);
    ck_assert_int_eq(c.router.scoring, ROUTER_SOFTMAX);
    ck_assert(!c.router.norm_topk_prob && c.router.n_group == 1 && c.router.scale == 1 && c.n_shared == 2 && c.q_lora_rank == 0);
    double m = 0.1 * 0.707 * log(40) + 1; // YaRN's factor on the softmax, squared
    ck_assert_double_eq_tol((double)c.softmax_scale, m * m / sqrt(192), 1e-7);
    model_config_free(&c);
    // V2 itself: groups, of which the best expert counts
    c = parsed(v2_lite, "{\"topk_method\": \"group_limited_greedy\", \"n_routed_experts\": 160, \"n_group\": 8, \"topk_group\": 3, "
                        "\"routed_scaling_factor\": 16.0, \"q_lora_rank\": 1536}");
    ck_assert(c.router.n_group == 8 && c.router.topk_group == 3 && c.router.scale == 16 && c.q_lora_rank == 1536);
    model_config_free(&c);
    c = parsed(kimi_k2, "{}");
    ck_assert_str_eq(c.model_type, "kimi_k2");
    ck_assert(c.router.n_expert == 384 && c.router.n_group == 1 && c.router.norm_topk_prob && n_moe_layer(&c) == 60);
    ck_assert(c.n_eos == 1 && c.eos[0] == 163585);
    model_config_free(&c);
}
END_TEST

START_TEST(released_configs_of_qwen_and_mistral_are_read)
{
    struct model_config c = parsed(qwen3_30b, "{}");
    ck_assert(c.router.n_expert == 128 && c.router.norm_topk_prob && c.qk_norm && c.d_head == 128 && !c.qkv_bias && !c.window);
    ck_assert_int_eq(n_moe_layer(&c), 48);
    model_config_free(&c);
    c = parsed(r1_distill_7b, "{}");
    ck_assert(c.qkv_bias && !c.o_bias && !c.window && c.d_head == 128 && !c.moe_layer);
    model_config_free(&c);
    c = parsed(mistral_7b, "{}");
    ck_assert(c.window == 4096 && c.window_layer[0] && c.window_layer[31] && !c.qkv_bias);
    model_config_free(&c);
    c = parsed(mistral_7b, "{\"sliding_window\": null}"); // v0.2 and later
    ck_assert(!c.window && !c.window_layer);
    model_config_free(&c);
}
END_TEST

// ---- two ways to say a thing ---------------------------------------------------------------------------------------------------------

START_TEST(rope_scaling_and_rope_parameters_mean_the_same)
{
    const char *both[2] = {
        "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 64, \"beta_fast\": 32, "
        "\"beta_slow\": 1, \"mscale\": 0.7, \"mscale_all_dim\": 1.0}, \"rope_theta\": 20000.0, \"rope_parameters\": null}",
        "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 20000.0, \"factor\": 4.0, "
        "\"original_max_position_embeddings\": 64, \"beta_fast\": 32, \"beta_slow\": 1, \"mscale\": 0.7, "
        "\"mscale_all_dim\": 1.0}}"};
    float inv_freq[2][3], mscale[2], softmax[2];
    for (int i = 0; i < 2; i++) {
        struct model_config c = parsed("deepseek_v3", both[i]);
        ck_assert_double_eq(c.rope.theta, 20000.0);
        rope_frequencies(&c.rope, 6, inv_freq[i], &mscale[i], &softmax[i]);
        model_config_free(&c);
    }
    ck_assert(!memcmp(inv_freq[0], inv_freq[1], sizeof inv_freq[0]) && mscale[0] == mscale[1] && softmax[0] == softmax[1]);
    ck_assert_float_ne(mscale[0], 1);
}
END_TEST

START_TEST(a_length_beside_rope_scaling_goes_before_one_inside)
{
    struct model_config c = parsed("llama3", "{\"original_max_position_embeddings\": 24}");
    ck_assert_int_eq(c.rope.original_max_position, 24);
    model_config_free(&c);
    c = parsed("llama3", "{\"original_max_position_embeddings\": null}"); // null counts as absent
    ck_assert_int_eq(c.rope.original_max_position, 32);
    model_config_free(&c);
    c = parsed("llama", "{\"rope_theta\": 77.0, \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": null}}");
    ck_assert_double_eq(c.rope.theta, 77.0);
    model_config_free(&c);
}
END_TEST

// The frequencies of released models have transformers' bits, but for the last one where its vectorised pow is not rounded well.
static const struct {
    const char *name, *json;
} rotations[] = {
    {"plain_1e4", "{}"},
    {"plain_1e6", "{\"rope_theta\": 1000000.0}"},
    {"linear", "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}}"},
    {"llama31", "{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}"},
    {"llama32", "{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "
                "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}"},
    {"qwen_yarn", "{\"rope_theta\": 1000000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                  "\"original_max_position_embeddings\": 32768}}"},
    {"r1_0528_qwen3", "{\"rope_theta\": 1000000, \"max_position_embeddings\": 131072, \"rope_scaling\": {\"attn_factor\": "
                      "0.8782488562869419, \"factor\": 4.0, \"original_max_position_embeddings\": 32768, \"rope_type\": \"yarn\"}}"},
    {"deepseek", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"original_max_position_embeddings\": 4096, \"beta_fast\": 32, "
                 "\"beta_slow\": 1, \"mscale\": 1.0, \"mscale_all_dim\": 1.0}}"},
    {"deepseek_v2_lite",
     "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"original_max_position_embeddings\": 4096, \"beta_fast\": 32, "
     "\"beta_slow\": 1, \"mscale\": 0.707, \"mscale_all_dim\": 0.707}}"},
    {"kimi_k2",
     "{\"rope_theta\": 50000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 32.0, \"original_max_position_embeddings\": 4096, "
     "\"beta_fast\": 1.0, \"beta_slow\": 1.0, \"mscale\": 1.0, \"mscale_all_dim\": 1.0}}"},
};

START_TEST(frequencies_of_released_models_are_transformers)
{
    struct err err = {0};
    struct st_set ref;
    struct rope_config r;
    char name[64];
    float got[64], mscale, softmax;
    ck_ok(st_open(&ref, test_golden("models/rope.safetensors"), &err));
    json_t *root = patched("{}", rotations[_i].json);
    rope_config_read(&r, root, "config.json", &err);
    ck_assert_msg(!err.code, "%s", err.text);
    json_decref(root);
    const struct st_tensor *t = st_find(&ref, rotations[_i].name);
    snprintf(name, sizeof name, "%s.scale", rotations[_i].name);
    const struct st_tensor *scale = st_find(&ref, name);
    ck_assert(t && scale && t->shape[0] <= 64);
    rope_frequencies(&r, 2 * t->shape[0], got, &mscale, &softmax);
    ck_assert_float_eq(mscale, *(const float *)scale->data);
    int n_other = 0;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        float want = ((const float *)t->data)[i];
        int32_t a, b;
        memcpy(&a, &got[i], 4);
        memcpy(&b, &want, 4);
        n_other += a != b;
        ck_assert_msg(abs(a - b) <= 1, "%s: frequency %d: %a, wanted %a", rotations[_i].name, (int)i, (double)got[i], (double)want);
    }
    ck_assert_msg(n_other <= 1, "%s: %d frequencies differ in their last bit", rotations[_i].name, n_other);
    st_close(&ref);
}
END_TEST

START_TEST(number_of_experts_has_aliases)
{
    static const char *const patch[] = {"{\"num_experts\": 8, \"num_local_experts\": null}", "{\"num_local_experts\": 8}",
                                        "{\"num_experts\": 8, \"num_local_experts\": 8}"};
    for (int i = 0; i < 3; i++) {
        struct model_config c = parsed("qwen3_moe", patch[i]);
        ck_assert_int_eq(c.router.n_expert, 8);
        model_config_free(&c);
    }
}
END_TEST

START_TEST(an_empty_quantization_config_is_none)
{
    static const char *const patch[] = {"{}", "{\"quantization_config\": null}", "{\"quantization_config\": {}}"};
    for (int i = 0; i < 3; i++) {
        struct model_config c = parsed("qwen3", patch[i]);
        ck_assert(!c.fp8.on);
        model_config_free(&c);
    }
}
END_TEST

START_TEST(dense_layers_of_moe_families)
{
    struct model_config c = parsed("qwen3_moe", "{\"num_hidden_layers\": 7, \"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 99]}");
    for (int i = 0; i < 7; i++) ck_assert_int_eq(c.moe_layer[i], i == 1 || i == 5);
    model_config_free(&c);
    c = parsed("deepseek_v3", "{\"num_hidden_layers\": 7, \"first_k_dense_replace\": 3, \"moe_layer_freq\": 2}");
    for (int i = 0; i < 7; i++) ck_assert_int_eq(c.moe_layer[i], i == 4 || i == 6);
    model_config_free(&c);
}
END_TEST

START_TEST(layer_types_are_the_truth_of_qwen)
{
    struct model_config c =
        parsed("qwen3", "{\"use_sliding_window\": true, \"sliding_window\": 5, \"max_window_layers\": 1, \"layer_types\": "
                        "[\"sliding_attention\", \"full_attention\"]}");
    ck_assert(c.window == 5 && c.window_layer[0] && !c.window_layer[1]);
    model_config_free(&c);
    c = parsed("qwen3", "{\"use_sliding_window\": true, \"sliding_window\": 5, \"max_window_layers\": 1, \"layer_types\": null}");
    ck_assert(c.window == 5 && !c.window_layer[0] && c.window_layer[1]);
    model_config_free(&c);
    c = parsed("qwen3", "{\"use_sliding_window\": true, \"sliding_window\": 5, \"max_window_layers\": 28, \"layer_types\": null}");
    ck_assert(!c.window && !c.window_layer);
    model_config_free(&c);
}
END_TEST

START_TEST(ends_of_both_files_count)
{
    struct err err = {0};
    struct model_config c;
    const struct arch *arch;
    json_t *root = patched("kimi_k2", "{}"), *gen = patched("{}", "{\"eos_token_id\": [11, 9]}");
    ck_ok(model_config_parse(&c, &arch, root, gen, "config.json", all_archs, &err));
    ck_assert_int_eq(c.n_eos, 3);
    ck_assert(c.eos[0] == 11 && c.eos[1] == 9 && c.eos[2] == 7);
    json_decref(root);
    json_decref(gen);
    model_config_free(&c);
}
END_TEST

// ---- refusals ------------------------------------------------------------------------------------------------------------------------

static const struct {
    const char *golden, *patch, *message;
} refusals[] = {
    {"llama", "{\"attention_logit_softcapping\": 30.0}", "attention_logit_softcapping: 30.0 is not known to llama"},
    {"llama", "{\"final_logit_softcapping\": 30.0}", "final_logit_softcapping"},
    {"llama", "{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor: 0.5"},
    {"llama", "{\"rope_parameters\": {\"partial_rotary_factor\": 0.5}}", "partial_rotary_factor: 0.5"},
    {"llama", "{\"num_local_experts\": 8}", "num_local_experts: 8"},
    {"llama", "{\"no_rope_layers\": [1, 0]}", "no_rope_layers"},
    {"llama", "{\"is_causal\": false}", "is_causal: false"},
    {"llama", "{\"hidden_act\": \"gelu\"}", "hidden_act: \"gelu\""},
    {"llama", "{\"per_layer_config\": {\"0\": {}}}", "per_layer_config"},
    {"llama", "{\"num_hidden_layers\": 2000000000}", "num_hidden_layers: 2000000000: at most 4096"},
    {"llama", "{\"head_dim\": 2147483646}", "of width 2147483646 are more than 2147483647 together"},
    {"llama", "{\"rms_norm_eps\": -1e-6}", "rms_norm_eps: wanted a number ≥ 0"},
    {"llama", "{\"eos_token_id\": \"</s>\"}", "eos_token_id: wanted a token id or an array of them"},
    {"llama", "{\"eos_token_id\": [1, null]}", "eos_token_id: wanted a token id or an array of them"},
    {"mistral", "{\"attention_bias\": true}", "attention_bias: true is not known to mistral"},
    {"mistral", "{\"mlp_bias\": true}", "mlp_bias: true"},
    {"mistral", "{\"sliding_window\": 0}", "sliding_window: wanted an integer ≥ 1, found 0"},
    {"mistral", "{\"layer_types\": [\"sliding_attention\", \"full_attention\"]}", "mistral has one kind of layer"},
    {"qwen3", "{\"layer_types\": [\"full_attention\", \"linear_attention\"]}", "\"linear_attention\" of layer 1 is not known"},
    {"qwen3", "{\"layer_types\": [\"full_attention\"]}", "layer_types: wanted an array of num_hidden_layers = 2 names"},
    {"qwen3", "{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", "layer 1 slides, but sliding_window is off"},
    {"qwen3", "{\"use_qk_norm\": false}", "use_qk_norm: false"},
    {"qwen3", "{\"quantization_config\": {\"bits\": 4}}", "quantization_config: quant_method \"\" is not read"},
    {"qwen3", "{\"quantization_config\": []}", "quantization_config: quant_method \"\" is not read"},
    {"llama3", "{\"rope_parameters\": {\"rope_type\": \"longrope\", \"factor\": 2.0}}",
     "type \"longrope\" is not known (known: default, linear, llama3, yarn)"},
    {"llama3", "{\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 2.0}}", "a sample would depend on what it runs beside"},
    {"llama3", "{\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [1, 2]}}",
     "rope_parameters: mrope_section is not known"},
    {"llama3", "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", "rope_parameters: full_attention is not known"},
    {"llama3", "{\"rope_parameters\": {\"rope_type\": \"linear\"}}", "factor"},
    {"llama3", "{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 9.0}}", "rope_scaling and rope_parameters differ in factor"},
    {"deepseek_v3", "{\"scoring_func\": \"softmax\"}", "scoring_func: \"softmax\" is not known to deepseek_v3 (known: sigmoid)"},
    {"deepseek_v3", "{\"topk_method\": \"greedy\"}", "topk_method: \"greedy\" is not known to deepseek_v3 (known: noaux_tc)"},
    {"deepseek_v3", "{\"n_group\": null}", "n_group: "},
    {"deepseek_v3", "{\"routed_scaling_factor\": null}", "routed_scaling_factor: "},
    {"deepseek_v3", "{\"n_routed_experts\": 8, \"num_local_experts\": 9}", "n_routed_experts and num_local_experts differ"},
    {"deepseek_v3", "{\"topk_group\": 5}", "do not fit together"},
    {"deepseek_v3", "{\"n_routed_experts\": 4096}", "4096 experts: at most 1024"},
    {"deepseek_v3", "{\"sliding_window\": 4096}", "sliding_window: 4096 is not known to deepseek_v3"},
    {"deepseek_v3", "{\"index_topk\": 2048}", "index_topk: 2048"},
    {"deepseek_v3", "{\"rope_interleave\": false}", "rope_interleave"},
    {"deepseek_v3", "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4.0, \"mscale_all_dim\": 1.0}}",
     "mscale and mscale_all_dim"},
    {"deepseek_v2", "{\"norm_topk_prob\": true}", "norm_topk_prob: true is not known to deepseek_v2"},
    {"deepseek_v2", "{\"topk_method\": \"noaux_tc\"}", "(known: greedy, group_limited_greedy)"},
    {"deepseek_v2", "{\"scoring_func\": \"sigmoid\"}", "(known: softmax)"},
    {"deepseek_v2", "{\"mlp_bias\": true}", "mlp_bias: true"},
    {"qwen3_moe", "{\"routed_scaling_factor\": 2.5}", "routed_scaling_factor: 2.5 is not known to qwen3_moe"},
    {"qwen3_moe", "{\"topk_method\": \"group_limited_greedy\"}", "is not known to qwen3_moe (known: greedy)"},
    {"qwen3_moe", "{\"shared_expert_intermediate_size\": 20}", "shared_expert_intermediate_size: 20"},
    {"qwen3_moe", "{\"use_sliding_window\": true, \"sliding_window\": 4, \"max_window_layers\": 1}", "max_window_layers"},
    {"qwen3_moe", "{\"mlp_only_layers\": [-1]}", "mlp_only_layers: entry 0"},
    {"qwen3_moe", "{\"mlp_only_layers\": 3}", "mlp_only_layers: wanted an array"},
    {"qwen3_moe", "{\"num_local_experts\": null}", "num_experts"},
};

START_TEST(what_is_not_known_is_refused_by_name)
{
    struct err err = {0};
    struct model_config c;
    ck_fails(parse(&c, refusals[_i].golden, refusals[_i].patch, &err), ST_BAD_INPUT, refusals[_i].message);
    ck_assert(!c.moe_layer && !c.window_layer); // nothing left to free
}
END_TEST

START_TEST(harmless_values_of_foreign_keys_pass)
{
    struct model_config c = parsed(
        "qwen3",
        "{\"attention_logit_softcapping\": null, \"final_logit_softcapping\": 0.0, \"partial_rotary_factor\": 1, \"is_causal\": true, "
        "\"num_experts\": 0, \"no_rope_layers\": [], \"use_qk_norm\": true, \"use_mrope\": false, \"mlp_bias\": false}");
    model_config_free(&c);
}
END_TEST

START_TEST(all_mismatches_are_told_at_once)
{
    struct err err = {0};
    struct model_config c;
    static const char *const parts[] = {"hidden_size", "vocab_size", "hidden_act",  "rope_scaling: type \"dynamic\"",
                                        "topk_method", "clip_qkv",   "kv_lora_rank"};
    enum status st =
        parse(&c, "deepseek_v2",
              "{\"hidden_size\": -1, \"vocab_size\": \"x\", \"hidden_act\": \"relu\", \"rope_parameters\": {\"rope_type\": \"dynamic\"}, "
              "\"topk_method\": \"best\", \"clip_qkv\": 8, \"kv_lora_rank\": null}",
              &err);
    ck_assert_int_eq(st, ST_BAD_INPUT);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ck_assert_msg(strstr(err.text, parts[i]) != NULL, "%s in %s", parts[i], err.text);
}
END_TEST

START_TEST(yarn_switched_on_by_hand_stretches_the_context)
{
    static const char yarn[] = "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 40960}}";
    struct model_config plain = parsed(qwen3_30b, "{}"), on = parsed(qwen3_30b, yarn), v2 = parsed(v2_lite, "{}");
    ck_assert_int_eq(plain.max_position, 40960);
    ck_assert_int_eq(on.max_position, 4 * 40960);
    ck_assert_int_eq(v2.max_position, 163840); // says so itself
    model_config_free(&plain);
    model_config_free(&on);
    model_config_free(&v2);
}
END_TEST

Suite *suite_config(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("read");
    tcase_add_test(t, released_configs_of_deepseek_are_read);
    tcase_add_test(t, released_configs_of_qwen_and_mistral_are_read);
    tcase_add_test(t, rope_scaling_and_rope_parameters_mean_the_same);
    tcase_add_test(t, a_length_beside_rope_scaling_goes_before_one_inside);
    tcase_add_loop_test(t, frequencies_of_released_models_are_transformers, 0, sizeof rotations / sizeof *rotations);
    tcase_add_test(t, yarn_switched_on_by_hand_stretches_the_context);
    tcase_add_test(t, number_of_experts_has_aliases);
    tcase_add_test(t, an_empty_quantization_config_is_none);
    tcase_add_test(t, dense_layers_of_moe_families);
    tcase_add_test(t, layer_types_are_the_truth_of_qwen);
    tcase_add_test(t, ends_of_both_files_count);
    suite_add_tcase(s, t);
    t = tcase_create("refused");
    tcase_add_loop_test(t, what_is_not_known_is_refused_by_name, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(t, harmless_values_of_foreign_keys_pass);
    tcase_add_test(t, all_mismatches_are_told_at_once);
    suite_add_tcase(s, t);
    return s;
}
