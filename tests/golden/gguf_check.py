#!/usr/bin/env python3
"""Reads what `distill export --gguf` wrote with the `gguf` package from PyPI (the reader of llama.cpp's own
converter) and compares every field and every tensor, to the bit, with the Hugging Face folder it came from.

    pip install gguf safetensors torch transformers
    python tests/golden/gguf_check.py MODEL_DIR FILE.gguf

Names come from the package's own tensor map, encodings from its own quantizers, layouts from what its
converter does. Run by hand; results in docs/gguf.md. Exit 1 if anything differs.
"""
import json
import os
import re
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

ARCH = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "qwen3_moe": "QWEN3MOE",
        "deepseek_v2": "DEEPSEEK2", "deepseek_v3": "DEEPSEEK2", "kimi_k2": "DEEPSEEK2"}
failures = []


def check(name, found, wanted):
    same = np.array_equal(found, wanted) if isinstance(wanted, np.ndarray) else found == wanted
    if not same:
        failures.append(name)
        print(f"{name}: found {str(found)[:100]}, wanted {str(wanted)[:100]}")


def weights(folder):
    single = os.path.join(folder, "model.safetensors")
    if os.path.exists(single):
        return load_file(single)
    with open(os.path.join(folder, "model.safetensors.index.json")) as f:
        shards = set(json.load(f)["weight_map"].values())
    return {k: v for s in shards for k, v in load_file(os.path.join(folder, s)).items()}


def permute(w, n_head):
    return w.reshape(n_head, 2, w.shape[0] // n_head // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def expected_tensors(c, w):
    """Pairs of the file's name and its values, as the converter lays them out."""
    arch = gguf.MODEL_ARCH[ARCH[c["model_type"]]]
    n_layer = c["num_hidden_layers"]
    names = gguf.get_tensor_name_map(arch, n_layer)

    def mapped(name):
        base, _, suffix = name.replace("e_score_correction_bias", "e_score_correction.bias").rpartition(".")
        return names.get_name(base) + "." + suffix

    experts = {}
    for name, t in w.items():
        t = t.float()
        parts = name.split(".")
        if name.startswith("model.layers.") and int(parts[2]) >= n_layer:
            continue
        if name == "lm_head.weight" and c.get("tie_word_embeddings"):
            continue
        if ".experts." in name:
            experts.setdefault((int(parts[2]), parts[6]), {})[int(parts[5])] = t
            continue
        if arch == gguf.MODEL_ARCH.LLAMA and ".q_proj." in name:
            t = permute(t, c["num_attention_heads"])
        if arch == gguf.MODEL_ARCH.LLAMA and ".k_proj." in name:
            t = permute(t, c.get("num_key_value_heads") or c["num_attention_heads"])
        if name.endswith("kv_b_proj.weight"):
            nope, v = c["qk_nope_head_dim"], c["v_head_dim"]
            k_b, v_b = torch.split(t.view(c["num_attention_heads"], nope + v, -1), [nope, v], dim=1)
            yield mapped(name.replace("kv_b_proj", "k_b_proj")), k_b.transpose(1, 2)
            yield mapped(name.replace("kv_b_proj", "v_b_proj")), v_b
            continue
        yield mapped(name), t
    for (layer, part), e in experts.items():
        yield mapped(f"model.layers.{layer}.mlp.experts.{part}.weight"), torch.stack([e[i] for i in range(len(e))])


def type_of(name, t, file_type):
    """The converter's rule."""
    T = gguf.GGMLQuantizationType
    if t.ndim <= 1 or name.endswith("_norm.weight") or "ffn_gate_inp" in name or not name.endswith(".weight"):
        return T.F32
    wanted = {0: T.F32, 1: T.F16, 7: T.Q8_0, 32: T.BF16}[file_type]
    return T.F16 if wanted == T.Q8_0 and t.shape[-1] % 32 else wanted


def check_tensors(reader, c, w, file_type):
    found = {t.name: t for t in reader.tensors}
    for name, t in expected_tensors(c, w):
        got = found.pop(name, None)
        if got is None:
            check(f"tensor {name}", "missing", "there")
            continue
        wanted = type_of(name, t, file_type)
        check(f"{name}: type", got.tensor_type.name, wanted.name)
        check(f"{name}: shape", list(reversed(got.shape.tolist())), list(t.shape))
        check(f"{name}: bytes", np.ascontiguousarray(got.data).view(np.uint8).ravel(),
              gguf.quants.quantize(np.ascontiguousarray(t.numpy()), wanted).view(np.uint8).ravel())
    freqs = found.pop("rope_freqs.weight", None)
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type")) == "llama3":
        theta = rope.get("rope_theta") or c["rope_theta"]
        dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        freq = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim))
        wavelen, orig = 2 * torch.pi / freq, rope["original_max_position_embeddings"]
        low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
        smooth = (orig / wavelen - low) / (high - low)
        want = torch.where(wavelen < orig / high, torch.ones_like(freq),
                           torch.where(wavelen > orig / low, torch.full_like(freq, factor), 1 / ((1 - smooth) / factor + smooth)))
        check("rope_freqs within 1e-6", bool(freqs is not None and np.allclose(freqs.data, want.numpy(), rtol=1e-6)), True)
    check("tensors without a source", sorted(found), [])


