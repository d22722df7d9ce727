#!/usr/bin/env bash
# Installs what a target of the Makefile needs and this machine (Debian 12 or later, or Ubuntu) does not have.
#
#   tests/setup.sh build|lab|test|e2e|lint|bench
#
# Looks for the tools themselves, so a machine that has them from elsewhere is left alone: then nothing is installed and
# no password asked. Says what it installs. Everything it says goes to stderr, as stdout belongs to the target.
set -euo pipefail

target=${1:?usage: tests/setup.sh build|lab|test|e2e|lint|bench}

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

packages=()
# need PACKAGE PROBE: the package is missing unless PROBE is a command, or a file if it begins with a slash.
need() {
    case $2 in
    /*) [ -e "$2" ] || packages+=("$1") ;;
    *) command -v "$2" > /dev/null || packages+=("$1") ;;
    esac
}

# Debian keeps the tools of the administrator where the path of other users does not lead.
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

need_build() {
    need gcc cc
    need libc6-dev /usr/include/stdio.h
    need musl-tools musl-gcc
    need protobuf-compiler protoc
    need libprotobuf-dev /usr/include/google/protobuf/any.proto
    if ! command -v cargo > /dev/null; then
        need ca-certificates /etc/ssl/certs/ca-certificates.crt
        need curl curl
    fi
}

need_lab() {
    need iproute2 ip
    need etcd-server etcd
}

# What boots a guest and unpacks its kernel, and the witnesses that go along.
need_guest() {
    [ "$(uname -m)" = x86_64 ] || return 0
    need qemu-system-x86 qemu-system-x86_64
    need kmod depmod
    need xz-utils xz
    need util-linux setpriv
    need ipvsadm ipvsadm
    need wireguard-tools wg
    need conntrack conntrack
}

need_runtime() {
    need nftables nft
    need containernetworking-plugins /usr/lib/cni/bridge
    need containerd containerd
    need runc runc
}

# The keys of a control plane, and what scripts of upstream's tests call in their pods.
need_e2e() {
    need openssl openssl
    need curl curl
    need bind9-dnsutils dig
    need netcat-openbsd nc.openbsd
    # Images of pods that need a shell.
    need busybox-static busybox
}

case $target in
build | lint) need_build ;;
lab) need_build && need_lab ;;
test)
    need_build && need_lab && need_runtime
    need strace strace
    need openssl openssl
    # What others leave in a kernel, for weft to read and to clear away.
    need iptables iptables
    need ipset ipset
    need_guest
    ;;
e2e) need_build && need_lab && need_runtime && need_e2e ;;
bench)
    need_build && need_lab && need_runtime
    need strace strace
    need iperf3 iperf3
    ;;
*) die "unknown target $target" ;;
esac

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get > /dev/null || die "missing: ${packages[*]} (Debian's names); there is no apt-get to install them with"
    sudo=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || die "missing: ${packages[*]}; run as root, or install sudo or these packages"
        sudo=(sudo)
    fi
    say "installing ${packages[*]}"

    # etcd-server would start an etcd of its own, and containerd a containerd. invoke-rc.d asks this file, and 101 means: do not.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        # Also when the installation fails or is interrupted.
        trap '"${sudo[@]}" rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy > /dev/null
        "${sudo[@]}" chmod 755 $policy
    fi
    "${sudo[@]}" apt-get update -qq >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2
    case " ${packages[*]} " in
    *" etcd-server "*)
        # Nor at the next boot.
        if command -v systemctl > /dev/null; then "${sudo[@]}" systemctl disable --quiet etcd.service >&2 || true; fi
        ;;
    esac
    case " ${packages[*]} " in
    *" containerd "*)
        if command -v systemctl > /dev/null; then "${sudo[@]}" systemctl disable --quiet containerd.service >&2 || true; fi
        ;;
    esac
fi

if ! command -v cargo > /dev/null; then
    say "installing Rust for $(id -un) by rustup, into $HOME/.cargo and $HOME/.rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path >&2
fi

if command -v rustup > /dev/null; then
    musl=$(uname -m)-unknown-linux-musl
    rustup target list --installed | grep -qx "$musl" || rustup target add "$musl" >&2
    if [ "$target" = lint ]; then
        rustup component list --installed | grep -q '^clippy' || rustup component add clippy >&2
        rustup component list --installed | grep -q '^rustfmt' || rustup component add rustfmt >&2
    fi
fi

if [ "$target" = test ]; then "$(dirname "$0")/guest-kernels.sh" 6.1 6.12; fi
