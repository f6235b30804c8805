#!/usr/bin/env python3
"""Makes the goldens of tests/datasets/test_template.c with jinja2, set up by transformers.

    pip install transformers jinja2 && python3 templates.py [FOLDER WITH e2e.json AND *.jinja]

templates.json        small templates, one construct each, and what they write (or that they are refused: null)
templates_real.json   conversations and variants of each, and the CRC-32 of what real templates, which are not in this repository, write
"""
import copy
import glob
import json
import os
import sys
import zlib

from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = {"s": "Hello World", "u": "h\u00e9llo \u4e16\u754c \U0001f600", "n": 7, "r": 2.5, "z": 0, "t": True, "f": False, "none_": None, "l": [3, 1, 2], "e": [], "blank": "  a b \n",
        "d": {"b": 1, "a": {"x": [1, None, True, 1.5, "q\"'\\\n\u00e9\x01"]}, "items": "key"}, "people": [{"name": "Bo", "age": 3}, {"name": "al", "age": 1}, {"name": "Cy"}],
        "q": "it's", "qq": "\"both\" it's", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
SMALL = r"""
{{ s }}|{{ n }}|{{ r }}|{{ t }}|{{ none_ }}|{{ nothing }}|{{ l }}|{{ d }}|{{ (1, 'a') }}|{{ (1,) }}|{{ () }}
{{ 1 + 2 * 3 - 4 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 7 / 2 }}|{{ 6 / 2 }}|{{ -n }}|{{ +r }}
{{ 1.0 }}|{{ 1e16 }}|{{ 1e15 }}|{{ 1.5e-7 }}|{{ 0.0001 }}|{{ 123456.789 }}|{{ 1e100 }}|{{ 0.1 + 0.2 }}|{{ 3.0 * 2 }}|{{ 5 // 2.0 }}|{{ -7.5 % 2 }}
{{ 'a' ~ 1 ~ none_ ~ 2.0 }}|{{ 'a' * 3 }}|{{ [1] * 2 }}|{{ [1] + [2] }}|{{ 'x' + 'y' }}|{{ "%s-%d%%" % ('a', 3) }}
{{ 1 < 2 < 3 }}|{{ 1 < 2 > 5 }}|{{ 'a' < 'b' }}|{{ 1 == 1.0 }}|{{ 'a' == 1 }}|{{ [1,2] == [1,2] }}|{{ none_ == none }}|{{ true == 1 }}
{{ 'll' in s }}|{{ 3 in l }}|{{ 'b' in d }}|{{ 'q' not in d }}|{{ not 3 in l }}|{{ 'x' in nothing }}
{{ t and 'yes' or 'no' }}|{{ '' or 'x' }}|{{ not '' }}|{{ 'a' if t else 'b' }}|{{ 'a' if f }}|{{ 'a' if f else 'b' if f else 'c' }}
{{ s[0] }}{{ s[-1] }}|{{ s[2:5] }}|{{ s[:-3] }}|{{ s[::-1] }}|{{ s[::2] }}|{{ u[1] }}|{{ u[-1:] }}|{{ l[1:] }}|{{ l[::-1] }}|{{ l[9] }}|{{ l[5:] }}|{{ u[1:3] }}
{{ d.b }}|{{ d['b'] }}|{{ d['items'] }}|{{ d.nope }}|{{ d.a.x[1] }}|{{ d.get('b') }}|{{ d.get('q', 'def') }}|{{ d.get('q') }}|{{ d.a['x'].0 }}
{{ d.keys() | list }}|{{ d.values() | list | length }}|{{ d.items() | list | length }}|{{ d | length }}|{% for k, v in d.items() %}{{ k }},{% endfor %}
{{ d | tojson }}|{{ d | tojson(indent=2) }}|{{ l | tojson(separators=(',', ':')) }}|{{ u | tojson(ensure_ascii=true) }}|{{ d | tojson(sort_keys=true) }}|{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=1) }}
{{ q }}|{{ [q, qq, u, "\n\t\\", "\x00\x7f"] }}|{{ {1: 'a', none: 2, 'k': (1, 2)} }}
{{ blank | trim }}|{{ blank.strip() }}|{{ blank.lstrip() }}|{{ blank.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.strip('ab') }}|{{ '__a'.lstrip('_') }}
{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}|{{ 'a b c'.rsplit(' ', 1) }}|{{ 'a</t>b</t>c'.split('</t>')[-1] }}|{{ ' a b  c '.split(none, 1) }}|{{ ' a b  c '.rsplit(none, 1) }}|{{ ''.split(',') }}
{{ s.upper() }}|{{ s.lower() }}|{{ 'hello wORLD it\'s'.title() }}|{{ 'hELLO'.capitalize() }}|{{ 'ß'.upper() }}|{{ 'hello-wORLD (it)' | title }}|{{ s | upper }}|{{ 'aB' | capitalize }}
{{ s.startswith('He') }}|{{ s.endswith(('x', 'ld')) }}|{{ s.find('o') }}|{{ s.rfind('o') }}|{{ u.find('界') }}|{{ s.count('l') }}|{{ s.replace('l', 'L', 2) }}|{{ 'ab'.replace('', '-') }}|{{ ','.join(['a', 'b']) }}
{{ 'a\nb\r\nc'.splitlines() }}|{{ '12'.isdigit() }}|{{ 'a1'.isdigit() }}|{{ ' '.isspace() }}|{{ 'ab'.isalpha() }}|{{ 'AB'.isupper() }}|{{ 'prefix'.removeprefix('pre') }}|{{ 'a.b'.removesuffix('.b') }}
{{ l | first }}|{{ l | last }}|{{ l | sort }}|{{ l | sort(reverse=true) }}|{{ l | max }}|{{ l | min }}|{{ l | sum }}|{{ l | reverse | list }}|{{ 'abc' | reverse }}|{{ l | join('-') }}|{{ ['b', 'A', 'a'] | sort }}|{{ ['b', 'A', 'a'] | unique | list }}
{{ people | map(attribute='name') | list }}|{{ people | map(attribute='age', default=0) | list }}|{{ people | selectattr('age') | list | length }}|{{ people | selectattr('age', 'defined') | map(attribute='name') | join(',') }}|{{ people | rejectattr('name', 'equalto', 'Bo') | list | length }}
{{ people | sort(attribute='name') | map(attribute='name') | join }}|{{ ['a', 'b'] | map('upper') | list }}|{{ l | select('odd') | list }}|{{ l | reject('gt', 1) | list }}|{{ [0, 1, ''] | select | list }}|{{ d | dictsort | map('first') | list }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb\n' | indent(1, blank=true) }}|{{ 'x' | indent('>>', first=true) }}|{{ '' | indent(2, true) }}
{{ '42' | int }}|{{ 'x' | int }}|{{ 'x' | int(5) }}|{{ '3.7' | int }}|{{ 3.9 | int }}|{{ '1.5' | float }}|{{ 'x' | float }}|{{ -3 | abs }}|{{ 2.567 | round(2) }}|{{ 2.5 | round }}|{{ true | int }}
{{ nothing | default('d') }}|{{ '' | default('d') }}|{{ '' | default('d', true) }}|{{ none_ | default('d') }}|{{ none_ | d('e', boolean=true) }}|{{ nothing | length }}|{{ 3 | string }}|{{ 'a b c' | wordcount }}|{{ '<a&"\'>' | e }}|{{ s | replace('l', 'r') }}|{{ '<b>' | safe }}
{{ n is defined }}|{{ nothing is defined }}|{{ nothing is undefined }}|{{ none_ is none }}|{{ s is string }}|{{ d is mapping }}|{{ l is iterable }}|{{ s is iterable }}|{{ n is number }}|{{ l is sequence }}|{{ t is boolean }}|{{ t is true }}|{{ 1 is true }}|{{ n is integer }}|{{ r is float }}
{{ n is odd }}|{{ n is even }}|{{ n is divisibleby 7 }}|{{ n is divisibleby(2) }}|{{ n is eq 7 }}|{{ 3 is in l }}|{{ 'a' is lower }}|{{ none_ is not none }}|{{ s is not string and t }}|{{ t is sameas true }}|{{ 'upper' is filter }}|{{ namespace is callable }}|{{ d is iterable and d is not mapping }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% else %}none{% endfor %}
{% for x in e %}x{% else %}none{% endfor %}|{% for x in nothing %}x{% else %}none{% endfor %}|{% for c in u %}{{ c }},{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for x in l if x > 1 %}{{ x }}{{ loop.last }}{% endfor %}
{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}|{% for a in [1, 2, 3] %}{% if a == 2 %}{% break %}{% endif %}{{ a }}{% endfor %}|{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}|{% for i in range(3) %}{% for j in range(i) %}{{ loop.depth }}{% endfor %}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}|{% if t %}{% set x = 5 %}{% endif %}{{ x }}|{% set ns = namespace(a=0, b='q') %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set v %}text {{ n }}{% endset %}{{ v }}|{% set v | upper %}text{% endset %}{{ v }}|{% with p = 1, q = 2 %}{{ p }}{{ q }}{% endwith %}{{ p }}|{% filter upper | replace('A', 'b') %}aXa{% endfilter %}
{% macro m(a, b=2, c='z') %}[{{ a }}{{ b }}{{ c }}{{ n }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=1) }}{{ m(*[7, 8]) }}{{ m(**{'a': 9}) }}|{% macro w() %}<{{ caller('x') }}>{% endmacro %}{% call(y) w() %}{{ y }}{{ s }}{% endcall %}|{% macro fact(k) %}{{ 1 if k < 2 else k * fact(k - 1) | int }}{% endmacro %}{{ fact(5) }}
{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content }}{% if loop.last %}.{% endif %}{% endfor %}|{{ messages[0].role }}|{{ messages[-1]['content'] }}|{{ messages[1:] | length }}|{{ (messages | last).content }}|{{ messages[::-1][0].role }}
{{ range(5) | list }}|{{ range(1, 4) | list }}|{{ range(9, 0, -3) | list }}|{{ dict(a=1, b=2) }}|{{ {'a': 1}.items() | list }}|{{ [1, 2,] }}|{{ 'a' 'b' }}|{{ 0x1F }}|{{ 1_000 }}|{{ "\u00e9\x41\101\n" }}|{{ 'don\'t' }}
{#- comment -#} a {%- if t -%}  b  {%- endif -%} c {#+ x #} {% raw %}{{ not }} {% this %}{% endraw %} {{- n -}} d
{{ [1, 2] | tojson }}{{ none | tojson }}{{ true | tojson }}{{ 1.0 | tojson }}{{ 1e300 | tojson }}{{ "a/b<>&" | tojson }}{{ {1: 2, true: 3, none: 4} | tojson }}
{{ (1 if t else 2) + 3 }}|{{ (s | length) + 1 }}|{{ -1 | abs }}|{{ 2 + 3 | string | length }}|{{ 'a' ~ 'b' == 'ab' }}|{{ not t or t }}|{{ 1 in [1] and 2 }}|{{ s.split(' ')[0][1:3] | upper }}
{{ 'abc'.center(8) }}|{{ 'ab'.center(5, '*') }}|{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '0') }}|{{ '-7'.zfill(5) }}|{{ u.zfill(14) }}|{{ 'a,b,c'.partition(',') }}|{{ 'a,b,c'.rpartition(',') }}|{{ 'abc'.partition('x') }}|{{ 'abc'.rpartition('x') }}
{{ s.index('o') }}|{{ s.rindex('o') }}|{{ s.find('o', 5) }}|{{ s.find('o', -3, -1) }}|{{ s.find('', 11) }}|{{ s.find('', 12) }}|{{ s.count('l', 3) }}|{{ s.startswith('l', 2) }}|{{ s.endswith('o', 0, 5) }}|{{ 'aBc'.swapcase() }}|{{ 'a1'.isascii() }}|{{ u.isascii() }}|{{ '12'.isdecimal() }}
{{ d.keys() }}|{{ d.values() | first }}|{{ {'a': 1}.items() }}|{{ d.keys()[0] }}|{{ d.items() is sequence }}|{{ range(3) is sequence }}|{{ range(3)[1] }}|{{ range(9)[2:5] | list }}|{{ (1, 2) * 2 }}|{{ l.copy() }}|{{ (1, 2).count(1) }}
{% set g = l | select('gt', 1) %}{{ 'yes' if g else 'no' }}{{ g | list }}{{ g | list }}|{{ 'yes' if l | select('gt', 9) else 'no' }}|{{ l | map('string') | first }}|{{ (l | reverse) is sequence }}|{{ 3 in l | select }}
{{ '<a>' | e + '<b>' }}|{{ '<a>' | safe + '<b>' }}|{{ '<b>' + ('<a>' | safe) }}|{{ ('<a>' | safe) ~ '<b>' }}|{{ '<' | e | e }}|{{ 'x' | safe is escaped }}|{{ 'x' is escaped }}
{{ 7 | round }}|{{ 7.5 | round }}|{{ 2.675 | round(2) }}|{{ 7 | round(1, 'floor') }}|{{ 1234 | round(-2) }}|{{ true | abs }}|{{ 2.5 is odd }}|{{ 3.0 is odd }}|{{ "it's a-b c_d" | wordcount }}|{{ 'a\r\nb\x0bc\u2028d' | indent(1) }}|{{ 'a\x0bb\u2028c\x85d'.splitlines() }}
{% for a in [1] %}{% continue %}{% else %}E{% endfor %}|{% for a in [1, 2] %}{% break %}{% else %}E{% endfor %}|{% for a in [1, 2] %}{% if a > 1 %}{% break %}{% endif %}{% else %}E{% endfor %}|{% for a in l | select %}{{ loop.length }}{{ loop.last }}{% endfor %}
{{ none_ | selectattr('a') | list }}{{ 0 | map('upper') | list }}|{{ nothing is callable }}|{{ l | sort(attribute='x') }}|{{ [1, 2] | sort | first }}|{{ "%s" % [1, 2] }}|{{ "a" % [1] }}|{{ 'b' in d.keys() }}|{{ none_ is none and t is defined }}
{{ l | map('string') | tojson }}
{{ d.items() | tojson }}
{{ range(3) | tojson }}
{{ l | select | length }}
{{ l | select | last }}
{{ [1] + l | select }}
{{ d.keys() + [1] }}
{{ t is defined if f else 1 }}
{% if n if f else s %}{% endif %}
{{ t is defined is true }}
{{ 'abc'.index('x') }}
{{ 'a'.strip('a', 'b') }}
{{ l.count(1, 2) }}
{{ d.get(key='b') }}
{{ l in d }}
{{ 'x' % 1 }}
{{ '%s' % (1, 2) }}
{{ l | indent }}
{{ nothing | int }}
{{ n is defined(1) }}
{{ n is eq }}
{{ l | select('odd', 1) | list }}
{{ nothing | dictsort }}
{% set ns = namespace(_a=1) %}
{% set ns = namespace() %}{% set ns._a = 1 %}
{{ n[1:] }}
{{ (1, 2) < [1, 2] }}
{{ nothing.x }}
{{ none_.x.y }}
{{ nothing + 1 }}
{{ 1 + 'a' }}
{{ n() }}
{{ nothing() }}
{{ l.append(4) }}
{{ nothing | tojson }}
{{ 1 // 0 }}
{{ raise_exception('no') }}
{% for x in 5 %}{% endfor %}
{% for x in none_ %}{% endfor %}
{{ n | length }}
{% set s.x = 1 %}
{{ s | nofilter }}
{{ s is notest }}
{% if f %}{{ s | nofilter }}{% endif %}fine
{% frobnicate %}
{{ s
{% if t %}
{% endif %}
{{ 'abc }}
{{ 1 + }}
{{ ) }}
{% for x %}{% endfor %}
{{ a b }}
{{ s.join(1) }}
{{ [1, 'a'] | sort }}
{{ 'a' < 1 }}
""".strip("\n").split("\n")
SMALL += ["a\n{% if t %}\n  b\n{% endif %}\nc\n", "  {% if t %}x{% endif %}  \n  {# c #}\n  {{ n }}\n", "x\n\n", "{% for x in l %}\n  {{ x }}\n{% endfor %}\nend", "a  {%- if t %}\n b {%+ if t %}\n c{% endif -%}  \n d{% endif %}\n",
          "\r\na\r\n{% if t %}\r\nb\r{% endif %}", "{{ n }}\n{{- n }}\n  {{- n -}}  \n", "{% raw -%}  a  {%- endraw %}\n b", "{%- set x = 1 %}\n\n{{ x }}", "   {#- c #}\n  {#- d -#}  e", "a {{ '}}' }} {{ \"%}\" }} {{ {'a': {}} }}",
          "{% generation %}a{{ n }}{% endgeneration %}\nb"]

U = lambda c, **k: dict(role="user", content=c, **k)
A = lambda c, **k: dict(role="assistant", content=c, **k)
S = lambda c: dict(role="system", content=c)
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather \u2014 <b>now</b> \"q\" 'x' & \u00e9", "parameters": {"type": "object", "properties": {
    "city": {"type": "string", "description": "Stadt"}, "n": {"type": "integer", "default": 1.5e-7, "enum": [1, 2, 3]}}, "required": ["city"]}}}
