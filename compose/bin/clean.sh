#!/usr/bin/env bash
# Deletes the stack with its data: the one command here that does. It says first what that is.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
directory=$(session_dir "$service")
name=$(project)

doomed=()
kept=("./backups and .env")
containers=$(docker compose ps --all --format '{{.Name}}')
while IFS= read -r one; do [ -z "$one" ] || doomed+=("container $one"); done <<<"$containers"
volumes=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$name")
while IFS= read -r one; do
    case $one in
        '') ;;
        *mongodb-data) doomed+=("volume    $one, with every stored login and its history") ;;
        *) doomed+=("volume    $one") ;;
    esac
done <<<"$volumes"
if is_session "$directory"; then
    doomed+=("directory $directory")
elif [ -e "$directory" ]; then
    # Whatever it is, sessionkeep has not worked in it.
    kept+=("$directory, which is no session directory of ours (there is no .sessionkeep in it)")
fi
if [ ${#doomed[@]} -eq 0 ]; then
    say "there is nothing to delete"
    next_step "make up begins anew"
    exit 0
fi

say "This deletes:"
printf '  %s\n' "${doomed[@]}"
say "It keeps:"
printf '  %s\n' "${kept[@]}"
confirm "Each phone has to scan a QR code again."
docker compose down --volumes --remove-orphans
# What a file that COMPOSE_FILE no longer lists has left.
[ -z "$volumes" ] || xargs -r docker volume rm --force >/dev/null <<<"$volumes"
! is_session "$directory" || delete_dir "$service" "$directory"
say "deleted"
next_step "make up begins anew; make restore-backup FILE=… brings a backup back"
