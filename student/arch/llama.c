// Llama 2 and 3.x: plain GQA; the llama3 scaling of rotary frequencies comes from rope_scaling.
#include "kernels/model/arch.h"

const struct arch arch_llama = {
    .model_type = "llama",
    .class_name = "LlamaForCausalLM",
    .attention_bias_key = true,
    .mlp_bias_key = true,
    .rope_order = ROPE_HALF,
};
