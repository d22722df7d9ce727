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
PATH=$PATH:/usr/sbin:/sbin

say() { echo "guest kernels: $*" >&2; }

# The newest package of a series, of all that the package lists know.
newest() {
    apt-cache search --names-only "^linux-image-${1//./\\.}\..*-cloud-amd64$" | cut -d' ' -f1 | sort -V | tail -n 1
}

fetch() {
    local series=$1 package base release
    package=$(newest "$series")
    if [ -z "$package" ]; then
        # The lists are not there on a new machine.
        if [ "$(id -u)" = 0 ]; then apt-get update -qq >&2; else sudo apt-get update -qq >&2; fi
        package=$(newest "$series")
    fi
    if [ -z "$package" ]; then
        say "SKIP: no source of packages offers a kernel $series; what needs it will be skipped"
        return
    fi
    say "fetching $package"
    base=$(mktemp -d "$folder/.$series.XXXXXX")
    # As the one who calls: apt's own user may not write here.
    (cd "$base" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$package" >&2)
    dpkg-deb -x "$base"/*.deb "$base/root"
    release=${package#linux-image-}
    # Once here, and not in each guest at each load.
    find "$base/root/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r xz -d
    depmod -b "$base/root" "$release"
    # At once whole, or not there.
    mv -T "$base/root" "$folder/$series"
    rm -rf "$base"
}

if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get > /dev/null; then
    say "SKIP: guests are x86_64 machines with Debian's kernels; this is not a Debian on x86_64"
    exit 0
fi
mkdir -p "$folder"
for series in "$@"; do
    [ -e "$folder/$series" ] || fetch "$series"
done
