#!/usr/bin/env python3
"""Random models of every family, never the same ones: transformers' f32 logits against `distill score --ids`. By hand, outside `make test`.

    python3 tests/golden/heldout.py build/distill [N] [SEED] [FAMILY …]      (torch, transformers >= 5.23, safetensors)

Prints the largest difference as a share of the largest logit, a line a model; a folder whose error reaches 1e-4 is kept and named.
"""
import json
import random
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import (AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config,
                          Qwen3MoeConfig)

program, count, seed = sys.argv[1], int((sys.argv[2:] or [40])[0]), int((sys.argv[3:] or [1])[0])
rng = random.Random(seed)
pick = lambda *choices: rng.choice(choices)
transformers.logging.set_verbosity_error()


def plain():
    return dict(rope_type="default", rope_theta=pick(1e4, 5e5, 1e6))


def llama3():
    return dict(rope_type="llama3", rope_theta=pick(1e4, 5e5), factor=pick(8.0, 32.0), low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=pick(16, 32, 64))


def yarn(**more):
    return dict(rope_type="yarn", rope_theta=pick(1e4, 5e4), factor=pick(2.0, 4.0, 40.0), beta_fast=32, beta_slow=1,
                original_max_position_embeddings=pick(16, 32, 64), **more)


def linear():
    return dict(rope_type="linear", rope_theta=pick(1e4, 5e5), factor=pick(2.0, 3.0, 8.0))


def attn_factor():
    return yarn(attn_factor=pick(0.5, 0.8782488562869419, 1.0))


def mla_yarn():
    return yarn(mscale=pick(0.7, 0.707, 1.0), mscale_all_dim=pick(0.7, 0.707, 1.0))


def gqa(rope=plain, **more):
    kv = pick(1, 1, 2, 3)
    heads = kv * pick(1, 2, 3, 5)
    return dict(vocab_size=pick(61, 97, 128, 151), hidden_size=heads * pick(4, 6, 8, 10), intermediate_size=pick(20, 37, 52, 64),
                num_hidden_layers=pick(1, 2, 3), num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=pick(64, 256, 512),
                rms_norm_eps=pick(1e-5, 1e-6, 3e-4), tie_word_embeddings=pick(True, False), rope_parameters=rope(), **more)


def head():
    return pick({}, {"head_dim": pick(4, 6, 10, 16, 18)})


def mla(**more):
    n_group = pick(1, 2, 4)
    each, topk_group = pick(2, 3, 4), rng.randint(1, n_group)
    heads = pick(1, 2, 3, 5)
    return dict(vocab_size=pick(61, 97), hidden_size=heads * pick(8, 12), intermediate_size=pick(48, 56), moe_intermediate_size=pick(16, 20),
                num_hidden_layers=pick(2, 3, 4), num_attention_heads=heads, num_key_value_heads=heads, n_shared_experts=pick(1, 2),
                n_routed_experts=n_group * each, n_group=n_group, topk_group=topk_group,
                num_experts_per_tok=rng.randint(1, min(4, topk_group * each)), first_k_dense_replace=pick(0, 1, 2),
                q_lora_rank=pick(None, 12, 20), kv_lora_rank=pick(16, 24), qk_nope_head_dim=pick(8, 14), qk_rope_head_dim=pick(4, 6, 8),
                v_head_dim=pick(8, 10, 12), max_position_embeddings=256, routed_scaling_factor=pick(1.0, 1.7, 2.5, 16.0),
                rms_norm_eps=pick(1e-6, 1e-5), tie_word_embeddings=pick(False, False, True), rope_parameters=pick(plain, mla_yarn)(), **more)


FAMILIES = {
    "llama": lambda: LlamaConfig(**gqa(pick(plain, llama3, linear, yarn), **head(), attention_bias=pick(True, False), mlp_bias=pick(True, False))),
    "mistral": lambda: MistralConfig(**gqa(**head(), sliding_window=pick(None, 5, 13, 64))),
    "qwen2": lambda: Qwen2Config(**gqa(use_sliding_window=pick(True, False), sliding_window=pick(5, 9, 20), max_window_layers=pick(0, 1, 2))),
    "qwen3": lambda: Qwen3Config(**gqa(pick(plain, linear, yarn, attn_factor), head_dim=pick(4, 8, 10, 18), attention_bias=pick(True, False))),
    "qwen3_moe": lambda: Qwen3MoeConfig(**gqa(head_dim=pick(4, 8, 10), num_experts=pick(4, 6, 7), num_experts_per_tok=pick(1, 2, 3),
                                              moe_intermediate_size=pick(12, 20), norm_topk_prob=pick(True, False),
                                              decoder_sparse_step=pick(1, 1, 2), mlp_only_layers=pick([], [0], [1]))),
    "deepseek_v2": lambda: DeepseekV2Config(**mla(topk_method=pick("greedy", "group_limited_greedy"), norm_topk_prob=False)),
    "deepseek_v3": lambda: DeepseekV3Config(**mla(norm_topk_prob=pick(True, False))),
}


def build(config):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in name else (0.5 if p.dim() == 1 else 0.2) * torch.randn_like(p))
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.copy_(0.2 * torch.randn_like(b))
    return model


def error(model, folder):
    rows = [torch.randint(0, model.config.vocab_size, (n,)) for n in (pick(1, 2, 7), pick(33, 60))]
    with open(folder + "/ids.jsonl", "w") as f:
        f.writelines(json.dumps(r.tolist()) + "\n" for r in rows)
    subprocess.run([program, "score", "--model", folder, "--ids", folder + "/ids.jsonl", "--logits", folder + "/logits", "--dtype", "f32",
                    "--device", "cpu", "--quiet"], check=True)
    ours = load_file(folder + "/logits")
    with torch.no_grad():
        theirs = [model(r[None]).logits[0] for r in rows]
    return max(((ours[f"logits.{i}"] - t).abs().max() / t.abs().max()).item() for i, t in enumerate(theirs))


bad = 0
for i in range(count):
    torch.manual_seed(seed * 1000 + i)
    family = rng.choice(sys.argv[4:] or list(FAMILIES))
    model, folder = build(FAMILIES[family]()), tempfile.mkdtemp(prefix=f"heldout-{family}-")
    model.save_pretrained(folder, max_shard_size=pick("5GB", "20KB"))
    e = error(model, folder)
    print(f"{i} {family} {e:.1e}", "" if e < 1e-4 else "WRONG " + folder, flush=True)
    bad += e >= 1e-4
    if e < 1e-4:
        shutil.rmtree(folder)
print(f"{count - bad} of {count} within 1e-4")
sys.exit(bad > 0)
