#!/usr/bin/env bash
# once: saves the session into ./backups. list: tells what is there. What is in MongoDB is dumped by
# compose/backup/backup.sh, inside a container that has its tools; in file mode, it is the directory that is saved.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
COMPOSE_FILE=$(files_with compose/backup.yml)
export COMPOSE_FILE

# The gateway is stopped for it: only then do the files of one moment lie there, and all of it. The copy has its
# name when it was read again whole.
once_files() {
    local directory name part was_running=no
    directory=$(session_dir "$service")
    is_session "$directory" || give_up "there is no session in $directory yet, so there is nothing to save"
    name=session-$service-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
    part=backups/.$name
    say "the session is kept in plain files (MONGO_ENABLED): saving $directory; $service is stopped meanwhile"
    ! running "$service" || was_running=yes
    docker compose stop "$service" 2>/dev/null
    # Whatever happens, the gateway is back afterwards.
    # shellcheck disable=SC2064 # as it is now
    trap "rm -f '$part'; [ $was_running = no ] || docker compose start '$service'" EXIT
    # As root inside, since the files are the gateway's.
    (umask 077; docker compose run --rm --no-deps -T --entrypoint tar "$service" --numeric-owner -C /app/.sessions -cz . >"$part") ||
        give_up "failed to copy $directory" "the reason is above; the earlier backups are untouched"
    tar -tzf "$part" >/dev/null || give_up "the copy of $directory cannot be read back: is the disk full?"
    sync "$part"
    mv "$part" "backups/$name"
    say "written: $name, $(du -h "backups/$name" | cut -f 1)"
}

mkdir -p -m 700 backups
case ${1:-} in
    once)
        if is_file_mode "$service"; then
            once_files
        else
            say "dumping MongoDB into ./backups; the gateway goes on"
            docker compose run --rm --no-deps -T backup once
        fi
        next_step "copy it to another machine. It is as secret as the login itself. To bring it back: make restore-backup FILE=backups/…"
        ;;
    list)
        files=$(find backups -maxdepth 1 -name 'session-*.tar.gz' -printf '%f %s\n' | sort -r | awk '{ printf "%-44s %12d bytes\n", $1, $2 }')
        [ -z "$files" ] || printf 'of plain files:\n%s\n' "$files"
        # A stack without MongoDB need not have its tools.
        if has_mongodb || [ -z "$files" ]; then
            docker compose run --rm --no-deps -T backup list
        fi
        next_step "make restore-backup FILE=backups/…"
        ;;
    *) give_up "usage: compose/bin/backup.sh once|list" ;;
esac
