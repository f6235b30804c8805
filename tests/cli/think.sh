# A model whose generation prompt opens <think>, and whose template drops the reasoning of finished turns, as DeepSeek-R1's: what gen puts into
# its traces, and that training on their text is training on their tokens.
. tests/cli/lib.inc
export OMP_WAIT_POLICY=passive # the machine may be shared

mkdir -p "$TMP/r1"
cp teacher/tiny/moe/* "$TMP/r1"
cat >"$TMP/r1/chat_template.jinja" <<'END'
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content.split('</think>')[-1] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}
END
gen() {
    "$DISTILL" gen --teacher "$1" --prompts teacher/tiny/prompts.jsonl --limit 12 --temperature 0 --max-tokens 200 --targets none --out "$2" --quiet
}
exits 0 "gen where the prompt opens <think>" gen "$TMP/r1" "$TMP/opened"
exits 0 "gen where the model opens it" gen teacher/tiny/moe "$TMP/plain"
for s in opened plain; do
    exits 0 "$s: export" "$DISTILL" data export "$TMP/$s" --messages "$TMP/$s.jsonl"
    # id, reasoning and answer, in the order of the ids
    tr -d '\n' <"$TMP/$s.jsonl" | sed 's/{"id"/\n{"id"/g' | sort >"$TMP/$s.sorted"
done
exits 0 "the trace has its reasoning" grep -c '"reasoning_content": *"[^"]' "$TMP/opened.jsonl"
exits 1 "the trace's answer has no <think>" grep -c '"content": *"[^"]*think>' "$TMP/opened.jsonl"
same "the same reasoning and answers, whoever opened <think>" "$TMP/opened.sorted" "$TMP/plain.sorted"

# Files of a base model name another end of text than its chat template writes.
mkdir "$TMP/base"
cp "$TMP"/r1/* "$TMP/base"
for f in config tokenizer_config; do
    sed 's/\("eos_token_id": *\)509/\1507/; s/\("eos_token": *\)"<|im_end|>"/\1"<|endoftext|>"/' "$TMP/r1/$f.json" >"$TMP/base/$f.json"
done
echo '{"eos_token_id": [507]}' >"$TMP/base/generation_config.json"
exits 1 "no file names <|im_end|> as the end" grep -h -e '"eos_token.*im_end' -e '"eos_token_id".*509' "$TMP"/base/*config.json
exits 0 "gen by the template's end token" gen "$TMP/base" "$TMP/stopped"
exits 0 "the template's end token: export" "$DISTILL" data export "$TMP/stopped" --messages "$TMP/stopped.jsonl"
tr -d '\n' <"$TMP/stopped.jsonl" | sed 's/{"id"/\n{"id"/g' | sort >"$TMP/stopped.sorted"
same "the template's end token ends an answer" "$TMP/opened.sorted" "$TMP/stopped.sorted"

# The rows made of the text carry loss on the very tokens of the store: the same mean over the same number.
train() {
    "$DISTILL" train --student "$TMP/r1" --init random --data "$1" --out "$2" --loss ce --steps 1 --batch-tokens 8192 --no-shuffle --dtype f32 --json
}
loss_of() { sed -n 's/.*"loss":\([0-9.]*\).*"n_loss":\([0-9]*\).*/\1 \2/p' "$TMP/out"; }
cp teacher/tiny/base/config.json "$TMP/r1/config.json"
exits 0 "train on the store" train "$TMP/opened" "$TMP/a"
loss_of >"$TMP/loss.a"
exits 0 "train on its text" train "$TMP/opened.jsonl" "$TMP/b"
says "train on its text: says what it does about the reasoning" err "12 rows have reasoning that the student's chat template leaves out"
loss_of >"$TMP/loss.b"
exits 0 "the loss is a number" grep -q "[0-9]\.[0-9]* [0-9]" "$TMP/loss.a"
same "text and store: the same loss on as many tokens" "$TMP/loss.a" "$TMP/loss.b"
finish
