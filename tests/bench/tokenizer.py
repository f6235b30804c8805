#!/usr/bin/env python3
"""Speed and memory of `distill tokenize` and of Hugging Face's `tokenizers` on 20 MB of mixed text, in one run: prints rows of a Markdown table.

    pip install tokenizers && python3 tests/bench/tokenizer.py BUILD/distill DIR …

DIR holds a tokenizer.json. The text: a third Python's own sources, a third the translated messages that are on this machine (*.mo, dozens of
languages), a third words of the sources in random order, cut into documents of about 2,000 bytes, none twice. Each side is a process of its own on one
thread; it loads the tokenizer and encodes the documents one after the other, and its processor seconds and largest resident memory are read from the
kernel. Ours reads a JSON string a line and writes the ids as text, which is part of its time; Hugging Face's process gets the documents from a file
and keeps no ids. What each side needs for one empty document is the time of loading; The start
and memory of the bare program are taken off on both sides, and from theirs the reading of the documents.
"""
import glob
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile

THEIRS = """
import json, sys
from tokenizers import Tokenizer
tok = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
for line in open(sys.argv[2]):
    tok.encode(json.loads(line), add_special_tokens=False).ids
"""
NO_TOKENIZER = """
import json, sys
import tokenizers
for line in open(sys.argv[2]):
    json.loads(line)
"""


def take(paths, n, decode):
    out = []
    for p in paths:
        if sum(map(len, out)) > n:
            break
        try:
            out.append(decode(open(p, "rb").read()))
        except (OSError, UnicodeDecodeError):
            pass
    return "\n".join(out)


def documents(n):
    """About n bytes of UTF-8 in documents."""
    sources = sorted(glob.glob(sysconfig.get_path("stdlib") + "/*.py") + glob.glob(sysconfig.get_path("stdlib") + "/[a-z]*/*.py"))
    code = take(sources, n // 3, lambda b: b.decode())
    messages = sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo"), key=lambda p: (os.path.basename(p), p)) or sources[::-1]
    other = take(messages, n // 3, lambda b: b.decode("utf-8", "ignore").replace("\0", "\n"))
    words = code.split()
    rng = random.Random(1)
    mixed = " ".join(rng.choice(words) for _ in range(n // 3 // 8))
    docs = [t[i : i + 2000] for t in (code, other, mixed) for i in range(0, len(t), 2000)]
    rng.shuffle(docs)
    total, out = 0, []
    for d in docs:
        out.append(d)
        total += len(d.encode())
        if total >= n:
            break
    return out, total


def cost(command, **more):
    """Processor seconds, and the largest resident memory in MiB."""
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, **more)
    _, status, used = os.wait4(p.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main():
    if sys.argv[1] == "--documents":
        docs, n = documents(20 << 20)
        with open(sys.argv[2], "w") as f:
            f.writelines(json.dumps(d) + "\n" for d in docs)
        print(n)
        return
    program, folders = sys.argv[1], sys.argv[2:]
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as tmp:
        # Another process makes the text: a child's largest memory starts from its parent's.
        n = int(subprocess.check_output([sys.executable, __file__, "--documents", f"{tmp}/docs"]))
        open(f"{tmp}/one", "w").write('""\n')
        print(f"{n / 1e6:.1f} MB\n\n| tokenizer | | load, s | encode, s | MB/s | peak, MiB |\n|---|---|---|---|---|---|")
        python = [sys.executable, "-c"]
        reading = cost([*python, NO_TOKENIZER, "", f"{tmp}/docs"])[0]
        start, bare = cost([*python, NO_TOKENIZER, "", f"{tmp}/one"])
        our_start, our_bare = cost([program, "--version"])
        for folder in folders:
            ours = [cost([program, "tokenize", "--model", folder], stdin=open(f"{tmp}/{x}")) for x in ("one", "docs")]
            theirs = [cost([*python, THEIRS, folder, f"{tmp}/{x}"]) for x in ("one", "docs")]
            load = ours[0][0] - our_start, theirs[0][0] - start
            encode = ours[1][0] - ours[0][0], theirs[1][0] - theirs[0][0] - (reading - start)
            memory = ours[1][1] - our_bare, theirs[1][1] - bare
            name = os.path.basename(os.path.normpath(folder))
            for i, side in enumerate(("distill", "tokenizers")):
                print(f"| {name} | {side} | {load[i]:.2f} | {encode[i]:.2f} | {n / encode[i] / 1e6:.1f} | {memory[i]:.0f} |")
            print(f"| {name} | ratio | {load[1] / load[0]:.1f}× | {encode[1] / encode[0]:.1f}× | | {memory[0] / memory[1]:.2f} |", flush=True)


main()
