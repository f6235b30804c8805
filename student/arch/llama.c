// Llama 2 and 3.x: plain GQA; the llama3 scaling of rotary frequencies comes from rope_scaling. A sliding_window in the file counts, as in
// Mistral, though transformers' Llama class passes over it.
#include "kernels/model/arch.h"

const struct arch arch_llama = {
    .model_type = "llama",
    .class_name = "LlamaForCausalLM",
    .attention_bias_key = true,
    .mlp_bias_key = true,
    .window = WINDOW_IF_SET,
    .rope_order = ROPE_HALF,
};
