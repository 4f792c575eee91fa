# How a start goes on: what it waits for, why it fails, and what is true when it is over. Sourced by lib.sh.
# shellcheck shell=bash

# running SERVICE
running() { [ -n "$(docker compose ps --quiet --status running "$1")" ]; }

# inside SERVICE COMMAND…: sessionkeep's own command in the gateway's container; where that does not run, in one
# of the same settings that takes its place for the moment.
inside() {
    local service=$1
    shift
    if running "$service"; then
        docker compose exec -T "$service" sessionkeep "$@"
    else
        docker compose run --rm --no-deps -T --entrypoint sessionkeep "$service" "$@"
    fi
}

# broken SERVICE: what the doctor finds that will not work, a line each; or nothing. A container that ends and is
# started again and again may be away before the doctor has looked; so another takes its place.
broken() {
    local said
    said=$(docker compose exec -T "$1" sessionkeep doctor 2>/dev/null) || true
    # Docker tells on standard output, too, that there is no container to look into.
    grep -qE '^(ok|warn|FAIL) ' <<<"$said" ||
        said=$(docker compose run --rm --no-deps -T --entrypoint sessionkeep "$1" doctor 2>/dev/null) || true
    sed -nE 's/^FAIL +//p' <<<"$said"
}

# waits_for SERVICE: the newest line of its log that tells what a start waits for, or what went wrong; without
# its time, and without what changes from line to line.
waits_for() {
    local log
    log=$(docker compose logs --no-log-prefix --no-color --tail 40 "$1" 2>/dev/null) || return 0
    grep -E ' (WARN|ERROR) |waiting for|restored|restoring|asking it to hand over' <<<"$log" | tail -n 1 |
        sed -E 's/^[^ ]+ +((WARN|ERROR) +)?\[[A-Z]+\] //; s/ (waited|limit|lease_runs_for|took)=[^ ]+//g' || true
}

# does_not_start SERVICE WHAT: ends the command, with the reason and its remedy.
does_not_start() {
    local found line
    found=$(broken "$1") || true
    if [ -n "$found" ]; then
        printf 'error: %s\n' "$2" >&2
        while IFS= read -r line; do printf '       %s\n' "$line"; done <<<"$found" >&2
    else
        docker compose logs --no-log-prefix --tail 15 "$1" >&2
        printf 'error: %s; its last lines are above\n' "$2" >&2
    fi
    printf '       Docker goes on trying. What it means: docs/operations.md, "By symptom"; make doctor looks again.\n' >&2
    exit 1
}

# await_ready SERVICE: until its gateway answers. Tells what it waits for, and fails as soon as the reason is known.
await_ready() {
    local service=$1 begun=$SECONDS told='' asked=$SECONDS looked=$SECONDS container state line found
    while :; do
        if line=$(docker compose exec -T "$service" sessionkeep health --ready 2>/dev/null); then
            return
        fi
        container=$(docker compose ps --all --quiet "$service" | head -n 1)
        state=$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$container" 2>/dev/null || echo 'gone 0')
        [ "$state" = "running 0" ] || does_not_start "$service" "$service does not stay up (${state% *})"
        if [ $((SECONDS - begun)) -ge "${READY_WAIT:-300}" ]; then
            does_not_start "$service" "$service was not ready within ${READY_WAIT:-300} s: ${line:-it does not answer}"
        fi
        if [ $((SECONDS - looked)) -ge 2 ]; then
            looked=$SECONDS
            line=$(waits_for "$service")
            if [ -n "$line" ] && [ "$line" != "$told" ]; then
                say "  $line"
                told=$line
            fi
        fi
        # A start that is only slow has nothing broken.
        if [ $((SECONDS - asked)) -ge 5 ]; then
            found=$(broken "$service") || true
            [ -z "$found" ] || does_not_start "$service" "$service cannot start"
            asked=$SECONDS
        fi
        sleep 0.5
    done
}

# logins SERVICE: a line for each number, as `sessionkeep status` tells it.
logins() {
    local status
    status=$(docker compose exec -T "$1" sessionkeep status 2>/dev/null) || return 0
    awk '/^numbers / { on = 1 } on && /^(numbers)? +[^ ]/ { sub(/^numbers/, "       "); sub(/^ +/, ""); print; next } { on = 0 }' <<<"$status"
}
# settled_logins SERVICE: the same, when none of them is about to change: what comes back needs some seconds.
settled_logins() {
    local found=''
    for _ in $(seq 30); do
        found=$(logins "$1")
        case $found in *": starting"* | *": saved"*) sleep 0.5 ;; *) break ;; esac
    done
    printf '%s\n' "$found"
}
