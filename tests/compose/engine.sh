#!/usr/bin/env bash
# A Docker Engine of the tests' own, for a machine without one: Debian, as root.
#
#   tests/compose/engine.sh start   installs it into .cache/engine, starts it, and prints what to
#                                   put into the environment (`eval "$(…)"`)
#   tests/compose/engine.sh stop    stops it again
#
# Nothing calls this unasked: CI does, and whoever runs it by hand. It is kept to a directory, a
# socket and a data root of its own, so that an engine that is there already is not touched. The
# packages come from Debian 13, since Debian 12's are too old for named build contexts and for
# Compose v2; their programs run on Debian 12, except `runc`, which is taken from there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

home=$PWD/.cache/engine
socket=$home/docker.sock
suite=trixie
packages=(docker.io docker-cli docker-compose docker-buildx containerd)

say() { printf 'engine: %s\n' "$*" >&2; }
give_up() { printf 'engine: %s\n' "$@" >&2; exit 1; }

# What Debian 12 has itself, and the engine needs.
install_companions() {
    local missing=()
    command -v runc >/dev/null || missing+=(runc)
    command -v iptables >/dev/null || missing+=(iptables)
    command -v dpkg-deb >/dev/null || give_up "this machine is no Debian; install Docker Engine 25 or newer, with Compose v2"
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
}

# Debian 13's packages, through the mirror that this machine uses, with lists of their own: the
# machine's package lists stay as they are. `apt` checks the signatures.
fetch() {
    local lists=$home/apt mirror
    mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI)' 'Created-By: Packages' | awk '!/security/ {print $2; exit}')
    [ -n "$mirror" ] || give_up "this machine has no Debian mirror among its package sources"
    mkdir -p "$lists"/{lists/partial,cache/archives/partial,debs}
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite" >"$lists/$suite.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$lists/$suite.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$lists/debs" && rm -f -- *.deb && apt-get "${options[@]}" download "${packages[@]}")
    rm -rf "$home/unpacked"
    for package in "$lists"/debs/*.deb; do
        dpkg-deb -x "$package" "$home/unpacked"
    done
    mkdir -p "$home/bin" "$home/config/cli-plugins"
    cp "$home"/unpacked/usr/sbin/dockerd "$home"/unpacked/usr/sbin/docker-proxy \
        "$home"/unpacked/usr/bin/{docker,containerd,containerd-shim-runc-v2} "$home/bin/"
    cp "$home"/unpacked/usr/libexec/docker/cli-plugins/* "$home/config/cli-plugins/"
    rm -rf "$home/unpacked" "$lists"
}

environment() {
    printf 'export DOCKER_HOST=unix://%s DOCKER_CONFIG=%s PATH=%s:$PATH\n' "$socket" "$home/config" "$home/bin"
}

answers() { DOCKER_HOST=unix://$socket "$home/bin/docker" version >/dev/null 2>&1; }

start() {
    [ "$(id -u)" -eq 0 ] || give_up "an engine can only be started by root"
    if [ -x "$home/bin/dockerd" ] && answers; then
        say "runs already"
        environment
        return
    fi
    mkdir -p "$home"
    install_companions
    if ! [ -x "$home/bin/dockerd" ] || ! [ -x "$home/config/cli-plugins/docker-compose" ]; then
        say "fetching Docker Engine, Compose and buildx from Debian's packages"
        fetch
    fi
    # What a killed engine leaves behind.
    rm -f "$home/docker.pid" "$home/exec/containerd/containerd.pid"
    PATH=$home/bin:$PATH setsid "$home/bin/dockerd" --host "unix://$socket" --data-root "$home/data" \
        --exec-root "$home/exec" --pidfile "$home/docker.pid" >"$home/dockerd.log" 2>&1 </dev/null &
    local daemon=$!
    until answers; do
        kill -0 "$daemon" 2>/dev/null ||
            give_up "the engine does not start here; the last lines of $home/dockerd.log:" "$(tail -n 5 "$home/dockerd.log")"
        sleep 0.2
    done
    say "$(DOCKER_HOST=unix://$socket "$home/bin/docker" version --format 'Docker Engine {{.Server.Version}}') runs"
    environment
}

stop() {
    local pid
    pid=$(cat "$home/docker.pid" 2>/dev/null) || { say "does not run"; return; }
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    say "stopped"
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    *) give_up "usage: tests/compose/engine.sh start|stop" ;;
esac
