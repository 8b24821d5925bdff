#!/usr/bin/env bash
# Builds every fuzz target and runs each for a short time, two at once: fuzz/run.sh [SECONDS [TARGET…]]
# Inputs are other ones in every run, unless WEIR_FUZZ_SEED says where the random numbers begin.
# The committed corpus is read only; what a run finds goes to fuzz/target/corpus, a failing input to fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-20}
shift || true
all=(range conditional query timecode mp4_index mp4_arrival mp4_merge ts_index index_entry frame)
targets=("$@")
[ $# -eq 0 ] && targets=("${all[@]}")
binaries=()
for target in "${targets[@]}"; do binaries+=(--bin "$target"); done
cargo build --release --locked "${binaries[@]}"

run_one() {
    local target=$1 seconds=$2 options=(-rss_limit_mb=512 -timeout=10 -max_len=65536 -seed="${WEIR_FUZZ_SEED:-0}")
    case $target in
        range | conditional | timecode) options+=(-max_len=1024) ;;
        query) options+=(-max_len=9000) ;;
        mp4_index | mp4_arrival | mp4_merge | index_entry) options+=(-dict=dictionaries/mp4.dict) ;;
    esac
    mkdir -p "target/corpus/$target" "artifacts/$target"
    if target/x86_64-unknown-linux-gnu/release/"$target" "${options[@]}" -max_total_time="$seconds" \
        -artifact_prefix="artifacts/$target/" "target/corpus/$target" "corpus/$target" >"target/$target.log" 2>&1; then
        echo "$target: $(grep -E '^Done' "target/$target.log")"
    else
        echo "$target: FAILED"
        grep -vE 'NEW|REDUCE|RELOAD|pulse' "target/$target.log" | tail -n 40
        return 1
    fi
}
export -f run_one
printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} bash -c 'run_one "$1" "$2"' _ {} "$seconds"
