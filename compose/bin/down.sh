#!/usr/bin/env bash
# Stops and removes the containers; all data stays.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
say "stopping; the last changes are saved first"
docker compose down
next_step "make up. Nothing was deleted: the login is in MongoDB's volume and in the session directory."
