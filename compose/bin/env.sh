#!/usr/bin/env bash
# Writes .env from .env.example, with secrets of its own. An .env that is there is never touched.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

secrets=(WAHA_API_KEY WAHA_DASHBOARD_PASSWORD MONGO_ROOT_PASSWORD MONGO_APP_PASSWORD)
# What an .env may be without.
optional=(ADMIN_TOKEN GRAFANA_PASSWORD)

if [ -f .env ]; then
    for name in "${secrets[@]}"; do
        [ -n "$(env_get "$name")" ] || give_up ".env has no $name" "add the line $name=… with a long random value, or move .env away and run make env for a new one"
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
    printf '%s\n' "$line"
done <.env.example >"$part"
# Never over an .env that somebody else has just written.
ln "$part" .env 2>/dev/null || give_up ".env appeared meanwhile; nothing was changed"
say "wrote .env with generated passwords; keep it: whoever has it can read the login"