def check_fields(fields, c, folder):
    a = fields["general.architecture"]
    check("architecture", a, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[ARCH[c["model_type"]]]])
    rope = c.get("rope_parameters") or {}
    mla = "kv_lora_rank" in c
    f32 = lambda v: float(np.float32(v))
    want = {"block_count": c["num_hidden_layers"], "embedding_length": c["hidden_size"],
            "feed_forward_length": c["intermediate_size"], "attention.head_count": c["num_attention_heads"],
            "attention.head_count_kv": 1 if mla else c.get("num_key_value_heads") or c["num_attention_heads"],
            "attention.layer_norm_rms_epsilon": f32(c["rms_norm_eps"]), "context_length": c["max_position_embeddings"],
            "rope.freq_base": f32(rope.get("rope_theta") or c.get("rope_theta", 10000.0)), "vocab_size": c["vocab_size"]}
    if mla:
        want |= {"attention.kv_lora_rank": c["kv_lora_rank"], "attention.q_lora_rank": c["q_lora_rank"] or 0,
                 "attention.key_length": c["kv_lora_rank"] + c["qk_rope_head_dim"], "attention.value_length": c["kv_lora_rank"],
                 "attention.key_length_mla": c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
                 "attention.value_length_mla": c["v_head_dim"], "rope.dimension_count": c["qk_rope_head_dim"],
                 "expert_count": c["n_routed_experts"], "expert_used_count": c["num_experts_per_tok"],
                 "expert_shared_count": c["n_shared_experts"], "expert_feed_forward_length": c["moe_intermediate_size"],
                 "leading_dense_block_count": c["first_k_dense_replace"], "expert_weights_scale": f32(c["routed_scaling_factor"]),
                 "expert_weights_norm": c["norm_topk_prob"], "expert_gating_func": 1 if c["model_type"] == "deepseek_v2" else 2}
    for k, v in want.items():
        check(f"{a}.{k}", fields.get(f"{a}.{k}"), v)
    check_tokenizer(fields, c, folder)


def check_tokenizer(fields, c, folder):
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as f:
        tok = json.load(f)
    with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    text, kind = {i: t for t, i in tok["model"]["vocab"].items()}, {}
    for i, t in PreTrainedTokenizerFast.from_pretrained(folder).added_tokens_decoder.items():  # of all the files
        text[i] = t.content
        marked = t.special or (t.content[:2] in ("<|", "<｜") and t.content[-2:] in ("|>", "｜>"))
        kind[i] = 3 if marked else 4
    n, spm = c["vocab_size"], tok["model"].get("byte_fallback")
    if spm:
        kind |= {i: 6 for t, i in tok["model"]["vocab"].items() if re.fullmatch("<0x[0-9A-F]{2}>", t)}
        kind |= {i: 2 for i, t in text.items() if t == (tok["model"]["unk_token"] or config.get("unk_token"))}
    check("tokens", fields["tokenizer.ggml.tokens"], [text.get(i, f"[PAD{i}]") for i in range(n)])
    check("token types", fields["tokenizer.ggml.token_type"], [kind.get(i, 1 if i in text else 5) for i in range(n)])
    merges = [m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]]
    if spm:
        check_scores(fields, text, merges)
    else:
        check("merges", fields["tokenizer.ggml.merges"], merges)
    for key, role in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        v = config.get(f"{role}_token")
        v = v["content"] if isinstance(v, dict) else v
        ids = [i for i, t in text.items() if t == v]
        fallback = c.get(f"{role}_token_id") if role != "pad" else None
        check(f"{key} id", fields.get(f"tokenizer.ggml.{key}_token_id"), min(ids) if ids else fallback)
    check("chat template", fields.get("tokenizer.chat_template"), config.get("chat_template"))


def check_scores(fields, text, merges):
    """SentencePiece's kind: the merges are those that transformers makes of the scores, or are there too and differ only within a token."""
    check("pre", fields["tokenizer.ggml.pre"], "default")
    ids = {t: i for i, t in text.items()}
    made = [" ".join(m) for m in generate_merges(ids, {t: fields["tokenizer.ggml.scores"][i] for t, i in ids.items()})]
    if "tokenizer.ggml.merges" in fields:
        check("merges", fields["tokenizer.ggml.merges"], merges)
        of_token = lambda m: m.replace(" ", "")
        check("tokens in the order of their merges", [of_token(m) for m in made], [of_token(m) for m in merges])
        made, merges = sorted(made), sorted(merges)
    check("merges out of the scores", made, merges)


def main():
    folder, path = sys.argv[1:3]
    reader = gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items()}
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    check_fields(fields, c, folder)
    check_tensors(reader, c, weights(folder), fields["general.file_type"])
    print(f"{path}: {len(fields)} fields, {len(reader.tensors)} tensors, {len(failures)} differences")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
