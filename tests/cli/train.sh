# distill train as a user would: what it refuses, what it leaves, and that stopping, killing and resuming change nothing.
. tests/cli/lib.inc
base=teacher/tiny/base
[ -f $base/model.safetensors ] || {
    echo "skipped: tests/cli/train.sh (no $base)"
    exit 0
}
export OMP_WAIT_POLICY=passive # the machine may be shared
i=0
while [ $i -lt 24 ]; do
    printf '{"messages":[{"role":"user","content":"What is %d plus %d?"},{"role":"assistant","content":"It is %d."}]}\n' $i $((i * 3)) $((i * 4))
    i=$((i + 1))
done >"$TMP/chats.jsonl"
head -n 4 "$TMP/chats.jsonl" >"$TMP/held.jsonl"

train() { "$DISTILL" train --student $base --data "$TMP/chats.jsonl" --lr 1e-3 --batch-tokens 256 --seed 3 --dtype f32 --threads 2 "$@"; }
background() { # exec: the signals are for the program, not for a shell around it
    exec "$DISTILL" train --student $base --data "$TMP/chats.jsonl" --lr 1e-3 --batch-tokens 256 --seed 3 --dtype f32 --threads 2 "$@"
}
small() { train --steps 6 --save-every 2 "$@"; }

exits 0 "a run" small --out "$TMP/a" --eval "$TMP/held.jsonl" --eval-every 3
says "the plan is told" err "gradients and optimizer"
says "the held-out loss is told" err "held-out loss"
for f in model.safetensors config.json tokenizer.json tokenizer_config.json generation_config.json README.md run.json metrics.jsonl state/step-00000006/position.json; do
    if [ -s "$TMP/a/$f" ]; then ok "leaves $f"; else failed "no $f"; fi
done
if [ "$(wc -l <"$TMP/a/metrics.jsonl")" = 6 ]; then ok "a line of metrics a step"; else failed "metrics.jsonl has not 6 lines"; fi
grep -q '"step":6,.*"kd":null.*"eval_loss":' "$TMP/a/metrics.jsonl" && ok "metrics of the last step" || failed "metrics of the last step"
first=$(sed -n '1s/.*"loss":\([0-9.]*\).*/\1/p' "$TMP/a/metrics.jsonl")
last=$(sed -n '6s/.*"loss":\([0-9.]*\).*/\1/p' "$TMP/a/metrics.jsonl")
awk "BEGIN { exit !($last < $first) }" && ok "the loss falls" || failed "the loss does not fall: $first to $last"
exits 0 "the trained student is a model" "$DISTILL" tokenize --model "$TMP/a" </dev/null

exits 2 "a folder with a run is not written over" small --out "$TMP/a"
says "and the way on is told" err "--resume"
find "$TMP/a" -type f -exec cksum {} + | sort >"$TMP/before"
exits 0 "--resume on a finished run" small --out "$TMP/a" --resume
find "$TMP/a" -type f -exec cksum {} + | sort >"$TMP/after"
same "--resume on a finished run changes nothing" "$TMP/before" "$TMP/after"
exits 2 "--resume with changed settings" train --steps 6 --out "$TMP/a" --resume --lr 1e-2 --batch-tokens 300
says "changed settings: the stored value" err "lr: stored 0.001"
says "changed settings: the given value" err "given 0.01"
says "changed settings: all of them" err "batch-tokens: stored 256, given 300"
exits 2 "--resume with other data" small --data "$TMP/held.jsonl" --out "$TMP/a" --resume
says "other data: named" err "rows of --data"
exits 2 "--resume with fewer steps" train --steps 3 --out "$TMP/a" --resume
says "fewer steps: named" err "stored 6, given 3"
exits 0 "--resume with more steps" train --schedule cosine --steps 8 --out "$TMP/a" --resume
grep -v '"optimizer":' "$TMP/a/run.json" >"$TMP/older.json" && cp "$TMP/older.json" "$TMP/a/run.json"
exits 0 "--resume of a run that is older than an option" train --schedule cosine --steps 8 --out "$TMP/a" --resume
exits 2 "and with that option given" train --schedule cosine --steps 8 --out "$TMP/a" --resume --optimizer adamw8
says "which it did not know" err "--optimizer: stored null, given \"adamw8\""

