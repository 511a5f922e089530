#!/usr/bin/env python3
"""Stands in for `cargo` under cargo-deny 0.14.

It reads package ids of the form `name version (source)`; cargo writes `source#name@version`
since 1.77. This runs the real cargo and writes its ids the old way. Only
`cargo metadata` is ever asked for. See scripts/deny.sh.
"""
import json
import os
import subprocess
import sys


def old_id(package):
    source = package["source"] or "path+file://" + os.path.dirname(package["manifest_path"])
    return f"{package['name']} {package['version']} ({source})"


def main():
    cargo = os.environ.get("REAL_CARGO", "cargo")
    run = subprocess.run([cargo, *sys.argv[1:]], stdout=subprocess.PIPE, check=False)
    if run.returncode != 0 or "metadata" not in sys.argv:
        sys.stdout.buffer.write(run.stdout)
        return run.returncode
    meta = json.loads(run.stdout)
    ids = {package["id"]: old_id(package) for package in meta["packages"]}
    assert len(set(ids.values())) == len(ids), "two packages under one name, version and source"
    for package in meta["packages"]:
        package["id"] = ids[package["id"]]
    for key in ("workspace_members", "workspace_default_members"):
        meta[key] = [ids[package] for package in meta.get(key, [])]
    resolve = meta.get("resolve")
    for node in resolve["nodes"] if resolve else []:
        node["id"] = ids[node["id"]]
        node["dependencies"] = [ids[package] for package in node["dependencies"]]
        for dependency in node["deps"]:
            dependency["pkg"] = ids[dependency["pkg"]]
    if resolve and resolve.get("root"):
        resolve["root"] = ids[resolve["root"]]
    json.dump(meta, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
