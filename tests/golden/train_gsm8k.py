#!/usr/bin/env python3
"""Makes tests/golden/train/gsm8k.json: a small random Qwen2 with the real vocabulary of Qwen2.5, trained by PyTorch and transformers in f32 on
GSM8K rows under the real tokenizer and chat template; neither is in this repository.

    python train_gsm8k.py FOLDER_OF_MATERIAL            needs torch, transformers; not run by any test

The weights are a formula of name and index, which tests/student/test_gsm8k.c computes too. Loss falls on the assistant's tokens and its
<|im_end|>, found here by token ids. Per step: loss, gradient norm before clipping, learning rate, tokens; per row: ids (CRC-32) and where the
loss falls.
"""
import json
import os
import sys
import zlib

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, get_cosine_schedule_with_warmup

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
N_ROW, N_STEP, BATCH_TOKENS, WARMUP = 32, 12, 1024, 3
LR, DECAY, CLIP = 2e-3, 0.1, 0.5
CONFIG = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", vocab_size=151936, hidden_size=32, intermediate_size=80, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=1000000.0, hidden_act="silu",
              tie_word_embeddings=True, use_sliding_window=False, bos_token_id=151643, eos_token_id=151645, torch_dtype="float32")
IM_START, ASSISTANT, NEWLINE, IM_END = 151644, 77091, 198, 151645


def formula(name, n):
    """n values in [-1, 1) with 24 bits each: FNV-1a of the name plus the index, mixed as MurmurHash3 ends."""
    with np.errstate(over="ignore"):
        seed = np.uint64(14695981039346656037)
        for b in name.encode():
            seed = (seed ^ np.uint64(b)) * np.uint64(1099511628211)
        h = seed + np.arange(n, dtype=np.uint64)
        h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        h = h ^ (h >> np.uint64(33))
        return (((h >> np.uint64(40)).astype(np.int64) - (1 << 23)) / (1 << 23)).astype(np.float32)


def loss_mask(ids):
    """1 from behind <|im_start|>assistant\\n to <|im_end|>, both of the turn."""
    mask, i = [0] * len(ids), 0
    while i < len(ids):
        if ids[i : i + 3] == [IM_START, ASSISTANT, NEWLINE]:
            i += 3
            while True:
                mask[i] = 1
                i += 1
                if ids[i - 1] == IM_END:
                    break
        else:
            i += 1
    return mask


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    folder = os.path.join(sys.argv[1], "tokenizers", "qwen2_5")
    config = json.load(open(os.path.join(folder, "tokenizer_config.json"), encoding="utf8"))
    tok = PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"), eos_token="<|im_end|>", chat_template=config["chat_template"])
    rows = []
    for line in open(os.path.join(sys.argv[1], "datasets", "gsm8k", "train.jsonl"), encoding="utf8"):
        r = json.loads(line)
        ids = tok.apply_chat_template([dict(role="user", content=r["question"]), dict(role="assistant", content=r["answer"])], tokenize=True, return_dict=True)["input_ids"]
        rows.append((ids, loss_mask(ids)))
        if len(rows) == N_ROW:
            break
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG)).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            u = torch.from_numpy(formula(name, p.numel())).view_as(p)
            p.copy_(1 + u / 8 if "norm" in name else u / 8)
    opt = torch.optim.AdamW([dict(params=[p for p in model.parameters() if p.dim() == 2], weight_decay=DECAY),
                             dict(params=[p for p in model.parameters() if p.dim() != 2], weight_decay=0.0)], lr=LR, eps=1e-8)
    scheduler = get_cosine_schedule_with_warmup(opt, WARMUP, N_STEP)
    at, steps = 0, []
    for s in range(N_STEP):
        step, n = [], 0  # whole rows in order, as many as fit; an epoch ends a step
        while at < N_ROW and (not step or n + len(rows[at][0]) <= BATCH_TOKENS):
            step.append(rows[at])
            n += len(rows[at][0])
            at += 1
        at %= N_ROW
        for g, base in zip(opt.param_groups, scheduler.base_lrs):  # our warm-up counts from 1
            g["lr"] = base * (s + 1) / WARMUP if s < WARMUP else scheduler.get_last_lr()[0]
        n_loss, total = sum(sum(m) for _, m in step), 0.0
        opt.zero_grad()
        for ids, mask in step:
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, :-1]
            keep = torch.tensor(mask[1:], dtype=torch.bool)
            loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]), torch.tensor(ids[1:])[keep], reduction="sum") / n_loss
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        steps.append(dict(loss=total, grad_norm=float(norm), lr=opt.param_groups[0]["lr"], n_loss=n_loss, n_tok=n))
        print(s, steps[-1], flush=True)
        opt.step()
        scheduler.step()
    golden = dict(config=CONFIG, n_step=N_STEP, batch_tokens=BATCH_TOKENS, warmup=WARMUP, lr=LR, weight_decay=DECAY, clip=CLIP, steps=steps, rows=[
        dict(n=len(i), crc32=zlib.crc32(np.array(i, dtype="<i4").tobytes()), loss=[m.index(1), m.index(1) + sum(m)]) for i, m in rows])
    with open(os.path.join(HERE, "gsm8k.json"), "w") as f:
        json.dump(golden, f, indent=0)
        f.write("\n")


main()
