#!/usr/bin/env bash
# Fails if a crate that the customer named is not used by what we ship: a dependency of weft or weft-cni, and in their code.
set -euo pipefail
cd "$(dirname "$0")/.."

shipped=$(cargo tree --locked --package weft --package weft-cni --edges normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u)
missing=()
for crate in tokio rtnetlink netlink-packet-route ipnetwork etcd-client serde_json nix; do
    grep -qx "$crate" <<< "$shipped" && grep -rqE "\b${crate//-/_}::" netlink/src cni-plugin/src daemon/src || missing+=("$crate")
done
[ ${#missing[@]} = 0 ] || { echo "not used: ${missing[*]}" >&2; exit 1; }
