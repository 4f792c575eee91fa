# Sourced: fetches a program for Cargo that is not installed.
# shellcheck shell=bash

# fetch_tool NAME: what tests/tools/NAME.txt pins by hash comes into .cache/NAME and on PATH.
fetch_tool() {
    local pinned=tests/tools/$1.txt fetched=$PWD/.cache/$1
    if ! cmp -s "$pinned" "$fetched/pinned"; then
        rm -rf "$fetched"
        python3 -m venv "$fetched" >/dev/null &&
            "$fetched/bin/pip" install --quiet --disable-pip-version-check --no-deps \
                --only-binary :all: --require-hashes -r "$pinned" &&
            cp "$pinned" "$fetched/pinned" || return
    fi
    PATH=$fetched/bin:$PATH
}
