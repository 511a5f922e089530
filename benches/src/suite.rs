//! All cases of RESULTS.md, one after the other, as a markdown table.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::load::{self, LoadArgs, Measured};

/// (regions, nodes in each).
const SHAPES: [(u16, u16); 3] = [(1, 1), (1, 3), (3, 3)];
/// Events in one append.
const BATCHES: [u16; 3] = [1, 100, 1000];

/// What to run and where to write.
#[derive(Debug, Clone, Args)]
pub struct SuiteArgs {
    /// How long each case writes
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Where the data folders go, and which disk is measured [default: the system's temporary folder]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Markdown file to write; what stands there above the tables is kept [default: standard output]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Everything in the file below this line is replaced.
const BELOW: &str = "<!-- written by `anabranch-bench suite` -->";

/// Runs all cases.
///
/// # Errors
/// The first case that fails.
pub async fn run(args: &SuiteArgs) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    for (regions, nodes) in SHAPES {
        for batch in BATCHES {
            let case = case(args, regions, nodes, batch);
            eprintln!("{}", case.command());
            let result = load::run(&case).await?;
            eprint!("{result}");
            measured.push((case, result));
        }
    }
    let tables = tables(&measured);
    match &args.out {
        None => print!("{tables}"),
        Some(path) => {
            let old = std::fs::read_to_string(path).unwrap_or_default();
            std::fs::write(path, below(&old, &tables))?;
        }
    }
    Ok(())
}

fn case(args: &SuiteArgs, regions: u16, nodes: u16, batch: u16) -> LoadArgs {
    // Enough on their way to fill groups, few enough that a batch of 1000 is not a queue of seconds.
    let clients = if batch == 1 { 64 } else { 8 };
    LoadArgs {
        regions,
        nodes,
        batch,
        clients,
        payload: 256,
        shared: false,
        seconds: args.seconds,
        endpoint: Vec::new(),
        data: args.data.clone(),
    }
}

/// The file with the tables below its marker; what was above it stays.
fn below(old: &str, tables: &str) -> String {
    let above = old.split(BELOW).next().unwrap_or_default().trim_end();
    format!("{above}\n\n{BELOW}\n{tables}").trim_start().to_owned()
}

fn tables(measured: &[(LoadArgs, Measured)]) -> String {
    let mut text = String::new();
    let mut line = |cells: &str| writeln!(text, "{cells}").expect("writing to a string");
    line("\n### Append\n");
    line(
        "| regions × nodes | batch | clients | events/s | p50 ms | p99 ms | CPU µs/event | fdatasync/s | plain file events/s | of plain file | plain CPU µs/event | settling s |",
    );
    line("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (case, m) in measured {
        let ms = |q| m.written.latency.value_at_quantile(q) as f64 / 1e3;
        line(&format!(
            "| {} × {} | {} | {} | {:.0} | {:.2} | {:.2} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            case.regions,
            case.nodes,
            case.batch,
            u32::from(case.clients) * u32::from(case.regions),
            m.rate(),
            ms(0.5),
            ms(0.99),
            m.append_cpu_us,
            m.baseline.syncs,
            m.baseline.plain,
            m.rate() / m.baseline.plain,
            m.baseline.plain_cpu_us,
            m.settling.as_secs_f64(),
        ));
    }
    line("\n### Replay and end-to-end lag\n");
    line(
        "| regions × nodes | batch | regional events/s | CPU µs/event | global events/s | CPU µs/event | lag p50 / p99 ms, regional | global |",
    );
    line("|---|---|---|---|---|---|---|---|");
    for (case, m) in measured {
        let ms = |lag: &hdrhistogram::Histogram<u64>, q| lag.value_at_quantile(q) as f64 / 1e3;
        line(&format!(
            "| {} × {} | {} | {:.0} | {} | {:.0} | {} | {:.1} / {:.1} | {:.1} / {:.1} |",
            case.regions,
            case.nodes,
            case.batch,
            m.regional.rate,
            m.regional.cpu_us,
            m.global.rate,
            m.global.cpu_us,
            ms(&m.lag.regional, 0.5),
            ms(&m.lag.regional, 0.99),
            ms(&m.lag.global, 0.5),
            ms(&m.lag.global, 0.99),
        ));
    }
    line("\n### The command of each row\n");
    line("```sh");
    for (case, _) in measured {
        line(&format!("cargo run --release -p anabranch-bench -- {}", case.command()));
    }
    line("```");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_replaces_the_tables_and_keeps_the_words_above() {
        let first = below("# Results\n\nWords.\n", "\nold\n");
        let second = below(&first, "\nnew\n");
        assert_eq!(second, format!("# Results\n\nWords.\n\n{BELOW}\n\nnew\n"));
        assert_eq!(below("", "\nnew\n"), format!("{BELOW}\n\nnew\n"));
    }

    #[test]
    fn the_command_of_a_row_is_one_that_the_program_takes() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(subcommand)]
            what: What,
        }
        #[derive(clap::Subcommand)]
        enum What {
            Load(LoadArgs),
        }
        let suite = SuiteArgs { seconds: 7, data: None, out: None };
        let case = case(&suite, 3, 3, 1000);
        let words = format!("bench {}", case.command());
        let parsed = <Program as clap::Parser>::try_parse_from(words.split_ascii_whitespace());
        let Program { what: What::Load(parsed) } = parsed.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parsed.command(), case.command());
        assert_eq!((parsed.regions, parsed.batch, parsed.seconds), (3, 1000, 7));
    }
}
