#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Gives every option that PROGRAM (simulate) lists in its help values of every wrong kind: it must end at once with
# code 2 and say the option's name.
set -uo pipefail
program=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" && printf '{"mask": "full", "dim": 128,\n' >malformed && : >empty || exit 1

faults=0 tries=0
# refused OPTION ARGUMENT...
refused() {
  local option=$1 said code
  said=$(timeout 20 "$program" "${@:2}" 2>&1 >/dev/null </dev/null)
  code=$?
  tries=$((tries + 1))
  [[ $code == 2 && $said == *"$option"* ]] && return
  echo "code $code, '$said': ${*:2}" >&2
  faults=$((faults + 1))
}

words=("x" "8x" "nan" "inf" "-inf" "1e999" "-1" "1e19" " 8" "0x10" "8;" "--world")
options=$("$program" --help | sed -nE 's/^  (--[a-z-]+) .*/\1/p')
[[ $(wc -w <<<"$options") -gt 30 ]] || { echo "the help lists too few options" >&2 && exit 1; }
for option in $options; do
  case $option in
    --degrees | --fastest | --no-overlap | --synchronous) bad=("on" "") ;;
    --world | --seqlen | --kv-heads) bad=("${words[@]}" "" "0" "8.5" "8," ",8" "8,,8" "8,-1") ;;
    --heads | --dim | --batch | --window | --kernels-per-work) bad=("${words[@]}" "" "0" "8.5" "8,8") ;;
    --result-bytes) bad=("${words[@]}" "" "3" "8" "4.0") ;;
    --tile) bad=("${words[@]}" "0" "8.5") ;;
    --sms) bad=("${words[@]}" "8.5" "4") ;;
    --ranks-per-node) bad=("${words[@]}" "0" "8.5" "3") ;;
    --exchange-sms) bad=("${words[@]}" "8.5" "132" "1000") ;;
    --inside-gbs | --between-gbs) bad=("${words[@]}" "0") ;;
    --inside-us | --between-us) bad=("${words[@]}") ;;
    --tie-percent) bad=("${words[@]}" "") ;;
    --sharing) bad=("no" "8" "RANK" "rank ") ;;
    --forward-tflops | --backward-tflops | --carry-tbs | --memory-tbs | --peak-tflops | --memory-gb)
      bad=("${words[@]}" "0") ;;
    --launch-us | --backward-launch-us | --forward-hidden | --backward-hidden | --forward-row | --backward-row)
      bad=("${words[@]}") ;;
    --forward-partial | --backward-partial) bad=("${words[@]}" "0") ;;
    --mask | --pass | --route | --rest | --activations | --preset | --carry)
      bad=("" "no" "8" "CAUSAL" "causal " "both,data") ;;
    --schedule) bad=("" "no" "Ring," ",Ring" "ring" "Ring:" "Ring:best" "PackedRing:neighbour" "PackedRing") ;;
    --documents) bad=("no" "0" "8,0" "8,,8" "," "-1" "1e3" "8.5" "9999999999999" "WEB") ;;
    --calibration) bad=("missing" "." "malformed" "empty") ;;
    --svg | --trace | --html | --json | --csv) bad=("missing/file" "." "/dev/full") ;;
    *) echo "this test knows no wrong values of $option" >&2 && faults=$((faults + 1)) && continue ;;
  esac
  for value in "${bad[@]}"; do
    refused "$option" "$option=$value"
  done
  [[ ${#bad[@]} == 2 ]] && continue  # a switch
  refused "$option" "$option" "${bad[0]}"
  refused "$option" "$option"
  refused "$option" "$option" --help-me
done

# What is wrong together, or too large.
refused --kv-heads --heads 6 --kv-heads 4
refused --ranks-per-node --world 12
refused --batch --batch 1000000 --heads 1000000 --kv-heads 1000000 --dim 256 --seqlen 2147483648
refused --batch --batch 300000 --heads 1000 --kv-heads 1000 --seqlen 2147483647 --documents web
refused --seqlen --documents web --seqlen 2147483648
refused --mask --documents web --mask Full
refused --schedule --mask Full --schedule Balanced
refused --html --world 8,16 --html table.html
refused --degrees --world 8,16 --degrees
refused --csv --json same --csv same
refused --csv --json same --csv ./same
refused --fastest --fastest --documents web
refused --fastest --fastest --memory-gb 80
refused --wrld --wrld 8
refused file file

echo "$tries tries, $faults faults"
exit $((faults > 0))