mkdir "$TMP/full" && echo x >"$TMP/full/x"
exits 2 "a folder with other things is not touched" small --out "$TMP/full"
exits 2 "both --steps and --epochs" train --steps 2 --epochs 2 --out "$TMP/x"
exits 2 "an unknown loss" small --out "$TMP/x" --loss kl
says "an unknown loss: the known ones" err "ce, fkl, rkl, jsd:B"
exits 2 "a divergence without targets" small --out "$TMP/x" --loss fkl
says "a divergence without targets: named" err "has none"
exits 2 "a broken line" small --out "$TMP/x" --data README.md
says "a broken line: where" err "README.md:1"
exits 2 "no such data" small --out "$TMP/x" --data "$TMP/none.jsonl"
exits 2 "no such student" "$DISTILL" train --student "$TMP/none" --data "$TMP/chats.jsonl" --out "$TMP/x"
exits 2 "a context too long" small --out "$TMP/x" --max-len 100000
{ head -n 3 "$TMP/chats.jsonl"; echo '{"messages":'; head -n 2 "$TMP/chats.jsonl"; } >"$TMP/bad.jsonl"
exits 2 "a bad line stops" small --out "$TMP/x" --data "$TMP/bad.jsonl"
says "a bad line: its number" err "bad.jsonl:4"
exits 0 "--skip-bad goes on" train --steps 1 --out "$TMP/skip" --data "$TMP/bad.jsonl" --skip-bad
says "--skip-bad: how many" err "1 rows passed over"
[ -e "$TMP/x" ] && failed "refusals leave a folder behind" || ok "refusals leave no folder behind"
exits 2 "a teacher's layers cannot be trained" "$DISTILL" train --student teacher/tiny/moe --data "$TMP/chats.jsonl" --out "$TMP/x" --steps 1
says "a teacher's layers cannot be trained: which" err "layers of kind moe cannot be trained yet"
exits 0 "--init random" train --steps 1 --out "$TMP/random" --init random

# A base model's files name what ends a document. Trained on turns it ends those, and other programs must know the token.
same "generation_config.json that names the end of a turn stays as it is" $base/generation_config.json "$TMP/a/generation_config.json"
cp -r $base "$TMP/document"
for f in config generation_config; do tr '\n' ' ' <$base/$f.json | sed 's/"eos_token_id": *\(\[[^]]*\]\|[0-9]*\)/"eos_token_id": 507/' >"$TMP/document/$f.json"; done
exits 0 "a base model" small --student "$TMP/document" --out "$TMP/turns"
says "a base model: the end of a turn" err 'answers end with "<|im_end|>" (509), which no eos_token_id names'
names_both() { # NAME DIR
    tr -d ' \n' <"$2/generation_config.json" | grep -q '"eos_token_id":\[507,509\]' && ok "$1: generation_config.json names both" || failed "$1: $(cat "$2/generation_config.json")"
}
names_both "a base model" "$TMP/turns"
grep -q 'An answer ends with `<|im_end|>` (509)' "$TMP/turns/README.md" && ok "a base model: the card tells" || failed "a base model: the card does not tell"
exits 0 "a base model, resumed" small --student "$TMP/document" --out "$TMP/turns" --steps 8 --resume
names_both "a base model, resumed" "$TMP/turns"
rm "$TMP/document/generation_config.json"
exits 0 "a base model without generation_config.json" small --student "$TMP/document" --out "$TMP/turns2"
names_both "a base model without generation_config.json" "$TMP/turns2"

# From a teacher's traces: the distributions, and what does not fit together.
exits 0 "a store" "$DISTILL" gen --teacher teacher/tiny/moe --prompts teacher/tiny/prompts.jsonl --limit 3 --out "$TMP/store" --max-tokens 12 --targets topk:8 --dtype f32 \
    --target-temperatures 1,2 --quiet
kd() { "$DISTILL" train --student $base --data "$TMP/store" --steps 2 --dtype f32 "$@"; }
exits 0 "KD is what a store with targets is for" kd --out "$TMP/kd" --kd-temperature 2 --kd-scale-t2
grep -q '"loss": "fkl"' "$TMP/kd/run.json" && ok "run.json tells the loss that was chosen" || failed "run.json does not tell the loss"
grep -q 'written by the teacher `teacher/tiny/moe`' "$TMP/kd/README.md" && ok "the card names the teacher" || failed "the card does not name the teacher"
exits 0 "a store and a file together" kd --data "$TMP/store,$TMP/chats.jsonl" --loss ce --out "$TMP/both"
exits 2 "a temperature without log Z" kd --out "$TMP/x" --kd-temperature 3
says "a temperature without log Z: those there are" err "temperature 1,2 only"
cp -r $base "$TMP/other"
printf '\n' >>"$TMP/other/tokenizer.json"
exits 2 "another tokenizer" "$DISTILL" train --student "$TMP/other" --data "$TMP/store" --out "$TMP/x" --steps 1
says "another tokenizer: the student is named" err "$TMP/other"
says "another tokenizer: the teacher is named" err "teacher/tiny/moe"

