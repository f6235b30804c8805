// Qwen3, dense: RMSNorm on each head of q and k before the rotation, explicit head_dim.
#include "kernels/model/arch.h"

const struct arch arch_qwen3 = {
    .model_type = "qwen3",
    .class_name = "Qwen3ForCausalLM",
    .qk_norm = true,
    .attention_bias_key = true,
    .d_head_default = 128,
    .window = WINDOW_IF_USED,
    .rope_order = ROPE_HALF,
};
