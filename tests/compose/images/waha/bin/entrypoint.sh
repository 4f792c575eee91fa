#!/bin/sh
# Starts the gateway as WAHA's own entrypoint does: the API key is replaced by its hash, and how
# node is started depends on the engine.
set -eu

# Only the hash goes on to node and what it starts; the plain key stays behind here.
key=${WAHA_API_KEY:-${WHATSAPP_API_KEY:-}}
unset WAHA_API_KEY WHATSAPP_API_KEY
case $key in
'') ;;
sha512:*) export STAND_IN_API_KEY_SHA512="${key#sha512:}" ;;
*)
    hash=$(printf %s "$key" | sha512sum)
    export STAND_IN_API_KEY_SHA512="${hash%% *}"
    ;;
esac
unset key

set -- node --disable-warning=ExperimentalWarning /app/main.mjs
case $(printf %s "${WHATSAPP_DEFAULT_ENGINE:-WEBJS}" | tr '[:lower:]' '[:upper:]') in
GOWS | NOWEB) exec "$@" ;;
*) exec xvfb-run "$@" ;;
esac
