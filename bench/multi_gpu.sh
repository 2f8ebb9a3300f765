#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All that several GPUs of one machine can tell, unattended, in some 10 minutes: builds, runs the tests of the
# NCCL transport (every schedule against dense attention, graphs, killed and stopped ranks), holds the
# contenders of bench_dist against dense attention and times them, and predicts the same with simulate.
#   bench/multi_gpu.sh OUT [RANKS]
# Writes into OUT: tests.txt, check.txt, dist.json (a line a measurement), prediction.txt, and status, which
# names the parts that failed. More RANKS than GPUs share these: a rehearsal, in which nothing is timed.
set -u
out=$(mkdir -p "${1:?usage: bench/multi_gpu.sh OUT [RANKS]}" && cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
gpus=$(nvidia-smi --list-gpus | wc -l)
ranks=${2:-$gpus}
build=build/gpu
status=0
: >"$out/status"

# part NAME SECONDS COMMAND...: what it prints goes into a file of that name.
part() {
  name=$1 seconds=$2
  shift 2
  if timeout "$seconds" "$@" >>"$out/$name" 2>>"$out/$name.err"; then
    return
  fi
  echo "$name failed: $*" >>"$out/status"
  status=1
}

part build.txt 300 cmake --preset gpu
part build.txt 300 cmake --build --preset gpu -j "$(nproc)" --target test_nccl_ranks bench_dist nccl_ranks simulate
part tests.txt 240 $build/tests/test_nccl_ranks
for world in 2 4 8; do
  if [ "$world" -le "$ranks" ]; then part check.txt 60 $build/bench/bench_dist --ranks "$world" --check; fi
done
if [ "$ranks" -le "$gpus" ]; then
  for tokens in 32768 65536 131072 262144 524288; do
    for kv_heads in 32 8; do
      part dist.json 90 $build/bench/bench_dist --ranks "$ranks" "$tokens" 32 "$kv_heads"
      part prediction.txt 20 $build/examples/simulate --world "$ranks" --ranks-per-node "$ranks" --seqlen "$tokens" \
        --heads 32 --kv-heads "$kv_heads"
    done
  done
fi
cat "$out/status"
exit $status
