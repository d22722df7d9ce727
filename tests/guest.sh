#!/usr/bin/env bash
# Runs tests in a guest: cargo test, on another kernel. See CONTRIBUTING.md.
#
#   [WEFT_GUEST_KERNEL=6.12] tests/guest.sh -p weft-netlink --test guest_ipvs [-- FILTER]
#
# All arguments go to cargo test. No root needed: in the guest everything is root.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-musl
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/$target
# Small: all of it is unpacked into the guest's memory at each boot. A panic says its line all the same.
export CARGO_PROFILE_DEV_DEBUG=none CARGO_PROFILE_DEV_STRIP=debuginfo
cargo build --locked --quiet --target $target --package weft-tests --bin weft-guest

export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUNNER=$out/debug/weft-guest
exec cargo test --locked --no-fail-fast --target $target "$@"
