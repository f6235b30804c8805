// Mistral-7B and its like: Llama without biases; a sliding window in every layer when the file sets one (7B v0.1), none when it is null.
#include "kernels/model/arch.h"

const struct arch arch_mistral = {
    .model_type = "mistral",
    .class_name = "MistralForCausalLM",
    .window = WINDOW_IF_SET,
    .rope_order = ROPE_HALF,
};
