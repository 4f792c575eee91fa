# Which names in .env are no setting: sourced by lib.sh.
# shellcheck shell=bash

# check_names: warns of names in .env that nothing reads, with the one that was probably meant.
check_names() {
    local listed files=() names=() one
    local -A known=()
    listed=$(compose_files)
    IFS=: read -ra files <<<"$listed"
    # What .env.example explains, what a file of the user's own asks for, and what Compose reads itself.
    mapfile -t names < <({
        sed -nE 's/^#?([A-Z][A-Z0-9_]*)=.*/\1/p' .env.example
        sed -nE 's/.*\$\{?([A-Za-z_][A-Za-z0-9_]*).*/\1/p; s/^ +([A-Z][A-Z0-9_]*): *$/\1/p' "${files[@]}" 2>/dev/null
        printf '%s\n' COMPOSE_PROFILES COMPOSE_PATH_SEPARATOR COMPOSE_ANSI COMPOSE_STATUS_STDOUT COMPOSE_PARALLEL_LIMIT \
            COMPOSE_IGNORE_ORPHANS COMPOSE_REMOVE_ORPHANS COMPOSE_CONVERT_WINDOWS_PATHS COMPOSE_EXPERIMENTAL COMPOSE_MENU \
            DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_DEFAULT_PLATFORM DOCKER_API_VERSION BUILDKIT_PROGRESS
    } | sort -u)
    for one in "${names[@]}"; do known[$one]=yes; done
    while IFS= read -r one; do
        [ -n "${known[$one]:-}" ] || not_a_setting "$one" "${names[@]}"
    done < <(env_names)
}

# not_a_setting NAME KNOWN…: what to say of it.
not_a_setting() {
    local name=$1 meant
    shift
    # The distance of optimal string alignment: letters put in, left out, wrong, or two of them swapped.
    meant=$(printf '%s\n' "$@" | awk -v wanted="$name" '
        function least(a, b) { return a < b ? a : b }
        function distance(x, y,    i, j, n, m, cost, d) {
            n = length(x); m = length(y)
            for (i = 0; i <= n; i++) d[i, 0] = i
            for (j = 0; j <= m; j++) d[0, j] = j
            for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) {
                cost = substr(x, i, 1) != substr(y, j, 1)
                d[i, j] = least(least(d[i - 1, j] + 1, d[i, j - 1] + 1), d[i - 1, j - 1] + cost)
                if (i > 1 && j > 1 && substr(x, i, 1) == substr(y, j - 1, 1) && substr(x, i - 1, 1) == substr(y, j, 1))
                    d[i, j] = least(d[i, j], d[i - 2, j - 2] + 1)
            }
            return d[n, m]
        }
        BEGIN { wanted = toupper(wanted); best = int(length(wanted) / 4) + 1; if (best > 4) best = 4 }
        { found = distance(wanted, $0); if (found < best) { best = found; name = $0 } }
        END { print name }')
    if [ -n "$meant" ]; then
        say "warning: $name in .env is no setting of this stack; did you mean $meant?" >&2
    elif [[ $name =~ ^(WAHA|WHATSAPP)_ ]]; then
        say "warning: $name in .env reaches nobody: further settings of WAHA's go into waha.env" >&2
    elif [[ $name =~ ^(SESSIONKEEP|MONGO|BACKUP|COMPOSE|GRAFANA|PROMETHEUS|DASHBOARD)_ ]]; then
        say "warning: $name in .env is no setting of this stack, and nothing reads it; .env.example has them all" >&2
    fi
}
