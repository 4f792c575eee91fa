#!/usr/bin/env bash
# Prints what CHANGELOG.md says of a version.
#
#   tests/tools/release-notes.sh TAG
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

notes=$(awk -v version="${1#v}" '
    /^## / { on = index($0, "[" version "]") > 0; next }
    on' CHANGELOG.md)
[ -n "$notes" ] || { printf 'release-notes: CHANGELOG.md has no section [%s]\n' "${1#v}" >&2; exit 1; }
printf '%s\n' "$notes"
