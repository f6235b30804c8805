// DeepSeek-V3 and R1, and V3-shaped models such as Kimi-K2 (384 experts in one group): MLA, sigmoid router with correction bias and groups,
// shared experts, dense first layers. Source: deepseek-ai/DeepSeek-V3 inference/model.py; config keys as in the released config.json.
#include "kernels/model/arch.h"

const struct arch arch_deepseek_v3 = {
    .model_type = "deepseek_v3",
    .also_type = "kimi_k2",
    .class_name = "DeepseekV3ForCausalLM",
    .mla = true,
    .attention_bias_key = true,
    .rope_order = ROPE_PAIRS,
    .scoring = ROUTER_SIGMOID,
    .key_n_expert = "n_routed_experts",
    .key_n_shared = "n_shared_experts",
};
