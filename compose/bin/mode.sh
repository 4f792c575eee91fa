#!/usr/bin/env bash
# rollback: from MongoDB to plain files in the session directory. forward: the way back.
# Either way the newest state counts, and nothing is deleted.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
directory=$(session_dir "$service")

# What a directory holds beside our own notes.
is_empty() { [ -z "$(find "$1" -mindepth 1 -maxdepth 1 ! -name .sessionkeep -print -quit 2>/dev/null)" ]; }

rollback() {
    if is_file_mode "$service"; then
        say "MONGO_ENABLED is False already: the session is kept in $directory alone"
        return
    fi
    say "stopping $service, so that its last changes are saved"
    docker compose stop "$service"
    # A directory that was wiped while nothing ran must not become the state that counts.
    say "bringing $directory to the newest state"
    if ! docker compose run --rm --no-deps --entrypoint sessionkeep "$service" restore; then
        is_empty "$directory" && give_up "the session directory $directory is empty, and MongoDB does not give the session back" \
            "nothing was changed; start MongoDB (make up), then run make rollback again"
        say "MongoDB does not answer; going on with $directory as the last stop left it"
    fi
    env_set MONGO_ENABLED False
    docker compose up --detach --no-deps --force-recreate "$service"
    await_ready "$service"
    say "done: $service keeps its session in $directory alone, and MongoDB is not used. Do not delete that directory now."
    next_step "make forward, when you want MongoDB again"
}

forward() {
    case :$(compose_files): in *:compose/file-mode.yml:*)
        give_up "compose/file-mode.yml keeps the session in plain files" "take it out of COMPOSE_FILE in .env, then make forward"
        ;;
    esac
    if ! is_file_mode "$service"; then
        say "MONGO_ENABLED is True: the session is kept in MongoDB already"
        return
    fi
    ! has_mongodb || docker compose up --detach --wait mongodb
    env_set MONGO_ENABLED True
    say "starting $service with MongoDB; it saves what changed meanwhile"
    docker compose up --detach --force-recreate "$service"
    await_ready "$service"
    docker compose exec -T "$service" sessionkeep verify
    say "done: the session is kept in MongoDB again"
    next_step "make status"
}

case ${1:-} in
    rollback) rollback ;;
    forward) forward ;;
    *) give_up "usage: compose/bin/mode.sh rollback|forward" ;;
esac
