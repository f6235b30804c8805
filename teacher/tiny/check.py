#!/usr/bin/env python3
"""Holds an exported model against transformers, and measures it.

    python check.py moe|base [--n 200]

1. The logits of train.py's model (weights as in the file) and of transformers'
   model agree in float32. 2. transformers' own greedy generation on the first n
   test problems reaches the same accuracy. 3. pass@1 over the whole test set,
   greedy and sampled. 4. The router's load over the test set.
"""
import argparse
import json
import os

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import train


def ours(kind, where, tensors):
    m = train.Model(train.MOE if kind == "moe" else train.BASE)
    names = m.tensors()
    assert set(names) == set(tensors), set(names) ^ set(tensors)
    with torch.no_grad():
        for n, p in names.items():  # views of the parameters
            p.copy_(tensors[n].float())
    return m


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("kind", choices=("moe", "base"))
    ap.add_argument("--n", type=int, default=200, help="problems for transformers' generate")
    ap.add_argument("--full", type=int, default=1000, help="problems for pass@1")
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    where = os.path.join(train.HERE, a.kind)
    tensors = load_file(os.path.join(where, "model.safetensors"))
    m = ours(a.kind, where, tensors)
    tok = Tokenizer.from_file(os.path.join(where, "tokenizer.json"))
    at = AutoTokenizer.from_pretrained(where)
    hf = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    rows = [json.loads(l) for l in open(os.path.join(train.HERE, "test.jsonl"))]
    questions = [r["messages"][0]["content"] for r in rows]

    # the template and the tokenizer
    for q in questions[:50]:
        s = at.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
        assert s == train.prompt(q), s
        assert at(s)["input_ids"] == tok.encode(s).ids
    s = at.apply_chat_template([{"role": "user", "content": "1?"}, {"role": "assistant", "reasoning_content": "r", "content": "c"}],
                               tokenize=False)
    assert s == "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n<think>\nr\n</think>\n\nc<|im_end|>\n", s
    assert at.eos_token == "<|im_end|>" and at.pad_token == "<|endoftext|>"

    # the logits, over whole conversations
    worst = 0.0
    with torch.no_grad():
        for q, t in zip(questions[:32], train.generate(m, tok, questions[:32])):
            ids = torch.tensor([tok.encode(train.prompt(q) + t).ids])
            x, y = m(ids), hf(ids).logits
            worst = max(worst, float((x - y).abs().max() / y.abs().max()))
    print(f"{a.kind}: {sum(t.numel() for t in tensors.values())} parameters; logits differ by {worst:.2e} (relative, float32)")
    assert worst <= 1e-4

    # transformers' own generation
    good = same = 0
    at.padding_side = "left"
    for i in range(0, a.n, 50):
        b = at([train.prompt(q) for q in questions[i:i + 50]], return_tensors="pt", padding=True)
        with torch.no_grad():
            g = hf.generate(input_ids=b["input_ids"], attention_mask=b["attention_mask"], do_sample=False, temperature=None, max_new_tokens=80)
        mine = train.generate(m, tok, questions[i:i + 50])
        for r, o, t in zip(rows[i:i + 50], g[:, b["input_ids"].shape[1]:], mine):
            u = at.decode(o, skip_special_tokens=False).split("<|im_end|>")[0]
            good += train.verdict(u, r["answer"])
            same += u == t
    print(f"transformers, greedy: {good}/{a.n} right; the same text as ours in {same}/{a.n}")

    loads = {i: torch.zeros(l.mlp.E) for i, l in enumerate(m.layers) if isinstance(l.mlp, train.MoE)}

    def count(i):
        def hook(mod, x, y):
            loads[i].add_(mod.load)
        return hook

    for i in loads:
        m.layers[i].mlp.register_forward_hook(count(i))
    for temperature in (0.0, 1.0):
        print(f"test.jsonl, temperature {temperature}: pass@1 {train.evaluate(m, tok, a.full, temperature):.3f} (n={a.full})", flush=True)
    for i, l in loads.items():
        print(f"layer {i}: share of each expert:", " ".join(f"{v:.3f}" for v in (l / l.sum()).tolist()),
              "bias:", " ".join(f"{v:+.3f}" for v in m.layers[i].mlp.bias.tolist()))
        assert float(l.min()) > 0 and float(m.layers[i].mlp.bias.abs().max()) > 0


if __name__ == "__main__":
    main()
