#!/usr/bin/env bash
# Deletes what `make restore-backup` and `make persistence-test` have put away: session directories under
# other names, and databases that are no longer in use. It says first what that is.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
directory=$(session_dir "$service")

directories=()
kept=()
stamp='????????T??????Z'
# shellcheck disable=SC2231 # the pattern shall be one
for one in "$directory".before-$stamp "$directory".away-$stamp; do
    [ -d "$one" ] || continue
    if is_session "$one"; then directories+=("$one"); else kept+=("$one, which has no .sessionkeep in it: look at it, and delete it by hand"); fi
done

# Asked of the stack's own MongoDB alone; at another one, old databases are for whoever runs it.
databases=()
in_use=$(env_get MONGO_DATABASE)
in_use=${in_use:-sessionkeep}
# mongo SCRIPT [VALUE]: as the administrator, whose password stays inside the container, and out of its arguments.
mongo() {
    docker compose exec -T -e IN_USE="$in_use" -e VALUE="${2:-}" mongodb mongosh --quiet --norc --host mongodb --eval '
        const { IN_USE, VALUE, MONGO_INITDB_ROOT_USERNAME, MONGO_INITDB_ROOT_PASSWORD } = process.env
        db.getSiblingDB("admin").auth(MONGO_INITDB_ROOT_USERNAME, MONGO_INITDB_ROOT_PASSWORD)
        '"$1"
}
if ! has_mongodb; then
    :
elif [ -z "$(docker compose ps --quiet --status running mongodb)" ]; then
    kept+=("old databases, since MongoDB is not running: make up, then make prune")
else
    # Those that restore-backup.sh names as it names the one in use, and that hold what sessionkeep writes.
    listed=$(mongo '
        const base = name => name.replace(/_\d{8}T\d{6}Z$/, "").slice(0, 21)
        const ours = name => ["commits", "leases"].every(one => db.getSiblingDB(name).getCollectionNames().includes(one))
        const names = db.getMongo().getDBNames().filter(name => name !== IN_USE && base(name) === base(IN_USE) && ours(name))
        for (const name of names) print(`database ${name}`)')
    mapfile -t databases < <(sed -n 's/^database //p' <<<"$listed")
fi

if [ ${#directories[@]} -eq 0 ] && [ ${#databases[@]} -eq 0 ]; then
    say "there is nothing to delete"
    [ ${#kept[@]} -eq 0 ] || printf '  left alone: %s\n' "${kept[@]}"
    next_step "nothing"
    exit 0
fi
say "This deletes, for good:"
for one in "${directories[@]}"; do say "  directory $one, $(du -sh "$one" 2>/dev/null | cut -f 1)"; done
for one in "${databases[@]}"; do say "  database  $one"; done
[ ${#kept[@]} -eq 0 ] || printf 'It leaves alone: %s\n' "${kept[@]}"
say "In use, and not touched: $directory and the database $in_use."
confirm "What make restore-backup said about a way back does not hold any more then."
for one in "${directories[@]}"; do delete_dir "$service" "$one"; done
for one in "${databases[@]}"; do
    mongo 'if (VALUE !== IN_USE) db.getSiblingDB(VALUE).dropDatabase()' "$one" >/dev/null ||
        give_up "failed to drop the database $one"
done
say "deleted"
next_step "make status"
