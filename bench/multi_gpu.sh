#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All that several GPUs of one machine can tell, unattended, in some 10 minutes: builds, runs the tests of the
# NCCL transport (every schedule against dense attention, graphs, killed and stopped ranks), holds the
# contenders of bench_dist against dense attention, and times them beside what the simulator predicts.
#   bench/multi_gpu.sh OUT [RANKS]
# Writes into OUT: tests.txt, check.txt, dist.json (a row a measurement), trace-*.json of 64k tokens for
# ui.perfetto.dev, rates.json (attention beside messages, for simulate --calibration), and status, which names the parts that failed. More RANKS than GPUs share these: a
# rehearsal, in which nothing is timed.
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
part build.txt 300 cmake --build --preset gpu -j "$(nproc)" --target test_transport_nccl_ranks bench_dist nccl_ranks
part tests.txt 300 $build/tests/test_transport_nccl_ranks
for world in 2 4 8; do
  if [ "$world" -le "$ranks" ]; then part check.txt 90 $build/bench/bench_dist --ranks "$world" --check; fi
done
if [ "$ranks" -le "$gpus" ]; then
  part dist.json 90 $build/bench/bench_dist --ranks "$ranks" --trace "$out/trace" --seqlen 65536
  part dist.json 90 $build/bench/bench_dist --ranks "$ranks" --seqlen 32768,131072
  if [ "$ranks" -ge 2 ]; then part rates.json 60 $build/bench/bench_dist --ranks "$ranks" --calibration; fi
  part dist.json 420 $build/bench/bench_dist --ranks "$ranks" --seqlen 262144,524288
fi
cat "$out/status"
exit $status
