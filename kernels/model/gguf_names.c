// The tensors' names on both sides. See gguf.h.
#include "kernels/model/gguf.h"

#include <string.h>

const struct gguf_name gguf_top_names[] = {
    {"model.embed_tokens.weight", "token_embd.weight", GGUF_SAME},
    {"model.norm.weight", "output_norm.weight", GGUF_SAME},
    {"lm_head.weight", "output.weight", GGUF_SAME},
    {0},
};

const struct gguf_name gguf_layer_names[] = {
    {"input_layernorm.weight", "attn_norm.weight", GGUF_SAME},
    {"self_attn.q_proj.weight", "attn_q.weight", GGUF_Q},
    {"self_attn.q_proj.bias", "attn_q.bias", GGUF_Q},
    {"self_attn.k_proj.weight", "attn_k.weight", GGUF_K},
    {"self_attn.k_proj.bias", "attn_k.bias", GGUF_K},
    {"self_attn.v_proj.weight", "attn_v.weight", GGUF_SAME},
    {"self_attn.v_proj.bias", "attn_v.bias", GGUF_SAME},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", GGUF_SAME},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", GGUF_SAME},
    {"self_attn.q_a_proj.weight", "attn_q_a.weight", GGUF_SAME},
    {"self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", GGUF_SAME},
    {"self_attn.q_b_proj.weight", "attn_q_b.weight", GGUF_SAME},
    {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", GGUF_SAME},
    {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", GGUF_SAME},
    {"self_attn.kv_b_proj.weight", "attn_k_b.weight", GGUF_KV_B}, // and attn_v_b.weight; files of 2024 have attn_kv_b.weight whole
    {"self_attn.o_proj.weight", "attn_output.weight", GGUF_SAME},
    {"self_attn.o_proj.bias", "attn_output.bias", GGUF_SAME},
    {"post_attention_layernorm.weight", "ffn_norm.weight", GGUF_SAME},
    {"mlp.gate_proj.weight", "ffn_gate.weight", GGUF_SAME},
    {"mlp.gate_proj.bias", "ffn_gate.bias", GGUF_SAME},
    {"mlp.up_proj.weight", "ffn_up.weight", GGUF_SAME},
    {"mlp.up_proj.bias", "ffn_up.bias", GGUF_SAME},
    {"mlp.down_proj.weight", "ffn_down.weight", GGUF_SAME},
    {"mlp.down_proj.bias", "ffn_down.bias", GGUF_SAME},
    {"mlp.gate.weight", "ffn_gate_inp.weight", GGUF_SAME},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias", GGUF_SAME},
    {"mlp.experts.%d.gate_proj.weight", "ffn_gate_exps.weight", GGUF_EXPERTS},
    {"mlp.experts.%d.up_proj.weight", "ffn_up_exps.weight", GGUF_EXPERTS},
    {"mlp.experts.%d.down_proj.weight", "ffn_down_exps.weight", GGUF_EXPERTS},
    {"mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight", GGUF_SAME},
    {"mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight", GGUF_SAME},
    {"mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight", GGUF_SAME},
    {0},
};

// clang-format off
const struct gguf_family gguf_families[] = {
    {"llama", "llama", "LlamaForCausalLM", true},
    {"llama", "mistral", "MistralForCausalLM", true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", false},
    {"deepseek2", "deepseek_v3", "DeepseekV3ForCausalLM", false},
    {"deepseek2", "deepseek_v2", "DeepseekV2ForCausalLM", false},
    {"deepseek2", "kimi_k2", "DeepseekV3ForCausalLM", false},
    {0},
};
// clang-format on

const struct gguf_family *gguf_family_of_type(const char *model_type)
{
    for (const struct gguf_family *f = gguf_families; f->arch; f++)
        if (!strcmp(f->model_type, model_type)) return f;
    return NULL;
}
