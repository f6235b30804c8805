# distill score and eval as a user runs them.
. tests/cli/lib.inc
moe=teacher/tiny/moe
base=teacher/tiny/base
export OMP_WAIT_POLICY=passive # the machine may be shared

# ---- score ----
printf '[1,2,3,4,5]\n[7]\n[510,511,3,4,9,10]\n' >"$TMP/ids.jsonl"
exits 0 "score --ids" "$DISTILL" score --model $moe --ids "$TMP/ids.jsonl" --logits "$TMP/logits.safetensors" --json --quiet
says "score --ids: rows and tokens" out '"rows":3,"tokens":12'
head -c 400 "$TMP/logits.safetensors" >"$TMP/err"
says "score --ids: a tensor a line" err '"logits.2":{"dtype":"F32","shape":[6,512]'
for bad in '[]' '[512]' '[-1]' '[1.5]' '["a"]' '{}' '[1,2' ''; do
    printf '[1]\n%s\n[2]\n' "$bad" >"$TMP/bad.jsonl"
    exits 2 "score --ids: a line of '$bad'" "$DISTILL" score --model $moe --ids "$TMP/bad.jsonl" --logits "$TMP/no.safetensors"
    says "score --ids: a line of '$bad': where" err "bad.jsonl:2"
    [ -e "$TMP/no.safetensors" ] && failed "score --ids: a bad line left a file"
done
awk 'BEGIN { printf "["; for (i = 0; i < 600; i++) printf "%s1", i ? "," : ""; print "]" }' >"$TMP/long.jsonl"
exits 2 "score --ids: longer than the context" "$DISTILL" score --model $moe --ids "$TMP/long.jsonl" --logits "$TMP/no.safetensors"
says "score --ids: longer than the context: counts" err "600 tokens; the model's context is 512"
exits 2 "score wants a pair of options" "$DISTILL" score --model $moe --ids "$TMP/ids.jsonl" --out "$TMP/x"
mkdir "$TMP/bare" && cp $moe/config.json $moe/model.safetensors "$TMP/bare"
exits 0 "score --ids needs no tokenizer" "$DISTILL" score --model "$TMP/bare" --ids "$TMP/ids.jsonl" --logits "$TMP/bare.safetensors" --quiet
same "score --ids needs no tokenizer: the same logits" "$TMP/logits.safetensors" "$TMP/bare.safetensors"

# The text that gen wrote, scored.
exits 0 "gen, to be scored" "$DISTILL" gen --teacher $moe --prompts teacher/tiny/prompts.jsonl --limit 20 --dtype f32 --out "$TMP/store" --quiet
exits 0 "gen, exported" "$DISTILL" data export "$TMP/store" --messages "$TMP/messages.jsonl" --quiet
exits 0 "score --data" "$DISTILL" score --model $moe --data "$TMP/messages.jsonl" --out "$TMP/nll.jsonl" --dtype f32 --quiet --json
says "score --data: scored tokens" out '"nll_mean":'
[ "$(wc -l <"$TMP/nll.jsonl")" = 20 ] && ok "score --data: a line a row" || failed "score --data: $(wc -l <"$TMP/nll.jsonl") lines"
head -1 "$TMP/nll.jsonl" >"$TMP/err"
says "score --data: what is in a line" err '"n_tok":'
printf '{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a"}]}\n{"text":"x"}\n' >"$TMP/bad.jsonl"
exits 2 "score --data: no messages" "$DISTILL" score --model $moe --data "$TMP/bad.jsonl" --out "$TMP/no.jsonl"
says "score --data: no messages: where" err "bad.jsonl:2"

# A head wider than the tokenizer: what score says of a row is the loss that training begins with.
mkdir "$TMP/wide" && cp $base/tokenizer.json $base/tokenizer_config.json "$TMP/wide"
sed 's/"vocab_size": 512/"vocab_size": 600/; s/"torch_dtype": "bfloat16"/"torch_dtype": "float32"/' $base/config.json >"$TMP/wide/config.json"
head -1 "$TMP/messages.jsonl" >"$TMP/one.jsonl"
exits 0 "train of a wide head, at rate 0" "$DISTILL" train --student "$TMP/wide" --init random --data "$TMP/one.jsonl" --out "$TMP/wide-out" \
    --loss ce --steps 1 --lr 0 --dtype f32 --quiet
exits 0 "score of a wide head" "$DISTILL" score --model "$TMP/wide-out" --data "$TMP/one.jsonl" --out "$TMP/wide.jsonl" --dtype f32 --quiet --json
trained=$(sed 's/.*"loss": *\([0-9.]*\).*/\1/' "$TMP/wide-out/metrics.jsonl")
scored=$(sed 's/.*"nll_mean": *\([0-9.]*\).*/\1/' "$TMP/out")
if awk -v a="$trained" -v b="$scored" 'BEGIN { exit !(a > 5 && (a - b) ^ 2 < 1e-10) }'; then
    ok "score of a wide head: the loss of training"
else
    failed "score of a wide head: $scored, training's loss is $trained"
fi

# ---- eval ----
exits 0 "eval" "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --limit 40 --out "$TMP/answers.jsonl" --quiet
says "eval: the table" out "pass@1"
says "eval: whose interval" out "Wilson"
[ "$(wc -l <"$TMP/answers.jsonl")" = 40 ] && ok "eval --out: a line an answer" || failed "eval --out: $(wc -l <"$TMP/answers.jsonl") lines"
exits 0 "eval --json" "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --limit 40 --json --quiet
for key in pass1 ci_low ci_high n cons t_s tok_per_s; do says "eval --json: $key" out "\"$key\":"; done
exits 0 "eval --n 3" "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --limit 10 --n 3 --temperature 1 --quiet
says "eval --n 3: majority" out "cons@3"
says "eval --n 3: whose interval" out "bootstrap"
printf '{"prompt":"What is 2 + 3?"}\n' >"$TMP/bad.jsonl"
exits 2 "eval: no answer to judge by" "$DISTILL" eval --model $base --tasks "$TMP/bad.jsonl"
says "eval: no answer to judge by: where" err 'bad.jsonl:1: "answer" is missing'
exits 2 "eval: an unknown verifier" "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --verify maths
says "eval: an unknown verifier: the known" err "math"
finish
