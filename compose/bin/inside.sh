#!/usr/bin/env bash
# Looks into the gateway's container with sessionkeep's own commands. Where the container does not
# run, one of the same settings takes its place for the moment.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
need_env
service=$(gateway)
running() { [ -n "$(docker compose ps --quiet --status running "$service")" ]; }

case ${1:-} in
    status)
        running || say "$service is not running; this is what MongoDB holds"
        ;;
    shell)
        running || give_up "$service is not running" "make up, or make ps"
        say "a shell in $service; exit leaves it, and touches nothing. sessionkeep --help lists what to look with."
        exec docker compose exec "$service" sh -c 'command -v bash >/dev/null && exec bash || exec sh'
        ;;
    doctor | config) ;;
    *) give_up "usage: compose/bin/inside.sh status|doctor|config|shell" ;;
esac

code=0
if running; then
    docker compose exec -T "$service" sessionkeep "$1" || code=$?
else
    docker compose run --rm --no-deps -T --entrypoint sessionkeep "$service" "$1" || code=$?
fi
case $1 in
    status) next_step "make doctor, if something looks wrong; docs/operations.md explains each line" ;;
    doctor)
        if [ $code -eq 0 ]; then next_step "nothing: all is well"; else next_step "what stands after each arrow, then make doctor again"; fi
        ;;
    config) next_step "change .env, then make restart" ;;
esac
exit $code
