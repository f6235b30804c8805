#!/usr/bin/env python3
"""Makes tests/golden/models/*: tiny random checkpoints of every family with what PyTorch and transformers compute on them.

    python3 tests/golden/models.py [NAME...]  (torch, transformers >= 5.24, safetensors)

NAME/config.json, NAME/model.safetensors   as save_pretrained writes them (bf16-representable values, kept in BF16)
NAME/reference.safetensors                 ids i32 (n); logits f32 (n, v) in f32; logits_bf16 bf16 (n, v): of the same checkpoint loaded in bf16;
                                           flipped i32 (n): 1 where bf16 chose other experts than f32 (MoE families);
                                           dense families: g f32 (n, d), loss = sum(final norm's output * g), grad.PARAM f32: its gradients
rope.safetensors                           rotary frequencies of released models
"""
import json, os, shutil, sys, torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config,
                          Qwen3MoeConfig)

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models")

dense = dict(vocab_size=61, hidden_size=36, intermediate_size=52, num_hidden_layers=2, max_position_embeddings=512)
CONFIGS = {
    # three heads of 12 on one kv head; biases; tied
    "qwen2": Qwen2Config(**dense, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True),
    # sliding window from layer 1 on
    "qwen2-window": Qwen2Config(**dense, num_attention_heads=6, num_key_value_heads=2, use_sliding_window=True, sliding_window=7,
                                max_window_layers=1, tie_word_embeddings=False),
    # head_dim != hidden / heads
    "qwen3": Qwen3Config(**dense, num_attention_heads=4, num_key_value_heads=2, head_dim=10, tie_word_embeddings=True, rope_theta=1e6),
    "llama": LlamaConfig(**dense, num_attention_heads=6, num_key_value_heads=6, head_dim=6, rms_norm_eps=1e-5, tie_word_embeddings=False,
                         attention_bias=True, mlp_bias=True),
    "llama3": LlamaConfig(**dense, num_attention_heads=2, num_key_value_heads=1, head_dim=18, rms_norm_eps=1e-5, tie_word_embeddings=False,
                          rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                               original_max_position_embeddings=32)),
    # q-LoRA, groups, yarn with mscale != mscale_all_dim
    "deepseek_v3": DeepseekV3Config(vocab_size=61, hidden_size=40, intermediate_size=56, moe_intermediate_size=20, num_hidden_layers=3,
                                    num_attention_heads=3, num_key_value_heads=3, n_shared_experts=1, n_routed_experts=8, n_group=4,
                                    topk_group=2, num_experts_per_tok=3, first_k_dense_replace=1, q_lora_rank=20, kv_lora_rank=24,
                                    qk_nope_head_dim=14, qk_rope_head_dim=6, v_head_dim=10, max_position_embeddings=256, norm_topk_prob=True,
                                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64,
                                                         beta_fast=32, beta_slow=1, mscale=0.7, mscale_all_dim=1.0)),
    # no q-LoRA, one group, no normalisation of the weights, two shared experts, plain rotation
    "deepseek_v3-plain": DeepseekV3Config(vocab_size=61, hidden_size=40, intermediate_size=56, moe_intermediate_size=20, num_hidden_layers=2,
                                          num_attention_heads=2, num_key_value_heads=2, n_shared_experts=2, n_routed_experts=6, n_group=1,
                                          topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=None, kv_lora_rank=16,
                                          qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=12, max_position_embeddings=256,
                                          norm_topk_prob=False, routed_scaling_factor=1.7),
}

# Smaller ones, to have many. The length (45) is past the original context of 16.
tiny = dict(vocab_size=23, hidden_size=18, intermediate_size=14, num_hidden_layers=2, max_position_embeddings=64)
experts = dict(moe_intermediate_size=6, first_k_dense_replace=1)
mla = dict(kv_lora_rank=10, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8)


def rope(kind, factor, **more):
    return dict(rope_type=kind, rope_theta=10000.0, factor=factor, **more)


