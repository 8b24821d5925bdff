#!/usr/bin/env bash
# The test command: on a machine with Rust, and Debian or Ubuntu with root or sudo, it installs what is missing, builds,
# and runs everything. It stops at the first failure. The last line is "N passed, N failed".
#
#   WEIR_FUZZ_SECONDS   time for each fuzz target (default 10)
#   WEIR_FUZZ_SEED      where their random numbers begin (default 1: a change is judged by itself, not by luck; 0: anywhere)
#   WEIR_VECTORS        directory of the generated videos (default target/vectors)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
fuzz_seconds=${WEIR_FUZZ_SECONDS:-10}
export WEIR_FUZZ_SEED=${WEIR_FUZZ_SEED:-1}
playwright=1.65.1
gprof2dot=2025.4.14
prometheus=0.26.0
m3u8=6.0.0
hls_js=1.7.4
shaka=5.2.12
logs=target/test-logs
mkdir -p "$logs"
rm -f "$logs"/*.log
current=""
complete=no
passed=0
failed=0
declare -a report=()

# tests_in LOG WHICH: sums cargo's closing lines ("test result: ok. 3 passed; 0 failed; ...").
tests_in() {
    awk -v which="$2" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" which) sum += $(i - 1) } END { print sum + 0 }' "$1"
}

finish() {
    local code=$?
    # Ended by a signal before the last step: whatever the last command said, this is no success.
    [ "$complete" = yes ] || [ "$code" -ne 0 ] || code=1
    if [ "$code" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
    fi
    echo
    printf '%s\n' "${report[@]}"
    [ "$code" -eq 0 ] || echo "FAILED: ${current:-set-up} (exit code $code)"
    echo "$passed passed, $failed failed"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# step NAME LIMIT COMMAND...: runs a command within a time limit in seconds, shows its output, and counts it.
step() {
    current=$1
    local limit=$2 began=$SECONDS log code=0
    shift 2
    log="$logs/${current//[^a-z0-9]/-}.log"
    echo
    echo "== $current"
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$log" || code=${PIPESTATUS[0]}
    local ok bad
    ok=$(tests_in "$log" passed)
    bad=$(tests_in "$log" failed)
    if [ $((ok + bad)) -eq 0 ]; then
        if [ "$code" -eq 0 ]; then ok=1; else bad=1; fi
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    report+=("$(printf '%6d s  %s' $((SECONDS - began)) "$current")")
    if [ "$code" -eq 124 ]; then
        echo "$current: not done within $limit s"
    fi
    return "$code"
}

browser() {
    local name
    for name in ${WEIR_CHROMIUM:-} chromium chromium-browser google-chrome; do
        # Ubuntu's package is a snap that does not start in a container.
        if command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

install_tools() {
    local -a packages=() root=()
    command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || packages+=(ffmpeg)
    command -v nginx >/dev/null || packages+=(nginx-light)
    command -v curl >/dev/null || packages+=(curl)
    command -v python3 >/dev/null || packages+=(python3)
    python3 -c 'import yaml' 2>/dev/null || packages+=(python3-yaml)
    command -v go >/dev/null || packages+=(golang-go)
    python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
    command -v node >/dev/null || packages+=(nodejs)
    command -v npm >/dev/null || packages+=(npm)
    command -v valgrind >/dev/null || packages+=(valgrind)
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || packages+=(libfaketime)
    browser >/dev/null || packages+=(chromium)
    [ -f /usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf ] || packages+=(fonts-dejavu-core)
    if [ "${#packages[@]}" -gt 0 ]; then
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null || {
                echo "missing: ${packages[*]}; neither root nor sudo is there to install them"
                return 1
            }
            root=(sudo)
        fi
        echo "installing: ${packages[*]}"
        "${root[@]}" apt-get update -q
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
    fi
    if [ ! -f "target/python/gprof2dot.py" ]; then
        python3 -m pip install --quiet --disable-pip-version-check --target target/python "gprof2dot==$gprof2dot"
    fi
    local name
    for name in playwright-core hls.js shaka-player; do
        [ -f "target/browser/node_modules/$name/package.json" ] && continue
        npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix target/browser \
            "playwright-core@$playwright" "hls.js@$hls_js" "shaka-player@$shaka"
    done
    if [ ! -f "target/python/prometheus_client/parser.py" ]; then
        python3 -m pip install --quiet --disable-pip-version-check --target target/python "prometheus-client==$prometheus"
    fi
    if [ ! -f "target/python/m3u8/__init__.py" ]; then
        python3 -m pip install --quiet --disable-pip-version-check --target target/python "m3u8==$m3u8"
    fi
    browser >/dev/null || {
        echo "no working Chromium: set WEIR_CHROMIUM to one"
        return 1
    }
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
    done
}

fuzz() {
    if [ -x fuzz/run.sh ]; then
        fuzz/run.sh "$fuzz_seconds"
    else
        echo "fuzz/run.sh is not there"
    fi
}

play_in_browser() {
    NODE_PATH=target/browser/node_modules WEIR_CHROMIUM=$(browser) node tests/browser/demo.cjs target/debug/weir "$logs"
    NODE_PATH=target/browser/node_modules WEIR_CHROMIUM=$(browser) node tests/browser/live.cjs target/debug/weir "$logs"
}

# Functions are run by `timeout` in a shell of their own.
export -f browser install_tools fuzz play_in_browser
export playwright gprof2dot hls_js shaka prometheus m3u8 fuzz_seconds logs

step "tools" 900 bash -euo pipefail -c install_tools
step "format" 60 cargo fmt --check
step "test videos" 600 tests/fixtures/vectors.sh "${WEIR_VECTORS:-target/vectors}"
step "lints" 900 cargo clippy --locked --all-targets -- -D warnings
step "build" 900 cargo test --locked --no-run
step "unit and integration tests" 900 cargo test --locked --lib --bins --tests -- --test-threads=4
step "documentation tests" 300 cargo test --locked --doc
step "call tree: loom, sanitizer" 600 tests/loom/run.sh
step "fuzz" 600 bash -euo pipefail -c fuzz
step "instructions" 600 benches/instructions
step "browser" 300 bash -euo pipefail -c play_in_browser
step "docker files" 60 python3 docker/check.py target/debug/weir
current=""
complete=yes
