# A model with SentencePiece's vocabulary (Llama 2's kind) as one GGUF file, and every command on that file, as a user would.
. tests/cli/lib.inc
export OMP_WAIT_POLICY=passive # the machine may be shared
golden=tests/golden/text
spm="$TMP/spm"

mkdir "$spm"
cp teacher/tiny/base/model.safetensors "$spm/"
sed 's/"bos_token_id": null/"bos_token_id": 1/; s/"eos_token_id": 509/"eos_token_id": 2/; s/"pad_token_id": 507/"pad_token_id": null/' teacher/tiny/base/config.json >"$spm/config.json"
cp $golden/spm_tokenizer.json "$spm/tokenizer.json"
cat >"$spm/tokenizer_config.json" <<'END'
{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": true,
 "chat_template": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"}
END
exits 0 "export" "$DISTILL" export --model "$spm" --gguf "$TMP/spm.gguf" --type f32 --quiet
silent "export: nothing to say" err


printf '"How many are left?  "\n"--- caf\\u00e9 \\ud83e\\udee8"\n"<think>x</s>y"\n' >"$TMP/texts"
"$DISTILL" tokenize --model "$spm" <"$TMP/texts" >"$TMP/ids1"
exits 0 "tokenize by the file" "$DISTILL" tokenize --model "$TMP/spm.gguf" <"$TMP/texts"
same "the folder's ids" "$TMP/out" "$TMP/ids1"
exits 0 "tokenize --decode by the file" sh -c '"$0" tokenize --model "$1/spm.gguf" --decode <"$1/ids1"' "$DISTILL" "$TMP"
says "--decode: the text again, the space in front gone" out '"How many are left?  "'
says "--decode: letters out of bytes" out '"--- café 🫨"'
says "--decode: a space before the text behind every special token, as Hugging Face's decoder leaves it" out '"<think> x</s> y"'
exits 0 "tokenize by a file that the gguf package wrote" sh -c '"$0" tokenize --model '$golden'/spm.gguf <"$1/texts"' "$DISTILL" "$TMP"
same "the same ids" "$TMP/out" "$TMP/ids1"
echo '{"messages":[{"role":"user","content":"How many?"}],"add_generation_prompt":true}' >"$TMP/chat"
"$DISTILL" tokenize --model "$spm" --chat <"$TMP/chat" >"$TMP/chat1"
exits 0 "tokenize --chat by the file" sh -c '"$0" tokenize --model "$1/spm.gguf" --chat <"$1/chat"' "$DISTILL" "$TMP"
same "the folder's text and ids" "$TMP/out" "$TMP/chat1"

echo '{"id":"a","messages":[{"role":"user","content":"How many?"},{"role":"assistant","content":"There are 3."}]}' >"$TMP/data.jsonl"
"$DISTILL" score --model "$spm" --data "$TMP/data.jsonl" --out "$TMP/nll1" --dtype f32 --quiet
exits 0 "score by the file" "$DISTILL" score --model "$TMP/spm.gguf" --data "$TMP/data.jsonl" --out "$TMP/nll2" --dtype f32 --quiet
same "the folder's losses" "$TMP/nll1" "$TMP/nll2"
exits 0 "doctor of the file and the folder" "$DISTILL" doctor --teacher "$TMP/spm.gguf" --student "$spm"
says "doctor: one tokenizer" out "the same file: 508 tokens"

exits 0 "train the file as a student" "$DISTILL" train --student "$TMP/spm.gguf" --data "$TMP/data.jsonl" --out "$TMP/run" --steps 1 --quiet
exits 0 "tokenize by what was trained" sh -c '"$0" tokenize --model "$1/run" <"$1/texts"' "$DISTILL" "$TMP"
same "the same ids still" "$TMP/out" "$TMP/ids1"
exits 0 "export of what was trained" "$DISTILL" export --model "$TMP/run" --gguf "$TMP/run.gguf" --quiet
exits 0 "tokenize by that file" sh -c '"$0" tokenize --model "$1/run.gguf" <"$1/texts"' "$DISTILL" "$TMP"
same "the same ids at the end" "$TMP/out" "$TMP/ids1"

# What llama.cpp does otherwise is said, or refused.
cp -r "$spm" "$TMP/first"
sed 's/"normalizer":{[^]]*\]}/"normalizer":null/; s/"pre_tokenizer":null/"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false}/' \
    "$spm/tokenizer.json" >"$TMP/first/tokenizer.json"
exits 0 "export of a Metaspace" "$DISTILL" export --model "$TMP/first" --gguf "$TMP/first.gguf"
says "export of a Metaspace: what is otherwise there" err "behind every special token"
"$DISTILL" tokenize --model "$TMP/first" <"$TMP/texts" >"$TMP/ids2"
exits 0 "tokenize by that file" sh -c '"$0" tokenize --model "$1/first.gguf" <"$1/texts"' "$DISTILL" "$TMP"
same "but the ids of the folder here" "$TMP/out" "$TMP/ids2"
if cmp -s "$TMP/ids1" "$TMP/ids2"; then failed "a Metaspace is another tokenizer"; else ok "a Metaspace is another tokenizer"; fi
mkdir "$TMP/other"
cp "$spm"/* "$TMP/other/"
sed 's/\["▁t","he"\],//' "$spm/tokenizer.json" >"$TMP/other/tokenizer.json"
exits 2 "export of merges that no scores say" "$DISTILL" export --model "$TMP/other" --gguf "$TMP/other.gguf"
says "export of merges that no scores say: which" err 'do not join "▁t" and "he"'
finish
