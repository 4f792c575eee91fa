#!/usr/bin/env bash
# Feeds every decoder with libFuzzer, which looks for input that reaches new code. It takes a nightly
# toolchain and a C++ compiler. FUZZ_SECONDS is for each decoder (60); FUZZ_DECODERS names some of them.
# What is found lies in fuzz/artifacts, and what was learned in fuzz/corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/tools/tool.sh
source tests/tools/tool.sh

cargo +nightly --version >/dev/null 2>&1 || {
    printf 'fuzz: no nightly toolchain; install one: rustup toolchain install nightly\n' >&2
    exit 1
}
cargo +nightly fuzz --version >/dev/null 2>&1 || fetch_tool fuzz || {
    printf 'fuzz: cargo-fuzz is not installed and could not be fetched\n' >&2
    exit 1
}
# The very versions that ship.
cp Cargo.lock fuzz/Cargo.lock

cd fuzz
names=${FUZZ_DECODERS:-$(grep -hoP '^\s*name: "\K[a-z_]+' ../supervisor/app/src/fuzzing/*.rs)}
cargo +nightly fuzz build decoders
for name in $names; do
    printf 'fuzz: %s\n' "$name"
    mkdir -p "corpus/$name" "artifacts/$name"
    # A megabyte for what is kept from call to call, and three where a count comes first.
    FUZZ_DECODER=$name FUZZ_CORPUS=corpus/$name cargo +nightly fuzz run decoders "corpus/$name" -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 -rss_limit_mb=1024 -malloc_limit_mb=64 \
        -max_len=8192 -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$name/"
done
