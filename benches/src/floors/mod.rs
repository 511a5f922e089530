//! What must hold: each floor that the product has set itself, measured and compared.
//!
//! A *floor* is a figure with two bounds: what must hold, and what we aim at. [`table`] lists them;
//! every other file here measures some.

mod append;
mod big;
mod catch_up;
mod history;
mod lag;
mod latency;
mod leader;
mod table;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use self::table::{Figures, Floor};

/// What to measure and where to write.
#[derive(Debug, Clone, Args)]
pub struct FloorsArgs {
    /// Measure these rows only, by their names
    #[arg(long, value_delimiter = ',', value_parser = table::names())]
    pub only: Vec<String>,
    /// How often each is measured; the middle counts. What loads `--events` is measured once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: u16,
    /// How long those that write for a time do
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Events behind `start`, `memory` and `size`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(20_000..=1_000_000_000))]
    pub events: u64,
    /// Streams that they are of [default: a tenth as many]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub streams: Option<u64>,
    /// Where the data folders go, and which disk is measured [default: the system's temporary folder]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Markdown file whose table is replaced; rows not measured stay [default: standard output]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// One figure of one round.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    /// The name of the floor.
    row: &'static str,
    value: f64,
    /// What else is to be known of it.
    note: String,
}

impl Figure {
    fn new(row: &'static str, value: f64) -> Self {
        Self { row, value, note: String::new() }
    }
}

/// What yields the figures of some floors in one go.
#[derive(Debug, Clone, Copy)]
enum Case {
    Append(append::Shape),
    History,
    Leader,
    Latency,
    Lag,
    CatchUp,
    Big,
}

/// In the order of the table.
const CASES: [Case; 11] = [
    Case::Append(append::BATCHES_1X1),
    Case::Append(append::BATCHES_1X3),
    Case::Append(append::SINGLES_1X1),
    Case::Append(append::SINGLES_1X3),
    Case::Append(append::REGIONS_3X1),
    Case::History,
    Case::Leader,
    Case::Latency,
    Case::Lag,
    Case::CatchUp,
    Case::Big,
];

impl Case {
    fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Append(shape) => shape.rows,
            Self::History => &history::ROWS,
            Self::Leader => &[leader::ROW],
            Self::Latency => &[latency::ROW],
            Self::Lag => &lag::ROWS,
            Self::CatchUp => &[catch_up::ROW],
            Self::Big => &big::ROWS,
        }
    }
    /// How often to begin it: some go through all rounds themselves.
    fn times(self, args: &FloorsArgs) -> u16 {
        match self {
            Self::Leader | Self::Big => 1,
            _ => args.rounds,
        }
    }
    async fn measure(self, args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Append(shape) => append::measure(shape, args).await,
            Self::History => history::measure(args).await,
            Self::Leader => leader::measure(args).await,
            Self::Latency => latency::measure(args).await,
            Self::Lag => lag::measure(args).await,
            Self::CatchUp => catch_up::measure(args).await,
            Self::Big => big::measure(args).await,
        }
    }
}

/// Measures, and writes the table.
///
/// # Errors
/// Anything that fails: a measurement with errors in it is none.
pub async fn run(args: &FloorsArgs) -> anyhow::Result<()> {
    let wanted = |row: &str| args.only.is_empty() || args.only.iter().any(|name| name == row);
    let mut lines = Vec::new();
    for case in CASES {
        let rows: Vec<&str> = case.rows().iter().copied().filter(|row| wanted(row)).collect();
        if rows.is_empty() {
            continue;
        }
        let mut figures = Vec::new();
        for round in 1..=case.times(args) {
            eprintln!("{}, {round} of {}", rows.join(", "), case.times(args));
            figures.extend(case.measure(args).await?);
        }
        for row in rows {
            let of_row = Figures::of(row, &figures);
            ensure!(!of_row.is_empty(), "{row} was not measured");
            let line = Floor::named(row)?.line(&of_row);
            eprintln!("{line}");
            lines.push(line);
        }
    }
    match &args.out {
        None => print!("{}", table::table(&lines)),
        Some(path) => {
            let old = std::fs::read_to_string(path).unwrap_or_default();
            std::fs::write(path, table::replaced(&old, &lines))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_is_measured_by_one_case() {
        let mut measured: Vec<_> = CASES.iter().flat_map(|case| case.rows()).copied().collect();
        let mut listed: Vec<_> = table::FLOORS.iter().map(|floor| floor.name).collect();
        measured.sort_unstable();
        listed.sort_unstable();
        assert_eq!(measured, listed);
    }

    #[test]
    fn rows_are_picked_by_names_that_exist() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            floors: FloorsArgs,
        }
        let parse =
            |only: &str| <Program as clap::Parser>::try_parse_from(["floors", "--only", only]);
        let picked = parse("disk,lag").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(picked.floors.only, ["disk", "lag"]);
        assert!(parse("disk,speed").is_err());
    }
}
