//! What folding costs, by type of field, beside the bare `crdts` crate doing the same operations.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anabranch_core::aggregate::{Definition, EVENT_TYPE, Input, Origins, State};
use anabranch_core::{Context, Dot, Incarnation, Origin, RegionName, Seq, ShardId, Stamp};
use clap::Args;
use crdts::{CmRDT, Orswot, PNCounter};
use serde_json::json;

/// How much to fold.
#[derive(Debug, Args)]
pub struct AggregatesArgs {
    /// Operations of each type.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// Different members, keys and elements.
    #[arg(long, default_value_t = 1_000)]
    members: u64,
}

/// A field, its type, and what operation number `n` of `members` does to it.
type Case = (&'static str, &'static str, fn(u64, u64) -> String);

const CASES: [Case; 10] = [
    ("g-counter", "g-counter", |_, _| r#""do":"increment","by":3"#.into()),
    ("pn-counter", "pn-counter", |n, _| format!(r#""do":"increment","by":{}"#, n as i64 % 7 - 3)),
    ("max", "max", |n, _| format!(r#""do":"offer","value":{}"#, n % 1_000)),
    ("lww-register", "lww-register", |n, _| format!(r#""do":"set","value":{n}"#)),
    ("mv-register", "mv-register", |n, _| format!(r#""do":"set","value":{n}"#)),
    ("g-set", "g-set", |n, members| format!(r#""do":"add","value":{}"#, n % members)),
    ("or-set, add and remove", "or-set", |n, members| {
        // Each member is added, and removed before it is added again.
        let does = if n.is_multiple_of(2) { "add" } else { "remove" };
        format!(r#""do":"{does}","value":{}"#, n / 2 % members)
    }),
    ("flag", "flag", |n, _| format!(r#""do":"{}""#, ["enable", "disable"][n as usize % 2])),
    ("map of pn-counter", "map of pn-counter", |n, members| {
        format!(r#""key":"{}","do":"increment""#, n % members)
    }),
    ("or-set, add", "or-set", |n, members| format!(r#""do":"add","value":{}"#, n % members)),
];

/// Measures every type, and returns a table.
///
/// # Errors
/// None of its own; a definition that is none would be a bug here.
pub fn run(args: &AggregatesArgs) -> anyhow::Result<String> {
    let mut table = String::new();
    writeln!(
        table,
        "| field | µs/operation | of that, reading the payload | state, bytes kept | in memory | crdts µs/operation |"
    )?;
    writeln!(table, "|---|---|---|---|---|---|")?;
    for (name, kind, operation) in CASES {
        let definition = Definition::from_json(
            &json!({ "category": "c", "version": 1, "fields": { "f": kind } }),
        )?;
        let payloads: Vec<String> = (0..args.operations)
            .map(|n| format!(r#"{{"do":[{{"field":"f",{}}}]}}"#, operation(n, args.members)))
            .collect();
        let (folding, state) = fold(&definition, &payloads)?;
        let reading = parse(&payloads)?;
        let mut kept = Vec::new();
        state.encode(&mut kept);
        let bare = bare(name, args).map_or("".into(), |took| per(took, args.operations));
        writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {bare} |",
            per(folding, args.operations),
            per(reading, args.operations),
            kept.len(),
            state.memory(),
        )?;
    }
    Ok(table)
}

fn per(took: Duration, operations: u64) -> String {
    format!("{:.2}", took.as_secs_f64() * 1e6 / operations as f64)
}

/// Events of two regions in turn; of the last hundred, not every region has said that it holds them.
fn fold(definition: &Definition, payloads: &[String]) -> anyhow::Result<(Duration, State)> {
    let origins: Vec<Origin> = ["eu", "us"]
        .map(|region| Origin {
            region: RegionName::new(region).expect("a label"),
            incarnation: Incarnation(1),
            shard: ShardId(0),
        })
        .into();
    let (mut state, mut shared) = (State::new(definition), Origins::default());
    let (mut held, mut stable) = (Context::new(), Context::new());
    let began = Instant::now();
    for (n, payload) in (0_u64..).zip(payloads) {
        let origin = &origins[n as usize % 2];
        let dot = Dot { origin: origin.clone(), seq: Seq(n / 2 + 1) };
        let input = Input {
            dot: &dot,
            stamp: Stamp(n),
            held: &held,
            identity: u128::from(n),
            stream: "c-1",
            kind: EVENT_TYPE,
            payload: payload.as_bytes(),
        };
        state.apply(definition, &input, &stable, &mut shared)?;
        held.advance(origin, dot.seq);
        stable.advance(origin, Seq(dot.seq.0.saturating_sub(50)));
    }
    let took = began.elapsed();
    state.settle(definition, &held);
    Ok((took, state))
}

fn parse(payloads: &[String]) -> anyhow::Result<Duration> {
    let began = Instant::now();
    for payload in payloads {
        std::hint::black_box(anabranch_core::aggregate::Operations::from_json(payload.as_bytes())?);
    }
    Ok(began.elapsed())
}

/// The same operations, ready made, on the crate's own type, as far as it has one.
fn bare(name: &str, args: &AggregatesArgs) -> Option<Duration> {
    let began;
    match name {
        "pn-counter" => {
            let mut counter = PNCounter::<u8>::new();
            began = Instant::now();
            for n in 0..args.operations {
                let (actor, steps) = ((n % 2) as u8, n % 4);
                let op = if n.is_multiple_of(3) {
                    counter.dec_many(actor, steps)
                } else {
                    counter.inc_many(actor, steps)
                };
                counter.apply(op);
            }
        }
        "or-set, add and remove" => {
            let mut set = Orswot::<u64, u8>::new();
            began = Instant::now();
            for n in 0..args.operations {
                let member = n / 2 % args.members;
                let seen = set.contains(&member);
                let op = match n.is_multiple_of(2) {
                    true => set.add(member, seen.derive_add_ctx((n % 2) as u8)),
                    false => set.rm(member, seen.derive_rm_ctx()),
                };
                set.apply(op);
            }
        }
        "or-set, add" => {
            let mut set = Orswot::<u64, u8>::new();
            began = Instant::now();
            for n in 0..args.operations {
                let member = n % args.members;
                let op = set.add(member, set.contains(&member).derive_add_ctx((n % 2) as u8));
                set.apply(op);
            }
        }
        _ => return None,
    }
    Some(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_folded_and_what_is_removed_takes_no_room() {
        let table = run(&AggregatesArgs { operations: 2_000, members: 10 }).unwrap();
        assert_eq!(table.lines().count(), 2 + CASES.len());
        let kept = |name: &str| -> u64 {
            let row = table.lines().find(|row| row.starts_with(&format!("| {name} |"))).unwrap();
            row.split('|').nth(4).unwrap().trim().parse().unwrap()
        };
        assert!(kept("or-set, add and remove") < 10, "{table}");
        assert!(kept("or-set, add") > 10 * 10, "{table}");
    }
}
