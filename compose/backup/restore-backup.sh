#!/usr/bin/env bash
# Brings a backup back: into a new database, verified there, and only then switched to. Until the switch,
# which is one line in .env, nothing that is in use is changed; after it, nothing that was is gone.
#   make restore-backup FILE=backups/sessionkeep-….tar [DATABASE=name]
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/../bin/lib.sh"
# shellcheck source=compose/backup/address.sh
source compose/backup/address.sh

file=${1:-}
[ -n "$file" ] || give_up "no backup was named" "make list-backups shows them; then: make restore-backup FILE=backups/…"
need_stack
service=$(gateway)
directory=$(session_dir "$service")
moment=$(date -u +%Y%m%dT%H%M%SZ)

# A backup that was made in file mode: it takes the directory's place, in file mode.
restore_files() {
    local name=${file##*/} aside=
    case $name in session-"$service"-*) ;; *) give_up "$name is not of $service" "COMPOSE_FILE in .env says which gateway runs" ;; esac
    [ -f "backups/$name" ] || give_up "there is no backups/$name" "make list-backups shows what there is"
    is_file_mode "$service" ||
        give_up "$name is of plain files, and the session is kept in MongoDB now" "make rollback, then try again; make forward then brings it into MongoDB"
    say "1/3 checking $name"
    tar -tzf "backups/$name" >/dev/null || give_up "$name is damaged; nothing was changed"
    say "2/3 stopping $service, and putting $directory away"
    docker compose stop "$service"
    if [ -n "$(ls -A "$directory" 2>/dev/null)" ]; then
        aside=$directory.before-$moment
        mv "$directory" "$aside"
        mkdir -m 700 "$directory"
    fi
    say "3/3 putting its files in place"
    if ! docker compose run --rm --no-deps -T --entrypoint tar "$service" --numeric-owner --same-owner -C /app/.sessions -xpz <"backups/$name"; then
        if [ -n "$aside" ]; then
            delete_dir "$service" "$directory"
            mv "$aside" "$directory"
        fi
        docker compose start "$service" || true
        give_up "failed to restore $name" "the session is as it was"
    fi
    docker compose up --detach --no-deps "$service"
    await_ready "$service"
    say "done: $service runs on the backup's state.${aside:+ Kept: the session directory as $aside.}"
    next_step "make status; make prune deletes what was put away"
}
case ${file##*/} in session-*.tar.gz)
    restore_files
    exit
    ;;
esac
if is_file_mode "$service"; then
    give_up "the session is kept in plain files now, not in MongoDB (MONGO_ENABLED in .env)" "make forward, then try again"
fi

own=no
! has_mongodb || own=yes
if [ "$own" = yes ]; then
    variable=MONGO_DATABASE
    before=$(env_get MONGO_DATABASE)
    before=${before:-sessionkeep}
    old=$before
else
    variable=MONGO_URL
    before=$(env_get MONGO_URL)
    read_address "$before" || give_up "this stack has no MongoDB" "MONGO_URL in .env is not a mongodb:// or mongodb+srv:// address"
    old=$source_database
fi
# A name that nobody uses, and at most 38 bytes long, which is the limit of Atlas's small clusters. Where the
# user may not use any database, DATABASE=… names one that it may.
base=${old%_????????T??????Z}
new=${DATABASE:-${base:0:21}_$moment}
[ "$new" != "$old" ] || give_up "DATABASE=$new is the one in use" "name another one, which is empty"
after=$new
[ "$own" = yes ] || after=$(address "$new")

# The tools of the `restore` service, whether or not .env lists the file that has it.
tools() {
    local with
    with=$(files_with compose/backup.yml)
    COMPOSE_FILE=$with docker compose run --rm --no-deps -T restore "$@"
}

state=untouched
aside=
ended() {
    local code=$?
    [ "$code" -ne 0 ] || return 0
    if [ "$state" = switched ]; then
        say "The stack is switched to database $new, but is not well." >&2
        way_back >&2
        return
    fi
    if [ -n "$aside" ] && [ -d "$aside" ]; then
        rmdir "$directory" 2>/dev/null || true
        mv "$aside" "$directory"
    fi
    [ "$state" != stopped ] || docker compose up --detach "$service" || true
    say "Nothing has been switched: the stack uses database $old, as before." >&2
}
trap ended EXIT
way_back() {
    local setting="MONGO_DATABASE=$old"
    [ "$own" = yes ] || setting="the database $old in MONGO_URL"
    say "The way back: make down; $setting in .env${aside:+; $aside in the place of $directory}; make up"
}

say "1/5 checking ${file##*/}"
tools check "$file"

say "2/5 restoring it into a new database, $new; what runs is not touched"
[ "$own" = no ] || docker compose up --detach --wait mongodb
tools restore "$file" "$new" || {
    [ "$own" = yes ] || say "The user in MONGO_URL needs readWrite on that database as well. On one of another name: make restore-backup FILE=… DATABASE=…" >&2
    exit 1
}
[ "$own" = no ] || tools grant "$new"

say "3/5 verifying what is in it"
# What is in the environment wins over .env.
verdict=$(export "$variable=$after"; docker compose run --rm --no-deps -T --entrypoint sessionkeep "$service" verify) || {
    say "$verdict" >&2
    give_up "the restored copy is not whole" "try an earlier backup: make list-backups. The copy stays in database $new for a look"
}
say "$verdict"
case $verdict in "verified 0 "*)
    give_up "the backup holds nothing for $service" "was it made of another gateway, or under another SESSIONKEEP_ARCHIVE? The copy stays in database $new for a look"
    ;;
esac

say "4/5 stopping $service, and putting $directory away"
state=stopped
docker compose stop "$service"
# It may have seen more than the backup, and would then count as the newer state.
if [ -n "$(ls -A "$directory" 2>/dev/null)" ]; then
    aside=$directory.before-$moment
    mv "$directory" "$aside"
    mkdir -m 700 "$directory"
fi

say "5/5 switching $variable in .env from database $old to $new"
env_set "$variable" "$after"
state=switched
docker compose up --detach
await_ready "$service"
say "done: $service runs on the backup's state. Kept: the database $old${aside:+, and the session directory as $aside}."
way_back
next_step "make status; then make backup. make prune deletes what was put away, when nobody misses it"
