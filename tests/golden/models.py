#!/usr/bin/env python3
"""Makes tests/golden/models/*: tiny random checkpoints of every family with what PyTorch and transformers compute on them, in f32.

    python3 tests/golden/models.py            (torch, transformers >= 5.23, safetensors)

NAME/config.json, NAME/model.safetensors   as save_pretrained writes them (bf16-representable values, kept in BF16)
NAME/reference.safetensors                 ids i32 (n); logits f32 (n, v); hidden f32 (n, d): final norm's output;
                                           g f32 (n, d): loss = sum(hidden * g); grad.PARAM f32: its gradients (dense families only)
"""
import json, os, shutil, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, Qwen2Config, Qwen3Config

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


def make(name, config, seed):
    torch.manual_seed(seed)
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else (0.5 if p.dim() == 1 else 0.2) * torch.randn_like(p))
            p.copy_(p.bfloat16().float())
        for key, b in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                b.copy_(0.2 * torch.randn_like(b))
    bf16 = AutoModelForCausalLM.from_config(config)
    bf16.load_state_dict(model.state_dict())
    bf16.to(torch.bfloat16)
    for (key, b), (_, src) in zip(bf16.named_buffers(), model.named_buffers()):
        if key.endswith("e_score_correction_bias"):
            b.data = src.clone()  # stays f32, as in the released files
    bf16.save_pretrained(out)
    if os.path.exists(os.path.join(out, "generation_config.json")):
        os.remove(os.path.join(out, "generation_config.json"))
    ids = torch.randint(0, config.vocab_size, (1, 45))
    hidden = model.model(ids).last_hidden_state
    ref = {"ids": ids[0].int(), "logits": model.lm_head(hidden)[0].detach().contiguous(), "hidden": hidden[0].detach().contiguous()}
    if "deepseek" not in name:
        g = torch.randn_like(hidden)
        (hidden * g).sum().backward()
        ref["g"] = g[0].contiguous()
        for key, p in model.named_parameters():
            if p.grad is not None:
                ref["grad." + key] = p.grad.contiguous()
    save_file(ref, os.path.join(out, "reference.safetensors"))


for i, (name, config) in enumerate(CONFIGS.items()):
    make(name, config, 100 + i)
    print(name)
