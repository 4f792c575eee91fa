#!/usr/bin/env bash
# Backups of the database that holds the session. Runs in the `backup` service's container.
#
#   schedule               a backup every BACKUP_EVERY, for ever
#   once                   one backup now, then retention
#   list                   the backups there are, newest first
#   check FILE             whether a backup is whole
#   restore FILE DATABASE  into a database that has no documents
#   grant DATABASE         readWrite on it for the application's user
#   health                 whether the last attempt went well
#
# One backup is one file, sessionkeep-<UTC time>.tar. In it: a gzipped mongodump archive for each
# collection, and `manifest`, which names them with their hashes. It is as secret as the login.
set -euo pipefail
umask 077

here=$(dirname "${BASH_SOURCE[0]}")
directory=${BACKUP_DIR:-/backups}
every=${BACKUP_EVERY:-24h}
keep=${BACKUP_KEEP:-14}
keep_days=${BACKUP_KEEP_DAYS:-30}
# Packs that no commit names any more are kept for `history.grace`, one hour by default. A dump that
# takes longer may lack packs that its commits need, so it is given up before.
limit=${BACKUP_LIMIT:-55m}
# How `once` ends where there is nothing to save: no backup, but nothing that anybody has to mend.
nothing_yet=3
# Tells the health check, which is another process, how the last attempt ended.
trouble=${TMPDIR:-/tmp}/backup-failed

# In this order, always: a pack is written before the commit that names it, so commits that were read
# BEFORE the packs find all of theirs. The other way round, a commit made in between would lack its packs.
collections=(leases commits packs.files packs.chunks)

say() { printf '%s backup: %s\n' "$(date -u +%FT%TZ)" "$*"; }
fail() {
    printf '%s backup: ERROR %s\n' "$(date -u +%FT%TZ)" "$*" >&2
    exit 1
}

# seconds 24h NAME
seconds() {
    [[ $1 =~ ^([1-9][0-9]{0,6})([smhd])$ ]] || fail "$2=$1 is not a time span; write 30m, 24h or 7d"
    local -A unit=([s]=1 [m]=60 [h]=3600 [d]=86400)
    echo $((BASH_REMATCH[1] * ${unit[${BASH_REMATCH[2]}]}))
}

whole_number() {
    [[ $1 =~ ^[1-9][0-9]{0,5}$ ]] || fail "$2=$1 is not a whole number above 0"
}

# --- the database

# shellcheck source=compose/backup/address.sh
source "$here/address.sh"
connect() {
    read_address "${MONGO_URL:-}" || fail "MONGO_URL is not a mongodb:// or mongodb+srv:// address; see .env"
    where="${hosts##*@}, database $source_database"
}

# ask ACTION DATABASE: see store.js.
ask() {
    DO=$1 DATABASE=$2 MONGO_URL=$(address) mongosh --nodb --quiet --norc "$here/store.js"
}

# The tools take the address from a file that nobody else can read, never from their arguments.
tool_config() {
    config=$(mktemp)
    printf 'uri: "%s"\n' "$(address "$@")" >"$config"
}

# --- stopping in order

child=
config=
scratch=
clean_up() {
    [ -z "$config" ] || rm -f "$config"
    [ -z "$scratch" ] || rm -rf "$scratch"
}
# Bash runs a trap only when its foreground command has ended; so what may take long runs behind `wait`.
run() {
    "$@" &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=
    return "$code"
}
stop() {
    [ -z "$child" ] || { kill "$child" 2>/dev/null && wait "$child"; } || true
    exit "$1"
}
trap clean_up EXIT
trap 'stop 143' TERM
trap 'stop 130' INT

# --- the files

# Newest first. The name is the time, so the order of names is the order of time.
backups() {
    find "$directory" -maxdepth 1 -type f -regextype posix-extended \
        -regex '.*/sessionkeep-[0-9]{8}T[0-9]{6}Z\.tar' -printf '%f\n' | sort -r
}

