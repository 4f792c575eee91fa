#!/usr/bin/env bash
# Starts everything, waits until the gateway answers, and says where it is.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
compose/bin/env.sh
mkdir -p -m 700 session
service=$(gateway)

# On a machine with too little memory to build (1.2 GB), the image comes from another one.
build=--build
if [ "${BUILD:-yes}" = yes ]; then
    say "building and starting; the first time takes some minutes"
else
    build=--no-build
    say "starting, with the image that is here"
fi
if ! docker compose up --detach "$build" --remove-orphans; then
    if has_mongodb; then
        say "the last lines of mongodb:" >&2
        docker compose logs --no-log-prefix --tail 5 mongodb >&2 || true
    fi
    give_up "it did not start; the reason is above" "what it means: docs/operations.md, \"By symptom\""
fi
say "waiting until $service is ready"
await_ready "$service"

if [ "$service" = waha ]; then
    address=$(docker compose port waha 3000)
    printf "\n%s\n" "WAHA is up. Dashboard: http://${address/0.0.0.0/127.0.0.1}/dashboard"
    say "  user and password: WAHA_DASHBOARD_USERNAME and WAHA_DASHBOARD_PASSWORD in .env; the API's key: WAHA_API_KEY"
    say "what is kept and how safe it is, with the QR code to scan: $(own_page "$service"), same user and password"
    next_step "open the first, start the session \"default\", and scan the QR code with the phone. From then on a restart needs no scan: make persistence-test shows it."
else
    printf "\n%s\n" "$service is up."
    say "what is kept and how safe it is: $(own_page "$service"); user and password: WAHA_DASHBOARD_USERNAME and WAHA_DASHBOARD_PASSWORD in .env"
    next_step "make logs, where the QR code is if it needs one; then make persistence-test"
fi