call = lambda args: {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": args}}
CONVERSATIONS = [
    dict(messages=[U("Hi")], add_generation_prompt=True),
    dict(messages=[S("Be brief."), U("Hi  "), A("Hello! "), U("Bye\n")], add_generation_prompt=True),
    dict(messages=[U("q"), A("<think>\nr1\n</think>\n\na1"), U("q2"), A("a2", reasoning_content="r2\nline")], add_generation_prompt=False),
    dict(messages=[U("q"), A("a1", reasoning="r1"), U(None), A([{"type": "text", "text": "p1"}], thinking="r2", reasoning_content=None)]),
    dict(messages=[U("q"), A("a1", reasoning_content="r1"), U("q2"), A("", reasoning_content="only")], add_generation_prompt=False),
    dict(messages=[S(""), U(""), A(""), U("x")], add_generation_prompt=True),
    dict(messages=[U("na\u00efve \"quotes\" 'single' \\ back {{x}} {% y %} \u4f60\u597d \U0001fae8 \u2028 \t")], add_generation_prompt=True, enable_thinking=False),
    dict(messages=[U("w?")], tools=[TOOL], add_generation_prompt=True),
    dict(messages=[S("sys"), U("w?"), A("", tool_calls=[call({"city": "K\u00f6ln", "n": 2})]), dict(role="tool", content='{"t": 21}', tool_call_id="call12345", name="get_weather"), A("21 degrees")], tools=[TOOL], add_generation_prompt=False),
    dict(messages=[U("w?"), A(None, tool_calls=[call('{"city": "Paris"}'), call('{"city": "Rome"}')]), dict(role="tool", content="1", tool_call_id="call12345"), dict(role="tool", content="2", tool_call_id="call12345")], tools=[TOOL, TOOL], add_generation_prompt=True),
    dict(messages=[U([{"type": "text", "text": "part1"}, {"type": "text", "text": "part2"}]), A("ok")], add_generation_prompt=True),
    dict(messages=[U("a"), U("b"), A("c"), A("d")], add_generation_prompt=False),
    dict(messages=[A("first"), U("b")], add_generation_prompt=True, thinking=True),
    dict(messages=[], add_generation_prompt=True),
]


# Each conversation is rendered with each of these on top.
VARIANTS = [{"add_generation_prompt": g, **t} for g in (True, False) for t in ({}, {"enable_thinking": True}, {"enable_thinking": False})]


def render(template, data):
    """The text, with "never" for what today's date is part of, and the formats of such dates. None if jinja2 refuses."""
    formats = []
    try:
        compiled = compile_template(template)
        compiled.globals["strftime_now"] = lambda f: formats.append(f) or "never"
        return compiled.render(**copy.deepcopy(data)), formats
    except Exception:
        return None, formats


def crc(rendered):
    return -2 if rendered[0] is None else zlib.crc32(rendered[0].encode())


def main():
    dump("templates.json", {"data": DATA, "cases": [{"template": t, "text": render(t, DATA)[0]} for t in SMALL]})
    if len(sys.argv) < 2:
        return
    e2e = json.load(open(sys.argv[1] + "/e2e.json", encoding="utf8"))
    found = {os.path.relpath(f, sys.argv[1]): open(f, encoding="utf8").read() for f in sorted(glob.glob(sys.argv[1] + "/*/*.jinja"))}
    found.update({k: v["chat_template"] for k, v in e2e.items()})
    for c in CONVERSATIONS:
        c.update({"bos_token": "<s>", "eos_token": "</s>", "tools": c.get("tools"), "documents": None, "date_string": "26 Jul 2024"})
    real, own, dates = {}, {}, {}
    for name, template in found.items():
        # What jinja2 refuses must be refused (-2).
        texts = [render(template, {**c, **v}) for c in CONVERSATIONS for v in VARIANTS]
        real[name] = [crc(t) for t in texts]
        if name in e2e:
            texts.append(render(template, e2e[name].get("data", {})))
            own[name] = crc(texts[-1])
        formats = sorted({f for _, fs in texts for f in fs})
        if formats:
            dates[name] = formats
    dump("templates_real.json", {"conversations": CONVERSATIONS, "variants": VARIANTS, "crc32": real, "e2e_crc32": own, "dates": dates})


def dump(name, what):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(what, f, indent=0 if name == "templates.json" else None, separators=(",", ":"))
        f.write("\n")


main()
