# What the stack's commands share. Sourced by the scripts beside it, which `make` calls.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '%s\n' "$*"; }
next_step() { printf 'Next: %s\n' "$*"; }
give_up() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '       %s\n' "$line" >&2; done; exit 1; }

# Whether Docker is there and new enough, before anything else fails for want of it.
need_docker() {
    command -v docker >/dev/null ||
        give_up "docker was not found" "install Docker Engine 25 or newer, with the Compose plugin"
    local compose engine
    compose=$(docker compose version --short 2>/dev/null) ||
        give_up "docker has no Compose plugin" "install Compose 2.24 or newer (Debian and Ubuntu: docker-compose-plugin or docker-compose-v2)"
    engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) ||
        give_up "no Docker Engine answers" "is it started, and may you use it? try: docker ps"
    at_least "$engine" 25 || give_up "Docker Engine $engine is too old" "install 25 or newer"
    at_least "${compose#v}" 2.24 || give_up "Compose $compose is too old" "install 2.24 or newer"
}
at_least() { [ "$(printf '%s\n%s\n' "$2" "${1%%[-+]*}" | sort -V | head -n 1)" = "$2" ]; }

need_env() { [ -f .env ] || give_up "there is no .env yet" "make env writes it; make up does so too, and starts everything"; }

# env_get NAME: its value in .env, or nothing.
env_get() { sed -n "s/^$1=//p" .env | tail -n 1; }
# env_set NAME VALUE: changes that line, or adds it. The file is replaced in one step and keeps its mode.
env_set() {
    local part
    part=$(mktemp .env.XXXXXX)
    chmod --reference=.env "$part"
    NAME=$1 VALUE=$2 awk '
        index($0, ENVIRON["NAME"] "=") == 1 { if (!done) print ENVIRON["NAME"] "=" ENVIRON["VALUE"]; done = 1; next }
        { print }
        END { if (!done) print ENVIRON["NAME"] "=" ENVIRON["VALUE"] }' .env >"$part"
    mv "$part" .env
}

# The service that runs the gateway: whichever the files in COMPOSE_FILE say.
gateway() {
    local service
    service=$(docker compose config --services | grep -vxE 'mongodb|backup' | sort | head -n 1 || true)
    [ -n "$service" ] || give_up "no gateway among the services" "see COMPOSE_FILE in .env, and: docker compose config"
    printf '%s\n' "$service"
}
# What Compose prints is read to its end first: a reader that ends early would end Compose by a
# signal, and with `pipefail` that counts as a failure, now and then.
#
# Where the gateway's session directory is on this machine.
session_dir() {
    local config
    config=$(docker compose config)
    awk -v service="  $1:" '
        /^  [^ ]/ { inside = ($0 == service) }
        inside && $1 == "source:" { sub(/^ *source: /, ""); gsub(/"/, ""); print; exit }' <<<"$config"
}
has_mongodb() {
    local services
    services=$(docker compose config --services)
    grep -qx mongodb <<<"$services"
}

# confirm QUESTION: asks for a plain "yes". Without a terminal, or with YES=yes, see below.
confirm() {
    [ "${YES:-}" != yes ] || return 0
    [ -t 0 ] || give_up "this needs an answer, and nobody is there to give one" "to agree beforehand: YES=yes make …"
    local answer
    printf '%s\nType "yes" to go on: ' "$1"
    read -r answer
    [ "$answer" = yes ] || give_up "nothing was changed"
}

# own_page SERVICE: the address of sessionkeep's dashboard.
own_page() {
    local address
    address=$(docker compose port "$1" 3001)
    printf 'http://%s/' "${address/0.0.0.0/127.0.0.1}"
}

# await_ready SERVICE: until its gateway answers. Tells the log's end if that takes too long.
await_ready() {
    local service=$1 begun=$SECONDS told='' container state line
    while :; do
        if line=$(docker compose exec -T "$service" sessionkeep health --ready 2>/dev/null); then
            return
        fi
        container=$(docker compose ps --all --quiet "$service" | head -n 1)
        state=$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$container" 2>/dev/null || echo 'gone 0')
        case $state in
            "running 0") ;;
            *)
                docker compose logs --no-log-prefix --tail 15 "$service" >&2
                give_up "$service does not stay up (${state% *}); its last lines are above" "what they mean: docs/operations.md, \"By symptom\""
                ;;
        esac
        if [ $((SECONDS - begun)) -ge "${READY_WAIT:-300}" ]; then
            docker compose logs --no-log-prefix --tail 15 "$service" >&2
            give_up "$service was not ready within ${READY_WAIT:-300} s: ${line:-it does not answer}" "it goes on trying; its last lines are above. More: make logs"
        fi
        if [ -n "$line" ] && [ "$line" != "$told" ]; then
            say "  $line"
            told=$line
        fi
        sleep 0.5
    done
}
