#!/usr/bin/env python3
"""Word problems of one to three arithmetic steps, with worked answers.

    python problems.py            writes prompts.jsonl and test.jsonl

Everything is made by this script from a seed; the licence of what it makes is
Apache-2.0, as that of the script.

A problem is a `skeleton` (its sentences with the numbers filled in and the
names, things and places still open) plus a filling. The CRC of the skeleton
decides, once and for all, which pool a problem belongs to:

    0 -> test.jsonl          1 -> prompts.jsonl          2..9 -> training data

so no (sentences, numbers) combination, and therefore no text, of the test set
can be in the prompts or in what the teacher or the base was trained on.
"""
import json
import os
import random
import zlib

NAMES = "Tom Ana Ben Eva Leo Mia Sam Zoe Max Ivy Dan Kim".split()
THINGS = "apples books coins stones shells cards pens stars seeds eggs nuts beads".split()
BAGS = "boxes bags rows packs".split()
PLACES = "shop farm park room".split()

# One list of wordings for each slot of a story. {A}, {B}: persons; {P}: place;
# {T}: things; {G}: boxes and the like; {n} {k}: numbers.
PERSON = {
    "have": ["{A} has {n} {T}.", "{A} starts with {n} {T}.", "At first {A} has {n} {T}.",
             "There are {n} {T} in the bag of {A}."],
    "prod": ["{A} has {k} {G} with {n} {T} in each.", "{A} buys {k} {G} of {n} {T} each.",
             "In each of the {k} {G} of {A} there are {n} {T}."],
    "pair": ["{A} has {n} red {T} and {k} blue {T}.", "{A} finds {n} {T} and {B} gives {A} {k} more.",
             "{A} gets {n} {T} one day and {k} the next day."],
    "more": ["{B} has {n} {T}. {A} has {k} more than {B}.", "{A} has {k} more {T} than {B}, who has {n}."],
    "less": ["{B} has {n} {T}. {A} has {k} less than {B}.", "{A} has {k} less {T} than {B}, who has {n}."],
    "add": ["{A} buys {n} more.", "{B} gives {A} {n} more.", "Then {A} finds {n} {T}.", "Then {n} more are added."],
    "sub": ["{A} gives {n} to {B}.", "{A} then loses {n}.", "Then {A} sells {n} {T}.", "Then {n} are taken away."],
    "double": ["Then the number doubles.", "Then {A} gets twice as many."],
    "triple": ["Then the number triples.", "Then {A} gets three times as many."],
    "addp": ["{A} then gets {k} {G} of {n} {T}.", "Then {k} friends bring {n} {T} each."],
    "subp": ["{A} gives {n} to each of {k} friends.", "Then {k} friends take {n} each."],
    "ask": ["How many {T} does {A} have now?", "How many {T} are there in the end?",
            "What is the number of {T} of {A} now?"],
    "ask0": ["How many {T} does {A} have?", "How many {T} are there in all?"],
    "share": ["{A} shares them equally with {k} friends. How many does each friend get?",
              "They go into {k} equal {G}. How many are in each?"],
    "total": ["How many {T} do {A} and {B} have together?", "How many do they have in all?"],
    "first": ["How many {T} does {A} have in the end?", "Find how many {T} there are in the end."],
}
PLACE = dict(PERSON)
PLACE.update({
    "have": ["In the {P} there are {n} {T}.", "The {P} has {n} {T}."],
    "prod": ["In the {P} there are {k} {G} of {n} {T} each.", "The {P} has {k} {G} with {n} {T} in each."],
    "pair": ["In the {P} there are {n} old {T} and {k} new {T}.", "{A} and {B} bring {n} and {k} {T} to the {P}."],
    "more": ["{B} brings {n} {T} to the {P} and {A} brings {k} more than {B}."],
    "less": ["{B} brings {n} {T} to the {P} and {A} brings {k} less than {B}."],
    "add": ["Then {n} more come in.", "{A} brings {n} more.", "The {P} gets {n} {T}."],
    "sub": ["Then {n} are sold.", "{A} takes {n} away.", "The {P} loses {n} {T}."],
    "double": ["Then the number doubles.", "Then there are twice as many."],
    "triple": ["Then the number triples.", "Then there are three times as many."],
    "addp": ["Then {k} friends bring {n} {T} each.", "The {P} gets {k} {G} of {n} {T}."],
    "subp": ["Then {k} friends take {n} each.", "Then {k} {G} of {n} {T} are sold."],
    "ask": ["How many {T} are there now?", "How many {T} are in the {P} in the end?"],
    "ask0": ["How many {T} are there?", "How many {T} are there in all?"],
    "share": ["They go into {k} equal {G}. How many are in each?",
              "They are shared equally with {k} friends. How many does each friend get?"],
    "total": ["How many {T} do {A} and {B} bring together?"],
    "first": ["How many {T} are in the {P} in the end?", "Find how many {T} there are in the end."],
})
PLACE["askm"] = ["How many {T} does {A} bring?"]
PERSON["askm"] = PERSON["ask0"][:1]

