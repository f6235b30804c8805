#!/usr/bin/env python3
"""Makes tests/golden/train/: trajectories of small random students trained by PyTorch and transformers in f32.

For each architecture a directory with config.json and model.safetensors (the initial weights); data.json (rows of token ids: prompt and
generated part; loss falls on the generated part), teacher.safetensors (a made-up teacher's logits for each generated token, row after
row) and runs.json: settings, and per step loss, ce, kd, gradient norm before clipping, learning rate; at the end of each parameter its
sum, its 2-norm and its first values.

    python tests/golden/train_golden.py            needs torch, transformers, safetensors; not run by any test
"""
import json
import math
import os

import torch
from safetensors.torch import save_file
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
                          get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup)

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
V, N_STEP, N_ROW, BATCH_TOKENS = 96, 10, 11, 56
SHAPE = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, rms_norm_eps=1e-6, bos_token_id=None, eos_token_id=1, pad_token_id=None, use_cache=False)
ARCHS = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=False)),
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False, rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
}
BASE = dict(k=0, beta=0.0, temperature=1.0, t2=False, ce_weight=0.0, kd_weight=1.0, lr=3e-3, weight_decay=0.1, clip=1.0, schedule="constant",
            warmup=0, batch_tokens=BATCH_TOKENS)
CE = dict(BASE, loss="ce", ce_weight=1.0, kd_weight=0.0)
RUNS = [
    dict(CE, name="ce qwen3", arch="qwen3", schedule="cosine", warmup=3),
    dict(CE, name="ce qwen2", arch="qwen2", schedule="linear", warmup=2, clip=0.5),
    dict(CE, name="ce llama", arch="llama", clip=0.0),
    dict(BASE, name="fkl topk T1", arch="qwen3", loss="fkl", k=8),
    dict(BASE, name="rkl topk T1", arch="qwen2", loss="rkl", k=8),
    dict(BASE, name="jsd topk T1", arch="llama", loss="jsd", beta=0.5, k=8),
    dict(BASE, name="fkl topk T2 t2", arch="qwen3", loss="fkl", k=8, temperature=2.0, t2=True),
    dict(BASE, name="rkl topk T2", arch="qwen3", loss="rkl", k=8, temperature=2.0),
    dict(BASE, name="jsd topk T2", arch="qwen3", loss="jsd", beta=0.3, k=8, temperature=2.0),
    dict(BASE, name="fkl full T1 mixed", arch="qwen3", loss="fkl", k=V, ce_weight=0.5, kd_weight=0.7),
    dict(BASE, name="rkl full T2", arch="qwen3", loss="rkl", k=V, temperature=2.0),
    dict(BASE, name="jsd full T1", arch="qwen3", loss="jsd", beta=0.5, k=V),
]


def make_model(name):
    cls, config = ARCHS[name]
    torch.manual_seed(11)
    model = cls(config).float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in key else 0.15 * torch.randn_like(p))
    return model


def categories(logp, ids, full):
    """Log-probabilities of the kept ids and, unless they are all, of the tail."""
    kept = logp.gather(-1, ids)
    if full:
        return kept
    tail = torch.log(-torch.expm1(torch.logsumexp(kept, -1, keepdim=True).clamp(max=-1e-7)))
    return torch.cat([kept, tail], -1)


def divergence(kind, beta, lp, lq):
    p, q = lp.exp(), lq.exp()
    if kind == "fkl":
        return (p * (lp - lq)).sum(-1)
    if kind == "rkl":
        return (q * (lq - lp)).sum(-1)
    lm = torch.logaddexp(math.log(beta) + lp, math.log1p(-beta) + lq)
    return (beta * p * (lp - lm) + (1 - beta) * q * (lq - lm)).sum(-1)


def steps_of(rows, batch_tokens):
    """Whole rows in order, as many as fit; epochs begin anew."""
    while True:
        step, n = [], 0
        for i, (prompt, ids) in enumerate(rows):
            length = len(prompt) + len(ids)
            if step and n + length > batch_tokens:
                yield step
                step, n = [], 0
            step.append(i)
            n += length
        yield step


