#!/usr/bin/env python3
"""Trains the byte-level BPE tokenizer of the tiny models: tokenizer.json,
tokenizer_config.json (with the chat template) into moe/ and base/.

    python tokenizer.py
"""
import json
import os
import random

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import problems

VOCAB = 512
ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<think>", False), ("</think>", False)]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content is defined and message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content|trim + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def corpus(n=30000, seed=7):
    rng = random.Random(seed)
    for _ in range(n):
        p = problems.make(rng, problems.TRAIN)
        yield "user\n" + p["question"]
        yield "assistant\n"
        yield problems.response(p).replace("<think>", "").replace("</think>", "")
        if rng.random() < 0.02:
            yield "system\nYou are a helpful assistant."


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCAB - len(ADDED), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    for text, special in ADDED:
        f = tok.add_special_tokens if special else tok.add_tokens
        f([AddedToken(text, special=special, normalized=False)])
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                      "single_word": False, "special": s} for t, s in ADDED},
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 512,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "unk_token": None,
    }
    for d in ("moe", "base"):
        os.makedirs(os.path.join(here, d), exist_ok=True)
        tok.save(os.path.join(here, d, "tokenizer.json"))
        with open(os.path.join(here, d, "tokenizer_config.json"), "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
