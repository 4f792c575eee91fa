#!/usr/bin/env bash
# Follows the logs. Of MongoDB only what is more than information: it tells of each connection in several
# lines, of which the health check alone makes one a minute. ALL=yes shows those, too.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_stack
follow=(--follow)
[ "${FOLLOW:-yes}" = yes ] || follow=()
colours=never
[ ! -t 1 ] || colours=always
[ "${ALL:-}" = yes ] || {
    docker compose --ansi "$colours" logs "${follow[@]}" --tail 100 |
        awk '!/\{"t":\{"\$date":"[^"]*"\},"s":"[ID]/ { print; fflush() }'
    exit
}
docker compose --ansi "$colours" logs "${follow[@]}" --tail 100
