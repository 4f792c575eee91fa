#!/bin/bash
# What the official image's entrypoint does for us: gives up root; at the first start, makes the
# root user and runs /docker-entrypoint-initdb.d/ against a server that only this container
# reaches; then starts the server with authentication.
set -euo pipefail

[ "${1:0:1}" != - ] || set -- mongod "$@"
if [ "$1" != mongod ]; then
    exec "$@"
fi

if [ "$(id -u)" -eq 0 ]; then
    find /data/db /data/configdb ! -user mongodb -exec chown mongodb '{}' +
    export HOME=/data/db
    exec setpriv --reuid mongodb --regid mongodb --clear-groups "$BASH" "${BASH_SOURCE[0]}" "$@"
fi

if [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ] && [ -n "${MONGO_INITDB_ROOT_PASSWORD:-}" ]; then
    if ! [ -e /data/db/WiredTiger ]; then
        mongod --bind_ip 127.0.0.1 --fork --logpath /tmp/mongod-init.log --pidfilepath /tmp/mongod-init.pid
        mongosh --quiet --norc mongodb://127.0.0.1/admin --eval '
            db.createUser({
                user: process.env.MONGO_INITDB_ROOT_USERNAME,
                pwd: process.env.MONGO_INITDB_ROOT_PASSWORD,
                roles: [{ role: "root", db: "admin" }]
            })'
        for script in /docker-entrypoint-initdb.d/*; do
            case $script in
                *.js)
                    echo "running $script"
                    mongosh --quiet --norc "mongodb://127.0.0.1/${MONGO_INITDB_DATABASE:-test}" "$script"
                    ;;
                *.sh)
                    echo "running $script"
                    bash "$script"
                    ;;
            esac
        done
        mongod --shutdown
        echo 'MongoDB init process complete; ready for start up.'
    fi
    shift
    set -- mongod --auth "$@"
fi
exec "$@" --bind_ip_all
