#!/bin/sh
# As such a start script usually is: restore, the sidecar in the background, and the gateway in
# the shell's place. A TERM reaches the gateway alone; when it ends, the container does.
set -e
here=$(dirname "$0")
node "$here/sidecar.mjs" restore
node "$here/sidecar.mjs" watch &
exec "$@"
