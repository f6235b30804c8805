#!/usr/bin/env python3
"""Compares `distill tokenize` with Hugging Face's `tokenizers` on random strings, ids and the way back. Not part of `make test`.

    pip install tokenizers && python3 tokenizer_fuzz.py BUILD/distill [--n 10000] [--seed 1] [--characters] [--long] DIR …

DIR holds a tokenizer.json; without any, the variants of tokenizer.py are compared. --characters: every code point in four surroundings instead of
random strings. --long: a megabyte of one thing, with the seconds that each side takes.
"""
import argparse
import json
import os
import random
import resource
import subprocess
import tempfile
import time
import unicodedata

import tokenizers
from tokenizers import Tokenizer

import tokenizer as variants

SCRIPTS = [(0x20, 0x7F), (0xA0, 0x180), (0x370, 0x530), (0x531, 0x590), (0x590, 0x600), (0x600, 0x700), (0x900, 0xE00), (0xE00, 0x1000), (0x1000, 0x1200),
           (0x1200, 0x1400), (0x13A0, 0x1800), (0x1E00, 0x2000), (0x2C00, 0x2E00), (0x3040, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7A4),
           (0xF900, 0xFB00), (0xFB00, 0x10000), (0x10000, 0x11000), (0x11000, 0x12000), (0x12000, 0x14000), (0x16800, 0x17000), (0x1B000, 0x1B300), (0x1D400, 0x1D800), (0x20000, 0x2A6E0)]
EMOJI = ["\U0001fae8", "\U0001fae9", "\U0001f6dc", "\U0001fac6", "\U0001fadf", "\U0001fabe", "\U0001fac8", "\U0001face\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd",
         "\U0001f1fa\U0001f1f3", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "1\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525", "\U0001f642\u200d\u2194\ufe0f", "\U0001f9d1\u200d\U0001fa70"]
WORDS = "the The THE don't I'LL we've it's 's 'S '\u017f n't user assistant tool return \u00e9t\u00e9 na\u00efve stra\u00dfe int main(void) {\n} == != -> => /* */ // # ## \\frac{1}{2} $x^2$ 3.14 1e-5 https://a.b/c?d=e&f a_b camelCase".split(" ")


def text(rng, special):
    def one():
        k = rng.randrange(15)
        if k == 0:
            return chr(rng.randrange(0x20, 0x7F)) * rng.choice([1, 1, 1, 2, 7])
        if k == 1:
            return "".join(rng.choice("\n\r\t  \x0b\x0c\x85\u00a0\u2028\u2029\u3000\u200b\u1680\ufeff") for _ in range(rng.randrange(1, 5)))
        if k == 2:
            return rng.choice(["\r\n", "\n\r", "\r", "\n\n", " \n", "\r\n\r\n", "  \r\n ", "\t\n"])
        if k == 3:
            return chr(rng.randrange(0, 0x20)) + rng.choice(["", "\x7f", "\x80", "\x9f"])
        if k == 4:
            return "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 2, 3, 4, 5, 9, 40])))
        if k == 5:
            return " " * rng.choice([1, 1, 2, 3, 17])
        if k == 6 and special:
            token = rng.choice(special)
            return rng.choice([token, token[: rng.randrange(1, len(token) + 1)], "x" + token + "y", " " + token + "  ", token + token])
        if k == 7:
            return rng.choice(EMOJI)
        if k == 8:
            return rng.choice("aeo\u0915\u1100\u05d0") + "".join(chr(rng.choice([rng.randrange(0x300, 0x370), rng.randrange(0x1AB0, 0x1B00), rng.randrange(0x5B0, 0x5C0), 0x3099, 0x1161, 0x11A8, 0x1DF6]))
                                                                  for _ in range(rng.randrange(1, 4)))
        if k == 9:
            return unicodedata.normalize(rng.choice(["NFD", "NFKD"]), "".join(chr(rng.randrange(0xC0, 0x1F00)) for _ in range(2)))
        if k == 10:
            c = rng.randrange(0x110000)
            return "" if 0xD800 <= c < 0xE000 else chr(c)
        if k == 11:
            return rng.choice(WORDS)
        lo, hi = rng.choice(SCRIPTS)
        return "".join(chr(rng.randrange(lo, hi)) for _ in range(rng.choice([1, 2, 5])))

    return "".join(one() for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 13, 30])))


def characters():
    for c in range(0x110000):
        if not 0xD800 <= c < 0xE000:
            yield f"a{chr(c)}b {chr(c)}1{chr(c)}{chr(c)}\n\u0301{chr(c)}\u0334"


