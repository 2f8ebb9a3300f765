#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the commands of one README in a copy of the tree, whose build/test is the build's folder:
#   tests/readme/run.sh ROOT BUILD README
# blocks.sh says what is done with which command. Figures that a command draws must equal those of the tree. The
# first C++ of README.md is first.cpp, for a command to compile; that of the others must compile.
set -uo pipefail
root=$1 build=$2 readme=$3
source "$root/tests/readme/blocks.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root" && cp -r CMakeLists.txt CMakePresets.json LICENSE README.md bench cmake examples include tests "$scratch" || exit 1
cd "$scratch" && mkdir build && ln -s "$build" build/test && program README.md >first.cpp || exit 1

faults=0
fault() {
  echo "$readme: $*" >&2
  faults=$((faults + 1))
}

# in_time SECONDS COMMAND: what the command prints, where it fails.
in_time() {
  timeout "$1" bash -c "$2" >"$scratch/output" 2>&1 </dev/null
  result=$?
  ((result == 0 || result == 124)) || tail -n 20 "$scratch/output" >&2
  return $result
}

# left_out COMMAND: whether its program was left out of this build, as MPI, OpenBLAS or Google Benchmark was not
# found; CMake has warned of it.
left_out() {
  [[ $1 =~ build/test/[a-z]+/(mpi_ranks|train_lm|bench_host_kernel) && ! -e ${BASH_REMATCH[0]} ]]
}

tests=$(grep -rhoP 'add_test\(\[=\[\K[^]]+' --include=CTestTestfile.cmake "$build/")

# is_test COMMAND: whether it is a program without arguments that ctest runs as a test of its own.
is_test() {
  [[ $1 =~ ^build/test/(examples/[a-z_]+)$ ]] && grep -qx "${BASH_REMATCH[1]}" <<<"$tests"
}

# exists COMMAND: its presets and scripts, and the tests that a pattern of ctest names.
exists() {
  local word previous=""
  for word in $1; do
    [[ $previous != --preset ]] || grep -q "\"name\": \"$word\"" CMakePresets.json || fault "no preset $word: $1"
    [[ $previous != -R ]] || grep -qE "$word" <<<"$tests" || fault "no test $word: $1"
    [[ $word != *.sh && $word != *.py ]] || [[ -e $word ]] || fault "no file $word: $1"
    previous=$word
  done
}

# has_sources COMMAND: every program of build/gpu that it names is made of a file of the tree.
has_sources() {
  local path name made
  for path in $(grep -oE 'build/gpu/[A-Za-z0-9_/]+' <<<"$1"); do
    name=${path##*/}
    case $path in
      build/gpu/bench/bench_*) made=$(find bench -name "${name#bench_}.c[pu]*") ;;
      build/gpu/examples/*) made=$(find examples -name "$name.c[pu]*") ;;
      *) made=$(grep -E "^ *(add_executable|lightseq_program)\($name " tests/CMakeLists.txt ||
        find tests -path "tests/$(sed 's/^test_//; s/_cuda$//; s|_|?|g' <<<"$name")/*") ;;
    esac
    [[ -n $made ]] || fault "nothing builds $path: $1"
  done
  exists "$1"
}

while read -r kind; do
  case $kind in
    sh | "sh starts" | "sh exists" | "sh gpu" | cpp | cmake | text) ;;
    *) fault "blocks of '$kind' are not tested" ;;
  esac
done < <(kinds "$readme")
while read -r command; do fault "stands in the text, where nothing tests it: $command"; done < <(inline_commands "$readme")
while read -r command; do bash -n <<<"$command" || fault "is no command: $command"; done < <(
  for kind in sh "sh starts" "sh exists" "sh gpu"; do commands "$kind" "$readme"; done
)
while read -r command; do exists "$command"; done < <(commands "sh exists" "$readme")
while read -r command; do has_sources "$command"; done < <(commands "sh gpu" "$readme")
count=0
while read -r command <&3; do
  count=$((count + 1))
  if left_out "$command"; then echo "left out: $command" && continue; fi
  if is_test "$command"; then echo "ctest runs: $command" && continue; fi
  echo "runs: $command"
  in_time 300 "$command" || fault "failed ($result): $command"
  [[ $command != *first.cpp* || $(grep -c '^rank [0-7]: ok, o.0. = 0.5$' output) == 8 ]] || fault "is wrong: $command"
done 3< <(commands sh "$readme")
while read -r command <&3; do
  count=$((count + 1))
  if left_out "$command"; then echo "left out: $command" && continue; fi
  echo "starts: $command"
  in_time 1 "$command" || ((result == 124)) || fault "failed ($result): $command"
done 3< <(commands "sh starts" "$readme")
if [[ $readme != README.md && -n $(program "$readme") ]]; then
  { echo '#include <lightseq/lightseq.hpp>' && program "$readme" all; } >blocks.cpp
  in_time 300 "g++ -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I include blocks.cpp" || fault "its C++ does not compile"
fi
diff -r examples/figures "$root/examples/figures" || fault "its commands draw other figures"

echo "$count commands run, $faults faults"
exit $((faults > 0))
