#!/usr/bin/env bash
# Runs all tests of the workspace and sums up: the last line is `N passed, N failed, N skipped`.
#
# cargo runs as you, the test binaries as root. A test that skips itself counts as skipped, not as passed. Arguments go to
# cargo test, and then nothing runs in guests (tests/guest.sh does that). WEFT_SUMMARY names a file that gets the last line too.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

log=$(mktemp)
skips=$(mktemp)
export WEFT_SKIP_LOG=$skips
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

# What tests that were killed could not remove themselves: namespaces and labs are named after the test process.
sweep() {
    local path name pid
    for path in /run/netns/wt*x* /run/weft-lab/wt*x*; do
        [ -e "$path" ] || continue
        name=${path##*/}
        pid=${name#wt}
        pid=${pid%%x*}
        [ -d "/proc/$pid" ] && continue
        echo "tests left behind: $path" >&2
        case $path in
        /run/netns/*)
            ip netns pids "$name" 2> /dev/null | xargs -r "${sudo[@]}" kill -9
            "${sudo[@]}" ip netns delete "$name"
            ;;
        *) "${sudo[@]}" rm -rf "$path" ;;
        esac
    done
    # Of machines (tests/src/node): control groups of their names.
    for path in /sys/fs/cgroup/*/wt*x*-n*; do
        [ -d "$path" ] || continue
        name=${path##*/wt}
        [ -d "/proc/${name%%x*}" ] || "${sudo[@]}" find "$path" -depth -type d -exec rmdir {} +
    done
    "${sudo[@]}" rm -f "$log" "$skips"
}
trap sweep EXIT

if [ "$(id -u)" != 0 ]; then
    # For the test that asks cargo what the image is made of: root's cargo would fetch everything again.
    export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env=CARGO_HOME,WEFT_BIN_DIR,WEFT_PEERS,WEFT_E2E_OUTAGE,WEFT_E2E_REPORTS,WEFT_SKIP_LOG,WEFT_TEST_OUTAGES,WEFT_CHAOS_NODES,WEFT_CHAOS_SECONDS,WEFT_CHAOS_SEED,RUST_BACKTRACE"
fi

# Features of all packages together are a build of its own: whoever names a package has that alone.
scope=--workspace
[ "${1:-}" != --package ] || scope=
cargo test --locked $scope --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# The tests that need another kernel, on each of those that there are. None that passed is a failure, too.
absent=0
guests() {
    local kernel begin ran tests
    ran=$(mktemp)
    for kernel in 6.1 6.12; do
        if [ ! -e "${WEFT_GUEST_DIR:-${CARGO_TARGET_DIR:-target}/guest}/$kernel" ]; then
            echo "SKIP: all tests in guests with a kernel $kernel: there is no such kernel, see tests/guest-kernels.sh" >> "$skips"
            absent=$((absent + 1))
            continue
        fi
        tests=(--test 'guest*')
        # Services packet by packet take minutes, and what differs between kernels is below them.
        [ "$kernel" = 6.1 ] || tests=(--test guest_smoke --test guest_nft --test guest_ipvs --test guest_wireguard)
        begin=$SECONDS
        echo "   Guest kernel $kernel"
        # An emulated processor is slow, and a busy machine makes it slower: the limit is there for what hangs.
        WEFT_GUEST_LIMIT=${WEFT_GUEST_LIMIT:-900} WEFT_GUEST_KERNEL=$kernel tests/guest.sh --package weft-netlink --package weft --package weft-tests --features guest \
            "${tests[@]}" 2>&1 | tee "$ran" | tee -a "$log"
        [ "${PIPESTATUS[0]}" = 0 ] || status=1
        if ! grep -q '^test result: .* [1-9][0-9]* passed' "$ran"; then
            echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; no test passed in guest $kernel" | tee -a "$log"
            status=1
        fi
        echo "   Guest kernel $kernel: $((SECONDS - begin)) s"
    done
    rm -f "$ran"
}
[ $# -gt 0 ] || guests

summary=$(awk -v skipped="$(wc -l < "$skips")" -v absent=$absent '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d passed, %d failed, %d skipped", passed - (skipped - absent), failed, skipped + ignored }' "$log")
if [ -s "$skips" ]; then
    echo
    cat "$skips"
fi
[ -z "${WEFT_SUMMARY:-}" ] || echo "$summary" > "$WEFT_SUMMARY"
echo
echo "$summary"
exit "$status"
