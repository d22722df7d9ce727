#!/usr/bin/env bash
# `weft-bench services --mode ipvs` in a guest, whose kernel has IPVS. See README.md.
#
#   WEFT_PEERS=FOLDER [WEFT_GUEST_KERNEL=6.12] bench/guest.sh [arguments of `weft-bench services` in place of those below]
#
# FOLDER holds kube-proxy, which in this mode runs iptables and ipset: both have to be installed. weft and weft-bench have
# to be built (make build; cargo build -p weft-bench). No root needed.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# In a guest /tmp is empty, so nothing of the guest may come from there.
peers=$out/guest-peers
install -D "${WEFT_PEERS:?has to name the folder that holds kube-proxy}/kube-proxy" "$peers/kube-proxy"
bench=${WEFT_BENCH:-$out/quick/weft-bench}
cargo build --locked --quiet --target x86_64-unknown-linux-musl --package weft-tests --bin weft-guest

# A plugin is a library that iptables looks for by itself, so that nothing names it as needed.
programs=("$peers/kube-proxy" ipset)
for name in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
    programs+=("$name")
done
programs+=(/usr/lib/x86_64-linux-gnu/xtables/lib{xt,ipt,ip6t}_*.so)

export WEFT_GUEST_PROGRAMS="${programs[*]}" WEFT_GUEST_MEMORY="${WEFT_GUEST_MEMORY:-3072}" WEFT_GUEST_LIMIT="${WEFT_GUEST_LIMIT:-1800}"
# An emulated processor is slow, and kube-proxy runs a program for each address: more Services would take it an hour.
[ $# -gt 0 ] || set -- --shapes 100x4 --rounds 1 --changes 10 --limit 600
exec "$out/x86_64-unknown-linux-musl/debug/weft-guest" "$bench" services --mode ipvs --peers "$peers" "$@"