# The ways to say one step; {e} is the equation. Weighted: the teacher's
# distribution is to be soft, and not flat.
FIRST = [("First {e}.", 4), ("We get {e} {T}.", 3), ("{e}.", 2), ("There are {e} {T}.", 1)]
LATER = [("Then {e}.", 4), ("Now {e} {T}.", 3), ("So {e}.", 2), ("Next {e} {T}.", 1)]
BY_OP = {
    "+": [("Add {y}: {e}.", 3), ("In all {e}.", 2)],
    "-": [("Take {y} away: {e}.", 3), ("Left: {e}.", 2)],
    "*": [("{x} times {y}: {e}.", 3), ("In all {e}.", 2)],
    "/": [("Share: {e}.", 3), ("Each gets {e}.", 2)],
}
TOP = 99  # no number in a problem or its solution is larger


def pool_of(skeleton):
    return zlib.crc32(skeleton.encode()) % 10


def _fill_numbers(text, **kw):
    for k, v in kw.items():
        text = text.replace("{" + k + "}", str(v))
    return text


def _story(rng, nsteps):
    """-> (skeleton, steps, last value) or None; steps: list of (x, op, y, result)"""
    W = PERSON if rng.random() < 0.6 else PLACE
    steps, sent = [], []

    def do(x, op, y):
        r = {"+": x + y, "-": x - y, "*": x * y, "/": x // y if y else 0}[op]
        steps.append((x, op, y, r))
        return r

    say = lambda slot, **kw: sent.append(_fill_numbers(rng.choice(W[slot]), **kw))
    kind = rng.choice(("have", "have", "have", "prod", "pair", "more", "less"))
    total_ask = False
    if kind == "have":
        v = rng.randint(3, 70)
        say("have", n=v)
    elif kind == "prod":
        k, n = rng.randint(2, 9), rng.randint(2, 10)
        say("prod", k=k, n=n)
        v = do(k, "*", n)
    elif kind == "pair":
        n, k = rng.randint(3, 49), rng.randint(3, 49)
        say("pair", n=n, k=k)
        v = do(n, "+", k)
    else:
        n = rng.randint(5, 60)
        k = rng.randint(2, 39 if kind == "more" else n - 2)
        say(kind, n=n, k=k)
        v = do(n, "+" if kind == "more" else "-", k)
        if len(steps) < nsteps and rng.random() < 0.5 and n + v <= TOP:
            v = do(n, "+", v)
            total_ask = True
    if v > TOP:
        return None
    shared = False
    while len(steps) < nsteps and not total_ask:
        left = nsteps - len(steps)
        ev = ["add", "add", "sub", "sub"]
        if v <= TOP // 2:
            ev.append("double")
        if v <= TOP // 3:
            ev.append("triple")
        if left >= 2:
            ev += ["addp", "subp"]
        if left == 1 and any(v % k == 0 and v > k for k in range(2, 10)):
            ev += ["share", "share"]
        if not sent or W is PLACE and kind in ("more", "less"):
            return None  # "{A} brings": nothing to go on with
        e = rng.choice(ev)
        if e == "add":
            if v > TOP - 2:
                return None
            n = rng.randint(2, min(50, TOP - v))
            say("add", n=n)
            v = do(v, "+", n)
        elif e == "sub":
            if v < 4:
                return None
            n = rng.randint(2, v - 1)
            say("sub", n=n)
            v = do(v, "-", n)
        elif e in ("double", "triple"):
            say(e)
            v = do(v, "*", 2 if e == "double" else 3)
        elif e in ("addp", "subp"):
            k, n = rng.randint(2, 9), rng.randint(2, 10)
            if (v + k * n > TOP) if e == "addp" else (v - k * n < 1):
                return None
            say(e, k=k, n=n)
            p = do(k, "*", n)
            v = do(v, "+" if e == "addp" else "-", p)
        else:
            k = rng.choice([k for k in range(2, 10) if v % k == 0 and v > k])
            say("share", k=k)
            v = do(v, "/", k)
            shared = True
    if len(steps) != nsteps:
        return None
    if total_ask:
        say("total")
    elif not shared:
        if len(sent) == 1:
            say("askm" if kind in ("more", "less") else "ask0")
        elif rng.random() < 0.2:
            sent.insert(0, rng.choice(W["first"]))
        else:
            say("ask")
    return " ".join(sent), steps, v


def make(rng, pools, nsteps=None, weights=(30, 35, 35)):
    """One problem of the given pools: dict of question, reasoning, answer, key, steps."""
    while True:
        n = nsteps or rng.choices((1, 2, 3), weights)[0]
        s = None
        while s is None:
            s = _story(rng, n)
        skeleton, steps, v = s
        if pool_of(skeleton) in pools:
            break
    a, b = rng.sample(NAMES, 2)
    fill = {"{A}": a, "{B}": b, "{T}": rng.choice(THINGS), "{G}": rng.choice(BAGS), "{P}": rng.choice(PLACES)}

    def put(t):
        for k, w in fill.items():
            t = t.replace(k, w)
        return t

    return {"question": put(skeleton), "reasoning": put(reason(rng, steps)), "answer": str(v),
            "key": skeleton, "steps": n}


def reason(rng, steps):
    out = []
    for i, (x, op, y, r) in enumerate(steps):
        if op == "*" and rng.random() < 0.25:
            x, y = y, x
        ways = (LATER if i else FIRST) + BY_OP[op]
        t = rng.choices([w[0] for w in ways], [w[1] for w in ways])[0]
        out.append(_fill_numbers(t, e=f"{x}{op}{y}={r}", x=x, y=y))
    return " ".join(out)


def response(p):
    return f"<think>\n{p['reasoning']}\n</think>\n\nThe answer is \\boxed{{{p['answer']}}}."


TEST, PROMPTS, TRAIN = (0,), (1,), (2, 3, 4, 5, 6, 7, 8, 9)


def arithmetic(rng):
    """A line of plain arithmetic: a chain of one to four equations."""
    v, out = rng.randint(2, 70), []
    for _ in range(rng.randint(1, 4)):
        op = rng.choice("+-*/")
        if op == "+" and v < TOP - 2:
            y = rng.randint(2, min(50, TOP - v)); r = v + y
        elif op == "-" and v > 3:
            y = rng.randint(2, v - 1); r = v - y
        elif op == "*" and 2 <= v <= TOP // 2:
            y = rng.randint(2, min(10, TOP // v)); r = v * y
        elif op == "/" and any(v % k == 0 for k in range(2, 10)):
            y = rng.choice([k for k in range(2, 10) if v % k == 0]); r = v // y
        else:
            continue
        out.append(f"{v}{op}{y}={r}.")
        v = r
    return " ".join(out) if out else arithmetic(rng)


def unique(rng, pools, n, prefix, texts, keys):
    rows = []
    while len(rows) < n:
        p = make(rng, pools)
        if p["question"] in texts or p["key"] in keys:
            continue
        texts.add(p["question"]); keys.add(p["key"])
        rows.append({"id": f"{prefix}{len(rows):05d}",
                     "messages": [{"role": "user", "content": p["question"]}], "answer": p["answer"]})
    return rows


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    seen = []
    for name, pools, n, prefix, seed in (("prompts", PROMPTS, 3000, "p", 1001), ("test", TEST, 1000, "t", 1002)):
        texts, keys = set(), set()
        rows = unique(random.Random(seed), pools, n, prefix, texts, keys)
        assert len(texts) == len(keys) == n and all(pool_of(k) in pools for k in keys)
        seen.append((texts, keys))
        with open(os.path.join(here, name + ".jsonl"), "w", encoding="utf-8") as f:
            for r in rows:
                f.write(json.dumps(r) + "\n")
    (pt, pk), (tt, tk) = seen
    assert not pt & tt and not pk & tk
    # A long sample of the training stream: it may not touch the test set either.
    rng = random.Random(1003)
    for _ in range(50000):
        p = make(rng, TRAIN)
        assert p["question"] not in tt and p["key"] not in tk
        assert p["question"] not in pt and p["key"] not in pk
    print(f"prompts.jsonl {len(pt)}, test.jsonl {len(tt)}: nothing in common, nor with 50000 training problems")


if __name__ == "__main__":
    main()
