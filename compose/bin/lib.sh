# What the stack's commands share. Sourced by the scripts beside it, which `make` calls.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=compose/bin/names.sh
source compose/bin/names.sh
# shellcheck source=compose/bin/ready.sh
source compose/bin/ready.sh
# shellcheck source=compose/bin/locks.sh
source compose/bin/locks.sh

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

# Docker, .env, and a project that is this folder's: what every command needs that touches the stack.
need_stack() {
    need_docker
    need_env
    need_own_project
}

# env_get NAME: its value as Compose sees it in .env, quotes and `$$` included, or nothing. Compose itself
# reads it: as the name of an image, since that is printed as it is.
env_get() { interpolate "\${$1-}"; }
# interpolate TEXT: with `${…}` in it filled in, as in a file of the stack.
interpolate() {
    local shown
    shown=$(printf 'name: x\nservices: {x: {image: "=%s"}}\n' "$1" | docker compose --file - config --images 2>&1) ||
        give_up "failed to read .env: ${shown##*$'\n'}"
    # Warnings come before it: on variables that .env refers to and nobody sets.
    printf '%s\n' "${shown##*$'\n'}" | sed 's/^=//'
}
# env_set NAME VALUE: changes that line, or adds it. The file is replaced in one step and keeps its mode.
env_set() {
    local part value=$2
    # In single quotes Compose takes everything as it is.
    [[ $value =~ ^[A-Za-z0-9_./:@%?\&=,+-]*$ ]] || value="'$value'"
    part=$(mktemp .env.XXXXXX)
    chmod --reference=.env "$part"
    NAME=$1 VALUE=$value awk '
        { name = $0; sub(/^[ \t]*(export[ \t]+)?/, "", name); sub(/[ \t]*[=:].*/, "", name) }
        name == ENVIRON["NAME"] { if (!done) print ENVIRON["NAME"] "=" ENVIRON["VALUE"]; done = 1; next }
        { print }
        END { if (!done) print ENVIRON["NAME"] "=" ENVIRON["VALUE"] }' .env >"$part"
    mv "$part" .env
}
# The names that .env gives values to.
env_names() { sed -nE 's/^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*[=:].*/\2/p' .env | sort -u; }

# The files of the stack, with `:` between them.
compose_files() {
    local files
    files=$(env_get COMPOSE_FILE)
    printf '%s\n' "${files:-docker-compose.yml}"
}
# files_with FILE: the same, and FILE if it is not among them.
files_with() {
    local files
    files=$(compose_files)
    case :$files: in *:"$1":*) ;; *) files=$files:$1 ;; esac
    printf '%s\n' "$files"
}

# What Compose prints is read to its end first: a reader that ends early would end Compose by a
# signal, and with `pipefail` that counts as a failure, now and then.
stack_config() { docker compose config 2>/dev/null || docker compose config; }

# The project's name, under which Docker knows this stack.
project() {
    local config
    config=$(stack_config)
    sed -n 's/^name: *//p' <<<"$config"
}
# Docker goes by the project's name alone: under one that another folder's containers have, `up` would take
# them over, on this folder's ./session and passwords.
need_own_project() {
    local name folder folders
    name=$(project)
    folders=$(docker ps --all --filter "label=com.docker.compose.project=$name" \
        --format '{{.Label "com.docker.compose.project.working_dir"}}' | sort -u)
    while IFS= read -r folder; do
        [ -n "$folder" ] || continue
        # A folder that is gone was moved here, or nobody's containers are left of it.
        if ! [ "$folder" -ef . ] && [ -e "$folder/docker-compose.yml" ]; then
            give_up "the containers of the project $name belong to another folder: $folder" \
                "give this one a name of its own: COMPOSE_PROJECT_NAME=$(new_project) in .env"
        fi
    done <<<"$folders"
}
new_project() { printf 'sessionkeep-%s' "$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')"; }

# The service that runs the gateway: the one with the label, whatever other services the files in COMPOSE_FILE
# add. Where there are several, GATEWAY names one.
gateway() {
    local config found
    config=$(stack_config)
    found=$(awk '
        /^[^ ]/ { services = ($1 == "services:") }
        services && /^  [^ ]/ { service = $1; sub(/:$/, "", service) }
        services && $1 == "org.sessionkeep.role:" && $2 == "gateway" { print service }' <<<"$config")
    [ -n "$found" ] || give_up "no service has the label org.sessionkeep.role: gateway" "see COMPOSE_FILE in .env, and: docker compose config"
    if [ -n "${GATEWAY:-}" ]; then
        grep -qxF -- "$GATEWAY" <<<"$found" || give_up "GATEWAY=$GATEWAY is none of the gateways: ${found//$'\n'/, }"
        found=$GATEWAY
    fi
    case $found in *$'\n'*) give_up "there are several gateways: ${found//$'\n'/, }" "name the one that is meant: GATEWAY=… make …" ;; esac
    printf '%s\n' "$found"
}
# session_dir SERVICE: where the gateway's session directory is on this machine.
session_dir() {
    local config found
    config=$(stack_config)
    found=$(awk -v service="  $1:" '
        /^  [^ ]/ { inside = ($0 == service) }
        inside && $1 == "-" { kind = ""; source = "" }
        inside && $2 == "type:" { kind = $3 }
        inside && $1 == "source:" { source = $0; sub(/^ *source: /, "", source); gsub(/^["\047]|["\047]$/, "", source) }
        inside && $1 == "target:" && $2 == "/app/.sessions" && kind == "bind" { print source; exit }' <<<"$config")
    [ -n "$found" ] || give_up "$1 has no folder of this machine at /app/.sessions" "see: docker compose config"
    printf '%s\n' "$found"
}
# has_service NAME
has_service() {
    local services
    services=$(docker compose config --services)
    grep -qxF -- "$1" <<<"$services"
}
has_mongodb() { has_service mongodb; }
# service_env SERVICE NAME: a variable as that service's container gets it, whichever file it comes from.
service_env() {
    local config
    config=$(stack_config)
    awk -v service="  $1:" -v name="$2:" '
        /^  [^ ]/ { inside = ($0 == service) }
        inside && $1 == name { sub(/^ *[^ ]+ */, ""); gsub(/^["\047]|["\047]$/, ""); print; exit }' <<<"$config"
}
# Whether SERVICE keeps its session in plain files alone.
is_file_mode() {
    local mode
    mode=$(service_env "$1" MONGO_ENABLED)
    case ${mode,,} in false | 0 | no | off) return 0 ;; *) return 1 ;; esac
}
# Whether a directory is a session's: what sessionkeep has never worked on has no such notes in it.
is_session() { [ -e "$1/.sessionkeep" ]; }
# delete_dir SERVICE DIRECTORY: also what a container wrote as root, where this user is not root.
delete_dir() {
    rm -rf -- "$2" 2>/dev/null || true
    [ -e "$2" ] || return 0
    local image
    image=$(docker compose config --images "$1")
    docker run --rm --network none --user 0 --entrypoint rm --volume "$(dirname "$2"):/parent" "$image" -rf "/parent/$(basename "$2")"
    [ ! -e "$2" ] || give_up "failed to delete $2"
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
