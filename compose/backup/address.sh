# A MongoDB address, taken apart and put together for another database. Sourced.
# shellcheck shell=bash

read_address() {
    [[ $1 =~ ^(mongodb(\+srv)?)://([^/?]+)(/([^?]*))?(\?(.*))?$ ]] || return 1
    scheme=${BASH_REMATCH[1]}
    hosts=${BASH_REMATCH[3]}
    options=${BASH_REMATCH[7]}
    # shellcheck disable=SC2034 # for whoever sources this
    # An address without a database means this one, as it does to sessionkeep.
    source_database=${BASH_REMATCH[5]:-sessionkeep}
    # Without this option, the user is looked up in the database that the address names, which is about to
    # change. An SRV record names it itself.
    if [[ $scheme = mongodb && $hosts = *@* && $options != *authSource=* ]]; then
        options+="${options:+&}authSource=${BASH_REMATCH[5]:-admin}"
    fi
}
# address [DATABASE]: for that database, or for none.
address() { printf '%s://%s/%s%s' "$scheme" "$hosts" "${1:-}" "${options:+?$options}"; }
