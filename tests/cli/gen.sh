# distill gen as a user runs it: killed and resumed, stopped by Ctrl-C, refused with a reason. KILLS=25 for a longer test.
. tests/cli/lib.inc
KILLS=${KILLS:-5}
moe=teacher/tiny/moe
prompts=teacher/tiny/prompts.jsonl
export OMP_WAIT_POLICY=passive # the machine may be shared

# gen STORE option…: 100 prompts, 2 samples each, few at a time so that a run can be killed in the middle.
options="--teacher $moe --prompts $prompts --limit 100 --n 2 --targets topk:16 --target-temperatures 1,2 --max-tokens 60 --batch-tokens 6"
gen() {
    store=$1
    shift
    "$DISTILL" gen $options --out "$store" "$@"
}
# same_stores NAME STORE STORE: the same samples with equal messages, tokens and targets, in any order.
compare=$(dirname "$DISTILL")/tests/run-all
same_stores() {
    if [ -x "$compare" ]; then
        exits 0 "$1" env DISTILL_STORES="$2:$3" "$compare" same_stores
        grep "differ\|missing" "$TMP/out"
    else
        echo "        $1: not compared, $compare is not built"
    fi
}
# n_lines STORE
n_lines() { cat "$1"/traces-*.jsonl 2>/dev/null | wc -l; }

exits 0 "gen writes a store" gen "$TMP/whole" --json
says "--json tells the samples" out '"samples":200'
exits 0 "gen verifies" "$DISTILL" data verify "$TMP/whole"

# ---- what else runs, and what died, does not matter ----
exits 0 "another --batch-tokens" gen "$TMP/wide" --batch-tokens 64 --quiet
same_stores "another --batch-tokens: the same samples" "$TMP/whole" "$TMP/wide"

# Each round dies a random moment after a random number of samples more; all rounds together make about half of what there is.
seed=$(date +%s)
kill=0
died=0
while [ $kill -lt "$KILLS" ]; do
    kill=$((kill + 1))
    set -- $(awk -v s="$seed" -v k=$kill -v n="$KILLS" 'BEGIN { srand(s + 7919 * k); print int(rand() * 200 / n), 0.02 * rand() }')
    wanted=$(($(n_lines "$TMP/killed") + $1))
    "$DISTILL" gen $options --out "$TMP/killed" --quiet 2>/dev/null & # TRAP: a function's $! would be the shell around it
    pid=$!
    while [ "$(n_lines "$TMP/killed")" -lt $wanted ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
    sleep "$2"
    kill -9 $pid 2>/dev/null && died=$((died + 1))
    wait $pid 2>/dev/null
done
echo "        killed $died of $KILLS times (seed $seed); $(n_lines "$TMP/killed") of 200 samples were there"
exits 0 "resume after kill -9" gen "$TMP/killed" --quiet
exits 0 "resume after kill -9: all whole" "$DISTILL" data verify "$TMP/killed"
same_stores "resume after kill -9: the same samples" "$TMP/whole" "$TMP/killed"

exits 0 "a finished store needs nothing" gen "$TMP/whole" --json --batch-invariant
says "a finished store needs nothing: says so" out '"samples":0,"samples_before":200'
exits 0 "more prompts and samples go on" "$DISTILL" gen --teacher $moe --prompts $prompts --limit 102 --n 3 --targets topk:16 --target-temperatures 1,2 \
    --max-tokens 60 --out "$TMP/wide" --json --quiet
says "more prompts and samples: only what is missing" out '"samples":106,"samples_before":200'

# ---- refused, and nothing lost ----
before=$(cat "$TMP/whole"/traces-* "$TMP/whole"/targets-* | cksum)
exits 2 "another teacher" gen "$TMP/whole" --teacher teacher/tiny/base
says "another teacher: named" err "teacher.files.model.safetensors"
exits 2 "another temperature" gen "$TMP/whole" --temperature 0.7
says "another temperature: named" err "sampling.temperature"
exits 2 "other targets" gen "$TMP/whole" --targets topk:8
exits 2 "another seed" gen "$TMP/whole" --seed 1
[ "$before" = "$(cat "$TMP/whole"/traces-* "$TMP/whole"/targets-* | cksum)" ] && ok "refusals leave the store" || failed "a refusal changed the store"
exits 2 "an API teacher" gen "$TMP/api" --teacher https://api.example.com/v1
says "an API teacher: later" err "API teachers come later"
exits 2 "a teacher that is not there" gen "$TMP/none" --teacher "$TMP/nowhere"
exits 2 "targets that are not" gen "$TMP/none" --targets topk:x
says "targets: what is wanted" err "topk:K"

printf '{"prompt":"What is 2 + 3?"}\n{"prompt": 5}\n{"messages":[{"role":"user","content":"What is 2*3?"}]}\n{"prompt":"x"\n' >"$TMP/bad.jsonl"
exits 2 "malformed prompts" gen "$TMP/bad" --prompts "$TMP/bad.jsonl"
says "malformed prompts: the line" err "bad.jsonl:2"
exits 0 "--skip-bad" gen "$TMP/bad" --prompts "$TMP/bad.jsonl" --skip-bad --json
says "--skip-bad: the rest is made" out '"samples":4'
says "--skip-bad: counted" out '"skipped":2'
{ printf '{"id":"endless","prompt":"'; yes 'one two three' | head -300 | tr '\n' ' '; printf '"}\n{"id":"short","prompt":"What is 2 + 3?"}\n'; } >"$TMP/long.jsonl"
exits 2 "a prompt longer than the context" gen "$TMP/long" --prompts "$TMP/long.jsonl"
says "a prompt longer than the context: named" err 'prompt "endless" has'
exits 0 "a prompt longer than the context, --skip-bad" gen "$TMP/long" --prompts "$TMP/long.jsonl" --skip-bad --json
says "a prompt longer than the context, --skip-bad: the other is made" out '"samples":2'
: >"$TMP/empty.jsonl"
exits 2 "no prompts" gen "$TMP/empty" --prompts "$TMP/empty.jsonl"

# ---- a second process, and Ctrl-C ----
"$DISTILL" gen $options --out "$TMP/busy" --n 400 --quiet 2>"$TMP/busy.err" &
pid=$!
n=0
while [ "$(n_lines "$TMP/busy")" = 0 ] && [ $n -lt 200 ]; do
    n=$((n + 1))
    sleep 0.05
done
exits 2 "a second process" gen "$TMP/busy" --n 400
says "a second process: the holder is named" err "$pid"
kill -INT $pid
wait $pid
code=$?
[ $code = 130 ] && ok "Ctrl-C exits 130" || failed "Ctrl-C exits $code"
grep -q "the same command goes on" "$TMP/busy.err" && ok "Ctrl-C says how to go on" || failed "Ctrl-C says $(cat "$TMP/busy.err")"
exits 0 "Ctrl-C leaves a whole store" "$DISTILL" data verify "$TMP/busy"
[ "$(n_lines "$TMP/busy")" -gt 0 ] && ok "Ctrl-C keeps what was made" || failed "Ctrl-C lost what was made"
finish
