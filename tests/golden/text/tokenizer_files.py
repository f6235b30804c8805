#!/usr/bin/env python3
"""Makes tokenizer_files.json: what transformers makes of the files beside tokenizer.json. Needs transformers >= 5.24 with `tokenizers`, nothing of the network.

    python3 tests/golden/text/tokenizer_files.py

Each case: "tokenizer" (members over the shipped model's tokenizer.json), "files" (name: text), and of what PreTrainedTokenizerFast.from_pretrained reads there: "n" (ids), "roles" (ids of
bos, eos, pad; -1 none), "special" (ids), "texts": [text, ids, decoded without special tokens], "chats": [request, text or null where transformers refuses].
"""
import json, os, tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers import PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = json.load(open(os.path.join(HERE, "..", "..", "..", "teacher", "tiny", "base", "tokenizer.json"), encoding="utf8"))
TEXTS = ["a<X>b", "a <X>  b", "a<x>b <x>", " <X><x> x<X>x", "aXb X <think> b", "<|im_end|>  <|endoftext|>", "thing in the", "<|new|>x<|next|>", "<s>a</s>"]
END, START, LAST = "<|im_end|>", "<|im_start|>", 511


def token(content, special=False, normalized=False, lstrip=False, rstrip=False, single_word=False):
    return dict(content=content, lstrip=lstrip, normalized=normalized, rstrip=rstrip, single_word=single_word, special=special)


def case(name, added=(), config=None, normalizer=None, chats=(), **files):
    """files: tokenizer's own under their names with _ for / and . ; a str is written as it is, anything else as JSON."""
    spec = {"added_tokens": TINY["added_tokens"] + [dict(id=LAST + 1 + i, **t) for i, t in enumerate(added)]}
    if normalizer:
        spec["normalizer"] = {"type": normalizer}
    names = {"map": "special_tokens_map.json", "tokens": "added_tokens.json", "jinja": "chat_template.jinja"}
    text = lambda v: v if isinstance(v, str) else json.dumps(v)
    out = {names.get(k, "additional_chat_templates/" + k + ".jinja"): text(v) for k, v in files.items()}
    if config is not None:
        out["tokenizer_config.json"] = json.dumps(config)
    with tempfile.TemporaryDirectory() as d:
        for k, v in {**out, "tokenizer.json": json.dumps({**TINY, **spec})}.items():
            os.makedirs(os.path.dirname(os.path.join(d, k)), exist_ok=True)
            open(os.path.join(d, k), "w", encoding="utf8").write(v)
        t = PreTrainedTokenizerFast.from_pretrained(d)
        role = lambda x: -1 if x is None else t.convert_tokens_to_ids(str(x))
        roles = [role(x) for x in (t.bos_token, t.eos_token, t.pad_token)]
        texts = []
        for s in TEXTS if not chats else []:
            ids = t.encode(s, add_special_tokens=False)
            texts.append([s, ids, t.decode(ids, skip_special_tokens=True)])
        special = [i for i, a in sorted(t.added_tokens_decoder.items()) if t.decode([i], skip_special_tokens=True) == ""]
        done = {"name": name, "tokenizer": spec, "files": out, "n": len(t), "roles": roles, "special": special, "texts": texts}
        done["chats"] = [[c, render(t, c)] for c in chats]
    if not texts:
        del done["texts"]
    if not chats:
        del done["chats"]
    return done


def render(t, request):
    try:
        return t.apply_chat_template(request["messages"], tools=request.get("tools"), tokenize=False, add_generation_prompt=request.get("add_generation_prompt", False))
    except ValueError:
        return None


decoder = lambda *tokens: {"added_tokens_decoder": {str(i): t for i, t in tokens}}
CASES, flags = [], [(False, False), (False, True), (True, False), (True, True)]
CASES += [case(f"<X> special {a} normalized {b} in tokenizer.json, {c} and {d} in the config", [token("<X>", a, b)], decoder((512, token("<X>", c, d, lstrip=True))), "Lowercase")
          for a, b in flags for c, d in flags]