# When a backup was taken, in seconds since 1970.
taken() {
    local t=${1#sessionkeep-}
    date -u -d "${t:0:4}-${t:4:2}-${t:6:2} ${t:9:2}:${t:11:2}:${t:13:2}" +%s
}

# A name, or a path that ends in one: what counts is the file of that name in the directory.
file_of() {
    local name=${1##*/}
    [ -f "$directory/$name" ] || fail "$name is not in the backups' directory; \`make list-backups\` shows what is there"
    echo "$directory/$name"
}

member() { tar -xOf "$1" "$2"; }

# Prints the manifest of a backup that is whole; fails, with the reason, for any other.
checked() {
    local file=$1 name=${1##*/} text body line hash part
    text=$(member "$file" manifest 2>/dev/null) || fail "$name is cut off, or is no backup of sessionkeep"
    body=$(sed '$d' <<<"$text")
    [ "$(tail -n 1 <<<"$text")" = "end $(sha256sum <<<"$body" | cut -d' ' -f1)" ] || fail "$name has a damaged manifest"
    [ "$(head -n 1 <<<"$body")" = "format 1" ] || fail "$name is of a newer format; use the version of sessionkeep that made it"
    local expected=(manifest)
    while read -r line hash part; do
        [ "$line" = sha256 ] || continue
        expected+=("$part")
        [ "$(member "$file" "$part" 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$hash" ] || fail "$name is damaged: $part does not have its hash"
    done <<<"$body"
    [ "$(tar -tf "$file" 2>/dev/null | sort)" = "$(printf '%s\n' "${expected[@]}" | sort)" ] ||
        fail "$name does not hold exactly what its manifest names"
    echo "$body"
}
field() { sed -n "s/^$2 //p" <<<"$1"; }

lock() {
    if [ ! -d "$directory" ] || [ ! -w "$directory" ]; then
        fail "cannot write to the backups' directory as user $(id -u); on the host: chown it to that user, or set BACKUP_USER"
    fi
    # Two at a time would clear away each other's unfinished files.
    exec 9>"$directory/.lock"
    run flock -w 600 9 || fail "another backup has been running for ten minutes; try again later"
    rm -rf "$directory"/.unfinished.*
}

once() {
    whole_number "$keep" BACKUP_KEEP
    whole_number "$keep_days" BACKUP_KEEP_DAYS
    case ${MONGO_ENABLED:-} in [Ff]alse | FALSE | 0 | [Nn]o | NO | [Oo]ff | OFF)
        fail "the session is kept in plain files now (MONGO_ENABLED=$MONGO_ENABLED), and what MongoDB holds is old: no backup was made. \`make backup\` saves the files"
        ;;
    esac
    connect
    lock
    local deadline started=$SECONDS taken described name collection file
    # The moment that the backup stands for: the first read. It is the file's name, too.
    taken=$(date -u +%FT%TZ)
    name=sessionkeep-$(tr -d :- <<<"$taken").tar
    [ ! -e "$directory/$name" ] || fail "$name exists already; try again in a second"
    deadline=$(seconds "$limit" BACKUP_LIMIT)
    deadline=$((SECONDS + deadline))
    described=$(ask describe "$source_database") || fail "MongoDB could not be read ($where): see the line above. Is it running? \`make ps\`"
    if [ "$(field "$described" commits)" = "" ] || [ "$(field "$described" commits)" = 0 ]; then
        say "nothing is stored yet in $where: no backup was made" >&2
        exit "$nothing_yet"
    fi
    scratch=$(mktemp -d "$directory/.unfinished.XXXXXX")
    tool_config "$source_database"

    local body
    body=$(printf '%s\n' "format 1" "taken $taken" "database $source_database" \
        "server $(field "$described" server)" "tool $(mongodump --version | head -n 1)")
    local members=(manifest)
    for collection in "${collections[@]}"; do
        # The packs' collections may have been created since the first look, by a commit that is in this dump.
        [ "$collection" != packs.files ] || described=$(ask describe "$source_database") || fail "MongoDB could not be read ($where)"
        [ -n "$(field "$described" "$collection")" ] || continue
        file=$collection.archive.gz
        # `timeout` refuses 0, and takes it for no limit: at least 1.
        run timeout "$((deadline > SECONDS ? deadline - SECONDS : 1))" \
            mongodump --config="$config" --db="$source_database" --collection="$collection" --archive="$scratch/$file" --gzip --quiet ||
            fail "mongodump of $collection failed or took longer than BACKUP_LIMIT=$limit ($where); the earlier backups are untouched"
        body+=$'\n'"sha256 $(sha256sum "$scratch/$file" | cut -d' ' -f1) $file"
        members+=("$file")
    done
    printf '%s\nend %s\n' "$body" "$(sha256sum <<<"$body" | cut -d' ' -f1)" >"$scratch/manifest"

    run tar -cf "$scratch/whole.tar" -C "$scratch" --owner=0 --group=0 "${members[@]}" ||
        fail "failed to write the backup: is the disk full? The earlier backups are untouched"
    checked "$scratch/whole.tar" >/dev/null
    # On disk under the temporary name first, so that the final name never stands for less than all of it.
    sync "$scratch/whole.tar"
    mv "$scratch/whole.tar" "$directory/$name"
    sync "$directory"
    say "written: $name, $(numfmt --to=iec "$(stat -c %s "$directory/$name")") in $((SECONDS - started)) s ($where)"
    retain "$name"
}

# Only ever called after a good backup, which it spares: where backups fail, none is deleted.
retain() {
    local newest=$1 name position=0 oldest
    oldest=$(($(date +%s) - keep_days * 86400))
    while read -r name; do
        [ "$name" != "$newest" ] || continue
        position=$((position + 1))
        if [ "$position" -ge "$keep" ]; then
            rm -f "$directory/$name"
            say "deleted: $name (BACKUP_KEEP=$keep)"
        elif [ "$(taken "$name")" -lt "$oldest" ]; then
            rm -f "$directory/$name"
            say "deleted: $name (BACKUP_KEEP_DAYS=$keep_days)"
        fi
    done < <(backups)
}

schedule() {
    local period retry newest due now code
    period=$(seconds "$every" BACKUP_EVERY)
    # After a failure: soon again, but not all the time.
    retry=$((period < 300 ? period : 300))
    rm -f "$trouble"
    say "a backup every $every; kept: $keep at most, for $keep_days days"
    while :; do
        now=$(date +%s)
        newest=$(backups | sed -n 1p)
        due=$now
        [ -z "$newest" ] || due=$(($(taken "$newest") + period))
        # A clock that was ahead once must not put the next backup off for longer than a period.
        [ $((due - now)) -le "$period" ] || due=$((now + period))
        if [ "$due" -gt "$now" ]; then
            run sleep $((due - now))
        else
            code=0
            run bash "${BASH_SOURCE[0]}" once || code=$?
            case $code in
                0) rm -f "$trouble" ;;
                "$nothing_yet") run sleep $((retry < 60 ? retry : 60)) ;;
                *)
                    say "the last attempt failed; the next one is in $retry s" | tee "$trouble"
                    run sleep "$retry"
                    ;;
            esac
        fi
    done
}

