#!/usr/bin/env bash
# Restarts the gateway, with its settings read anew.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
say "restarting $service; its last changes are saved first"
docker compose up --detach --no-deps --force-recreate "$service"
await_ready "$service"
say "$service is ready"
next_step "make status"
