# distill export --gguf and every command on the file it wrote, as a user would.
. tests/cli/lib.inc
base=teacher/tiny/base

exits 2 "export without a file" "$DISTILL" export --model $base
says "export without a file: what is missing" err "--gguf"
exits 2 "export of no model" "$DISTILL" export --model tests/cli --gguf "$TMP/no.gguf"
says "export of no model: the file that is missing" err "config.json"
exits 0 "export" "$DISTILL" export --model $base --gguf "$TMP/base.gguf" --type f32 --quiet
silent "--quiet" err
exits 2 "export does not write over a file" "$DISTILL" export --model $base --gguf "$TMP/base.gguf"
says "export does not write over a file: what to do" err "--force"
exits 0 "export --force --json" "$DISTILL" export --model $base --gguf "$TMP/base.gguf" --type f32 --force --quiet --json
says "--json tells the file" out '"n_tensor":46'
exits 2 "export --type q4_k" "$DISTILL" export --model $base --gguf "$TMP/q.gguf" --type q4_k
says "export --type q4_k: the types there are" err "f16|bf16|q8_0|f32"

printf '[1,2,3,4,5,100,509]\n' >"$TMP/ids.jsonl"
exits 0 "score of the folder" "$DISTILL" score --model $base --ids "$TMP/ids.jsonl" --logits "$TMP/a.st" --dtype f32 --quiet
exits 0 "score of the GGUF file" "$DISTILL" score --model "$TMP/base.gguf" --ids "$TMP/ids.jsonl" --logits "$TMP/b.st" --dtype f32 --quiet
same "their logits are the same bytes" "$TMP/a.st" "$TMP/b.st"
exits 0 "score of an export of the export" sh -c '"$0" export --model "$1/base.gguf" --gguf "$1/again.gguf" --type f32 --quiet &&
    "$0" score --model "$1/again.gguf" --ids "$1/ids.jsonl" --logits "$1/c.st" --dtype f32 --quiet' "$DISTILL" "$TMP"
same "its logits too" "$TMP/a.st" "$TMP/c.st"

echo '{"messages":[{"role":"user","content":"What is 2 + 3?"}],"add_generation_prompt":true}' >"$TMP/chat"
exits 0 "tokenize --chat by the folder" sh -c '"$0" tokenize --model '$base' --chat <"$1/chat" >"$1/t1"' "$DISTILL" "$TMP"
exits 0 "tokenize --chat by the GGUF file" sh -c '"$0" tokenize --model "$1/base.gguf" --chat <"$1/chat" >"$1/t2"' "$DISTILL" "$TMP"
same "the same text and ids" "$TMP/t1" "$TMP/t2"

head -n 2 teacher/tiny/prompts.jsonl >"$TMP/p.jsonl"
exits 0 "gen by a GGUF teacher" "$DISTILL" gen --teacher "$TMP/base.gguf" --prompts "$TMP/p.jsonl" --out "$TMP/store" --max-tokens 16 --targets topk:4 --quiet
exits 0 "train a GGUF student" "$DISTILL" train --student "$TMP/base.gguf" --data "$TMP/store" --out "$TMP/run" --steps 1 --quiet
ends=$(tr -d ' \n' <"$TMP/run/config.json" | sed 's/.*"eos_token_id":\(\[[0-9,]*\]\).*/\1/')
[ "$ends" = "[509,507]" ] && ok "both ids that end a generation came through the file" || failed "the ids that end a generation came through the file as $ends"
exits 0 "train a folder on the same store: the tokenizer is known again" "$DISTILL" train --student $base --data "$TMP/store" --out "$TMP/run2" --steps 1 --quiet
exits 0 "eval of what was trained" "$DISTILL" eval --model "$TMP/run" --tasks "$TMP/p.jsonl" --max-tokens 4 --quiet
exits 0 "export of what was trained" "$DISTILL" export --model "$TMP/run" --gguf "$TMP/run.gguf" --type q8_0 --quiet

head -c 100000 "$TMP/base.gguf" >"$TMP/cut.gguf"
exits 2 "a GGUF file cut short" "$DISTILL" score --model "$TMP/cut.gguf" --ids "$TMP/ids.jsonl" --logits "$TMP/d.st" --quiet
says "a GGUF file cut short: said so" err "truncated"
exits 2 "a file that is no GGUF" "$DISTILL" tokenize --model README.md
says "a file that is no GGUF: said so" err "not a GGUF file"
mkdir "$TMP/other"
cp $base/config.json $base/model.safetensors $base/tokenizer_config.json "$TMP/other/"
sed 's/"type": "NFC"/"type": "NFKC"/' $base/tokenizer.json >"$TMP/other/tokenizer.json"
exits 2 "a tokenizer that llama.cpp has no name for" "$DISTILL" export --model "$TMP/other" --gguf "$TMP/other.gguf"
says "a tokenizer that llama.cpp has no name for: shown" err "NFKC"
if [ -e "$TMP/other.gguf" ]; then failed "a refused export leaves a file"; else ok "a refused export leaves no file"; fi
if ls "$TMP" | grep -q '\.tmp\.'; then failed "temporaries are left"; else ok "no temporaries are left"; fi
finish