def yarn(factor, **more):
    return rope("yarn", factor, original_max_position_embeddings=16, **more)


# R1-0528-Qwen3-8B's attn_factor is what YaRN's own factor would be cancelled by; transformers warns of a key that it does not know, and passes it over.
R1_0528 = dict(attn_factor=0.8782488562869419, factor=4.0, original_max_position_embeddings=16, rope_type="yarn")

CONFIGS.update({
    # nine heads of 2 on one kv head; layer_types that max_window_layers could not say; yarn, its factor on cosine and sine
    "qwen2-types": Qwen2Config(**(tiny | dict(num_hidden_layers=3)), num_attention_heads=9, num_key_value_heads=1, use_sliding_window=True,
                               sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                               rope_parameters=yarn(4.0)),
    "qwen3-bias": Qwen3Config(**tiny, num_attention_heads=5, num_key_value_heads=1, head_dim=6, attention_bias=True),
    "qwen3-yarn": Qwen3Config(**tiny, num_attention_heads=3, num_key_value_heads=3, head_dim=8, tie_word_embeddings=True,
                              use_sliding_window=True, sliding_window=9, max_window_layers=1, rope_parameters=yarn(4.0, truncate=False)),
    # 3.2's form: tied, factor 32
    "llama32": LlamaConfig(**(tiny | dict(hidden_size=20)), num_attention_heads=5, num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-5, tie_word_embeddings=True,
                           rope_parameters=rope("llama3", 32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "llama-linear": LlamaConfig(**tiny, num_attention_heads=3, num_key_value_heads=3, rope_parameters=rope("linear", 3.0), mlp_bias=True),
    # a Llama whose file sets a window: computed by the Mistral class, whose only difference it is
    "llama-window": MistralConfig(**tiny, num_attention_heads=3, num_key_value_heads=1, head_dim=6, sliding_window=6),
    "mistral": MistralConfig(**tiny, num_attention_heads=5, num_key_value_heads=1, head_dim=6, sliding_window=7),
    "mistral-plain": MistralConfig(**tiny, num_attention_heads=3, num_key_value_heads=3, sliding_window=None, tie_word_embeddings=True,
                                   rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "mistral-yarn": MistralConfig(**tiny, num_attention_heads=6, num_key_value_heads=2, head_dim=6, sliding_window=11, rms_norm_eps=1e-5,
                                  rope_parameters=yarn(3.0, attention_factor=0.9)),
    "qwen3_moe": Qwen3MoeConfig(**tiny, num_attention_heads=5, num_key_value_heads=1, head_dim=6, num_experts=8, num_experts_per_tok=3,
                                moe_intermediate_size=6, norm_topk_prob=True),
    # of four layers only the last has experts; weights not normalised
    "qwen3_moe-sparse": Qwen3MoeConfig(**(tiny | dict(num_hidden_layers=4)), num_attention_heads=3, num_key_value_heads=3, head_dim=8,
                                       num_experts=6, num_experts_per_tok=2, moe_intermediate_size=6, norm_topk_prob=False,
                                       decoder_sparse_step=2, mlp_only_layers=[1], tie_word_embeddings=True, rope_parameters=yarn(4.0)),
    "qwen3_moe-window": Qwen3MoeConfig(**tiny, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=5, num_experts_per_tok=1,
                                       moe_intermediate_size=10, norm_topk_prob=True, attention_bias=True, use_sliding_window=True,
                                       sliding_window=6),
    # V2-Lite's form: no q-LoRA, greedy, two shared experts, mscale 0.707
    "deepseek_v2": DeepseekV2Config(**(tiny | dict(hidden_size=15)), **experts, **mla, num_attention_heads=3, n_routed_experts=7,
                                    num_experts_per_tok=3, n_shared_experts=2, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1,
                                    rope_parameters=yarn(40.0, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707)),
    # V2's form: q-LoRA, groups by their best expert, a large factor
    "deepseek_v2-groups": DeepseekV2Config(**tiny, **experts, **mla, num_attention_heads=9, n_routed_experts=8, num_experts_per_tok=3,
                                           n_shared_experts=1, q_lora_rank=12, topk_method="group_limited_greedy", n_group=4, topk_group=2,
                                           routed_scaling_factor=4.0, rope_parameters=yarn(4.0, mscale=1.0, mscale_all_dim=0.5)),
    "deepseek_v2-plain": DeepseekV2Config(**tiny, **(experts | dict(first_k_dense_replace=0)), **mla, num_attention_heads=1,
                                          n_routed_experts=4, num_experts_per_tok=1, n_shared_experts=1, q_lora_rank=8, attention_bias=True,
                                          tie_word_embeddings=True, topk_method="greedy"),
    # Kimi-K2's form: one group, other eps and theta, model_type of its own; and an MTP layer to pass over
    "kimi_k2": DeepseekV3Config(**tiny, **experts, **mla, num_attention_heads=5, num_key_value_heads=5, n_routed_experts=12,
                                num_experts_per_tok=4, n_shared_experts=1, n_group=1, topk_group=1, q_lora_rank=12, rms_norm_eps=1e-5,
                                routed_scaling_factor=2.827, eos_token_id=[7, 9],
                                rope_parameters=yarn(32.0, beta_fast=1.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0) | dict(rope_theta=50000.0)),
    "deepseek_v3-bias": DeepseekV3Config(**tiny, **(experts | dict(first_k_dense_replace=0)), **mla, num_attention_heads=3,
                                         num_key_value_heads=3, n_routed_experts=6, num_experts_per_tok=3, n_shared_experts=1, n_group=2,
                                         topk_group=1, q_lora_rank=None, attention_bias=True, tie_word_embeddings=True,
                                         rope_parameters=yarn(4.0, mscale=0.5, mscale_all_dim=0.8)),
    # R1-0528-Qwen3-8B's form
    "qwen3-attn": Qwen3Config(**tiny, num_attention_heads=4, num_key_value_heads=2, head_dim=6, rope_theta=1e6,
                              rope_scaling=dict(R1_0528)),
})
# What is changed in the files after transformers has read and computed them.
AFTER = {"llama-window": dict(model_type="llama", architectures=["LlamaForCausalLM"]), "kimi_k2": dict(model_type="kimi_k2"),
         "qwen3-attn": dict(rope_parameters=None, rope_theta=1000000, rope_scaling=R1_0528)}


def edit_config(out, changes):
    path = os.path.join(out, "config.json")
    config = json.load(open(path)) | changes
    with open(path, "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


# A multi-token-prediction layer as in DeepSeek's files: index num_hidden_layers, with names that no other layer has.
def add_mtp(out, config):
    path = os.path.join(out, "model.safetensors")
    tensors, d = load_file(path), config.hidden_size
    prefix = f"model.layers.{config.num_hidden_layers}."
    tensors |= {prefix + "eh_proj.weight": torch.zeros(d, 2 * d, dtype=torch.bfloat16), prefix + "enorm.weight": torch.zeros(d),
                prefix + "shared_head.norm.weight": torch.zeros(d), prefix + "self_attn.o_proj.weight": torch.zeros(d, d)}
    save_file(tensors, path, {"format": "pt"})



# The experts of every token in every layer with a router, as sets, while model computes ids.
def routed(model, ids):
    chosen = []
    hooks = [m.register_forward_hook(lambda _, __, out: chosen.append(out[2].sort(-1).values)) for m in model.modules()
             if type(m).__name__.endswith("Router")]
    with torch.no_grad():
        logits = model(ids).logits[0].contiguous()
    for h in hooks:
        h.remove()
    return logits, chosen


def make(name, config, seed):
    torch.manual_seed(seed)
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager")
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else (0.5 if p.dim() == 1 else 0.2) * torch.randn_like(p))
            p.copy_(p.bfloat16().float())
        for key, b in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                b.copy_(0.2 * torch.randn_like(b))
    save(model, config, out)
    ids = torch.randint(0, config.vocab_size, (1, 45))
    hidden = model.model(ids).last_hidden_state
    ref = {"ids": ids[0].int(), "logits": model.lm_head(hidden)[0].detach().contiguous()}
    # Loaded anew, not converted: .to(bfloat16) would round the rotary frequencies, which from_pretrained keeps in f32.
    low = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16, attn_implementation="eager",
                                               experts_implementation="eager")
    ref["logits_bf16"], low_experts = routed(low, ids)
    _, experts = routed(model, ids)
    if experts:
        ref["flipped"] = sum((a != b).any(-1).int() for a, b in zip(experts, low_experts)).clamp(max=1).int()
    else:
        g = torch.randn_like(hidden)
        (hidden * g).sum().backward()
        ref["g"] = g[0].contiguous()
        for key, p in model.named_parameters():
            if p.grad is not None:
                ref["grad." + key] = p.grad.contiguous()
    save_file(ref, os.path.join(out, "reference.safetensors"))
    if name in AFTER:
        edit_config(out, AFTER[name])
    if name == "qwen3-attn":  # transformers reads the file as released ones are written, and computes the same
        read = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager")
        assert read.config.rope_parameters["attn_factor"] and torch.equal(read(ids).logits[0], ref["logits"])
    if name == "kimi_k2":
        add_mtp(out, config)


def save(model, config, out):
    bf16 = AutoModelForCausalLM.from_config(config)
    bf16.load_state_dict(model.state_dict())
    bf16.to(torch.bfloat16)
    for (key, b), (_, src) in zip(bf16.named_buffers(), model.named_buffers()):
        if key.endswith("e_score_correction_bias"):
            b.data = src.clone()  # stays f32, as in the released files
    bf16.save_pretrained(out)
    if os.path.exists(os.path.join(out, "generation_config.json")):
        os.remove(os.path.join(out, "generation_config.json"))


# The rotary frequencies of released models, bit by bit: NAME f32 (d / 2), and by NAME.scale (1) the factor on cosine and sine.
def rope_frequencies():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS as kinds
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    llama31 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=8192)
    released = {
        "plain_1e4": (128, dict(rope_type="default", rope_theta=1e4)), "plain_1e6": (128, dict(rope_type="default", rope_theta=1e6)),
        "linear": (128, dict(rope_type="linear", rope_theta=1e4, factor=4.0)), "llama31": (128, llama31),
        "llama32": (64, llama31 | dict(factor=32.0)),
        "r1_0528_qwen3": (128, dict(rope_type="yarn", rope_theta=1e6, factor=4.0, attn_factor=0.8782488562869419,
                                    original_max_position_embeddings=32768)),
        "qwen_yarn": (128, dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768)),
        "deepseek": (64, dict(rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1,
                              mscale=1.0, mscale_all_dim=1.0)),
        "deepseek_v2_lite": (64, dict(rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=4096, beta_fast=32,
                                      beta_slow=1, mscale=0.707, mscale_all_dim=0.707)),
        "kimi_k2": (64, dict(rope_type="yarn", rope_theta=5e4, factor=32.0, original_max_position_embeddings=4096, beta_fast=1.0, beta_slow=1.0,
                             mscale=1.0, mscale_all_dim=1.0)),
    }
    out = {}
    for name, (d, parameters) in released.items():
        config = LlamaConfig(head_dim=d, rope_parameters=parameters, max_position_embeddings=163840)
        init = kinds.get(parameters["rope_type"], LlamaRotaryEmbedding.compute_default_rope_parameters)
        freq, scale = init(config)
        out[name], out[name + ".scale"] = freq.contiguous(), torch.tensor([scale], dtype=torch.float32)
    save_file(out, os.path.join(HERE, "rope.safetensors"))


if len(sys.argv) == 1 or "rope" in sys.argv[1:]:
    rope_frequencies()
for i, (name, config) in enumerate(CONFIGS.items()):
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        make(name, config, 100 + i)
        print(name)
