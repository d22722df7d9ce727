#!/usr/bin/env bash
# Runs all tests of the workspace and sums up: the last line is `N passed, N failed, N skipped`.
#
# cargo runs as you, the test binaries as root. A test that skips itself counts as skipped, not as passed. Arguments go to
# cargo test. WEFT_SUMMARY names a file that gets the last line too.
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
    "${sudo[@]}" rm -f "$log" "$skips"
}
trap sweep EXIT

if [ "$(id -u)" != 0 ]; then
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env=WEFT_BIN_DIR,WEFT_SKIP_LOG,RUST_BACKTRACE"
fi

cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

summary=$(awk -v skipped="$(wc -l < "$skips")" '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d passed, %d failed, %d skipped", passed - skipped, failed, skipped + ignored }' "$log")
if [ -s "$skips" ]; then
    echo
    cat "$skips"
fi
[ -z "${WEFT_SUMMARY:-}" ] || echo "$summary" > "$WEFT_SUMMARY"
echo
echo "$summary"
exit "$status"
