#!/usr/bin/env python3
"""Makes chat_real.json, the golden of tests/datasets/test_chat_real.c: token ids and loss masks of conversations under real chat templates and
real tokenizers, which are not in this repository.

    pip install transformers jinja2 && python3 chat.py FOLDER_OF_TOKENIZERS FOLDER_OF_CHAT_TEMPLATES

The masks know nothing of how distill finds its spans: for each family a regular expression, written down by hand, says between which marks the
assistant speaks, and the tokenizers library says which characters each token stands for. For templates with {% generation %} blocks the mask
is transformers' own (return_assistant_tokens_mask).
"""
import json
import os
import re
import sys
import zlib

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZERS, TEMPLATES = sys.argv[1:3]

IM = (r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", "<|im_end|>\n")
HEADER = (r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)", "<|eot_id|>")
DSV3 = (r"<｜Assistant｜>(.*?<｜end▁of▁sentence｜>)", "<｜end▁of▁sentence｜>")
DS = (r"<｜Assistant｜>(?:<think>\n)?(.*?<｜end▁of▁sentence｜>)", "<｜end▁of▁sentence｜>")
DS31 = (r"(?:<｜Assistant｜>(?:<think></think>|<think>|</think>)?|<｜tool▁output▁end｜>(?!<))(.*?<｜end▁of▁sentence｜>)", "<｜end▁of▁sentence｜>")
# template, tokenizer, (expression, how a turn ends), who writes the reasoning of the last answer: the template (T); nobody, and the prompt
# opens <think> with a line of its own (N) or without (I); nobody, and the prompt does not open it (-); the template, but only from the
# content, not from a field (C)
FAMILIES = [
    ("from-tokenizer_config/deepseek_v3.jinja", "deepseek_v3", DSV3, "C-"),
    ("llama.cpp-2026-07/llama-cpp-deepseek-r1.jinja", "deepseek_v3", DS, "N"),
    ("trl/deepseekv3.jinja", "deepseek_v3", DS, "N"),
    ("llama.cpp-2026-07/deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "deepseek_v3", DS, "N"),
    ("llama.cpp-2026-07/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "deepseek_v3", DS, "N"),
    ("llama.cpp-2026-07/deepseek-ai-DeepSeek-V3.1.jinja", "deepseek_v3", DS31, "I"),
    ("llama.cpp-2026-07/deepseek-ai-DeepSeek-V3.2.jinja", "deepseek_v3", DS31, "CI"),
    ("from-tokenizer_config/qwen2_5.jinja", "qwen2_5", IM, "C-"),
    ("llama.cpp-2026-07/Qwen-Qwen2.5-7B-Instruct.jinja", "qwen2_5", IM, "C-"),
    ("trl/qwen2_5.jinja", "qwen2_5", IM, "C-"),
    ("from-tokenizer_config/qwen1_5.jinja", "qwen2_5", IM, "C-"),
    ("llama.cpp-2026-07/Qwen-QwQ-32B.jinja", "qwen2_5", (IM[0].replace(r"\n(", r"\n(?:<think>\n)?("), IM[1]), "CN"),
    ("from-tokenizer_config/qwen3.jinja", "qwen3", IM, "T"),
    ("llama.cpp-2026-07/Qwen-Qwen3-0.6B.jinja", "qwen3", IM, "T"),
    ("trl/qwen3.jinja", "qwen3", IM, "T"),
    ("trl/qwen3_instruct_2507.jinja", "qwen3", IM, "C-"),
    # the first Llama-3's always ends with a generation prompt
    ("from-tokenizer_config/llama3.jinja", "llama3", (HEADER[0], HEADER[1] + "<|start_header_id|>assistant<|end_header_id|>\n\n"), "C-"),
    ("from-tokenizer_config/llama3_2.jinja", "llama3", HEADER, "C-"),
    ("llama.cpp-2026-07/meta-llama-Llama-3.1-8B-Instruct.jinja", "llama3", HEADER, "C-"),
    ("llama.cpp-2026-07/meta-llama-Llama-3.2-3B-Instruct.jinja", "llama3", HEADER, "C-"),
    ("llama.cpp-2026-07/meta-llama-Llama-3.3-70B-Instruct.jinja", "llama3", HEADER, "C-"),
    ("trl/llama3.jinja", "llama3", HEADER, "C-"),
    ("llama.cpp-2026-07/Kimi-K2-Instruct.jinja", "qwen2_5", (r"<\|im_assistant\|>assistant<\|im_middle\|>(.*?<\|im_end\|>)", "<|im_end|>"), "C-"),
]
TRAINING = [("trl/deepseekv3_training.jinja", "deepseek_v3"), ("trl/llama3_training.jinja", "llama3"), ("trl/qwen2_5_training.jinja", "qwen2_5"),
            ("trl/qwen3_training.jinja", "qwen3")]


def U(c):
    return dict(role="user", content=c)


def A(c, **k):
    return dict(role="assistant", content=c, **k)


S = dict(role="system", content="Be brief \u2014 and \"kind\".")
KW = {"date_string": "26 Jul 2024"}  # Llama-3.x write today's date without it
ROWS = [
    dict(messages=[U("What is 2 + 2?"), A("It is 4.")]),
    dict(messages=[S, U("Hi  "), A("Hello! \U0001fae8"), U("na\u00efve 'quotes' \u4f60\u597d \\n\n"), A("  Bye,\n\nthen\u2026  ")]),
    dict(messages=[U("q1"), A("a1", reasoning_content="r1\nmore"), U("q2"), A("a2: 12,345", reasoning_content="r2\n\nI think: 6*7=42.")]),
    dict(messages=[U("q1"), A("<think>\nr1\n</think>\n\na1"), U("q2"), A("<think>\nr2 \u00e9\n</think>\n\na2")]),
    dict(messages=[S, U("one"), A("a", reasoning="only here")]),
    dict(messages=[U("say <think> and </think>"), A("no"), U("please"), A("still no.")]),
]
# Called tools: rendered by those templates that can.
CALL = dict(type="function", id="c1", function=dict(name="weather", arguments='{"city": "K\u00f6ln"}'))
TOOL_ROW = dict(messages=[U("w?"), A("", tool_calls=[CALL]), dict(role="tool", content='{"t": 21}', tool_call_id="c1", name="weather"), A("It is 21 degrees.")],
                tools=[dict(type="function", function=dict(name="weather", description="d", parameters=dict(type="object", properties=dict(city=dict(type="string")))))],
                chat_template_kwargs=KW)
TOOLS_KNOWN = ["/Qwen", "qwen3", "qwen2_5", "V3.1", "Llama-3.1", "Llama-3.2", "Llama-3.3", "llama3_1", "llama3_2"]


def run_lengths(mask):
    """[begin, end) of each stretch of ones."""
    out = []
    for i, m in enumerate(mask):
        if m and (i == 0 or not mask[i - 1]):
            out.append([i, i])
        if m:
            out[-1][1] = i + 1
    return out


def render(template, row, tok, **more):
    kwargs = {k: v for k, v in tok.special_tokens_map.items() if isinstance(v, str)}
    return render_jinja_template([row["messages"]], tools=row.get("tools"), chat_template=template, **{**kwargs, **row.get("chat_template_kwargs", {}), **more})[0][0]


def text_of(template, row, tok, end, kind):
    """The rendered row; where the template leaves the last answer's reasoning out, what the model writes after the prompt put in by hand."""
    last = row["messages"][-1]
    field = last.get("reasoning_content") or last.get("reasoning")
    inside = re.match(r"<think>\n(.*)\n</think>\n\n(.*)", last["content"], re.S)
    if kind == "T" or not (field or inside) or ("C" in kind and not field):
        return render(template, row, tok)
    reasoning, answer = (field, last["content"]) if field else inside.groups()
    prompt = render(template, dict(row, messages=row["messages"][:-1]), tok, add_generation_prompt=True, **({"thinking": True, "enable_thinking": True} if "I" in kind or "N" in kind else {}))
    assert prompt.endswith("<think>\n" if "N" in kind else "<think>" if "I" in kind else ""), (kind, prompt)
    before, after = ("", "</think>") if "I" in kind else ("" if "N" in kind else "<think>\n", "\n</think>\n\n")
    return prompt + before + reasoning + after + answer + end


def main():
    toks, cases = {}, []
    for name in ("deepseek_v3", "qwen2_5", "qwen3", "llama3"):
        config = json.load(open(os.path.join(TOKENIZERS, name, "tokenizer_config.json"), encoding="utf8"))
        special = {k: (v["content"] if isinstance(v, dict) else v) for k, v in config.items() if k in ("bos_token", "eos_token", "pad_token") and v}
        toks[name] = PreTrainedTokenizerFast(tokenizer_file=os.path.join(TOKENIZERS, name, "tokenizer.json"), **special)
    for row in ROWS:
        row["chat_template_kwargs"] = KW

    def add(path, name, row, ids, mask):
        cases.append(dict(template=path, tokenizer=name, row=row, n=len(ids), crc32=zlib.crc32(b"".join(i.to_bytes(4, "little") for i in ids)), mask=run_lengths(mask)))

    for path, name, (expression, end), kind in FAMILIES:
        template = open(os.path.join(TEMPLATES, path), encoding="utf8").read()
        rows = list(enumerate(ROWS))
        if "qwen3.jinja" in path or "Qwen3-0.6B" in path:
            rows.append((len(ROWS), None))
        if any(k in path for k in TOOLS_KNOWN):
            rows.append((len(ROWS), TOOL_ROW))
        for i, row in rows:
            rule = expression
            if row is None:  # thinking switched off: the prompt itself holds the empty reasoning of the last turn
                row = dict(ROWS[1], chat_template_kwargs={"enable_thinking": False})
                rule = expression.replace(r"\n(", r"\n(?:<think>\n\n</think>\n\n)?(")
            text = text_of(template, row, toks[name], end, kind)
            enc = toks[name].backend_tokenizer.encode(text, add_special_tokens=False)
            spans = [m.span(1) for m in re.finditer(rule, text, re.S)]
            assert len(spans) == sum(m["role"] == "assistant" for m in row["messages"]), (path, i, text)
            mask = [any(a < e and b > s for s, e in spans) for a, b in enc.offsets]
            add(path, name, i if i < len(ROWS) else row, enc.ids, mask)
    for path, name in TRAINING:
        template = open(os.path.join(TEMPLATES, path), encoding="utf8").read()
        for i, row in enumerate(ROWS):
            out = toks[name].apply_chat_template(row["messages"], chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **KW)
            add(path, name, i, out["input_ids"], out["assistant_masks"])
    with open(os.path.join(HERE, "chat_real.json"), "w") as f:
        json.dump(dict(rows=ROWS, cases=cases), f, separators=(",", ":"))
        f.write("\n")
    print(len(cases), "cases")


main()
