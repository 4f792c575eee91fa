#!/usr/bin/env bash
# Runs mongo-init/ in the running MongoDB, with the names and passwords that .env has now.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
has_mongodb || give_up "this stack has no MongoDB of its own" "on an external one, its provider's page makes users"
say "bringing MongoDB's user, indexes and rules to what .env says"
# The names are passed by name, not by value, so that no password stands in a process list.
export MONGO_APP_USERNAME MONGO_APP_PASSWORD MONGO_DATABASE
MONGO_APP_USERNAME=$(env_get MONGO_APP_USERNAME)
MONGO_APP_PASSWORD=$(env_get MONGO_APP_PASSWORD)
MONGO_DATABASE=$(env_get MONGO_DATABASE)
docker compose exec -T -e MONGO_APP_USERNAME -e MONGO_APP_PASSWORD -e MONGO_DATABASE mongodb \
    sh -c 'mongosh --quiet --norc --host mongodb /docker-entrypoint-initdb.d/10-sessionkeep.js'
next_step "make restart, if a name or a password was changed"
