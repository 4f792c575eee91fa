#!/usr/bin/env bash
# Looks into the gateway's container with sessionkeep's own commands. Where the container does not
# run, one of the same settings takes its place for the moment.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)

case ${1:-} in
    status)
        running "$service" || say "$service is not running; this is what is stored"
        ;;
    shell)
        running "$service" || give_up "$service is not running" "make up, or make ps"
        say "a shell in $service; exit leaves it, and touches nothing. sessionkeep --help lists what to look with."
        exec docker compose exec "$service" sh -c 'command -v bash >/dev/null && exec bash || exec sh'
        ;;
    ps)
        docker compose ps --all
        next_step "make status tells about the login, make logs about the rest."
        exit
        ;;
    doctor) check_names ;;
    config) ;;
    *) give_up "usage: compose/bin/inside.sh status|doctor|config|shell|ps" ;;
esac

code=0
inside "$service" "$1" || code=$?
case $1 in
    status) next_step "make doctor, if something looks wrong; docs/operations.md explains each line" ;;
    doctor)
        if [ $code -eq 0 ]; then next_step "nothing: all is well"; else next_step "what stands after each arrow, then make doctor again"; fi
        ;;
    config) next_step "change .env, then make restart" ;;
esac
exit $code
