#!/usr/bin/env bash
# Packs the static binary of this machine's kind for a release, into dist/.
#
#   tests/tools/pack.sh TAG ARCH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tag=$1 arch=$2
binary=target/$arch-unknown-linux-musl/release/sessionkeep
version=$("$binary" --version)
[ "$version" = "sessionkeep ${tag#v}" ] || {
    printf 'pack: the tag is %s, and the binary says "%s"; set the version in Cargo.toml\n' "$tag" "$version" >&2
    exit 1
}
name=sessionkeep-$tag-linux-$arch
mkdir -p "dist/$name"
cp "$binary" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "dist/$name"
# The same bytes from the same files, whoever packs them and when.
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory dist "$name" |
    gzip --no-name --best >"dist/$name.tar.gz"
rm -r "dist/$name"
