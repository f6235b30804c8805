#!/bin/sh
# The main job end to end, on a CPU or a GPU: a DeepSeek-V3-architecture MoE teacher writes reasoning traces with its token distributions; a dense
# student learns from the text alone (SFT) and from the distributions (KD); all four models are judged on problems none of them has seen.
#
# Leaves build/quickstart/: prompts, test problems, the trace store, three students, results.json. Settings, by environment:
#   N_PROMPT (2000)  N_TEST (1000)  STEPS (2000)  LR (4e-3)  SEED (1)  OUT (build/quickstart)  DEVICE (a GPU if there is one)
set -eu
cd "$(dirname "$0")/../.."

: "${N_PROMPT:=2000}" "${N_TEST:=1000}" "${STEPS:=2000}" "${LR:=4e-3}" "${SEED:=1}" "${OUT:=build/quickstart}"
distill=${DISTILL:-build/distill}
tiny=teacher/tiny
begin=$(date +%s)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
device=${DEVICE:+--device $DEVICE}
quiet=--quiet # a line a step is too much for a log; a terminal gets the live line
[ ! -t 2 ] || quiet=
field() { sed -n "s/.*\"$2\": *\([-0-9.eE]*\).*/\1/p" "$1" | head -n 1; } # of a JSON object with numbers, whatever its layout

rm -rf "$OUT"
mkdir -p "$OUT"
head -n "$N_PROMPT" $tiny/prompts.jsonl >"$OUT/prompts.jsonl"
head -n "$N_TEST" $tiny/test.jsonl >"$OUT/test.jsonl"
mkdir "$OUT/student-init"
cp $tiny/base/* "$OUT/student-init/"

say "1/4  The teacher writes a trace for each of $N_PROMPT problems, with its distribution over the vocabulary at every token"
# shellcheck disable=SC2086 # empty, or a word
run "$distill" gen --teacher $tiny/moe --prompts "$OUT/prompts.jsonl" --out "$OUT/traces" --seed "$SEED" --dtype f32 \
    --temperature 1 --max-tokens 200 --targets topk:64 $device $quiet
run "$distill" data verify "$OUT/traces"
run "$distill" data show "$OUT/traces" --n 1 --model $tiny/moe

train="--data $OUT/traces --steps $STEPS --batch-tokens 1600 --lr $LR --schedule cosine --warmup 20 --weight-decay 0.01 --seed $SEED --save-every 0 $device $quiet"
say "2/4  A student learns from the text alone (SFT)"
# shellcheck disable=SC2086 # the settings are words
run "$distill" train --student "$OUT/student-init" --out "$OUT/student-sft" --loss ce $train
say "3/4  A student learns from the distributions (KD): same tokens, same steps"
# shellcheck disable=SC2086
run "$distill" train --student "$OUT/student-init" --out "$OUT/student-kd" --loss fkl --kd-weight 1 --ce-weight 0 $train

say "4/4  All four answer $N_TEST problems that none has seen"
# shellcheck disable=SC2086
judge() { "$distill" eval --model "$2" --tasks "$OUT/test.jsonl" --verify math --max-tokens 200 --dtype f32 --json $device $quiet --out "$OUT/answers-$1.jsonl" >"$OUT/$1.json"; }
judge teacher $tiny/moe
judge init "$OUT/student-init"
judge sft "$OUT/student-sft"
judge kd "$OUT/student-kd"

t_s=$(($(date +%s) - begin))
{
    printf '{\n'
    for m in teacher init sft kd; do printf '  "%s": %s,\n' $m "$(tr '\n' ' ' <"$OUT/$m.json")"; done
    printf '  "paths": {"teacher": "%s", "prompts": "%s", "traces": "%s", "test": "%s", "student_init": "%s", "student_sft": "%s", "student_kd": "%s"},\n' \
        $tiny/moe "$OUT/prompts.jsonl" "$OUT/traces" "$OUT/test.jsonl" "$OUT/student-init" "$OUT/student-sft" "$OUT/student-kd"
    printf '  "t_s": %s\n}\n' "$t_s"
} >"$OUT/results.json.tmp"
mv "$OUT/results.json.tmp" "$OUT/results.json"

say "What came of it ($N_TEST problems, greedy; 95% intervals; $t_s s in all)"
printf '%-34s %7s   %-15s %9s\n' model pass@1 '95% interval' tokens/s
row() { printf '%-34s %7.3f   %.3f – %.3f   %9.0f\n' "$2" "$(field "$OUT/$1.json" pass1)" "$(field "$OUT/$1.json" ci_low)" "$(field "$OUT/$1.json" ci_high)" "$(field "$OUT/$1.json" tok_per_s)"; }
row teacher 'teacher (MoE, DeepSeek-V3 form)'
row init 'student before (dense, Qwen3 form)'
row sft 'student, SFT on the text'
row kd 'student, KD on the distributions'
printf '\nresults: %s   student: %s (loads in transformers as it is)\n' "$OUT/results.json" "$OUT/student-kd"
