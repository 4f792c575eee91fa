#!/usr/bin/env bash
# Starts everything, waits until the gateway answers, and says how it stands then.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
compose/bin/env.sh
need_own_project
check_names
check_locks
service=$(gateway)
directory=$(session_dir "$service")
[ -d "$directory" ] || mkdir -m 700 "$directory"

# What Docker says of each step is for a failure alone.
log=build.log
begun=$SECONDS
(umask 077; : >"$log")
# Why `up` or `build` failed: what it means where that is known, and where the rest is.
failed() {
    local what=$1 port unhealthy
    # Docker has said it in three ways so far; the address is this machine's, then the port.
    port=$(sed -nE 's/.*(Bind for|listen tcp[46]?|bind host port( for)?) ([0-9.]+|\[[^]]*\]):([0-9]+)[ :\/].*(already allocated|address already in use).*/\4/p' "$log" | tail -n 1)
    if [ -n "$port" ]; then
        give_up "port $port of this machine is taken" "set another one in .env: $(port_setting "$port"). docker ps, or ss -ltnp, tells who has it"
    fi
    unhealthy=$(sed -nE 's/.*dependency failed to start: container ([^ ]+) (is unhealthy|exited).*/\1/p' "$log" | tail -n 1)
    case $unhealthy in *mongodb*)
        # Its log is JSON; what matters is in what is more than information.
        docker compose logs --no-log-prefix --no-color --tail 400 mongodb 2>/dev/null |
            sed -nE 's/.*"s":"[EF]".*"msg":"([^"]*)".*"error":"([^"]*)".*/  mongodb: \1: \2/p; t; s/.*"s":"[EF]".*"msg":"([^"]*)".*/  mongodb: \1/p' | tail -n 3 >&2
        give_up "MongoDB does not start" "docker compose logs mongodb tells all; docs/operations.md, \"By symptom\""
        ;;
    esac
    tail -n 15 "$log" >&2
    give_up "$what; the reason is above, and all of it in $log" "what it means: docs/operations.md, \"By symptom\""
}
port_setting() {
    local name
    while IFS= read -r name; do
        [ "$(env_get "$name")" != "$1" ] || { printf '%s=…' "$name"; return; }
    done < <(env_names | grep '_PORT$')
    # One that is not in .env, with its default.
    case $1 in 3001) echo DASHBOARD_PORT=… ;; 3002) echo GRAFANA_PORT=… ;; 27017) echo MONGO_PORT=… ;; *) echo WAHA_PORT=… ;; esac
}

# On a machine with too little memory to build (1.2 GB), the image comes from another one.
if [ "${BUILD:-yes}" = yes ]; then
    say "building the image: the first time 3 to 10 minutes and 1.2 GB of memory (what it says: $log)"
    docker compose build "$service" >>"$log" 2>&1 </dev/null || failed "the image could not be built"
fi
say "starting"
docker compose up --detach --no-build --quiet-pull --remove-orphans >>"$log" 2>&1 </dev/null || failed "it did not start"
await_ready "$service"
say "$service is up after $((SECONDS - begun)) s"

page=$(own_page "$service")
found=$(settled_logins "$service")
[ -z "$found" ] || printf '  %s\n' "$found"
say "how it stands, with the QR code to scan: $page"
say "  user and password: WAHA_DASHBOARD_USERNAME and WAHA_DASHBOARD_PASSWORD in .env"
if [ "$service" = waha ]; then
    address=$(docker compose port waha 3000)
    say "WAHA's own dashboard: http://${address/0.0.0.0/127.0.0.1}/dashboard, same user and password; its API's key: WAHA_API_KEY in .env"
fi
case $found in
    *"waits for its QR code"*) next_step "open $page, and scan the QR code there with the phone" ;;
    *": logged in"*) next_step "nothing: it is logged in, and a restart needs no scan. make persistence-test shows it." ;;
    *)
        if [ "$service" = waha ]; then
            next_step "open WAHA's dashboard, start the session \"default\", and scan the QR code with the phone. From then on a restart needs no scan: make persistence-test shows it."
        else
            next_step "make logs, where the QR code is if it needs one; then make persistence-test"
        fi
        ;;
esac
