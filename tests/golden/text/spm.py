#!/usr/bin/env python3
"""Makes the goldens of tests/datasets/test_gguf_spm.c: a small SentencePiece BPE as GGUF, and what others make of awkward strings by it.

    pip install sentencepiece protobuf gguf transformers && python3 spm.py

The model is trained by `sentencepiece` on our own prompts, as Llama 2's was (identity normalizer, dummy prefix, bytes to fall back on), and written by the
`gguf` package with the keys that llama.cpp's converter writes. Ids come from the tokenizer that transformers' own GGUF reader makes of each file, with a
normalizer's Prepend (its builder for Phi-3, which is Llama's but for that) or none. Where a text has no special token they must be SentencePiece's too.

spm.gguf            the vocabulary of 508 tokens, and four ids without one
spm_bare.gguf       the same without a space in front, with an EOS behind, and without the keys that have defaults
spm_ties.gguf       the same with every score -1000, as llama.cpp's converter writes it out of a tokenizer.json
spm_merges.gguf     the same with scores 0 and merges, as older converters wrote
spm_tokenizer.json  what transformers makes of spm.gguf
spm.json            strings and their ids by each
"""
import io
import json
import os
import random

import gguf
import sentencepiece
from tokenizers import decoders, normalizers
from transformers.integrations.gguf import gguf_tokenizer_mapping as reader

import tokenizer as strings_of

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPTS = os.path.join(HERE, "../../../teacher/tiny/prompts.jsonl")
RUNS = ["        return a[i] - b[i];", "                x", "-- ---- -------- ----------------", "aaaa aaaaaaaa abababab", "== ==== ========", "(( )) ((( )))"]
MORE = RUNS * 600 + ["caf\u00e9 \u4f60\u597d \u00d7", "<b>bold</b>", "\u2581"] * 40
N_VOCAB, N_ROW = 508, 512
SPECIAL = ["<s>", "</s>", "<unk>", "<|end|>", "<think>", "</think>"]


def train():
    lines = [json.loads(x)["messages"][0]["content"] for x in list(open(PROMPTS))[:1500]] + MORE
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=N_VOCAB, byte_fallback=True, character_coverage=1.0, split_digits=True,
        normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1,
        control_symbols=["<|end|>"], user_defined_symbols=["<think>", "</think>"], max_sentencepiece_length=16, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def vocabulary(sp):
    tokens, scores, types = [f"[PAD{i}]" for i in range(N_ROW)], [-10000.0] * N_ROW, [5] * N_ROW
    for i in range(sp.vocab_size()):
        tokens[i], scores[i] = sp.id_to_piece(i), sp.get_score(i)
        types[i] = 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i) else 6 if sp.is_byte(i) else 4 if tokens[i] in SPECIAL else 1
    return tokens, scores, types


def write(name, tokens, scores, types, roles=True, merges=None, **flags):
    path = os.path.join(HERE, name)
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    if merges:
        w.add_token_merges(merges)
    if roles:
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
        w.add_add_bos_token(True)
    for key, value in flags.items():
        getattr(w, f"add_{key}")(value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    return path


def transformers_reads(path):
    _, spec, config = reader.get_gguf_tokenizer(path)
    t = reader.phi3_tokenizer(spec)
    reader.add_gguf_special_tokens(t, spec)
    tok = t.backend_tokenizer
    tok.post_processor = None
    if spec.get("add_prefix_space") is False:
        tok.normalizer = normalizers.Replace(pattern=" ", content="\u2581")
        tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tok


def texts():
    rng = random.Random(4)
    picks = [lambda: rng.choice(SPECIAL), lambda: " " * rng.randrange(1, 20), lambda: "-" * rng.randrange(1, 40), lambda: "a" * rng.randrange(1, 30), lambda: "ab" * rng.randrange(1, 9),
             lambda: "=" * rng.randrange(1, 20), lambda: chr(rng.randrange(0x20, 0x7F)), lambda: chr(rng.randrange(0x80, 0x3000)), lambda: chr(rng.randrange(0x10000, 0x20000)),
             lambda: rng.choice("\n\t\r\u2581"), lambda: " many", lambda: "How much is left?", lambda: "\u4f60\u597d", lambda: "<0x41>", lambda: "[PAD510]"]
    mixed = ["".join(rng.choice(picks)() for _ in range(rng.choice([1, 2, 4, 8, 16]))) for _ in range(120)]
    prompts = [json.loads(x)["messages"][0]["content"] for x in list(open(PROMPTS))[2000:2020]]
    return [t for t in strings_of.FIXED if "\0" not in t] + mixed + prompts


def main():
    sp = train()
    tokens, scores, types = vocabulary(sp)
    files = {"spm": write("spm.gguf", tokens, scores, types),
             "spm_bare": write("spm_bare.gguf", tokens, scores, types, roles=False, add_space_prefix=False, add_eos_token=True),
             "spm_ties": write("spm_ties.gguf", tokens, [-1000.0 if t == 1 else s for s, t in zip(scores, types)], types)}
    with open(os.path.join(HERE, "spm_tokenizer.json"), "w", encoding="utf8") as f:
        spec = json.loads(transformers_reads(files["spm"]).to_str())
        spec["model"]["vocab"] = {t: i for t, i in spec["model"]["vocab"].items() if types[i] != 5}
        json.dump(spec, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    files["spm_merges"] = write("spm_merges.gguf", tokens, [0.0] * N_ROW, types, merges=[" ".join(m) for m in spec["model"]["merges"]])
    cases, wanted = texts(), {}
    for name, path in files.items():
        tok = transformers_reads(path)
        wanted[name] = [strings_of.one(tok, t) for t in cases]
    plain = [i for i, t in enumerate(cases) if not any(s in t for s in SPECIAL)]
    other = [cases[i] for i in plain if sp.encode(cases[i]) != wanted["spm"][i]["ids"]]
    print(f"sentencepiece {sentencepiece.__version__}: other ids for {len(other)} of {len(plain)} texts without special tokens", other[:3])
    made = sorted((i for i in range(sp.vocab_size()) if types[i] == 1 and len(tokens[i]) > 1), key=lambda i: -scores[i])
    with open(os.path.join(HERE, "spm.json"), "w") as f:
        json.dump({"made": made, "files": wanted}, f, separators=(",", ":"))
        f.write("\n")
    for name in files:
        print(name, sum(a["ids"] != b["ids"] for a, b in zip(wanted[name], wanted["spm"])), "texts have other ids than by spm")


if __name__ == "__main__":
    main()
