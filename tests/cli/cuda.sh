# distill with --device cuda as a user would, on the emulated GPU: the same traces and losses as on the CPU, and what is said in trouble.
. tests/cli/lib.inc
simt=${DISTILL%/*}/tests/distill-simt
[ -x "$simt" ] || {
    echo "skipped: tests/cli/cuda.sh (no $simt: built without kernels/cuda)"
    exit 0
}
[ -f teacher/tiny/base/model.safetensors ] || {
    echo "skipped: tests/cli/cuda.sh (no shipped models)"
    exit 0
}
export DISTILL_SIMT=1 XDG_CACHE_HOME="$TMP/cache"

head -n 2 teacher/tiny/prompts.jsonl >"$TMP/prompts.jsonl"
gen() { # PROGRAM DEVICE STORE option…
    program=$1
    device=$2
    store=$3
    shift 3
    "$program" gen --teacher teacher/tiny/moe --prompts "$TMP/prompts.jsonl" --n 2 --max-tokens 5 --targets topk:8 --dtype f32 --seed 3 --device "$device" --out "$store" "$@"
}
exits 0 "gen on the GPU" gen "$simt" cuda "$TMP/on-gpu"
exits 0 "gen on the CPU" gen "$DISTILL" cpu "$TMP/on-cpu"
for where in gpu cpu; do sed 's/.*"token_ids"/"token_ids"/' "$TMP/on-$where"/traces-*.jsonl | sed 's/\].*//' | sort >"$TMP/$where.ids"; done
same "the same tokens on both" "$TMP/gpu.ids" "$TMP/cpu.ids"
exits 0 "the store is whole" "$DISTILL" data verify "$TMP/on-gpu"
exits 0 "gen again resumes a finished store" gen "$simt" cuda "$TMP/on-gpu"

# Whether a sample may depend on its batch is one setting of a store, wherever it is made.
exits 2 "the store, --batch-invariant" gen "$simt" cuda "$TMP/on-gpu" --batch-invariant
says "the store, --batch-invariant: both settings" err "identity.batch_invariant: stored false, given true"
says "the store, --batch-invariant: what to do" err "leave --batch-invariant out"
exits 2 "the GPU's store on the CPU" gen "$DISTILL" cpu "$TMP/on-gpu"
says "the GPU's store on the CPU: what to do" err "go on with --device cuda, without --batch-invariant"
exits 2 "the CPU's store on the GPU" gen "$simt" cuda "$TMP/on-cpu"
says "the CPU's store on the GPU: both settings" err "identity.batch_invariant: stored true, given false"
says "the CPU's store on the GPU: what to do" err "give --batch-invariant"
exits 0 "the CPU's store on the GPU, --batch-invariant" gen "$simt" cuda "$TMP/on-cpu" --batch-invariant
# A store from before that was recorded: without the two last members of their objects, and the commas before them.
sed -i -e ':all' -e 'N' -e '$!ball' -e 's/,\n *"batch_invariant": [a-z]*//' -e 's/,\n *"crc32c": "[^"]*"//' "$TMP/on-gpu/manifest.json"
exits 0 "a store from before goes on without" gen "$simt" cuda "$TMP/on-gpu"
exits 0 "a store from before goes on with --batch-invariant" gen "$simt" cuda "$TMP/on-gpu" --batch-invariant
exits 0 "a store from before goes on on the CPU" gen "$DISTILL" cpu "$TMP/on-gpu"
grep -q batch_invariant "$TMP/on-gpu/manifest.json" && failed "a store from before says what nobody knows" || ok "a store from before stays one"

printf '{"messages":[{"role":"user","content":"What is 3 plus 4?"},{"role":"assistant","content":"It is 7."}]}\n%.0s' 1 2 3 4 5 6 >"$TMP/chats.jsonl"
train() {
    program=$1
    device=$2
    shift 2
    "$program" train --student teacher/tiny/base --data "$TMP/chats.jsonl" --lr 1e-3 --batch-tokens 64 --save-every 1 --seed 3 --dtype f32 --device "$device" "$@"
}
exits 0 "train on the GPU" train "$simt" cuda --steps 3 --out "$TMP/student-gpu"
exits 0 "train on the CPU" train "$DISTILL" cpu --steps 3 --out "$TMP/student-cpu"
losses() { sed 's/.*"loss":\([-0-9.e]*\).*"grad_norm":\([-0-9.e]*\).*/\1 \2/' "$TMP/student-$1/metrics.jsonl"; }
near() { # NAME A B MOST NORM: losses of three steps differ by MOST of themselves at most, gradient norms by NORM
    losses "$2" >"$TMP/a.loss"
    losses "$3" >"$TMP/b.loss"
    paste -d' ' "$TMP/a.loss" "$TMP/b.loss" >"$TMP/both.loss"
    awk -v most="$4" -v norm="$5" '
        function off(a, b) { return a > b ? (a - b) / b : (b - a) / b }
        NF != 4 || off($1, $3) > most || off($2, $4) > norm { bad = 1 } END { exit bad || NR != 3 }' "$TMP/both.loss" && ok "$1" && return
    failed "$1: losses differ:"
    cat "$TMP/both.loss"
}
near "the same losses and gradient norms" gpu cpu 1e-4 1e-3
eight() { train "$@" --steps 3 --dtype bf16 --optimizer adamw8; }
exits 0 "train with 8-bit states on the GPU" eight "$simt" cuda --out "$TMP/student-gpu8"
exits 0 "train with 8-bit states on the CPU" eight "$DISTILL" cpu --out "$TMP/student-cpu8"
near "about the same losses with 8-bit states" gpu8 cpu8 5e-3 2e-2

# A fault in the second step: the last checkpoint is whole, and the run goes on from it.
faulty() { DISTILL_SIMT_FAIL=$1 train "$simt" cuda --steps 3 --out "$2"; }
exits 1 "a launch that fails in mid-run" faulty launch:400:719 "$TMP/fault"
says "the op is named" err " on cuda:0: launching "
says "and CUDA's message" err "unspecified launch failure"
exits 0 "the run goes on from its last checkpoint" train "$simt" cuda --steps 3 --out "$TMP/fault" --resume
same "and ends as if nothing had been" "$TMP/fault/model.safetensors" "$TMP/student-gpu/model.safetensors"
faulty8() { DISTILL_SIMT_FAIL=launch:400:719 eight "$simt" cuda --out "$TMP/fault8"; }
exits 1 "a launch that fails with 8-bit states" faulty8
exits 0 "the run with 8-bit states goes on" eight "$simt" cuda --out "$TMP/fault8" --resume
same "and ends as if nothing had been, too" "$TMP/fault8/model.safetensors" "$TMP/student-gpu8/model.safetensors"
exits 1 "an ECC error" faulty cudaStreamSynchronize:2:214 "$TMP/ecc"
says "an ECC error is told" err "uncorrectable ECC error"

exits 2 "a device that is not there" train "$simt" cuda:1 --steps 1 --out "$TMP/x"
says "how many there are" err "this machine has 1 GPU"
no_gpu() { DISTILL_SIMT=0 train "$simt" "$1" --steps 1 --out "$TMP/x"; }
exits 2 "no GPU" no_gpu cuda
says "no GPU: what to do" err "Use --device cpu"
full() { DISTILL_SIMT_MEMORY=$((8 << 20)) train "$simt" cuda --steps 1 --out "$TMP/x"; }
exits 1 "a GPU that is too small" full
says "how much is needed and free" err "GiB are free"
finish
