// Qwen3-MoE (30B-A3B, 235B-A22B): Qwen3's attention; softmax over all experts, then top-k, no shared expert; some layers may be dense.
#include "kernels/model/arch.h"

const struct arch arch_qwen3_moe = {
    .model_type = "qwen3_moe",
    .class_name = "Qwen3MoeForCausalLM",
    .qk_norm = true,
    .attention_bias_key = true,
    .window = WINDOW_ALL_IF_USED,
    .rope_order = ROPE_HALF,
    .scoring = ROUTER_SOFTMAX,
    .key_n_expert = "num_experts",
};
