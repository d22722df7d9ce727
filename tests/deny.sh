#!/usr/bin/env bash
# cargo-deny over the dependencies: bans, licenses and sources must be clean. Advisories too, where their database can be
# reached; where it cannot, that is said aloud and does not fail.
#
#   tests/deny.sh TARGET_DIR
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${1:?usage: tests/deny.sh TARGET_DIR}/tools
if command -v cargo-deny > /dev/null; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    # Unoptimised: it runs for a second, and is built on every fresh machine.
    [ -x "$deny" ] || cargo install --quiet --locked --debug --root "$tools" cargo-deny
fi

"$deny" --locked check bans licenses sources

said=$(mktemp)
trap 'rm -f "$said"' EXIT
if "$deny" --locked check advisories > "$said" 2>&1; then
    cat "$said"
elif grep -qE 'failed to (fetch|clone|load|open|acquire)[^:]*advisor|failed to fetch|git operation|unable to update' "$said"; then
    echo "SKIP: advisories: the database cannot be reached: $(grep -m 1 -iE 'fail|unable' "$said")" >&2
else
    cat "$said" >&2
    exit 1
fi
