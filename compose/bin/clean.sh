#!/usr/bin/env bash
# Deletes the stack with its data: the one command here that does.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
need_env
directory=$(session_dir "$(gateway)")
confirm "This deletes the containers, MongoDB's volume with every stored login and its history, and $directory.
Backups in ./backups and .env stay. Each phone has to scan a QR code again."
docker compose down --volumes --remove-orphans
rm -rf -- "$directory"
say "deleted"
next_step "make up begins anew; make restore-backup FILE=… brings a backup back"
