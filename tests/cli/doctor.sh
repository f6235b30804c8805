# distill doctor as a user runs it: the table, JSON, exit codes, colour, and that it leaves everything as it was.
. tests/cli/lib.inc
moe=teacher/tiny/moe
base=teacher/tiny/base
export OMP_WAIT_POLICY=passive # the machine may be shared

exits 0 "the shipped pair" "$DISTILL" doctor --teacher $moe --student $base
says "the shipped pair: a line a check" out "ok    tokenizer"
says "the shipped pair: the sum" out " 0 wrong, "
silent "the shipped pair: nothing on stderr" err
exits 0 "a teacher alone" "$DISTILL" doctor --teacher $moe --no-probe
says "a teacher alone: its memory" out "memory of gen"
exits 0 "a student alone" "$DISTILL" doctor --student $base --no-probe
says "a student alone: its memory" out "memory of train"
exits 0 "--json" "$DISTILL" doctor --teacher $moe --student $base --json --no-probe
says "--json: an array of findings" out '"check": "tokenizer"'
says "--json: their status" out '"status": "ok"'
[ "$(head -c 1 "$TMP/out")" = "[" ] && [ "$(tail -n 1 "$TMP/out")" = "]" ] && ok "--json: nothing else on stdout" || failed "--json: not one array"

# GGUF files stand where folders do.
exits 0 "export of the teacher" "$DISTILL" export --model $moe --gguf "$TMP/moe.gguf" --quiet
exits 0 "export of the student" "$DISTILL" export --model $base --gguf "$TMP/base.gguf" --type q8_0 --quiet
exits 0 "a pair of GGUF files" "$DISTILL" doctor --teacher "$TMP/moe.gguf" --student "$TMP/base.gguf"
says "a pair of GGUF files: the probe ran" out "ok    logit shift"
says "a pair of GGUF files: their types" out "Q8_0"
head -c 9000 "$TMP/base.gguf" >"$TMP/cut.gguf"
exits 2 "a GGUF file cut short" "$DISTILL" doctor --student "$TMP/cut.gguf"
says "a GGUF file cut short: named" err "--student: $TMP/cut.gguf"

# What would break training: exit 1, the fix beside it.
cp -r $base "$TMP/broken"
sed 's/"tie_word_embeddings": true/"tie_word_embeddings": false/' $base/config.json >"$TMP/broken/config.json"
find "$TMP/broken" -type f -exec cksum {} + | sort >"$TMP/before"
exits 1 "a broken student" "$DISTILL" doctor --teacher $moe --student "$TMP/broken" --no-probe
says "a broken student: the mark" out "FAIL  tied head"
says "a broken student: the fix" out 'fix: set "tie_word_embeddings": true'
says "a broken student: told last" err "2 of 40 checks failed: weights (student), tied head (student)"
exits 1 "FP8 of a teacher that has none" "$DISTILL" doctor --teacher $moe --no-probe --fp8-activations
says "FP8 of a teacher that has none: why" out "no quantization_config"
exits 1 "a broken student, --quiet" "$DISTILL" doctor --student "$TMP/broken" --no-probe --quiet
grep -q '^ok' "$TMP/out" && failed "--quiet shows what is fine" || ok "--quiet shows only what is not fine"
exits 1 "a broken student, --json" "$DISTILL" doctor --student "$TMP/broken" --no-probe --json
says "a broken student, --json: the status" out '"status": "fail"'
find "$TMP/broken" -type f -exec cksum {} + | sort >"$TMP/after"
same "the folder is as it was" "$TMP/before" "$TMP/after"

# What cannot be examined: exit 2.
exits 2 "neither teacher nor student" "$DISTILL" doctor
says "neither teacher nor student: what is wanted" err "wanted --teacher DIR, --student DIR, or both"
exits 2 "an address" "$DISTILL" doctor --teacher https://api.example.org/v1
exits 2 "a folder that is not there" "$DISTILL" doctor --student "$TMP/none"
says "a folder that is not there: named" err "$TMP/none"
exits 2 "data that is not there" "$DISTILL" doctor --student $base --data "$TMP/none.jsonl" --no-probe
exits 2 "a wrong flag" "$DISTILL" doctor --studnet $base
says "a wrong flag: the right one" err "did you mean --student?"

# Data beside the models, several at once.
exits 0 "a store" "$DISTILL" gen --teacher $moe --prompts teacher/tiny/prompts.jsonl --limit 8 --out "$TMP/store" --targets topk:16 --quiet
exits 0 "a store and prompts" "$DISTILL" doctor --teacher $moe --student $base --data "$TMP/store,teacher/tiny/prompts.jsonl"
says "a store: its teacher" out "written by this teacher"
says "a store: the shift" out "targets' shift"
says "prompts" out "3000 prompts"

# Colour only where a terminal shows it and NO_COLOR does not forbid it.
exits 0 "piped" "$DISTILL" doctor --student $base --no-probe
grep -q "$(printf '\033')" "$TMP/out" && failed "colour in a pipe" || ok "no colour in a pipe"
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    script -qec "'$DISTILL' doctor --student $base --no-probe" /dev/null </dev/null >"$TMP/out" 2>&1
    grep -q "$(printf '\033')" "$TMP/out" && ok "colour on a terminal" || failed "no colour on a terminal"
    NO_COLOR=1 script -qec "'$DISTILL' doctor --student $base --no-probe" /dev/null </dev/null >"$TMP/out" 2>&1
    grep -q "$(printf '\033')" "$TMP/out" && failed "colour in spite of NO_COLOR" || ok "NO_COLOR is heeded"
fi

# The licences that the folders name go with what is learned.
cp -r $moe "$TMP/teacher" && printf -- '---\nlicense: mit\n---\n' >"$TMP/teacher/README.md"
cp -r $base "$TMP/student" && printf -- '---\nlicense: apache-2.0\n---\n' >"$TMP/student/README.md"
exits 0 "gen, with a licence" "$DISTILL" gen --teacher "$TMP/teacher" --prompts teacher/tiny/prompts.jsonl --limit 2 --out "$TMP/licensed" --max-tokens 8 --quiet
exits 0 "train, with a licence" "$DISTILL" train --student "$TMP/student" --data "$TMP/licensed" --out "$TMP/trained" --steps 1 --quiet
cp "$TMP/trained/README.md" "$TMP/out"
says "the card names the student's licence" out "licence apache-2.0 (README.md)"
says "the card names the teacher's licence" out "licence mit (README.md)"
finish
