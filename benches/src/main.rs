//! The load generator: `cargo run --release -p anabranch-bench -- --help`.

use anabranch_bench::{aggregates, compare, floors, instructions, load, served, suite};
use clap::{Parser, Subcommand};

/// Measures appends, replays and lag, beside what the disk itself can do.
#[derive(Parser)]
#[command(name = "anabranch-bench", version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One case, against regions in this process or against `--endpoint`.
    Load(load::LoadArgs),
    /// What folding costs, by type of field.
    Aggregates(aggregates::AggregatesArgs),
    /// What very many aggregates cost a node, and how long a read of one takes.
    Served(served::ServedArgs),
    /// What must hold, one figure after the other, beside its bounds.
    Floors(floors::FloorsArgs),
    /// Instructions that a node takes for an event (needs valgrind).
    Instructions(instructions::InstructionsArgs),
    /// All cases of RESULTS.md, written as a table.
    Suite(suite::SuiteArgs),
    /// Other stores beside it, by turns in one run (`benches/peers.sh` fetches them).
    Compare(compare::CompareArgs),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match Args::parse().what {
            What::Load(args) => {
                let measured = load::run(&args).await?;
                print!("{measured}");
                Ok(())
            }
            What::Aggregates(args) => {
                print!("{}", aggregates::run(&args)?);
                Ok(())
            }
            What::Served(args) => {
                print!("{}", served::run(&args).await?);
                Ok(())
            }
            What::Instructions(args) => {
                print!("{}", instructions::run(&args).await?);
                Ok(())
            }
            What::Floors(args) => floors::run(&args).await,
            What::Suite(args) => suite::run(&args).await,
            What::Compare(args) => compare::run(&args).await,
        }
    })
}
