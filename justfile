# The project's commands. `just` itself: `pip install rust-just`.

# Lists the commands.
default:
    @just --list --unsorted

# Everything that must hold before a change is handed in. Never writes to the sources.
verify: fmt-check clippy deny doc test

# Writes what can be written by machine: formatting and clippy's sure suggestions.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Formatting.
fmt-check:
    cargo fmt --all --check

# Lints, none tolerated.
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, sources, bans, duplicates; advisories where their database can be reached.
deny:
    scripts/deny.sh

# The documentation of our crates, without a broken link.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# All tests.
test:
    cargo test --workspace

# Functions and files that grew past 70 and 600 lines since `base`.
tidy base="main":
    scripts/tidy.py {{base}}

# Three regions of three nodes on this machine: cut, killed, healed, compared.
demo *args:
    cargo run --release -- demo {{args}}

# Tortures real processes and checks what was promised: `just harness --minutes 5 --seed 1`.
harness *args:
    cargo run --release -p anabranch-harness -- {{args}}

# Simulates whole clusters under faults: `just sim --seed 7`, `just sim --seeds 1..200`.
sim *args:
    cargo run --release -p anabranch-sim -- {{args}}

# Puts every known bug back, one after the other: the simulation must find it.
bugs:
    cargo run --release -p anabranch-sim --features planted-bugs -- --bugs --seeds 1..51

# Criterion benches of core and log, and the load generator's matrix into benches/RESULTS.md.
bench:
    cargo bench -p anabranch-bench
    cargo run --release -p anabranch-bench -- suite --out benches/RESULTS.md

# Other stores beside Anabranch, by turns, into benches/RESULTS.md: about 25 minutes.
compare:
    benches/peers.sh
    cargo run --release -p anabranch-bench -- compare --out benches/RESULTS.md

# The Python example against a demo of its own.
python:
    scripts/python-example.sh

# What CI runs.
ci:
    .ci/run
