# SPDX-License-Identifier: Apache-2.0
# To be sourced: what stands in the fenced blocks of a README. The word after ```sh says how a command is tested:
#   ```sh          ctest runs it, and it must succeed; an example without arguments is a test already
#   ```sh starts   it takes long: ctest runs it for a second, in which it must not fail
#   ```sh exists   a whole build, or what needs the network: its presets, tests and scripts must exist
#   ```sh gpu      needs a GPU: bench/gpu_commands.sh runs it, ctest sees whether its programs have a source

# commands KIND README: the commands of the blocks of a kind, one a line; KIND is sh, "sh starts", ...
commands() {
  awk -v fence="\`\`\`$1" '
    /^```/ { inside = !inside && $0 == fence; next }
    !inside || /^#/ || /^$/ { next }
    sub(/ *\\$/, " ") { joined = joined $0; next }
    { sub(/^ +/, ""); print joined $0; joined = "" }' "$2"
}

# kinds README: what is written after the opening fences.
kinds() {
  awk '/^```/ { if (!inside) print substr($0, 4); inside = !inside }' "$1"
}

# program README [all]: the first block of C++, or all of them.
program() {
  awk -v all="${2:-}" '
    /^```/ { if (inside && !all) exit; inside = !fenced && $0 == "```cpp"; fenced = !fenced; next }
    inside' "$1"
}

# inline_commands README: commands that stand in the text, where nothing would test them.
inline_commands() {
  awk '/^```/ { inside = !inside; next } !inside' "$1" | grep -o '`[^`]*`' |
    grep -E '^`((cmake|ctest|mpirun|python3|nvcc|g\+\+|apt-get|compute-sanitizer|bash|sh) |[A-Z_]+=[^ ]+ |[a-z_/]*(simulate|schedule_table|train_lm|bench_[a-z_]+|test_[a-z_]+) |build/|bench/[a-z_]+\.sh )'
}