list() {
    local name any=
    while read -r name; do
        [ -n "$any" ] || printf '%-36s %8s  %s\n' FILE SIZE AGE
        any=yes
        printf '%-36s %8s  %s\n' "$name" "$(numfmt --to=iec "$(stat -c %s "$directory/$name")")" "$(age "$name")"
    done < <(backups)
    [ -n "$any" ] || say "there is no backup yet; \`make backup\` makes one"
}

age() {
    local s=$(($(date +%s) - $(taken "$1")))
    if [ $s -ge 172800 ]; then echo "$((s / 86400)) days"; elif [ $s -ge 7200 ]; then echo "$((s / 3600)) hours"; else echo "$((s / 60)) minutes"; fi
}

restore() {
    local file=$1 database=$2 manifest from occupied line hash part i
    # 38 bytes is what the smallest Atlas clusters take; MongoDB itself takes 63.
    [[ $database =~ ^[A-Za-z0-9_-]{1,38}$ ]] || fail "$database cannot be a database's name here; letters, digits, - and _, at most 38"
    connect
    file=$(file_of "$file")
    manifest=$(checked "$file")
    from=$(field "$manifest" database)
    occupied=$(ask occupied "$database") || fail "MongoDB could not be read (${hosts##*@}): see the line above"
    [ -z "$occupied" ] || fail "the database $database is not empty (${occupied//$'\n'/, }): nothing was restored. Name one that does not exist"
    tool_config
    local parts=()
    while read -r line hash part; do
        [ "$line" != sha256 ] || parts+=("$part")
    done <<<"$manifest"
    # Backwards, so that at no moment a commit is there whose packs are not.
    for ((i = ${#parts[@]} - 1; i >= 0; i--)); do
        if ! run restore_part "$file" "${parts[i]}" "$from" "$database"; then
            ask drop "$database" || say "the incomplete database $database could not be dropped; drop it by hand"
            fail "failed to restore ${parts[i]} of ${file##*/}: see the lines above. Nothing is left in $database"
        fi
    done
    say "restored: ${file##*/}, taken $(field "$manifest" taken) from database $from, into database $database"
}
restore_part() {
    member "$1" "$2" | mongorestore --config="$config" --archive --gzip --quiet --maintainInsertionOrder --nsFrom="$3.*" --nsTo="$4.*"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command:$# in
schedule:0 | once:0 | list:0) "$command" ;;
check:1)
    file=$(file_of "$1")
    manifest=$(checked "$file")
    say "whole: ${file##*/}, taken $(field "$manifest" taken) from database $(field "$manifest" database)"
    ;;
restore:2) restore "$@" ;;
grant:1)
    connect
    ask grant "$1" || fail "failed to give ${MONGO_APP_USERNAME:-} rights on $1: see the line above"
    say "user ${MONGO_APP_USERNAME:-} may read and write database $1"
    ;;
health:0) ! cat "$trouble" 2>/dev/null ;;
*)
    sed -n '4,10s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
