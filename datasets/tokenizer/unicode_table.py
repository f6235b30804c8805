#!/usr/bin/env python3
"""Writes unicode_table.inc: what Hugging Face's `tokenizers` believes about every code point.

The truth is asked of the library itself: its parts carry four Unicode tables of different age (Oniguruma's for patterns, Rust's own for
Digits and Lowercase, old ones for Punctuation and the normal forms), all different from Debian's PCRE2 and Python's, and ids shall agree for
the newest emoji and scripts too.  One entry starts a range:  start | category << 21 | bits << 26, with

    bit 26  White_Space (\\s)      bit 27  word character (\\w)      bit 28  Script=Han
    bit 29  may change under NFC or join what stands before it: the quick check of normalizer.c (a superset is safe)
    bit 30  newer than the library's normal forms, which pass it through as a character that touches no other: neither may ours
    bit 31  word character of Rust's regex: Whitespace and single_word
    bit 32  char::is_numeric: Digits      bit 33  what Punctuation splits at

With --lower it writes unicode_lower.inc instead: {first, last, step, distance} of the characters whose lower case is another one.

    pip install tokenizers && python3 unicode_table.py > unicode_table.inc; python3 unicode_table.py --lower > unicode_lower.inc
"""
import sys, unicodedata
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    """The code points that match the pattern, found by splitting all of them with it."""
    out = set()
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    for i in range(0, len(ALL), 4096):
        chunk = ALL[i : i + 4096]
        for _, (b, e) in split.pre_tokenize_str("".join(map(chr, chunk))):
            out.update(chunk[b:e])
    return out


def tables_of_rust():
    """What the pre-tokenizers that use no pattern of the file split at: words, numbers, punctuation."""
    whitespace, digits, word = pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True), set()
    for c in ALL:
        got = whitespace.pre_tokenize_str("a" + chr(c))
        if len(got) == 1 and len(got[0][0]) == 2:
            word.add(c)
    number = {c for c in ALL if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3}
    punctuation, kept = pre_tokenizers.Punctuation("removed"), set()
    for i in range(0, len(ALL), 4096):
        for _, (b, e) in punctuation.pre_tokenize_str("".join(map(chr, ALL[i : i + 4096]))):
            kept.update(ALL[i : i + 4096][b:e])
    return word, number, set(ALL) - kept


def lower():
    small = normalizers.Lowercase().normalize_str
    pairs = [(c, ord(small(chr(c)))) for c in ALL if small(chr(c)) != chr(c) and len(small(chr(c))) == 1]
    assert [c for c in ALL if len(small(chr(c))) > 1] == [0x130]
    runs = []
    for c, to in pairs:
        last = runs[-1] if runs else None
        step = c - last[1] if last else 0
        if last and last[3] == to - c and step in (1, 2) and (last[2] in (0, step)):
            last[1], last[2] = c, step
        else:
            runs.append([c, c, 0, to - c])
    print(f"// Made by unicode_table.py with tokenizers {tokenizers.__version__}. Do not edit: {len(pairs)} characters.")
    for i in range(0, len(runs), 6):
        print(" ".join(f"{{0x{a:x}, 0x{b:x}, {max(s, 1)}, {d}}}," for a, b, s, d in runs[i : i + 6]))


def main():
    category = {}
    for k, name in enumerate(CATEGORIES):
        if name == "Cs":
            continue
        for c in members(r"\p{%s}" % name):
            assert c not in category, (hex(c), name, CATEGORIES[category[c]])
            category[c] = k
    for c in range(0xD800, 0xE000):
        category[c] = CATEGORIES.index("Cs")
    assert len(category) == 0x110000
    space, word, han = members(r"\s"), members(r"\w"), members(r"\p{Han}")
    nfc = normalizers.NFC().normalize_str
    # Combining class above 0, as the library's NFC sees it: it changes places with U+0334 (class 1) or U+0301 (class 230).
    combines = lambda c: nfc(chr(c) + "\u0334") != chr(c) + "\u0334" or nfc("\u0301" + chr(c)) != "\u0301" + chr(c)
    unsafe = {c for c in ALL if nfc(chr(c)) != chr(c)}
    for c in ALL:  # what may stand second in a composition
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and parts[0][0] != "<" and nfc(chr(int(parts[0], 16)) + chr(int(parts[1], 16))) == chr(c):
            unsafe.add(int(parts[1], 16))
    unsafe |= set(range(0x1160, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels and finals join the syllable before them
    unknown = {c for c in ALL if unicodedata.category(chr(c)) == "Cn"}
    moves = {c for c in ALL if unicodedata.combining(chr(c)) or unicodedata.decomposition(chr(c))}
    for c in ALL:  # second in a composition that the library does not know yet
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and parts[0][0] != "<":
            moves.add(int(parts[1], 16))
    unsafe |= {c for c in moves | unknown if combines(c)}
    nfkd = normalizers.NFKD().normalize_str
    barrier = {c for c in (moves | unknown) - unsafe if nfkd(chr(c)) == chr(c)}
    rust_word, numeric, punctuation = tables_of_rust()

    ranges, last = [], None
    for c in range(0x110000):
        v = category[c] << 21 | (c in space) << 26 | (c in word) << 27 | (c in han) << 28 | (c in unsafe) << 29 | (c in barrier) << 30
        v |= (c in rust_word) << 31 | (c in numeric) << 32 | (c in punctuation) << 33
        if v != last:
            ranges.append(c | v)
            last = v
    print(f"// Made by unicode_table.py with tokenizers {tokenizers.__version__}. Do not edit: {len(ranges)} ranges.")
    for i in range(0, len(ranges), 12):
        print(" ".join(f"0x{r:x}," for r in ranges[i : i + 12]))
    print(f"{len(ranges)} ranges; letters {sum(CATEGORIES[k][0] == 'L' for k in category.values())}, spaces {len(space)}, "
          f"words {len(word)} and {len(rust_word)}, numbers {len(numeric)}, punctuation {len(punctuation)}, Han {len(han)}, unsafe {len(unsafe)}, barriers {len(barrier)}", file=sys.stderr)


lower() if sys.argv[1:] == ["--lower"] else main()
