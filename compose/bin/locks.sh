# Images by digest: which image a tag stood for when `make upgrade` fetched it. Sourced by lib.sh.
# shellcheck shell=bash
#
# The digests are lines NAME_DIGEST=@sha256:… in .env, where Compose finds them; images.lock beside it tells which
# tag each is of. A tag that moves, or is taken over by somebody, so changes nothing before the next `make upgrade`.

# The setting, and the image as the files name it but for the digest.
lockable=(
    'MONGO_DIGEST ${MONGO_IMAGE:-mongo}:${MONGO_VERSION:-7.0}'
    'WAHA_DIGEST ${WAHA_IMAGE:-devlikeapro/waha}:${WAHA_VERSION:-gows-2026.9.2}'
    'RUST_DIGEST rust:${RUST_VERSION:-1.95.0}-slim-bookworm'
    'NODE_DIGEST node:${NODE_VERSION:-22}-bookworm-slim'
    'PYTHON_DIGEST python:${PYTHON_VERSION:-3.11}-slim-bookworm'
    'PROMETHEUS_DIGEST prom/prometheus:${PROMETHEUS_VERSION:-v3.5.0}'
    'GRAFANA_DIGEST grafana/grafana-oss:${GRAFANA_VERSION:-12.1.0}'
    'CADDY_DIGEST caddy:${CADDY_VERSION:-2}'
)

# Those that this stack uses: their setting is in one of its files, or in a Dockerfile that one of them builds.
locks_of_stack() {
    local files list line
    list=$(compose_files)
    IFS=: read -ra files <<<"$list"
    for line in "${lockable[@]}"; do
        ! grep -qF "\${${line%% *}:-}" "${files[@]}" 2>/dev/null || printf '%s\n' "$line"
    done
}

# digest_of IMAGE: the registry's, for all kinds of machines; else the one it was fetched by, if it was.
digest_of() {
    local found repository=${1%:*}
    if found=$(timeout 60 docker buildx imagetools inspect "$1" 2>/dev/null); then
        # The first line of this kind is of the whole; those of its parts are indented.
        found=$(sed -nE 's/^Digest: +//p' <<<"$found")
    else
        found=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" 2>/dev/null |
            sed -n "s|^\(docker.io/\(library/\)\?\)\?$repository@||p")
    fi
    found=${found%%$'\n'*}
    [[ $found =~ ^sha256:[0-9a-f]{64}$ ]] || return 1
    printf '%s\n' "$found"
}

# lock_images: writes what the tags stand for now into .env and images.lock.
lock_images() {
    local setting image digest part
    part=$(mktemp images.lock.XXXXXX)
    printf '# Written by make upgrade, with the same in .env: which image each tag stood for then.\n' >"$part"
    while read -r setting image; do
        image=$(interpolate "$image")
        if digest=$(digest_of "$image"); then
            env_set "$setting" "@$digest"
            printf '%s %s %s\n' "$setting" "$image" "$digest" >>"$part"
        elif locked=$(grep -F "$setting $image " images.lock 2>/dev/null); then
            say "no registry tells what $image stands for now; it stays as it was"
            printf '%s\n' "$locked" >>"$part"
        else
            # One of another tag would win over the tag that is wanted.
            [ -z "$(env_get "$setting")" ] || env_set "$setting" ''
            say "no registry tells what $image stands for; it is used by its tag"
        fi
    done < <(locks_of_stack)
    chmod 644 "$part"
    mv "$part" images.lock
}

# check_locks: a version in .env that was changed does nothing while the old image is locked.
check_locks() {
    local setting image locked digest
    [ -f images.lock ] || return 0
    while read -r setting image; do
        image=$(interpolate "$image")
        read -r _ locked digest < <(grep -F "$setting " images.lock || true) || continue
        if [ -n "$locked" ] && [ "$locked" != "$image" ] && [ "$(env_get "$setting")" = "@$digest" ]; then
            say "warning: .env asks for $image, and $locked is locked: make upgrade moves it" >&2
        fi
    done < <(locks_of_stack)
}
