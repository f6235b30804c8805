// DeepSeek-V2, V2.5 and V2-Lite: MLA (Lite without q-LoRA), softmax router without correction bias, groups by their best expert when
// topk_method is group_limited_greedy, weights not normalised. Source: modeling_deepseek.py beside the released weights.
#include "kernels/model/arch.h"

const struct arch arch_deepseek_v2 = {
    .model_type = "deepseek_v2",
    .class_name = "DeepseekV2ForCausalLM",
    .mla = true,
    .attention_bias_key = true,
    .rope_order = ROPE_PAIRS,
    .scoring = ROUTER_SOFTMAX,
    .key_n_expert = "n_routed_experts",
    .key_n_shared = "n_shared_experts",
};
