#!/bin/sh
# Runs the benchmarks and prints one Markdown table; progress goes to stderr. About eight minutes on two idle cores; load writes 3 GB to $TMPDIR.
#
#   tests/bench/run.sh [BUILD] [JOB …]     $PYTHON: an interpreter with torch and transformers, else the training rows stand without a peer
set -eu
build=${1:-build}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- ceilings train decode prefill moe capture memory load
# Threads that wait do so asleep: PyTorch's process and ours take turns on the same cores.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
out=$build/bench.md
{
    echo "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2>/dev/null || echo 'no git')"
    echo
    echo '| job | ours | peer or ceiling | ours / peer |'
    echo '|---|---|---|---|'
} | tee "$out"
for job in "$@"; do
    echo "bench: $job; load $(cut -d' ' -f1 /proc/loadavg)" >&2
    "$build/bench" "$job" | tee -a "$out"
done
