#!/usr/bin/env bash
# Shows on the running stack that the login survives: takes the containers down, puts the session
# directory away, starts again, and compares.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
directory=$(session_dir "$service")
! is_file_mode "$service" ||
    give_up "MONGO_ENABLED is False, so the session is in $directory alone and would not come back" "make forward, then try again"
docker compose exec -T "$service" sessionkeep health >/dev/null || give_up "$service is not running, or not healthy" "make up, make status"

# Each session's name, state and number, as WAHA tells them. For other gateways, what the archive holds.
sessions() {
    if [ "$service" != waha ]; then
        docker compose exec -T "$service" sessionkeep verify
        return
    fi
    docker compose exec -T waha node -e '
        fetch("http://127.0.0.1:3000/api/sessions?all=true", { headers: { "X-Api-Key": process.env.WAHA_API_KEY } })
            .then(answer => answer.ok ? answer.json() : Promise.reject(new Error(`WAHA answered ${answer.status}`)))
            .then(list => console.log(list.map(s => `${s.name} ${s.status} ${s.me?.id ?? "-"}`).sort().join("\n")))
            .catch(error => { console.error(error.message); process.exit(1) })'
}

before=$(sessions)
printf "%s\n" "before:" "${before:-no sessions}"
if [ "$service" = waha ] && ! grep -q ' WORKING ' <<<"$before"; then
    give_up "no session is logged in, so there is nothing to show" "log in first: make up tells where"
fi

say "taking the stack down, and putting $directory away"
docker compose down
away=$directory.away-$(date -u +%Y%m%dT%H%M%SZ)
mv "$directory" "$away"
mkdir -m 700 "$directory"
docker compose up --detach
await_ready "$service"

# A session that comes back passes through STARTING.
for _ in $(seq 120); do
    after=$(sessions) || after=
    [ "$after" != "$before" ] || break
    sleep 0.5
done
if [ "$service" = waha ] && [ "$after" != "$before" ]; then
    printf "%s\n" "after:" "$after"
    give_up "the sessions did not come back as they were" "the old directory is $away; to use it: make down, move it back to $directory, make up" "please report this, with: docker compose logs $service"
fi
printf "%s\n" "after:" "$after" "passed: the session came back from MongoDB"
next_step "make prune deletes what was put away ($away), when you like"
