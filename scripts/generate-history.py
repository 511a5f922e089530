#!/usr/bin/env python3
"""Writes a file of events for `anabranch demo --input`, to standard output.

Newline-delimited JSON: region, stream, type, time, data. The same arguments give the same
bytes.

    scripts/generate-history.py --events 20000 > events.ndjson
"""
import argparse
import json
import random
import sys

REGIONS = ("americas", "asia", "europe")
TYPES = ("ItemAdded", "ItemRemoved", "CheckedOut")
START = 1_767_225_600  # 2026, in seconds since the Unix epoch


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--streams", type=int, default=2_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    rng = random.Random(given.seed)
    time = START
    for nth in range(given.events):
        time += rng.randrange(5)
        event = {
            "region": rng.choice(REGIONS),
            "stream": f"cart-{rng.randrange(given.streams)}",
            "type": rng.choice(TYPES),
            "time": time,
            "data": {"nth": nth, "amount": rng.randrange(1, 100), "note": "x" * rng.randrange(200)},
        }
        json.dump(event, sys.stdout, separators=(",", ":"))
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