# Stopping and killing: what is left must be what the uninterrupted run leaves.
exits 0 "the uninterrupted run" train --steps 30 --save-every 4 --out "$TMP/whole"
background --steps 30 --save-every 4 --out "$TMP/int" >/dev/null 2>"$TMP/err" &
pid=$!
while [ ! -s "$TMP/int/metrics.jsonl" ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -INT $pid
wait $pid
code=$?
[ $code = 130 ] && ok "Ctrl-C exits 130" || failed "Ctrl-C exits $code"
says "Ctrl-C tells how to go on" err "--resume"
[ -s "$TMP/int/model.safetensors" ] && ok "Ctrl-C saves" || failed "Ctrl-C did not save"
exits 0 "the stopped run goes on" train --steps 30 --save-every 4 --out "$TMP/int" --resume
same "the stopped run ends as the uninterrupted one" "$TMP/whole/model.safetensors" "$TMP/int/model.safetensors"

killed() { # N OPTION…: begun or resumed N times, and killed each time, later and later
    left=$1
    shift
    while [ "$left" -gt 0 ]; do
        background "$@" --resume --quiet 2>/dev/null &
        pid=$!
        sleep 0.$((9 - left * 2))
        kill -KILL $pid 2>/dev/null
        wait $pid 2>/dev/null
        left=$((left - 1))
    done
}
killed 4 --steps 30 --save-every 4 --out "$TMP/kill"
exits 0 "the killed run goes on" train --steps 30 --save-every 4 --out "$TMP/kill" --resume
same "the killed run ends as the uninterrupted one" "$TMP/whole/model.safetensors" "$TMP/kill/model.safetensors"
same "its optimizer too" "$TMP/whole/state/step-00000030/optimizer.safetensors" "$TMP/kill/state/step-00000030/optimizer.safetensors"
loss() { sed 's/"tok_per_s".*//' "$1/metrics.jsonl"; }
loss "$TMP/whole" >"$TMP/l1"
loss "$TMP/kill" >"$TMP/l2"
same "its metrics have each step once" "$TMP/l1" "$TMP/l2"

# 8-bit states: killed and resumed as ever, and no run goes on with another optimizer.
small8() { train --steps 12 --save-every 2 --dtype bf16 --optimizer adamw8 "$@"; }
exits 0 "a run with --optimizer adamw8" small8 --out "$TMP/whole8"
says "adamw8: the plan tells" err "gradients and optimizer (adamw8)"
grep -q '"optimizer": "adamw8"' "$TMP/whole8/run.json" && ok "adamw8: run.json tells" || failed "adamw8: run.json does not tell"
killed 4 --steps 12 --save-every 2 --dtype bf16 --optimizer adamw8 --out "$TMP/kill8"
exits 0 "adamw8: the killed run goes on" small8 --out "$TMP/kill8" --resume
same "adamw8: it ends as the uninterrupted one" "$TMP/whole8/model.safetensors" "$TMP/kill8/model.safetensors"
same "adamw8: its states too" "$TMP/whole8/state/step-00000012/optimizer.safetensors" "$TMP/kill8/state/step-00000012/optimizer.safetensors"
exits 2 "adamw8: not resumed with adamw" small8 --optimizer adamw --out "$TMP/whole8" --resume
says "adamw8: both are named" err '--optimizer: stored "adamw8", given "adamw"'
exits 2 "an unknown optimizer" small --out "$TMP/x" --optimizer sgd
says "an unknown optimizer: the known ones" err "adamw|adamw8"

background --steps 100000 --out "$TMP/held" --quiet &
pid=$!
while [ ! -s "$TMP/held/metrics.jsonl" ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
exits 2 "a second process on the same folder" small --out "$TMP/held" --resume
says "a second process: the first is named" err "process $pid is training into this folder"
kill -KILL $pid
wait $pid 2>/dev/null
finish
