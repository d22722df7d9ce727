#!/usr/bin/env bash
# Fetches kernels for guests: Debian's cloud kernels of the series named, unpacked into the target folder, not installed.
#
#   tests/guest-kernels.sh 6.1 6.12
#
# A series that is there already is left alone; remove its folder to have a newer one. A series that no configured source
# of packages offers is said aloud and does not fail: then the tests in its guests are skipped, and counted as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${WEFT_GUEST_DIR:-${CARGO_TARGET_DIR:-target}/guest}
# Debian keeps the tools of the administrator where the path of other users does not lead.
PATH=$PATH:/usr/sbin:/sbin

say() { echo "guest kernels: $*" >&2; }

update() {
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq >&2
}

# The newest package of a series, of all that the package lists know.
newest() {
    apt-cache search --names-only "^linux-image-${1//./\\.}\..*-cloud-amd64$" | cut -d' ' -f1 | sort -V | tail -n 1
}

# As the caller: apt's own user may not write here.
download() {
    say "fetching $1"
    (cd "$2" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$1" >&2)
}

fetch() {
    local series=$1 package
    package=$(newest "$series")
    # The package lists of a new machine are not there, those of an old one name what is no longer offered.
    if [ -z "$package" ] || ! download "$package" "$work"; then
        update
        package=$(newest "$series")
        if [ -z "$package" ]; then
            say "SKIP: no source of packages offers a kernel $series; what needs it will be skipped"
            return
        fi
        download "$package" "$work"
    fi
    dpkg-deb -x "$work"/*.deb "$work/root"
    rm "$work"/*.deb
    # Once here, and not in each guest at each load.
    find "$work/root/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r xz -d
    depmod -b "$work/root" "${package#linux-image-}"
    # At once whole, or not there.
    mv -T "$work/root" "$folder/$series"
}

if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get > /dev/null; then
    say "SKIP: guests are x86_64 machines with Debian's kernels; this is no Debian on x86_64"
    exit 0
fi
for series in "$@"; do
    [ ! -e "$folder/$series" ] || continue
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.$series.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    fetch "$series"
    rm -rf "$work"
done
