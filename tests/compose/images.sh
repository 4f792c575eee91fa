#!/usr/bin/env bash
# The base images that the stack is built from. Where an image registry can be reached, they are
# the originals. Where none can, stand-ins are made here from Debian's packages, this machine's
# Rust toolchain and the parts in .cache/, and carry the originals' names while the tests run.
#
#   tests/compose/images.sh make     all of them, in place; tells which are stand-ins
#   tests/compose/images.sh waha     prints the name of the image that the tests use for WAHA's, as
#                                    variables
#   tests/compose/images.sh forget   takes the originals' names off the stand-ins again, so that
#                                    nobody runs one by mistake; they stay, for a quick next time
#
# A stand-in has the label `org.sessionkeep.stand-in`, with the hash of what it was made from. An
# image without that label is never replaced.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

images=tests/compose/images
label=org.sessionkeep.stand-in
# The whole of a stand-in's own name is this and the original's.
shelf=sessionkeep-stand-in

waha=devlikeapro/waha:gows-2026.9.2
all=(debian:bookworm-slim node:22-bookworm-slim python:3.11-slim-bookworm rust:1.95.0-slim-bookworm mongo:7.0 "$waha"
    prom/prometheus:v3.5.0 grafana/grafana-oss:12.1.0 caddy:2 registry:2)

say() { printf 'images: %s\n' "$*"; }
give_up() { printf 'images: %s\n' "$@" >&2; exit 1; }

# The certificates that this machine trusts: package registries may be behind a proxy of its own.
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

# What a stand-in is made from: a change of any of it makes a new one.
sources_of() {
    case $1 in
        debian:*) echo tests/compose/images.sh ;;
        node:*) echo "$images/node" tests/tools/wheels-node.txt ;;
        python:*) echo "$images/python" ;;
        rust:*) echo "$images/rust" rust-toolchain.toml ;;
        mongo:*) echo "$images/mongo" tests/tools/wheels.txt ;;
        devlikeapro/*) echo "$images/waha" tests/gateways tests/tools/wheels.txt ;;
        prom/*) echo "$images/prometheus" ;;
        caddy:*) echo "$images/caddy" ;;
        registry:*) echo "$images/registry" ;;
        grafana/*) echo "$images/grafana" "$images/node" tests/tools/wheels-node.txt ;;
    esac
}
stamp_of() {
    local from
    read -ra from <<<"$(sources_of debian:) $(sources_of "$1")"
    {
        find "${from[@]}" -name node_modules -prune -o -name __pycache__ -prune -o -type f -print0 |
            sort -z | xargs -0 sha256sum
        echo "${MONGO_TOOLS_DIR:-}"
    } | sha256sum | cut -c1-16
}
label_of() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null; }

debian() {
    command -v debootstrap >/dev/null ||
        give_up "no image registry answers, and debootstrap, which makes the base image, is not installed" "on Debian: apt install debootstrap"
    [ "$(id -u)" -eq 0 ] || give_up "no image registry answers, and only root can make a base image with debootstrap"
    local root mirror
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of this call
    trap "rm -rf '$root'" RETURN
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n 1 || true)
    # shellcheck disable=SC2086 # without a mirror, debootstrap has a default
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root" $mirror >"$root.log" 2>&1 ||
        give_up "debootstrap failed: $(tail -n 3 "$root.log")"
    rm -rf "$root.log" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    cp "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
    local bundle=/etc/ssl/certs/ca-certificates.crt
    tar -C "$root" -c . | docker import --change "LABEL $label=$1" --change 'CMD ["bash"]' \
        --change "ENV SSL_CERT_FILE=$bundle CARGO_HTTP_CAINFO=$bundle NODE_EXTRA_CA_CERTS=$bundle PIP_CERT=$bundle CURL_CA_BUNDLE=$bundle" \
        - "$2" >/dev/null
}

# build NAME DIR [OPTION…]
build() {
    local name=$1 directory=$2
    shift 2
    docker build --quiet --label "$label=$(stamp_of "$name")" --tag "$shelf/$name" "$@" "$directory" >/dev/null
}

stand_in() {
    case $1 in
        debian:*) debian "$(stamp_of "$1")" "$shelf/$1" ;;
        node:*) build "$1" "$images/node" --build-context tools=tests/tools ;;
        python:*) build "$1" "$images/python" ;;
        prom/*) build "$1" "$images/prometheus" ;;
        caddy:*) build "$1" "$images/caddy" ;;
        registry:*) build "$1" "$images/registry" ;;
        grafana/*) build "$1" "$images/grafana" ;;
        rust:*) build "$1" "$images/rust" --build-context "toolchain=$(rustc --print sysroot)" ;;
        mongo:*)
            build "$1" "$images/mongo" --build-context mongod=.cache/mongod \
                --build-context "tools=${MONGO_TOOLS_DIR:-$images/mongo/tools}"
            ;;
        devlikeapro/*)
            build "$1" "$images/waha" --build-context baileys=tests/gateways/baileys \
                --build-context whatsmeow=tests/gateways/whatsmeow --build-context neonize=.cache/neonize
            ;;
    esac
}

make_all() {
    tests/tools/fetch.sh
    local name originals=() made=()
    for name in "${all[@]}"; do
        if docker image inspect "$name" >/dev/null 2>&1 && [ -z "$(label_of "$name")" ]; then
            originals+=("$name")
        elif [ ${#made[@]} -eq 0 ] && docker pull --quiet "$name" >/dev/null 2>&1; then
            originals+=("$name")
        else
            if [ "$(label_of "$shelf/$name")" != "$(stamp_of "$name")" ]; then
                say "making a stand-in for $name"
                stand_in "$name"
            fi
            docker tag "$shelf/$name" "$name"
            made+=("$name")
        fi
    done
    [ ${#originals[@]} -eq 0 ] || say "originals: ${originals[*]}"
    [ ${#made[@]} -eq 0 ] || say "stand-ins, since no image registry answers: ${made[*]}"
    if [ -n "$(label_of mongo:7.0)" ]; then
        if [ -n "${MONGO_TOOLS_DIR:-}" ]; then
            say "mongodump and mongorestore: from $MONGO_TOOLS_DIR"
        else
            say "NOTE: mongodump and mongorestore are stand-ins too, so the cases about backups do not prove that the real ones take our options; MONGO_TOOLS_DIR=… puts real ones in"
        fi
    fi
    # The real WAHA logs in with a phone only, which no test has.
    if [ -z "$(label_of "$waha")" ]; then
        if [ "$(label_of "$shelf/$waha")" != "$(stamp_of "$waha")" ]; then
            say "making a stand-in for $waha, since the original logs in with a phone only"
            stand_in "$waha"
        fi
    fi
}

name_of_waha() {
    local name=$waha
    [ -n "$(label_of "$waha")" ] || name=$shelf/$waha
    printf 'export WAHA_IMAGE=%s WAHA_VERSION=%s\n' "${name%:*}" "${name##*:}"
}

forget() {
    local name
    for name in "${all[@]}"; do
        [ -z "$(label_of "$name")" ] || docker rmi --no-prune "$name" >/dev/null
    done
}

case ${1:-} in
    make) make_all ;;
    waha) name_of_waha ;;
    forget) forget ;;
    *) give_up "usage: tests/compose/images.sh make|waha|forget" ;;
esac
