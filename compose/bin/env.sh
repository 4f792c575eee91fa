#!/usr/bin/env bash
# Writes .env from .env.example, with secrets and a project name of its own. An .env that is there is never touched.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

secrets=(WAHA_API_KEY WAHA_DASHBOARD_PASSWORD MONGO_ROOT_PASSWORD MONGO_APP_PASSWORD)
# What an .env may be without.
optional=(ADMIN_TOKEN GRAFANA_PASSWORD)

if [ -f .env ]; then
    for name in "${secrets[@]}"; do
        # Where there is no Docker to read .env, that it has the line is all that can be seen.
        if command -v docker >/dev/null; then value=$(env_get "$name"); else value=$(env_names | grep -xF "$name" || true); fi
        [ -n "$value" ] || give_up ".env has no $name" "add the line $name=… with a long random value, or move .env away and run make env for a new one"
    done
    say ".env is there, and stays as it is"
    exit 0
fi

umask 077
part=$(mktemp .env.XXXXXX)
trap 'rm -f "$part"' EXIT
while IFS= read -r line || [ -n "$line" ]; do
    for name in "${secrets[@]}" "${optional[@]}"; do
        # Hexadecimal, so that it needs no escaping in an address, in YAML or in a shell.
        [ "$line" != "$name=" ] || line=$name=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    done
    [ "$line" != COMPOSE_PROJECT_NAME= ] || line=$line$(new_project)
    printf '%s\n' "$line"
done <.env.example >"$part"
# Never over an .env that somebody else has just written.
ln "$part" .env 2>/dev/null || give_up ".env appeared meanwhile; nothing was changed"
say "wrote .env with generated passwords; keep it: whoever has it can read the login"
