#!/usr/bin/env bash
# Runs the stack's tests in real Docker.
#
#   tests/compose/run.sh                 needs a working engine
#   tests/compose/run.sh --if-possible   without one, says so and leaves it at that
#
# With STACK_TESTS_ENGINE=own, as in CI, it installs an engine into .cache/engine and starts it, if none
# answers; there, tests that did not run are a failure. More arguments go to the test program, as names of cases.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'compose tests: %s\n' "$*"; }
give_up() { printf 'compose tests: %s\n' "$@" >&2; exit 1; }

if_possible=
if [ "${1:-}" = --if-possible ]; then
    if_possible=yes
    shift
fi

why_not() {
    command -v docker >/dev/null || { echo "docker is not installed"; return; }
    docker version >/dev/null 2>&1 || { echo "no Docker Engine answers"; return; }
    docker compose version >/dev/null 2>&1 || { echo "Docker has no Compose plugin"; return; }
    docker buildx version >/dev/null 2>&1 || { echo "Docker has no buildx plugin"; return; }
    local engine
    engine=$(docker version --format '{{.Server.Version}}')
    [ "${engine%%.*}" -ge 25 ] || echo "Docker Engine $engine is older than 25"
}

reason=$(why_not)
if [ -n "$reason" ] && [ "${STACK_TESTS_ENGINE:-}" = own ]; then
    say "$reason; using one of our own"
    settings=$(tests/compose/engine.sh start)
    eval "$settings"
    own=yes
    reason=$(why_not)
    [ -z "$reason" ] || give_up "failed: $reason, even with our own"
fi
if [ -n "$reason" ]; then
    [ -n "$if_possible" ] || give_up "they need a working Docker Engine, and $reason" \
        "install one (25 or newer, with Compose v2), or, as root on Debian: STACK_TESTS_ENGINE=own make test-compose"
    say "NOT RUN, since $reason. With an engine: make test-compose. As root on Debian, with one of their own: STACK_TESTS_ENGINE=own make test-compose"
    exit 0
fi

# Built on stand-ins, perhaps: not to be taken for the user's own.
tag=sktest
finish() {
    local image
    for image in $(docker image ls --filter "reference=sessionkeep-*:$tag" --format '{{.Repository}}:{{.Tag}}'); do
        docker rmi --no-prune "$image" >/dev/null || true
    done
    tests/compose/images.sh forget || true
    [ -z "${own:-}" ] || tests/compose/engine.sh stop
}
trap finish EXIT

begun=$SECONDS
tests/compose/images.sh make
# The stand-in's name where the original has its own; the tests put it into .env.
eval "$(tests/compose/images.sh waha)"
say "building the stack's image"
docker build --quiet -f compose/waha/Dockerfile --build-arg "WAHA_IMAGE=$WAHA_IMAGE" --build-arg "WAHA_VERSION=$WAHA_VERSION" \
    -t "sessionkeep-waha:$tag" . >/dev/null
say "the images are ready after $((SECONDS - begun)) s"
# Two at a time: each has a MongoDB and a gateway of its own.
cargo test --locked --test compose -- --test-threads="${STACK_TESTS_THREADS:-2}" --nocapture "$@"
say "took $((SECONDS - begun)) s in all"