def distill(program, folder, lines, *more):
    p = subprocess.run([program, "tokenize", "--model", folder, *more], input="".join(json.dumps(x) + "\n" for x in lines).encode(), capture_output=True)
    out = [json.loads(x) for x in p.stdout.split(b"\n")[:-1]]
    if p.returncode:
        raise SystemExit(f"distill exited {p.returncode} after {len(out)} lines: {p.stderr.decode()}")
    return out


def compare(program, name, folder, texts):
    tok = Tokenizer.from_file(folder + "/tokenizer.json")
    want, kept = [], []
    for t in texts:
        try:
            want.append(tok.encode(t, add_special_tokens=False).ids)
            kept.append(t)
        except BaseException as e:  # the library panics on some texts with Replace or Strip
            if type(e).__name__ != "PanicException":
                raise
    got = distill(program, folder, kept)
    wrong = [(t, a, b) for t, a, b in zip(kept, want, got) if a != b]
    back = distill(program, folder, want, "--decode")
    other = 0
    for t, ids, text in zip(kept, want, back):
        if text == t:
            continue
        try:
            theirs = tok.decode(ids, skip_special_tokens=False)
        except BaseException:
            continue
        # Where the library gives up bytes, ours need only give the text back as the normalizer left it.
        if theirs != text and "\ufffd" not in theirs:
            other += 1
            if other <= 3:
                print("  decoded", ascii(t), "theirs", ascii(theirs), "ours", ascii(text))
    for t, a, b in wrong[:3]:
        print("  text", ascii(t), "\n  theirs", a, "\n  ours  ", b)
    print(f"{name}: {len(kept)} strings, {len(wrong)} with other ids, {other} decoded to other text" + (f" ({len(texts) - len(kept)} made the library panic)" if len(kept) < len(texts) else ""), flush=True)
    return len(wrong) + other


def timed(f, children=False):
    """What f gives, and the processor seconds it took (here or in the processes that it starts)."""
    def now():
        if not children:
            return time.process_time()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    start = now()
    return f(), now() - start


def long(program, name, folder):
    tok, n, wrong = Tokenizer.from_file(folder + "/tokenizer.json"), 1 << 20, 0
    empty = timed(lambda: distill(program, folder, ["x"]), True)[1]
    for what, unit in (("one letter", "a"), ("spaces", " "), ("ab", "ab"), ("one emoji", "\U0001fae9"), ("digits", "0123456789"), ("CJK", "\u4f60\u597d\u4e16\u754c"), ("combining marks", "e\u0301\u0323"), ("newlines", "\r\n")):
        t = unit * (n // len(unit.encode()))
        want, theirs = timed(lambda: tok.encode(t, add_special_tokens=False).ids)
        got, ours = timed(lambda: distill(program, folder, [t])[0], True)
        wrong += got != want
        print(f"{name}: 1 MB of {what}: {len(want)} ids, ours {ours - empty:.2f} s, theirs {theirs:.2f} s{'' if got == want else ': OTHER IDS'}", flush=True)
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("folders", nargs="*")
    p.add_argument("--n", type=int, default=10000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--characters", action="store_true")
    p.add_argument("--only", default="", help="variants with this in their name")
    p.add_argument("--long", action="store_true")
    a = p.parse_intermixed_args()
    print(f"tokenizers {tokenizers.__version__}, seed {a.seed}")
    with tempfile.TemporaryDirectory() as tmp:
        jobs = [(os.path.basename(os.path.normpath(f)), f) for f in a.folders]
        if not jobs:
            tiny, base = json.load(open(variants.TINY, encoding="utf8")), variants.chars_file()
            files = [(n, {**tiny, "normalizer": z, "pre_tokenizer": pre, **({"added_tokens": t} if t else {})}) for n, z, pre, t in variants.VARIANTS]
            files += [(n, variants.chars_variant(base, spec, model)) for n, spec, model in variants.CHARS]
            for i, (name, file) in enumerate(f for f in files if a.only in f[0]):
                tok = Tokenizer.from_str(json.dumps(file))
                for token in file["added_tokens"]:  # the library numbers added tokens itself, whatever the file says
                    token["id"] = tok.token_to_id(token["content"])
                os.mkdir(f"{tmp}/{i}")
                json.dump(file, open(f"{tmp}/{i}/tokenizer.json", "w"))
                jobs.append((name, f"{tmp}/{i}"))
        bad = 0
        for name, folder in jobs:
            if a.long:
                bad += long(a.program, name, folder)
                continue
            special = [t["content"] for t in json.load(open(folder + "/tokenizer.json", encoding="utf8"))["added_tokens"]][:60]
            rng = random.Random(a.seed)
            bad += compare(a.program, name, folder, list(characters()) if a.characters else [text(rng, special) for _ in range(a.n)])
        raise SystemExit(1 if bad else 0)


main()
