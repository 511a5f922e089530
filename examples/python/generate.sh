#!/usr/bin/env bash
# Makes the example's surroundings, outside of the sources: a virtual environment with the packages
# of requirements.txt, and the stubs of proto/. Prints the interpreter to run the example with.
#
#     examples/python/generate.sh [FOLDER]        FOLDER defaults to target/python
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=${1:-$top/target/python}

mkdir -p "$build/stubs"
[ -x "$build/venv/bin/python" ] || python3 -m venv "$build/venv" >&2
if ! cmp -s "$here/requirements.txt" "$build/installed.txt"; then
    "$build/venv/bin/pip" install --quiet --requirement "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$build/installed.txt"
fi

"$build/venv/bin/python" -m grpc_tools.protoc \
    --proto_path="$top/proto" \
    --python_out="$build/stubs" \
    --grpc_python_out="$build/stubs" \
    "$top"/proto/anabranch/v1/*.proto >&2
echo "$build/venv/bin/python"
