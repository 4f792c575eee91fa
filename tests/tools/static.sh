#!/usr/bin/env bash
# Builds the binary that needs no C library of the machine that it runs on (musl), and proves both: that it
# is static, and that it does the main job on an SQLite store. What it leaves is
# target/TARGET/release/sessionkeep; the last line that it prints is that path.
#
#   tests/tools/static.sh [TARGET]
#
# It takes Rust's target (rustup target add TARGET) and Debian's musl-tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${1:-$(uname -m)-unknown-linux-musl}
say() { printf 'static: %s\n' "$*" >&2; }
give_up() { say "$*"; exit 1; }

command -v musl-gcc >/dev/null || give_up "musl-gcc is missing; on Debian: apt-get install musl-tools"
if ! rustup target list --installed | grep -qx "$target"; then
    rustup target add "$target" >&2 || give_up "Rust's target $target cannot be had"
fi
# The name that the C parts' build scripts look for.
cc=CC_${target//-/_}
export "$cc=musl-gcc"
"${CARGO:-cargo}" build --release --locked --bin sessionkeep --target "$target" >&2
binary=$PWD/target/$target/release/sessionkeep

# A static binary asks for no interpreter.
if readelf --program-headers "$binary" | grep -q INTERP; then
    give_up "$binary asks for an interpreter, so it is not static"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# An empty root: nothing of this machine can help it.
mkdir "$work/root" "$work/root/tmp"
cp "$binary" "$work/root/sessionkeep"
# The gateway of this trial is the binary itself.
keep() {
    local command=$1
    shift
    SESSIONKEEP_HTTP_PORT=off chroot "$work/root" /sessionkeep "$command" \
        --store sqlite:/keep/store.db --dir /session --profile generic "$@"
}
try() {
    [ "$(id -u)" = 0 ] || { say "not root: that it runs in an empty root was not tried"; "$binary" --version >&2; return; }
    mkdir "$work/root/keep" "$work/root/session" "$work/root/proc"
    printf '{"me":{"id":"1@s.whatsapp.net"}}' >"$work/root/session/creds.json"
    # It commits, and ends: an exit code of its own stands for the gateway's.
    keep run -- /sessionkeep --version >"$work/said" 2>&1 ||
        { cat "$work/said" >&2; give_up "the first start failed"; }
    rm -r "$work/root/session"
    keep restore >"$work/said" 2>&1 ||
        { cat "$work/said" >&2; give_up "the restore failed"; }
    grep -q s.whatsapp.net "$work/root/session/creds.json" || give_up "the login did not come back"
    say "in an empty root: a login was saved and restored"
}
try
say "$(stat -c %s "$binary") bytes, static, for $target"
echo "$binary"
