#!/usr/bin/env bash
# Brings the images to the versions in .env, with a backup before, and locks them to what was fetched.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
service=$(gateway)
if [ "${BACKUP:-yes}" = yes ] && { has_mongodb || is_file_mode "$service"; }; then
    say "a backup first (BACKUP=no goes without)"
    make --no-print-directory backup || give_up "the backup failed, so nothing was upgraded" "BACKUP=no make upgrade goes without"
fi
say "asking the registry what the versions in .env stand for"
lock_images
say "fetching what .env names, and building"
# A base image that cannot be fetched may be there already; the build tells.
docker compose pull --ignore-buildable || say "not all images could be fetched; going on with those that are here"
docker compose build "$service"
docker compose up --detach --remove-orphans
await_ready "$service"
say "done; images.lock tells which images these are"
next_step "make status, and look at the dashboard"
