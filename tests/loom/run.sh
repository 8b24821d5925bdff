#!/usr/bin/env bash
# The profiler's call tree and what lends values: every order of those who meet there (loom), and their unsafe code under
# Miri where a toolchain has it, else under AddressSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cargo test --release --test lent --test tree
if cargo +nightly miri --version >/dev/null 2>&1; then
    cargo +nightly miri test --no-default-features --lib
else
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        cargo test --no-default-features --lib --target "$(rustc -vV | sed -n 's/host: //p')"
fi
