#!/usr/bin/env python3
"""Trains the tiny teacher (moe/) and the tiny base student (base/) in plain PyTorch.

    python train.py moe  --steps N     the teacher: DeepseekV3ForCausalLM
    python train.py base --steps N     the base:    Qwen3ForCausalLM

Both models are written out here, with the mathematics (and the parameter
layout, up to stacking the experts) of transformers' modelling code; check.py
holds the exported files against transformers. Problems are made as needed
and, but for chance, never twice. Stop and go on with --resume; the learning
rate is constant and falls over the last --decay part of the steps.
"""
import argparse
import json
import os
import random
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

import problems

HERE = os.path.dirname(os.path.abspath(__file__))

MOE = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 512,
    "hidden_size": 160,
    "intermediate_size": 512,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 12,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_interleave": True,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "pretraining_tp": 1,
    "use_cache": True,
    "torch_dtype": "bfloat16",
}
BASE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 4,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "torch_dtype": "bfloat16",
}


class RMS(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), 1e-6)


def mat(out, inp, *lead):
    return nn.Parameter(torch.randn(*lead, out, inp) * inp ** -0.5)


def rope_tables(dim, theta, n):
    a = torch.outer(torch.arange(n).float(), 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim))
    return a.cos(), a.sin()


def attend(q, k, v, pos, cache):
    """q k v: [B, T, H, d]. With a cache, k and v are put into it at `pos` first."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    if cache is None:
        s = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        t = s.shape[-1]
        s = s + torch.full((t, t), float("-inf"), dtype=s.dtype).triu(1)
    else:
        ix = pos[:, None, :, None]
        cache[0].scatter_(2, ix.expand_as(k), k.to(cache[0].dtype))
        cache[1].scatter_(2, ix.expand_as(v), v.to(cache[1].dtype))
        k, v = cache[0].to(q.dtype), cache[1].to(q.dtype)
        s = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        seen = torch.arange(k.shape[2]) <= pos[:, None, :, None]
        s = s.masked_fill(~seen, float("-inf"))
    return (s.softmax(-1) @ v).transpose(1, 2).flatten(2)


class MLA(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.H, self.nope, self.rope, self.vd = (c["num_attention_heads"], c["qk_nope_head_dim"],
                                                 c["qk_rope_head_dim"], c["v_head_dim"])
        d, self.kvr = c["hidden_size"], c["kv_lora_rank"]
        self.q_a_proj = mat(c["q_lora_rank"], d)
        self.q_a_layernorm = RMS(c["q_lora_rank"])
        self.q_b_proj = mat(self.H * (self.nope + self.rope), c["q_lora_rank"])
        self.kv_a_proj_with_mqa = mat(self.kvr + self.rope, d)
        self.kv_a_layernorm = RMS(self.kvr)
        self.kv_b_proj = mat(self.H * (self.nope + self.vd), self.kvr)
        self.o_proj = mat(d, self.H * self.vd)
        self.cos, self.sin = rope_tables(self.rope, c["rope_theta"], c["max_position_embeddings"])

    def turn(self, x, cos, sin):  # pairs (2i, 2i+1)
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    def forward(self, x, pos, cache):
        cos, sin = self.cos[pos][:, :, None].to(x.dtype), self.sin[pos][:, :, None].to(x.dtype)
        q = F.linear(self.q_a_layernorm(F.linear(x, self.q_a_proj)), self.q_b_proj).unflatten(-1, (self.H, -1))
        qn, qr = q.split((self.nope, self.rope), -1)
        c, kr = F.linear(x, self.kv_a_proj_with_mqa).split((self.kvr, self.rope), -1)
        kv = F.linear(self.kv_a_layernorm(c), self.kv_b_proj).unflatten(-1, (self.H, -1))
        kn, v = kv.split((self.nope, self.vd), -1)
        kr = self.turn(kr[:, :, None], cos, sin).expand(-1, -1, self.H, -1)
        q = torch.cat((qn, self.turn(qr, cos, sin).to(qn.dtype)), -1)
        k = torch.cat((kn, kr.to(kn.dtype)), -1)
        return F.linear(attend(q, k, v, pos, cache), self.o_proj)


class GQA(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.H, self.K, self.hd = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        d = c["hidden_size"]
        self.q_proj, self.k_proj = mat(self.H * self.hd, d), mat(self.K * self.hd, d)
        self.v_proj, self.o_proj = mat(self.K * self.hd, d), mat(d, self.H * self.hd)
        self.q_norm, self.k_norm = RMS(self.hd), RMS(self.hd)
        self.cos, self.sin = rope_tables(self.hd, c["rope_theta"], c["max_position_embeddings"])

    def turn(self, x, cos, sin):  # pairs (i, i + hd/2)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def forward(self, x, pos, cache):
        cos, sin = self.cos[pos][:, :, None].to(x.dtype), self.sin[pos][:, :, None].to(x.dtype)
        q = self.turn(self.q_norm(F.linear(x, self.q_proj).unflatten(-1, (self.H, -1))), cos, sin)
        k = self.turn(self.k_norm(F.linear(x, self.k_proj).unflatten(-1, (self.K, -1))), cos, sin)
        v = F.linear(x, self.v_proj).unflatten(-1, (self.K, -1))
        r = self.H // self.K
        k, v = k.repeat_interleave(r, 2).to(v.dtype), v.repeat_interleave(r, 2)
        return F.linear(attend(q.to(v.dtype), k, v, pos, cache), self.o_proj)


class MLP(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mat(ff, d), mat(ff, d), mat(d, ff)

    def forward(self, x):
        return F.linear(F.silu(F.linear(x, self.gate_proj)) * F.linear(x, self.up_proj), self.down_proj)


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f, self.E = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
        self.G, self.keep, self.K = c["n_group"], c["topk_group"], c["num_experts_per_tok"]
        self.scale = c["routed_scaling_factor"]
        self.gate = mat(self.E, d)
        self.register_buffer("bias", torch.zeros(self.E))
        self.w_gate, self.w_up, self.w_down = mat(f, d, self.E), mat(f, d, self.E), mat(d, f, self.E)
        self.shared_experts = MLP(d, f * c["n_shared_experts"])
        self.load = None

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, -2)
        with torch.autocast("cpu", enabled=False):
            s = torch.sigmoid(F.linear(x.float(), self.gate))
        with torch.no_grad():
            c = s + self.bias
            g = c.unflatten(1, (self.G, -1)).topk(2, -1)[0].sum(-1)
            ok = torch.zeros_like(g).scatter_(1, g.topk(self.keep, -1)[1], 1.0) > 0
            c = c.masked_fill(~ok.repeat_interleave(self.E // self.G, 1), float("-inf"))
            e = c.topk(self.K, -1)[1]
            flat = e.flatten()
            order = flat.argsort()
            n = torch.bincount(flat, minlength=self.E)
            self.load = n
            # Each expert's rows are padded (with row 0 at weight 0) to a multiple
            # of 64: few different shapes, which the bf16 kernels are made for.
            room = (n + 63) // 64 * 64
            slot = torch.arange(len(flat)) + ((room - n).cumsum(0) - (room - n))[flat[order]]
            total, room = int(room.sum()), room.tolist()
            tok = torch.zeros(total, dtype=torch.long).index_copy_(0, slot, order // self.K)
        w = s.gather(1, e)
        w = (w / (w.sum(-1, keepdim=True) + 1e-20) * self.scale).flatten()[order]
        w = torch.zeros(total).index_copy(0, slot, w)
        parts = x.index_select(0, tok).split(room)
        w_gu = torch.cat((self.w_gate, self.w_up), 1).to(x.dtype).unbind(0)
        out = []
        for p, wgu, wd in zip(parts, w_gu, self.w_down.to(x.dtype).unbind(0)):
            g, u = F.linear(p, wgu).chunk(2, -1)
            out.append(F.linear(F.silu(g) * u, wd))
        out = torch.cat(out)
        y = self.shared_experts(x)
        return y.index_add(0, tok, (out * w[:, None].to(out.dtype)).to(y.dtype)).view(shape)


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        d = c["hidden_size"]
        self.input_layernorm, self.post_attention_layernorm = RMS(d), RMS(d)
        v3 = "kv_lora_rank" in c
        self.self_attn = MLA(c) if v3 else GQA(c)
        self.mlp = MoE(c) if v3 and i >= c["first_k_dense_replace"] else MLP(d, c["intermediate_size"])

    def forward(self, x, pos, cache):
        x = x + self.self_attn(self.input_layernorm(x), pos, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Parameter(torch.randn(c["vocab_size"], c["hidden_size"]) * 0.02)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c["num_hidden_layers"]))
        self.norm = RMS(c["hidden_size"])
        if not c["tie_word_embeddings"]:
            self.lm_head = nn.Parameter(torch.randn(c["vocab_size"], c["hidden_size"]) * 0.02)
        for n, p in self.named_parameters():
            if n.endswith(("o_proj", "down_proj", "w_down")):
                p.data *= (2 * c["num_hidden_layers"]) ** -0.5

    def forward(self, ids, pos=None, caches=None, keep=None):
        if pos is None:
            pos = torch.arange(ids.shape[1])[None]
        x = F.embedding(ids, self.embed_tokens)
        for i, layer in enumerate(self.layers):
            x = layer(x, pos, caches[i] if caches else None)
        if keep is not None:
            x = x[keep]
        x = self.norm(x)
        return F.linear(x, self.embed_tokens if self.c["tie_word_embeddings"] else self.lm_head)

    def caches(self, b, t):
        c = self.c
        if "kv_lora_rank" in c:
            h, kd, vd = c["num_attention_heads"], c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["v_head_dim"]
        else:
            h, kd, vd = c["num_attention_heads"], c["head_dim"], c["head_dim"]
        return [(torch.zeros(b, h, t, kd), torch.zeros(b, h, t, vd)) for _ in self.layers]

    def tensors(self):
        """The parameters under their checkpoint names."""
        out = {}
        for n, p in self.named_parameters():
            p = p.detach()
            if n == "lm_head":
                out["lm_head.weight"] = p
            elif ".w_" in n:
                a, w = n.split(".w_")
                for e in range(p.shape[0]):
                    out[f"model.{a}.experts.{e}.{w}_proj.weight"] = p[e]
            else:
                out["model." + n + ("" if n.endswith(".weight") else ".weight")] = p
        for n, b in self.named_buffers():
            out["model." + n.replace(".bias", ".gate.e_score_correction_bias")] = b
        return out


def export(model, where, tok):
    eos, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    os.makedirs(where, exist_ok=True)
    t = {n: (w.float() if n.endswith("correction_bias") else w.to(torch.bfloat16)).contiguous().clone()
         for n, w in model.tensors().items()}
    save_file(t, os.path.join(where, "model.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(where, "model.safetensors"), 0o644)
    c = dict(model.c, bos_token_id=None, eos_token_id=eos, pad_token_id=pad)
    for name, v in (("config", c), ("generation_config", {"do_sample": True, "temperature": 1.0, "eos_token_id": [eos, pad],
                                                           "pad_token_id": pad, "max_new_tokens": 128})):
        with open(os.path.join(where, name + ".json"), "w") as f:
            json.dump(v, f, indent=2)
            f.write("\n")


# ---- data ----

class Data:
    """Endless length-bucketed batches: (ids, labels, which of them are learnt: the responses)."""

    def __init__(self, kind, tok, seed, tokens):
        self.kind, self.tok, self.tokens, self.rng = kind, tok, tokens, random.Random(seed)
        self.pad = tok.token_to_id("<|endoftext|>")
        self.queue = []

    def sample(self):
        if self.kind == "base" and self.rng.random() < 0.5:
            return "", problems.arithmetic(self.rng) + "<|endoftext|>"
        p = problems.make(self.rng, problems.TRAIN, nsteps=1 if self.kind == "base" else None)
        return prompt(p["question"]), problems.response(p) + "<|im_end|>"

    def batch(self):
        if not self.queue:
            n = 8 * self.tokens // 70
            pairs = [self.sample() for _ in range(n)]
            a = self.tok.encode_batch([x for x, _ in pairs])
            b = self.tok.encode_batch([y for _, y in pairs])
            rows = sorted(((x.ids, y.ids) for x, y in zip(a, b)), key=lambda r: len(r[0]) + len(r[1]))
            i = 0
            while i < len(rows):  # few shapes: lengths are multiples of 8
                j = i
                while True:
                    t = -(-(len(rows[min(j, len(rows) - 1)][0]) + len(rows[min(j, len(rows) - 1)][1])) // 8) * 8
                    if j == len(rows) or (j + 1 - i) * t > self.tokens:
                        break
                    j += 1
                if j < len(rows):  # a last, partial batch is dropped
                    self.queue.append(rows[i:j])
                i = j
            self.rng.shuffle(self.queue)
        rows = self.queue.pop()
        t = -(-max(len(a) + len(b) for a, b in rows) // 8) * 8 + 1
        ids = torch.full((len(rows), t), self.pad)
        of = torch.zeros(len(rows), t, dtype=torch.bool)
        for i, (a, b) in enumerate(rows):
            ids[i, :len(a) + len(b)] = torch.tensor(a + b)
            of[i, max(len(a), 1):len(a) + len(b)] = True
        return ids[:, :-1], ids[:, 1:], of[:, 1:]


def prompt(q):
    return f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"


@torch.no_grad()
def generate(model, tok, questions, temperature=0.0, max_new=80, seed=0):
    g = torch.Generator().manual_seed(seed)
    eos, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    rows = [tok.encode(prompt(q)).ids for q in questions]
    n = torch.tensor([len(r) for r in rows])
    t = int(n.max())
    ids = torch.tensor([r + [pad] * (t - len(r)) for r in rows])
    caches = model.caches(len(rows), t + max_new)
    x = model(ids, torch.arange(t)[None].expand(len(rows), -1), caches)[torch.arange(len(rows)), n - 1]
    out = [[] for _ in rows]
    live = [True] * len(rows)
    for _ in range(max_new):
        nxt = x.argmax(-1) if temperature == 0 else torch.multinomial((x.float() / temperature).softmax(-1), 1, generator=g)[:, 0]
        for i, v in enumerate(nxt.tolist()):
            if live[i]:
                if v in (eos, pad):
                    live[i] = False
                else:
                    out[i].append(v)
        if not any(live):
            break
        x = model(nxt[:, None], n[:, None], caches)[:, 0]
        n = n + 1
    return [tok.decode(o, skip_special_tokens=False) for o in out]


def verdict(text, answer):
    i = text.rfind("\\boxed{")
    return i >= 0 and text[i + 7:text.find("}", i)] == answer


def evaluate(model, tok, n, temperature=0.0, where="test.jsonl"):
    rows = [json.loads(l) for l in open(os.path.join(HERE, where))][:n]
    good = []
    for i in range(0, n, 100):
        part = rows[i:i + 100]
        got = generate(model, tok, [r["messages"][0]["content"] for r in part], temperature, seed=i)
        good += [verdict(t, r["answer"]) for t, r in zip(got, part)]
    return sum(good) / len(good)


# ---- optimiser: Muon for the matrices, AdamW for the rest ----

def orthogonal(g):
    """Newton-Schulz, on the last two dimensions."""
    x = g.bfloat16()
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if flip else x).float()


class Muon:
    def __init__(self, model, lr, adam_lr, wd):
        self.lr, self.wd = lr, wd
        names = dict(model.named_parameters())
        skip = lambda n, p: p.ndim < 2 or n in ("embed_tokens", "lm_head") or n.endswith("mlp.gate")
        self.mats = [p for n, p in names.items() if not skip(n, p)]
        self.rest = [p for n, p in names.items() if skip(n, p)]
        self.mom = [torch.zeros_like(p) for p in self.mats]
        self.adam = torch.optim.AdamW(self.rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.adam_lr = adam_lr

    def step(self, f):
        with torch.no_grad():
            shapes = {}
            for p, m in zip(self.mats, self.mom):
                if p.grad is None:
                    continue
                m.lerp_(p.grad, 0.05)
                shapes.setdefault(p.shape[-2:], []).append((p, p.grad.lerp(m, 0.95)))
            for (r, c), items in shapes.items():
                u = orthogonal(torch.cat([g.reshape(-1, r, c) for _, g in items]))
                u *= max(1.0, r / c) ** 0.5
                i = 0
                for p, g in items:
                    k = g.numel() // (r * c)
                    p.mul_(1 - self.lr * f * self.wd).add_(u[i:i + k].view_as(p), alpha=-self.lr * f)
                    i += k
        for g in self.adam.param_groups:
            g["lr"] = self.adam_lr * f
        self.adam.step()
        for p in self.mats + self.rest:
            p.grad = None

    def state(self):
        return {"mom": self.mom, "adam": self.adam.state_dict()}

    def load(self, s):
        for m, v in zip(self.mom, s["mom"]):
            m.copy_(v)
        self.adam.load_state_dict(s["adam"])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("kind", choices=("moe", "base"))
    ap.add_argument("--steps", type=int, required=True)
    ap.add_argument("--stop", type=int, default=0, help="stop at this step, with the state saved, to go on with --resume")
    ap.add_argument("--decay", type=float, default=0.35)
    ap.add_argument("--tokens", type=int, default=4096, help="tokens of a batch, padding included")
    ap.add_argument("--lr", type=float, default=0.02)
    ap.add_argument("--adam-lr", type=float, default=3e-3)
    ap.add_argument("--wd", type=float, default=0.02)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--bf16", type=int, default=1, help="autocast")
    ap.add_argument("--state", default="", help="training state, for --resume")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--eval-every", type=int, default=500)
    ap.add_argument("--eval-n", type=int, default=100)
    ap.add_argument("--out", default="")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tok = Tokenizer.from_file(os.path.join(HERE, a.kind, "tokenizer.json"))
    model = Model(MOE if a.kind == "moe" else BASE)
    print(a.kind, sum(p.numel() for p in model.parameters()), "parameters", vars(a), flush=True)
    out = a.out or os.path.join(HERE, a.kind)
    opt = Muon(model, a.lr, a.adam_lr, a.wd)
    first, spent = 0, 0.0
    if a.resume:
        s = torch.load(a.state)
        model.load_state_dict(s["model"])
        opt.load(s["opt"])
        first, spent = s["step"], s["spent"]
    data = Data(a.kind, tok, a.seed * 1000003 + first, a.tokens)
    t0, acc, ntok = time.time(), [], 0
    moes = [l.mlp for l in model.layers if isinstance(l.mlp, MoE)]
    loads = [torch.zeros(m.E) for m in moes]
    for step in range(first, a.steps):
        f = min(1.0, (step + 1) / 100, max(0.0, (a.steps - step) / (a.steps * a.decay)))
        ids, lab, of = data.batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(a.bf16)):
            logits = model(ids, keep=of)
        loss = F.cross_entropy(logits.float(), lab[of])
        loss.backward()
        opt.step(f)
        for m, l in zip(moes, loads):  # balance without an auxiliary loss
            m.bias += 2e-3 * f * torch.sign(m.load.float().mean() - m.load)
            l.mul_(0.99).add_(m.load)
        acc.append(float(loss.detach()))
        ntok += ids.numel()
        if (step + 1) % 50 == 0:
            el = time.time() - t0
            print(f"{step + 1} loss {sum(acc) / len(acc):.4f} lr {f:.3f} {ntok / el:.0f} tok/s {spent + el:.0f} s", flush=True)
            acc = []
        if (step + 1) % a.eval_every == 0 or step + 1 in (a.steps, a.stop):
            with torch.autocast("cpu", torch.bfloat16, enabled=bool(a.bf16)):
                e = evaluate(model, tok, a.eval_n)
                h = evaluate(model, tok, a.eval_n, 1.0)
            worst = " ".join(f"{float(l.min() / l.mean()):.2f}..{float(l.max() / l.mean()):.2f}" for l in loads)
            print(f"{step + 1} EVAL greedy {e:.3f} T=1 {h:.3f} n={a.eval_n} load {worst}", flush=True)
            export(model, out, tok)
            if a.state:
                torch.save({"model": model.state_dict(), "opt": opt.state(), "step": step + 1,
                            "spent": spent + time.time() - t0}, a.state + ".tmp")
                os.replace(a.state + ".tmp", a.state)
        if step + 1 == a.stop:
            break


if __name__ == "__main__":
    main()