def train(run, rows, teacher):
    model = make_model(run["arch"])
    decay = [p for p in model.parameters() if p.dim() == 2]
    other = [p for p in model.parameters() if p.dim() != 2]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=run["weight_decay"]), dict(params=other, weight_decay=0.0)], lr=run["lr"], eps=1e-8)
    make = {"constant": lambda: get_constant_schedule_with_warmup(opt, run["warmup"]),
            "linear": lambda: get_linear_schedule_with_warmup(opt, run["warmup"], N_STEP),
            "cosine": lambda: get_cosine_schedule_with_warmup(opt, run["warmup"], N_STEP)}[run["schedule"]]
    scheduler = make()
    T, full = run["temperature"], run["k"] == V
    out = dict(run, loss_kind=run["loss"], steps=[])
    del out["loss"]
    for s, step in zip(range(N_STEP), steps_of(rows, run["batch_tokens"])):
        # Our warm-up counts from 1: step s of the first `warmup` has lr * s / warmup.
        for g, base in zip(opt.param_groups, scheduler.base_lrs):
            g["lr"] = base * (s + 1) / run["warmup"] if s < run["warmup"] else scheduler.get_last_lr()[0]
        ce_sum, kd_sum, n = 0.0, 0.0, 0
        for i in step:
            prompt, ids = rows[i]
            tokens = torch.tensor([prompt + ids])
            logits = model(tokens).logits[0, len(prompt) - 1:-1].float()
            label = torch.tensor(ids)
            ce_sum = ce_sum + torch.nn.functional.cross_entropy(logits, label, reduction="sum")
            n += len(ids)
            if run["kd_weight"] > 0:
                t = teacher[i]
                kept = torch.topk(t, run["k"], -1).indices
                lp = categories(torch.log_softmax(t / T, -1), kept, full)
                lq = categories(torch.log_softmax(logits / T, -1), kept, full)
                kd_sum = kd_sum + divergence(run["loss"], run["beta"], lp, lq).sum()
        ce, kd = ce_sum / n, kd_sum / n
        loss = run["ce_weight"] * ce + run["kd_weight"] * kd * (T * T if run["t2"] else 1)
        opt.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), run["clip"] if run["clip"] > 0 else 1e30)
        lr = opt.param_groups[0]["lr"]
        opt.step()
        scheduler.step()
        out["steps"].append(dict(loss=float(loss.detach()), ce=float(ce.detach()), kd=float(kd.detach()) if run["kd_weight"] > 0 else 0.0,
                                 grad_norm=float(norm), lr=lr, n_loss=n))
    out["final"] = {k: dict(sum=float(p.detach().double().sum()), norm=float(p.detach().double().norm()), first=p.detach().flatten()[:6].tolist())
                    for k, p in model.named_parameters()}
    return out


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(3)
    rows = []
    for _ in range(N_ROW):
        n_prompt, n_gen = int(torch.randint(1, 7, (1,), generator=g)), int(torch.randint(2, 14, (1,), generator=g))
        rows.append(([int(x) for x in torch.randint(0, V, (n_prompt,), generator=g)], [int(x) for x in torch.randint(0, V, (n_gen,), generator=g)]))
    teacher = [2.5 * torch.randn(len(ids), V, generator=g) for _, ids in rows]
    os.makedirs(HERE, exist_ok=True)
    for name in ARCHS:
        model = make_model(name)
        path = os.path.join(HERE, name)
        os.makedirs(path, exist_ok=True)
        model.config.architectures = [type(model).__name__]
        config = model.config.to_dict()
        config["torch_dtype"] = "float32"
        for key in ("dtype", "transformers_version", "_name_or_path"):
            config.pop(key, None)
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")
        save_file({k: p.detach().clone() for k, p in model.named_parameters()}, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(HERE, "data.json"), "w") as f:
        json.dump(dict(n_vocab=V, rows=[dict(prompt=p, ids=i) for p, i in rows]), f)
        f.write("\n")
    save_file({"logits": torch.cat(teacher)}, os.path.join(HERE, "teacher.safetensors"))
    with open(os.path.join(HERE, "runs.json"), "w") as f:
        json.dump([train(run, rows, teacher) for run in RUNS], f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
