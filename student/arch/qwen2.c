// Qwen2 and Qwen2.5: biases on q, k and v; sliding window only if use_sliding_window.
#include "kernels/model/arch.h"

const struct arch arch_qwen2 = {
    .model_type = "qwen2",
    .class_name = "Qwen2ForCausalLM",
    .qkv_bias = true,
    .window = WINDOW_IF_USED,
    .rope_order = ROPE_HALF,
};