X = "<X>"
CASES += [case("<X> twice in tokenizer.json: " + name, [token(X, **a), token(X, **b)], None, "Lowercase") for name, a, b in (
    ("lstrip comes", {}, {"lstrip": True}), ("lstrip goes", {"lstrip": True}, {}), ("special goes", {"special": True}, {}), ("special comes", {}, {"special": True}),
    ("normalized goes", {"normalized": True}, {}), ("normalized comes", {}, {"normalized": True}))]
CASES += [
    case("a token that tokenizer.json lacks", config=decoder((512, token("<|new|>", True)), (513, token("<|next|>", single_word=True)))),
    case("tokens are added in the order of their ids", config=decoder((513, token("<|next|>")), (512, token("<|new|>", True)))),
    case("a token under another id than tokenizer.json's", config=decoder((7, token("<think>", rstrip=True)))),
    case("a token of the vocabulary", config=decoder((0, token("in", True)), (1, token("X", single_word=True)))),
    case("the same as in tokenizer.json", config=decoder((509, token(END, True)), (510, token("<think>")))),
    case("roles alone", config={"bos_token": START, "eos_token": END, "pad_token": None}),
    case("a role that the vocabulary has", config={"eos_token": "in"}),
    case("a role as an object", config={"eos_token": {"__type": "AddedToken", **token("X", lstrip=True)}}),
    case("a role of another name", config={"image_token": "X"}),
    case("a role that the decoder has, not special there", config={"eos_token": "<|new|>", **decoder((512, token("<|new|>", rstrip=True)))}),
    case("additional_special_tokens", config={"additional_special_tokens": ["X", "in"]}),
    case("extra_special_tokens", config={"extra_special_tokens": ["X", "in"]}),
    case("special_tokens_map.json alone", map={"bos_token": START, "eos_token": {**token(END)}, "pad_token": "<|endoftext|>"}),
    case("special_tokens_map.json wins", config={"eos_token": END, "bos_token": START}, map={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
    case("special_tokens_map.json is not read beside added_tokens_decoder", config={"eos_token": END, **decoder((509, token(END, True)))},
         map={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
    case("special_tokens_map.json has additional_special_tokens", map={"additional_special_tokens": ["X"], "eos_token": "in"}),
]
TWO, NEW = {"<|new|>": 512, "<|next|>": 513}, "<|new|>"
CASES += [
    case("a role that is not special in tokenizer.json", config={"eos_token": "<think>"}),
    case("a role that is not special in tokenizer.json nor in the decoder", config={"eos_token": "<think>", **decoder((510, token("<think>")))}),
    case("a role of another name that is not special in tokenizer.json", config={"think_token": "<think>"}),
    case("a role that is not special in tokenizer.json, beside a decoder without it", config={"eos_token": "<think>", **decoder((509, token(END, True)))}),
    case("extra_special_tokens by name that the decoder has, not special there", config={"extra_special_tokens": {"new": NEW}, **decoder((512, token(NEW)))}),
    case("extra_special_tokens by name that are not special in tokenizer.json", config={"extra_special_tokens": {"think": "<think>"}}),
    case("extra_special_tokens that are not special in tokenizer.json", config={"extra_special_tokens": ["<think>"]}),
    case("added_tokens.json", tokens=TWO),
    case("added_tokens.json in the order of its ids", tokens={"<|next|>": 513, NEW: 512}),
    case("added_tokens.json is not read beside added_tokens_decoder", config=decoder((512, token("<|next|>"))), tokens=TWO),
    case("added_tokens.json has a role", config={"eos_token": NEW}, tokens=TWO),
    case("added_tokens.json has a role as an object", config={"eos_token": {"__type": "AddedToken", **token(NEW, rstrip=True)}}, tokens=TWO),
    case("added_tokens.json has a role of special_tokens_map.json", map={"eos_token": NEW}, tokens=TWO),
    case("added_tokens.json has a role as an object of special_tokens_map.json", map={"eos_token": token(NEW, rstrip=True)}, tokens=TWO),
    case("added_tokens.json has a role of another name", config={"image_token": NEW}, tokens=TWO),
    case("added_tokens.json has additional_special_tokens", config={"additional_special_tokens": [NEW]}, tokens=TWO),
    case("added_tokens.json has additional_special_tokens of special_tokens_map.json", map={"additional_special_tokens": [NEW]}, tokens=TWO),
    case("added_tokens.json has extra_special_tokens", config={"extra_special_tokens": [NEW]}, tokens=TWO),
    case("added_tokens.json has extra_special_tokens as objects", config={"extra_special_tokens": [{"__type": "AddedToken", **token(NEW, rstrip=True)}]}, tokens=TWO),
    case("added_tokens.json has extra_special_tokens of special_tokens_map.json", map={"extra_special_tokens": [NEW, {"content": "<|next|>", "rstrip": True}]}, tokens=TWO),
    case("added_tokens.json has extra_special_tokens by name", config={"extra_special_tokens": {"new_token": NEW}}, tokens=TWO),
    case("added_tokens.json has tokens of the vocabulary", tokens={"in": 0, "X": 7}),
    case("added_tokens.json and two contents of one id", tokens={"<|next|>": 512, NEW: 512}),
    case("added_tokens.json is normalized", tokens={"<X>": 512}, normalizer="Lowercase"),
    case("added_tokens.json is not normalized where special", config={"pad_token": "<X>"}, tokens={"<X>": 512}, normalizer="Lowercase"),
]
CASES += [case(f"<X> in tokenizer.json, normalized {normalized}, and added_tokens.json has {tokens}", [token(X, normalized=normalized, rstrip=True)], None, "Lowercase", tokens=tokens)
          for normalized in (False, True) for tokens in ({X: 512}, {X: 600}, {X: 5}, {"<other>": 512})]
HI = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}
CHATS = [HI, {**HI, "tools": [TOOL]}]
PARTS = [{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b\n"}]}, {"role": "assistant", "content": "c"}], "add_generation_prompt": True}]
LOOP = "{% for m in messages %}{{ m.role }}{% if m.content is string %}={{ m.content }}{% else %}{% for p in m['content'] %}:{{ p['text'] }}{% endfor %}{{ m.content | length }}{% endif %};{% endfor %}"
NAMED = [{"name": "default", "template": "plain"}, {"name": "rag", "template": "rag"}]
CASES += [
    case("one template", config={"chat_template": "one {{ messages[0].content }}"}, chats=CHATS),
    case("content in parts, as it is", config={"chat_template": LOOP}, chats=PARTS),
    case("templates by name", config={"chat_template": NAMED + [{"name": "tool_use", "template": "with {{ tools | length }} tools"}]}, chats=CHATS),
    case("templates by name, one twice", config={"chat_template": NAMED + [{"name": "default", "template": "later"}]}, chats=CHATS),
    case("templates by name as an object", config={"chat_template": {"default": "plain", "tool_use": "tools"}}, chats=CHATS),
    case("templates by name without default", config={"chat_template": [NAMED[1], {"name": "short", "template": "short"}]}, chats=CHATS[:1]),
    case("chat_template.jinja wins", config={"chat_template": NAMED + [{"name": "tool_use", "template": "tools"}]}, jinja="of the file", chats=CHATS),
    case("additional_chat_templates", config={"chat_template": "of the config"}, jinja="of the file", tool_use="for tools", rag="rag", chats=CHATS),
    case("additional_chat_templates alone hide the config's", config={"chat_template": "of the config"}, rag="rag", chats=CHATS[:1]),
    case("additional_chat_templates has a default", config={}, jinja="of the file", default="of the folder", chats=CHATS),
]

if __name__ == "__main__":
    with open(os.path.join(HERE, "tokenizer_files.json"), "w") as f:
        json.dump(CASES, f, separators=(",", ":"))
        f.write("\n")
