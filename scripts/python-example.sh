#!/usr/bin/env bash
# Runs examples/python/tour.py against a demo of its own, and ends the demo.
#
# Needs target/release/anabranch (`cargo build --release`), or another one in $ANABRANCH.
set -euo pipefail
cd "$(dirname "$0")/.."

ready_within=120 # seconds
python=$(examples/python/generate.sh)
out=$(mktemp -d)

"${ANABRANCH:-target/release/anabranch}" demo --serve --seconds 0 >"$out/demo" 2>&1 &
demo=$!
finish() {
    kill -INT "$demo" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$demo" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$demo" 2>/dev/null || true
    rm -rf "$out"
}
trap finish EXIT

# The first node of each region, from the lines `  region  http://node http://node ...`.
endpoints() {
    sed -nE 's#^ +[a-z0-9-]+ +(http://[0-9.]+:[0-9]+)( http.*)?$#\1#p' "$out/demo"
}

for ((waited = 0; waited < ready_within * 10; waited++)); do
    if ! kill -0 "$demo" 2>/dev/null; then
        cat "$out/demo"
        echo "the demo ended before it served" >&2
        exit 1
    fi
    [ "$(endpoints | wc -l)" -ge 2 ] && break
    sleep 0.1
done
mapfile -t nodes < <(endpoints)
if [ "${#nodes[@]}" -lt 2 ]; then
    cat "$out/demo"
    echo "the demo named no endpoints within $ready_within s" >&2
    exit 1
fi

echo "tour: ${nodes[0]} and ${nodes[1]}"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=target/python/stubs \
    "$python" examples/python/tour.py --endpoint "${nodes[0]}" --other "${nodes[1]}"
