# Broken models, full disks, too little memory, Ctrl-C: a message that names file, field and way out, the right exit code, nothing lost.
. tests/cli/lib.inc
moe=teacher/tiny/moe
base=teacher/tiny/base
prompts=teacher/tiny/prompts.jsonl
export OMP_WAIT_POLICY=passive # the machine may be shared

# broken SED…: a copy of the teacher in $TMP/m, its config.json edited.
broken() {
    rm -rf "$TMP/m"
    cp -r $moe "$TMP/m"
    chmod -R u+w "$TMP/m"
    [ $# = 0 ] || sed -i "$@" "$TMP/m/config.json"
}
gen() { "$DISTILL" gen --teacher "$TMP/m" --prompts $prompts --limit 2 --max-tokens 8 --out "$TMP/none" --quiet; }

# ---- models ----
broken && head -c 100000 $moe/model.safetensors >"$TMP/m/model.safetensors"
exits 2 "truncated weights" gen
says "truncated weights: the file, and what to do" err "m/model.safetensors: the tensors need"
says "truncated weights: download again" err "truncated: download it again"
broken && { printf '\000\000\000\200\002\000\000\000' && tail -c +9 $moe/model.safetensors; } >"$TMP/m/model.safetensors"
exits 2 "a header of 10 GiB" gen
says "a header of 10 GiB: how long it says it is" err "header of 10737418240 bytes"
broken && : >"$TMP/m/model.safetensors"
exits 2 "empty weights" gen
broken && rm "$TMP/m/model.safetensors" && printf '{"weight_map":{}}' >"$TMP/m/model.safetensors.index.json"
exits 2 "an index of nothing" gen
broken -e '/"hidden_size"/d' -e 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": "four"/'
exits 2 "config.json: missing and mistyped keys" gen
says "config.json: the missing one" err "config.json: hidden_size: missing"
says "config.json: the mistyped one, in the same message" err 'num_hidden_layers: wanted an integer, found "four"'
broken -e 's/"model_type": "[^"]*"/"model_type": "gpt_oss"/'
exits 2 "an unknown architecture" gen
says "an unknown architecture: the known ones" err "deepseek_v3, "
broken -e 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": 2000000000/'
exits 2 "two billion layers" gen
broken -e 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": 2/'
exits 2 "fewer layers than the weights have" gen
says "fewer layers than the weights have: whose place is missing" err "tensor model.layers.2.input_layernorm.weight: deepseek_v3 has no place for it"
broken -e 's/"vocab_size": [0-9]*/"vocab_size": 400/'
exits 2 "a vocabulary that the weights have not" gen
says "a vocabulary that the weights have not: which tensor" err "tensor model.embed_tokens.weight: found (512, "
# A NaN at the end of the data, in whichever tensor lies there.
size=$(wc -c <$moe/model.safetensors)
broken && { head -c $((size - 4)) $moe/model.safetensors && printf '\377\377\377\177'; } >"$TMP/m/model.safetensors"
exits 2 "a NaN in the weights" gen
says "a NaN in the weights: the tensor" err "values are NaN or infinite"
[ -e "$TMP/none" ] && failed "refusals leave a store behind" || ok "refusals leave no store behind"

# A token more than the embedding has rows, used or not: gen, train and eval say the same.
for m in moe base; do
    cp -r teacher/tiny/$m "$TMP/more-$m" && chmod -R u+w "$TMP/more-$m"
    sed -i 's/^  "added_tokens": \[/&{"id": 512, "content": "<extra>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},/' "$TMP/more-$m/tokenizer.json"
done
more='the tokenizer has ids up to 512, "<extra>" (512), but the embedding only 512 rows (vocab_size)'
printf '{"messages":[{"role":"user","content":"What is 1 plus 3?"},{"role":"assistant","content":"It is 4."}]}\n' >"$TMP/one.jsonl"
exits 2 "gen: more tokens than rows" "$DISTILL" gen --teacher "$TMP/more-moe" --prompts $prompts --limit 2 --max-tokens 8 --out "$TMP/none" --quiet
says "gen: more tokens than rows: both counts" err "more-moe: $more"
exits 2 "train: more tokens than rows" "$DISTILL" train --student "$TMP/more-base" --data "$TMP/one.jsonl" --steps 1 --out "$TMP/none" --quiet
says "train: more tokens than rows: the same" err "more-base: $more"
exits 2 "eval: more tokens than rows" "$DISTILL" eval --model "$TMP/more-base" --tasks teacher/tiny/test.jsonl --limit 1 --quiet
says "eval: more tokens than rows: the same" err "more-base: $more"
[ -e "$TMP/none" ] && failed "refusals leave a folder behind" || ok "refusals leave no folder behind"

# ---- memory: known before anything is made ----
cp -r $base "$TMP/huge" && chmod -R u+w "$TMP/huge"
huge() { "$DISTILL" train --student "$TMP/huge" --init random --data "$TMP/one.jsonl" --steps 1 --out "$TMP/none" --quiet; }
sed -i -e 's/"hidden_size": [0-9]*/"hidden_size": 65536/' -e 's/"intermediate_size": [0-9]*/"intermediate_size": 1000000/' "$TMP/huge/config.json"
exits 1 "a model larger than memory" huge
says "a model larger than memory: needed against free" err "out of memory: weights needs "
sed -i -e 's/"hidden_size": [0-9]*/"hidden_size": 2147483647/' -e 's/"vocab_size": [0-9]*/"vocab_size": 2147483647/' "$TMP/huge/config.json"
exits 1 "a model larger than 64 bits of bytes" huge
[ -e "$TMP/none" ] && failed "no memory: a folder stays" || ok "no memory: no folder stays"

# ---- full disks: a limit on the size of files, and where we may mount one, a small file system ----
traces="--teacher $moe --prompts $prompts --limit 40 --max-tokens 40 --targets topk:32 --quiet"
exits 0 "gen on a disk with room" "$DISTILL" gen $traces --out "$TMP/room"
full() { (ulimit -f 100 && "$DISTILL" gen $traces --out "$TMP/full"); } # blocks of 512 bytes or KiB: 50 or 100 KB
exits 1 "gen on a full disk" full
says "gen on a full disk: says so" err "targets-00000.bin: File too large"
says "gen on a full disk: says how to go on" err "run the same command again"
exits 0 "gen on a full disk: the store is whole" "$DISTILL" data verify "$TMP/full"
if [ "$(cat "$TMP/full"/traces-*.jsonl | wc -l)" -gt 0 ]; then ok "gen on a full disk: what was made stays"; else failed "gen on a full disk: nothing stayed"; fi
exits 0 "gen goes on when there is room" "$DISTILL" gen $traces --out "$TMP/full"
compare=$(dirname "$DISTILL")/tests/run-all
[ ! -x "$compare" ] || exits 0 "gen goes on: the same samples" env DISTILL_STORES="$TMP/room:$TMP/full" "$compare" same_stores
mkdir "$TMP/disk"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=100k distill-test "$TMP/disk" 2>/dev/null; then
    exits 1 "gen on a full file system" "$DISTILL" gen $traces --out "$TMP/disk/store"
    says "gen on a full file system: says so" err "disk full: free some space and run the same command again"
    exits 0 "gen on a full file system: the store is whole" "$DISTILL" data verify "$TMP/disk/store"
    mount -o remount,size=4m "$TMP/disk"
    exits 0 "gen goes on after space was freed" "$DISTILL" gen $traces --out "$TMP/disk/store"
    [ ! -x "$compare" ] || exits 0 "gen goes on after space was freed: the same samples" env DISTILL_STORES="$TMP/room:$TMP/disk/store" "$compare" same_stores
    umount "$TMP/disk"
else
    echo "skipped: gen on a full file system (no right to mount one)"
fi

i=0
while [ $i -lt 24 ]; do
    printf '{"messages":[{"role":"user","content":"What is %d plus %d?"},{"role":"assistant","content":"It is %d."}]}\n' $i $((i * 3)) $((i * 4))
    i=$((i + 1))
done >"$TMP/chats.jsonl"
train() { "$DISTILL" train --student $base --data "$TMP/chats.jsonl" --lr 1e-3 --batch-tokens 256 --schedule constant --steps ${steps:-4} --save-every 2 --dtype f32 --quiet "$@"; }
exits 0 "train on a disk with room" train --out "$TMP/t"
# Room for the model, 1.7 MB, not for the optimizer's state, 6 times that.
full() { (ulimit -f 4000 && train --out "$TMP/tfull"); }
exits 1 "train on a full disk" full
says "train on a full disk: says so" err "File too large"
exits 0 "train goes on when there is room" train --out "$TMP/tfull" --resume
same "train goes on: the same weights" "$TMP/t/model.safetensors" "$TMP/tfull/model.safetensors"
steps=2
exits 0 "train, two steps" train --out "$TMP/later"
steps=4
full() { (ulimit -f 4000 && train --out "$TMP/later" --resume); }
exits 1 "train on a disk that is full later" full
says "train on a disk that is full later: what is kept" err "The save of step 2 in $TMP/later is intact; the same command with --resume goes on"
exits 0 "train goes on from there" train --out "$TMP/later" --resume
same "train goes on from there: the same weights" "$TMP/t/model.safetensors" "$TMP/later/model.safetensors"
[ -z "$(find "$TMP/tfull" -name '*.tmp.*')" ] && ok "train on a full disk: no leftovers" || failed "train on a full disk leaves $(find "$TMP/tfull" -name '*.tmp.*')"

# ---- score and eval, which have nothing to resume: all of the result or none of it ----
mkdir "$TMP/out.d"
awk 'BEGIN { for (r = 0; r < 3000; r++) { printf "["; for (i = 0; i < 500; i++) printf "%s%d", i ? "," : "", (r * 7 + i) % 500; print "]" } }' >"$TMP/ids.jsonl"
full() { (ulimit -f 2000 && "$DISTILL" score --model $base --ids "$TMP/ids.jsonl" --logits "$TMP/out.d/logits.safetensors" --quiet); }
exits 1 "score on a full disk" full
says "score on a full disk: says so" err "File too large"
[ -z "$(ls "$TMP/out.d")" ] && ok "score on a full disk: no leftovers" || failed "score on a full disk leaves $(ls "$TMP/out.d")"
full() { (ulimit -f 1 && "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --limit 20 --max-tokens 16 --out "$TMP/out.d/answers.jsonl" --quiet); }
exits 1 "eval on a full disk" full
says "eval on a full disk: says so" err "File too large"
says "eval on a full disk: says what is not kept" err "The answers are not kept; the result, on standard output"
says "eval on a full disk: the result is told all the same" out "pass@1"
[ -z "$(ls "$TMP/out.d")" ] && ok "eval on a full disk: no leftovers" || failed "eval on a full disk leaves $(ls "$TMP/out.d")"
# stopped CODE NAME FILE command…: Ctrl-C once FILE* is there (or something was said), then exit code and leftovers.
stopped() {
    name=$1
    shift
    "$@" >"$TMP/out" 2>"$TMP/err" &
    pid=$!
    n=0
    while [ -z "$(ls "$TMP/out.d")" ] && kill -0 $pid 2>/dev/null && [ $n -lt 1000 ]; do
        n=$((n + 1))
        sleep 0.01
    done
    kill -INT $pid 2>/dev/null
    wait $pid
    code=$?
    [ $code = 130 ] && ok "$name: Ctrl-C exits 130" || failed "$name: Ctrl-C exits $code: $(head -3 "$TMP/err")"
    [ -z "$(find "$TMP/out.d" -name '*.tmp.*')" ] && ok "$name: Ctrl-C leaves no part of a file" || failed "$name: Ctrl-C leaves $(ls "$TMP/out.d")"
}
stopped "score" "$DISTILL" score --model $base --ids "$TMP/ids.jsonl" --logits "$TMP/out.d/logits.safetensors" --quiet
says "score: Ctrl-C says what is not there" err "logits.safetensors was not written"
stopped "eval" "$DISTILL" eval --model $base --tasks teacher/tiny/test.jsonl --out "$TMP/out.d/answers.jsonl" --quiet
says "eval: Ctrl-C says how far it came" err "stopped after"
finish
