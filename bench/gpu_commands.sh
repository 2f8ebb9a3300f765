#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every command of the READMEs that needs a GPU, in the order in which they stand there, on a machine that
# has one and where build/gpu is built (cmake --preset gpu && cmake --build --preset gpu):
#   bench/gpu_commands.sh [SECONDS [PATTERN]]
# A command has SECONDS, 120 unless given (with 20 all take some 8 minutes): it must succeed, or be still at work
# then. With a PATTERN only what matches "README: command" runs. Prints a line a command; what the commands print
# goes into build/gpu/commands.log. Exits with 1 if one failed, or if there is none.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
source tests/readme/blocks.sh
limit=${1:-120} pattern=${2:-.}
log=build/gpu/commands.log
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
: >"$log" || exit 1

count=0 failed=0
for readme in README.md */README.md include/lightseq/README.md include/lightseq/*/README.md; do
  while read -r command <&3; do
    grep -qE -- "$pattern" <<<"$readme: $command" || continue
    count=$((count + 1))
    printf '\n== %s\n' "$command" >>"$log"
    begin=$SECONDS
    timeout --kill-after=10 "$limit" bash -c "$command" >>"$log" 2>&1 </dev/null
    result=$? verdict=passed
    if ((result == 124)); then
      verdict="still at work"
    elif ((result != 0)); then
      verdict="FAILED ($result)"
      failed=$((failed + 1))
    fi
    printf '%-14s %4d s  %s: %s\n' "$verdict" $((SECONDS - begin)) "$readme" "$command"
  done 3< <(commands "sh gpu" "$readme")
done
printf '%d commands, %d failed\n' "$count" "$failed"
exit $((failed > 0 || count == 0))
