#!/usr/bin/env python3
"""Makes the goldens of tests/datasets/test_tokenizer.c with Hugging Face's `tokenizers`: what it makes of awkward strings.

    pip install tokenizers && python3 tokenizer.py [FOLDER WITH qwen2_5, qwen3, llama3, deepseek_v3]

tokenizer_tiny.json      strings and their ids by teacher/tiny/moe/tokenizer.json
tokenizer_parts.json     the same vocabulary with other normalizers, pre-tokenizers, added tokens and post-processors: one variant an entry
tokenizer_chars.json     the same for a small vocabulary of characters with bytes to fall back on, in the manner of Llama 2, Mistral and Gemma
tokenizer_real.json      the same strings by real tokenizers, which are not in this repository: ids only
"""
import json
import os
import random
import sys
import unicodedata

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "../../../teacher/tiny/moe/tokenizer.json")
FIXED = ["", " ", "  ", "\n", "\r\n", "\t", "a", "Hello world", "don't DON'T I'LL we'Ve it'\u017f '\u212a", "x  1", "a\u00a0b\u3000c\u2028d\u0085e",
         "caf\u00e9 cafe\u0301 \u1e9b\u0323", "e\u0301\u0323\u0341 \u0344", "\u1100\u1161\u11a8 \uac00\u11a8", "\u212b \ufb01 \u2460", "\u0958 \u2adc",
         "123456789 1,234.50 \u0661\u0662 \u2167 \u00bd", "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf",
         "\U0001fae8\U0001fae9\U0001f6dc \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd", "a\u0000b\u0000",
         "\ufeffbom \u200b\u200d\u2060", "!@#$%^&*()_+-=[]{}|;:,.<>/?`~", "<|im_start|>user\nHi<|im_end|>\n", "<think>x</think>", "<|im_end|><|im_end|>",
         "<|im_en", "  <|im_end|>  x", "wor<think>d", "\n\n\n x \n\n", "     \n     ", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0939\u093f\u0928\u094d\u0926\u0940",
         "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627", "for (int i = 0; i < n; i++) { a[i] += \"\\n\"; }\n\treturn;",
         "a" * 200, " " * 100 + "x", "ab" * 100, "1" * 50, "\u00e9" * 30, "\U00010fff\U000e0001\U0010ffff", "\u1ac1\u0330 \U00011f02", "word\u0301s \u0301 \u0301"]


def strings(n, seed=1):
    rng = random.Random(seed)
    picks = [lambda: chr(rng.randrange(0x20, 0x7F)), lambda: rng.choice("\n\r\t  \x00\x0b\x0c\x85\u00a0\u2028\u3000\u200b"), lambda: rng.choice("'s 't 're 'VE 'm 'll".split()),
             lambda: chr(rng.randrange(0x300, 0x370)), lambda: str(rng.randrange(10 ** rng.randrange(1, 9))), lambda: " " * rng.randrange(1, 5),
             lambda: rng.choice(["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|endoftext|>"]), lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
             lambda: chr(rng.randrange(0x1100, 0x1200)), lambda: chr(rng.randrange(0x4E00, 0xA000)), lambda: chr(rng.randrange(0x80, 0x3000)),
             lambda: unicodedata.normalize("NFD", chr(rng.randrange(0xC0, 0x1F00))), lambda: chr(rng.randrange(0x10000, 0x20000)), lambda: "the quick brown "]
    return FIXED + ["".join(rng.choice(picks)() for _ in range(rng.choice([1, 2, 4, 8, 16, 24]))) for _ in range(n - len(FIXED))]


def added(content, i, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **flags}


