#!/bin/sh
# The start script of somebody who has lost a login before: the shell stays, passes TERM on to the
# gateway, and ends the sidecar only after it, waiting for what it has still to upload.
set -e
here=$(dirname "$0")
node "$here/sidecar.mjs" restore
node "$here/sidecar.mjs" watch &
sidecar=$!
"$@" &
gateway=$!
trap 'kill -TERM "$gateway"' TERM
code=0
wait "$gateway" || code=$?
# A `wait` that a trap has interrupted has not waited.
while kill -0 "$gateway" 2>/dev/null; do
    code=0
    wait "$gateway" || code=$?
done
kill -TERM "$sidecar"
wait "$sidecar" || true
exit "$code"
