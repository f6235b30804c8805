#!/usr/bin/env python3
"""Makes tests/golden/fp8: a tiny random DeepSeek-V3 re-encoded to FP8, in two shards, and its logits by DeepSeek's recipe.

    python3 tests/golden/fp8.py            (torch, transformers >= 5.23, safetensors)

The recipe is written down again here from deepseek-ai/DeepSeek-V3 inference/kernel.py (act_quant, weight_dequant, fp8_gemm) and model.py,
with torch.float8_e4m3fn doing the rounding; transformers' own model runs with its linear maps replaced by it.

config.json                   quantization_config; scale_fmt is absent (tests add "ue8m0" themselves)
model-0000?-of-00002.safetensors, model.safetensors.index.json
                              sizes that are no multiples of 128; scales F32, but some BF16 and some F8_E8M0; many in the other shard
reference.safetensors         ids i32 (n); logits f32 (n, v): dequantised weights, plain activations;
                              logits.act, logits.act_ue8m0: activations quantised too, scales f32 or powers of two;
                              e4m3 f32 (256): the values of all codes; rounding.x f32 (n), rounding.code u8 (n): what PyTorch rounds x to
"""
import json, os, shutil, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fp8")
BLOCK = 128
E4M3, E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu


def blocks(n):
    return (n + BLOCK - 1) // BLOCK


def spread(scale, n, k):
    """A scale a block, as one a value."""
    return scale.float().repeat_interleave(BLOCK, 0)[:n].repeat_interleave(BLOCK, 1)[:, :k]


def weight_quant(w, kind):
    n, k = w.shape
    padded = torch.zeros(blocks(n) * BLOCK, blocks(k) * BLOCK)
    padded[:n, :k] = w
    amax = padded.reshape(blocks(n), BLOCK, blocks(k), BLOCK).abs().amax((1, 3))
    scale = amax / 448
    if kind == "bf16":
        scale = (scale * 1.01).bfloat16()
    if kind == "e8m0":
        scale = torch.exp2(torch.ceil(torch.log2(scale))).to(E8M0)
    code = (w / spread(scale, n, k)).clamp(-448, 448).to(E4M3)
    return code, scale


def act_quant(x, ue8m0):
    """x (n, k) -> values (n, blocks, 128) padded with zeros, scales (n, blocks)"""
    n, k = x.shape
    padded = torch.zeros(n, blocks(k) * BLOCK)
    padded[:, :k] = x
    padded = padded.reshape(n, blocks(k), BLOCK)
    scale = padded.abs().amax(2).clamp(min=1e-4) / 448
    if ue8m0:
        scale = torch.exp2(torch.ceil(torch.log2(scale.double()))).float()
    return (padded / scale[:, :, None]).to(E4M3).float(), scale


def fp8_gemm(x, code, scale, ue8m0):
    a, a_s = act_quant(x, ue8m0)
    n, k = code.shape
    b = torch.zeros(n, blocks(k) * BLOCK)
    b[:, :k] = code.float()
    b, b_s = b.reshape(n, blocks(k), BLOCK), scale.float().repeat_interleave(BLOCK, 0)[:n]
    acc = torch.zeros(len(x), n)
    for i in range(blocks(k)):
        acc += (a[:, i] @ b[:, i].T) * a_s[:, i, None] * b_s[None, :, i]
    return acc


config = DeepseekV3Config(vocab_size=61, hidden_size=136, intermediate_size=144, moe_intermediate_size=132, num_hidden_layers=2,
                          num_attention_heads=2, num_key_value_heads=2, n_shared_experts=1, n_routed_experts=3, n_group=1, topk_group=1,
                          num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=132, kv_lora_rank=130, qk_nope_head_dim=40,
                          qk_rope_head_dim=8, v_head_dim=66, max_position_embeddings=256)
torch.manual_seed(7)
model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
with torch.no_grad():
    for key, p in model.named_parameters():
        p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else 0.1 * torch.randn_like(p))
        p.copy_(p.bfloat16().float())

shutil.rmtree(OUT, ignore_errors=True)
model.save_pretrained(OUT)
from safetensors.torch import load_file
plain = load_file(os.path.join(OUT, "model.safetensors"))
for name in os.listdir(OUT):
    if name != "config.json":
        os.remove(os.path.join(OUT, name))