BL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
seq = lambda *v: {"type": "Sequence", "pretokenizers": list(v)}
split = lambda regex, behavior, invert=False: {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}
VARIANTS = [
    ("GPT-2", None, {**BL, "use_regex": True}, None),
    ("GPT-2 with prefix space", None, {**BL, "use_regex": True, "add_prefix_space": True}, None),
    ("prefix space after a split", {"type": "NFC"}, seq(split(r"\p{N}", "Isolated"), {**BL, "add_prefix_space": True}), None),
    *[(f"Split {b} {i}", None, seq(split(r"\p{L}+|\d{2}", b, i), BL), None)
      for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)],
    ("Split by a string", None, seq({"type": "Split", "pattern": {"String": " ("}, "behavior": "MergedWithNext", "invert": False}, BL), None),
    ("o200k", None, seq(split(r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
                              r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", "Isolated"), BL), None),
    ("Kimi-K2", None, seq(split(r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}]]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+", "Isolated"), BL), None),
    ("cl100k with possessive quantifiers", None, seq(split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s", "Isolated"), BL), None),
    ("odd classes", None, seq(split(r"[a-f\-\]x\u00e9]+|[^\x00-\x7f]{2,}?|[[:;]&&[^;]]|(?<=a)b(?=a)|.$", "Isolated"), BL), None),
    ("Digits", None, seq({"type": "Digits", "individual_digits": False}, BL), None),
    ("Digits, each", None, seq({"type": "Digits", "individual_digits": True}, BL), None),
    ("Whitespace", None, seq({"type": "Whitespace"}, BL), None),
    ("WhitespaceSplit", None, seq({"type": "WhitespaceSplit"}, BL), None),
    ("NFD", {"type": "NFD"}, BL, None),
    ("NFKC", {"type": "NFKC"}, BL, None),
    ("Sequence of normalizers", {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "bc"}, {"type": "Prepend", "prepend": ">"}, {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFC"}]}, BL, None),
    ("Lowercase", {"type": "Lowercase"}, BL, None),
    ("added tokens with flags", {"type": "NFC"}, seq(split(r"\s+|\S+", "Isolated"), BL), [
        added("<|im_end|>", 509, special=True), added("<think>", 510, lstrip=True), added("</think>", 511, rstrip=True), added("word", 512, single_word=True),
        added("caf\u00e9", 513, normalized=True), added("the", 514, normalized=True, single_word=True), added("\n", 515, lstrip=True, rstrip=True), added("<|im_end|>x", 516)]),
]
VARIANTS += [
    ("Replace by a regex", {"type": "Replace", "pattern": {"Regex": r"\s+|x(?=e)"}, "content": "_\u00e9"}, BL, None),
    ("Replace by a regex that matches nothing", {"type": "Replace", "pattern": {"Regex": r"z*"}, "content": "-"}, BL, None),
    ("NFKD", {"type": "NFKD"}, BL, None),
    ("Strip left", {"type": "Strip", "strip_left": True, "strip_right": False}, BL, None),
    ("Strip right", {"type": "Strip", "strip_left": False, "strip_right": True}, BL, None),
    ("Prepend", {"type": "Prepend", "prepend": "\u2581x"}, BL, None),
    *[("Punctuation " + b, None, seq({"type": "Punctuation", "behavior": b}, BL), None)
      for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")],
    ("Metaspace before ByteLevel", None, seq({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True}, BL), None),
    ("NFC", {"type": "NFC"}, BL, None),
    ("Lowercase and added tokens", {"type": "Lowercase"}, BL, [added("WORD", 512, normalized=True), added("<|IM_END|>", 513, normalized=True, special=True)]),
]
SPECIAL = {t: {"id": t, "ids": ids, "tokens": [t] * len(ids)} for t, ids in (("<s>", [1]), ("</s>", [2, 7]))}
TEMPLATE = {"type": "TemplateProcessing", "special_tokens": SPECIAL, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]}
TRIM = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
PROCESSORS = [("no post-processor", None), ("ByteLevel post-processor", TRIM), ("TemplateProcessing", TEMPLATE),
              ("Sequence of post-processors", {"type": "Sequence", "processors": [TRIM, TEMPLATE]})]


# Characters with bytes to fall back on. Each variant replaces parts of the whole file, and of its model.
normal = lambda *v: {"type": "Sequence", "normalizers": list(v)}
meta = lambda scheme, split=True: {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}
decoder = lambda *v: {"type": "Sequence", "decoders": list(v)}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
BACK = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
strip = lambda content, start, stop: {"type": "Strip", "content": content, "start": start, "stop": stop}
LLAMA = {"normalizer": normal({"type": "Prepend", "prepend": "\u2581"}, SPACES), "pre_tokenizer": None, "decoder": decoder(BACK, BYTES, FUSE, strip(" ", 1, 0))}
legacy = lambda normalized: [added(t, i, special=True, normalized=normalized) for i, t in enumerate(("<unk>", "<s>", "</s>"))]
CHARS = [
    ("Llama 2", LLAMA, {}),
    ("Llama 2 with normalized special tokens", {**LLAMA, "added_tokens": legacy(True)}, {}),
    ("Llama 2 with lstrip and rstrip", {**LLAMA, "added_tokens": legacy(False) + [added("<mask>", 1000, lstrip=True), added("the", 1001, rstrip=True, single_word=True)]}, {}),
    ("Mistral", {"normalizer": None, "pre_tokenizer": meta("first", False), "decoder": LLAMA["decoder"]}, {}),
    ("Metaspace always", {"normalizer": None, "pre_tokenizer": meta("always"), "decoder": decoder(BYTES, meta("always"))}, {}),
    ("Metaspace first, split", {"normalizer": None, "pre_tokenizer": meta("first"), "decoder": meta("first")}, {}),
    ("Metaspace never", {"normalizer": None, "pre_tokenizer": meta("never"), "decoder": decoder(BYTES, FUSE, meta("never"))}, {}),
    ("Metaspace of old files", {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}, "decoder": decoder(BYTES, FUSE, meta("always"))}, {}),
    ("Metaspace first behind a normalizer that moves the start", {"normalizer": normal({"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": False}),
                                                                  "pre_tokenizer": meta("first"), "decoder": LLAMA["decoder"]}, {}),
    ("Gemma", {"normalizer": SPACES, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}, "decoder": decoder(BACK, BYTES, FUSE)}, {}),
    ("WhitespaceSplit and Metaspace", {"normalizer": None, "pre_tokenizer": seq({"type": "WhitespaceSplit"}, meta("always")), "decoder": meta("always")}, {}),
    ("Digits and Metaspace", {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": seq({"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"}, meta("first")),
                              "decoder": LLAMA["decoder"]}, {}),
    ("unk fused", LLAMA, {"byte_fallback": False}),
    ("unk not fused", LLAMA, {"byte_fallback": False, "fuse_unk": False}),
    ("no unk", LLAMA, {"byte_fallback": False, "unk_token": None}),
    ("some bytes missing, unk fused", LLAMA, {"missing": True}),
    ("some bytes missing, unk not fused", LLAMA, {"missing": True, "fuse_unk": False}),
    ("ignore_merges", {**LLAMA, "pre_tokenizer": seq(meta("never"))}, {"ignore_merges": True}),
    ("no decoder", {**LLAMA, "decoder": None}, {}),
    ("Strip of each token", {**LLAMA, "decoder": decoder(BYTES, strip("\u2581", 1, 0), strip("e", 2, 0))}, {}),
    ("Strip at both ends", {**LLAMA, "decoder": decoder(BYTES, FUSE, BACK, strip(" ", 2, 0), strip("x", 0, 1))}, {}),
    ("Replace by a regex, and behind Fuse", {**LLAMA, "decoder": decoder(BYTES, {"type": "Replace", "pattern": {"Regex": "[\u2581 ]+"}, "content": "__"}, FUSE,
                                                                     {"type": "Replace", "pattern": {"String": "_____"}, "content": "<5>"})}, {}),
]


def chars_file():
    """A BPE of characters trained on our own strings, the special tokens first and the bytes behind them, as sentencepiece numbers them."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    words = ("the quick brown fox jumps over a lazy dog while don't word words sword user return for int caf\u00e9 caf\u00e9s ab abab aaaa 12 123 1,234 \u4f60\u597d "
             "\u4e16\u754c hello Hello world World think thinking <think> end. -> == ++ \u0939\u093f\u0928\u094d\u0926\u0940 ").split()
    tok.train_from_iterator([" ".join(words) * 3, "  ".join(words), "   ", "\u2581" * 8 + " x"], trainers.BpeTrainer(vocab_size=420, special_tokens=[], show_progress=False))
    model = json.loads(tok.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + sorted(model["vocab"], key=model["vocab"].get)
    model.update({"vocab": {t: i for i, t in enumerate(tokens)}, "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True})
    return {"version": "1.0", "added_tokens": legacy(False), "model": model}


def chars_variant(base, parts, model):
    spec = json.loads(json.dumps({**base, **parts}))
    model = dict(model)
    if model.pop("missing", False):
        for b in list(range(0x80, 0xC4)) + [0x41, 0x58]:
            del spec["model"]["vocab"][f"<0x{b:02X}>"]
    spec["model"].update(model)
    return spec


EXTRA = ["word words sword word. \u00e9word", "cafe\u0301 caf\u00e9s", "the then the\n\n the", "a <think> b </think>  c", "<|im_end|>xx <|im_end|>", " \n \n <think>\n</think>\n",
         "aba bab xx-]e\u00e9e ;:; end.", "f (x) (y", "word", "word\u0301", "_word word_ 3word"]


SPACED = ["  two  spaces ", "\u2581 \u2581\u2581x", " <s> x</s>y ", "A<mask> b", "a <mask>b the  x", "\u20acX\u20ac\u00fcA\u00fc", "x   ", "<0x41>", "\u0410\u0411 \U0001fae8", "EX EXX ex", "_____ ____"]


def main():
    tiny = json.load(open(TINY, encoding="utf8"))
    texts = strings(300)
    dump("tokenizer_tiny.json", encode(Tokenizer.from_file(TINY), texts))
    parts = []
    for name, normalizer, pre, tokens in VARIANTS:
        spec = {"normalizer": normalizer, "pre_tokenizer": pre}
        if tokens:
            spec["added_tokens"] = tokens
        tok = Tokenizer.from_str(json.dumps({**tiny, **spec}))
        for token in tokens or []:  # the library numbers added tokens itself, whatever the file says
            token["id"] = tok.token_to_id(token["content"])
        parts.append({"name": name, "spec": spec, "cases": encode(tok, texts[:36] + texts[60:72] + EXTRA)})
    for name, processor in PROCESSORS:
        tok = Tokenizer.from_str(json.dumps({**tiny, "post_processor": processor}))
        parts.append({"name": name, "spec": {"post_processor": processor}, "cases": encode(tok, ["", "a word"]), "with_special": [tok.encode(t).ids for t in ("", "a word")]})
    dump("tokenizer_parts.json", parts)
    base, parts = chars_file(), []
    for name, spec, model in CHARS:
        tok = Tokenizer.from_str(json.dumps(chars_variant(base, spec, model)))
        for token in spec.get("added_tokens") or []:
            token["id"] = tok.token_to_id(token["content"])
        parts.append({"name": name, "spec": spec, "model": model, "cases": encode(tok, texts[:30] + EXTRA + SPACED)})
    dump("tokenizer_chars.json", {"file": base, "parts": parts})
    if len(sys.argv) > 1:
        some = strings(160, seed=2)
        real = {n: [c["ids"] for c in encode(Tokenizer.from_file(f"{sys.argv[1]}/{n}/tokenizer.json"), some)] for n in ("qwen2_5", "qwen3", "llama3", "deepseek_v3")}
        dump("tokenizer_real.json", {"texts": some, "ids": real})


def encode(tok, texts):
    return [c for c in (one(tok, t) for t in texts) if c]


def one(tok, text):
    """What the library makes of a text and of its ids; None where it panics (it does on some texts with a Replace or a Strip at the end)."""
    try:
        case = {"text": text, "ids": tok.encode(text, add_special_tokens=False).ids}
        back = tok.decode(case["ids"], skip_special_tokens=False)
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return None
    # Where the library's own decoder gives up bytes (an added token of letters that are also names of bytes) ours gives the text back.
    if back != text:
        case["decoded"] = back if "\ufffd" not in back else None
    return case


def dump(name, what):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(what, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
