#!/usr/bin/env bash
# once: dumps MongoDB into ./backups. list: tells what is there. The work is done by
# compose/backup/backup.sh, inside a container that has MongoDB's tools.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
need_env
# The files in .env, and the one that has the service, if it is not among them.
files=$(env_get COMPOSE_FILE)
files=${COMPOSE_FILE:-${files:-docker-compose.yml}}
case :$files: in
    *:compose/backup.yml:*) ;;
    *) files=$files:compose/backup.yml ;;
esac
export COMPOSE_FILE=$files

mkdir -p -m 700 backups
case ${1:-} in
    once)
        say "dumping MongoDB into ./backups; the gateway goes on"
        docker compose run --rm --no-deps -T backup once
        next_step "copy it to another machine. It is as secret as the login itself. To bring it back: make restore-backup FILE=backups/…"
        ;;
    list)
        docker compose run --rm --no-deps -T backup list
        next_step "make restore-backup FILE=backups/…"
        ;;
    *) give_up "usage: compose/bin/backup.sh once|list" ;;
esac