fp8, shards, n_fp8 = {}, [{}, {}], 0
for name in sorted(plain):
    w, shard = plain[name], len(shards[0]) > len(shards[1])
    quantised = name.endswith("_proj.weight") or name.endswith("kv_a_proj_with_mqa.weight")
    if not quantised:
        keep = name.endswith("e_score_correction_bias")
        shards[shard][name] = w.contiguous() if keep else w.bfloat16().contiguous()
        continue
    kind = ["f32", "f32", "bf16", "f32", "e8m0"][n_fp8 % 5]
    code, scale = weight_quant(w, kind)
    fp8[name] = code, scale
    shards[shard][name] = code.contiguous()
    shards[shard if n_fp8 % 3 == 0 else 1 - shard][name + "_scale_inv"] = scale.contiguous()
    plain[name] = code.float() * spread(scale, *code.shape)
    n_fp8 += 1

names, weight_map, total = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], {}, 0
for file, tensors in zip(names, shards):
    save_file(tensors, os.path.join(OUT, file), metadata={"format": "pt"})
    for name, t in tensors.items():
        weight_map[name] = file
        total += t.numel() * t.element_size()
json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
          open(os.path.join(OUT, "model.safetensors.index.json"), "w"), indent=1)
c = json.load(open(os.path.join(OUT, "config.json")))
c["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
json.dump(c, open(os.path.join(OUT, "config.json"), "w"), indent=2)

model.eval()


class Recipe(torch.nn.Module):
    """kv_b_proj: DeepSeek's attention is the absorbed one by default, where this weight is dequantised and no activation quantised."""
    def __init__(self, name, ue8m0):
        super().__init__()
        self.code, self.scale = fp8[name]
        self.plain, self.ue8m0, self.absorbed, self.weight = plain[name], ue8m0, "kv_b_proj" in name, plain[name]

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ self.plain.T if self.absorbed or self.ue8m0 is None else fp8_gemm(rows, self.code, self.scale, self.ue8m0)
        return y.reshape(*x.shape[:-1], -1)


class Experts(torch.nn.Module):
    """transformers 5 fuses experts; here each is three linear maps again."""
    def __init__(self, prefix, n, ue8m0):
        super().__init__()
        self.e = [[Recipe(f"{prefix}{i}.{k}_proj.weight", ue8m0) for k in ("gate", "up", "down")] for i in range(n)]

    def forward(self, hidden, top_k_index, top_k_weights):
        out = torch.zeros_like(hidden)
        for t in range(len(hidden)):
            for i, w in zip(top_k_index[t], top_k_weights[t]):
                gate, up, down = self.e[int(i)]
                x = hidden[t:t + 1]
                out[t] += w * down(torch.nn.functional.silu(gate(x)) * up(x))[0]
        return out


def run(ids, ue8m0):
    for name, module in list(model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if name + ".weight" in fp8 or (isinstance(module, Recipe)):
            setattr(model.get_submodule(parent), leaf, Recipe(name + ".weight", ue8m0))
        elif name.endswith("mlp.experts"):
            setattr(model.get_submodule(parent), leaf, Experts(name + ".", config.n_routed_experts, ue8m0))
    with torch.no_grad():
        return model(ids).logits[0].contiguous()


ids = torch.randint(0, config.vocab_size, (1, 29))
ref = {"ids": ids[0].int(), "logits": run(ids, None), "logits.act": run(ids, False), "logits.act_ue8m0": run(ids, True)}
for key in ("logits.act", "logits.act_ue8m0"):
    print(key, "differs from dequantised by", ((ref[key] - ref["logits"]).abs().max() / ref["logits"].abs().max()).item())
ref["e4m3"] = torch.arange(256, dtype=torch.uint8).view(E4M3).float()
x = torch.cat([torch.randn(1500) * 10.0 ** torch.randint(-5, 3, (1500,)), (ref["e4m3"][:126] + ref["e4m3"][1:127]) / 2])
ref["rounding.x"] = x[x.abs() < 464].contiguous()
ref["rounding.code"] = ref["rounding.x"].to(E4M3).view(torch.uint8)
save_file(ref, os.path.join(OUT, "reference.safetensors"))
