#!/usr/bin/env bash
# What `make deny` asks of the dependencies: their licences, their sources, what is banned, versions
# that were withdrawn, and known vulnerabilities. What could not be asked is said.
#
# cargo-deny is the machine's, or one that is fetched into `.cache/deny`. The database of
# vulnerabilities is a git repository; where it cannot be reached, SESSIONKEEP_ADVISORY_DB may name a
# clone of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly CARGO=${CARGO:-cargo}
readonly DATABASE=https://github.com/RustSec/advisory-db

# shellcheck source=tests/tools/tool.sh
source tests/tools/tool.sh

say() { printf 'deny: %s\n' "$*"; }

# What of it is missing on a developer's machine is said; where CI lacks it, CI fails.
missing() {
    say "$*" >&2
    [ -z "${CI:-}" ] || exit 1
}

python3 tests/tools/licences.py

# Cargo looks at the registry's index when it packs a crate for others, and only warns.
said=$("$CARGO" package --workspace --locked --allow-dirty --no-verify 2>&1) ||
    { printf '%s\n' "$said" >&2; exit 1; }
if grep yanked <<<"$said" >&2; then
    say "a version in Cargo.lock was withdrawn: update it (\`cargo update --package NAME\`)" >&2
    exit 1
fi
say "no version was withdrawn"

if ! "$CARGO" deny --version >/dev/null 2>&1; then
    if ! fetch_tool deny; then
        missing "cargo-deny is not installed and could not be fetched, so deny.toml was not applied"
        exit 0
    fi
fi
"$CARGO" deny --locked check bans licenses sources

export GIT_TERMINAL_PROMPT=0
if [ -n "${SESSIONKEEP_ADVISORY_DB:-}" ]; then
    export GIT_CONFIG_COUNT=1
    export GIT_CONFIG_KEY_0=url.$SESSIONKEEP_ADVISORY_DB.insteadOf GIT_CONFIG_VALUE_0=$DATABASE
fi
if said=$(timeout 120 "$CARGO" deny fetch db 2>&1); then
    "$CARGO" deny --locked check advisories
else
    say "known vulnerabilities were NOT looked for: $DATABASE cannot be had here" \
        "($(tail -n 1 <<<"${said%$'\n'}"))" >&2
    say "run this where it can, or name a clone of it in SESSIONKEEP_ADVISORY_DB" >&2
fi
