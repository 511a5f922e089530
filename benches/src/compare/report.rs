//! What was measured, as tables and plots.

mod floors;
mod plots;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::append::{Appends, Turn};
use super::case::Shape;
use super::catch_up::CatchUps;
use super::history::{History, PAYLOAD};
use super::lag::Lags;
use super::loss::Losses;
use crate::catch_up::CaughtUp;
use crate::spread::{Spread, short};

/// What lies between these two lines of the file is written anew.
const BEGIN: &str = "<!-- written by `anabranch-bench compare` -->";
const END: &str = "<!-- end of what `anabranch-bench compare` writes -->";
/// Where the section goes in a file that has none: above this line, or at the end.
const ABOVE: &str = "## Whole system";

/// Everything of one run.
#[derive(Default)]
pub struct Report {
    /// Append cases.
    pub appends: Vec<Appends>,
    /// Long histories.
    pub histories: Vec<History>,
    /// Lag at rest.
    pub lags: Vec<Lags>,
    /// Loss of the leader.
    pub losses: Vec<Losses>,
    /// Sites that were away.
    pub catch_ups: Vec<CatchUps>,
}

/// Whether a peer is Anabranch.
fn is_own(name: &str) -> bool {
    name.starts_with("Anabranch")
}

impl Report {
    /// Prints the tables.
    pub fn print(&self, command: &str) {
        println!("{}", self.tables(command));
    }

    /// Writes tables into the section of `out`, and plots beside it.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, out: &Path, command: &str) -> anyhow::Result<()> {
        let tables = self.tables(command);
        let old = fs::read_to_string(out).unwrap_or_default();
        let mut new = tables;
        let plots = out.parent().unwrap_or(Path::new(".")).join("plots");
        fs::create_dir_all(&plots).context("create a folder for plots")?;
        for (name, title, svg) in plots::all(self) {
            let path = plots.join(format!("{name}.svg"));
            fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
            let _ = write!(new, "\n![{title}](plots/{name}.svg)\n");
        }
        fs::write(out, within(&old, &new)).with_context(|| format!("write {}", out.display()))
    }

    fn tables(&self, command: &str) -> String {
        let mut text =
            format!("\n```sh\ncargo run --release -p anabranch-bench -- {command}\n```\n");
        text += &floors::table(&self.appends);
        for appends in &self.appends {
            text += &append_table(appends);
        }
        text += &history_table(&self.histories);
        text += &lag_table(&self.lags);
        text += &loss_table(&self.losses);
        text += &catch_up_table(&self.catch_ups);
        text
    }
}

/// The file with what the section holds replaced.
fn within(old: &str, new: &str) -> String {
    let section = format!("{BEGIN}\n{new}\n{END}\n");
    if let Some((above, rest)) = old.split_once(BEGIN) {
        let below = rest.split_once(END).map_or("", |(_, below)| below);
        return format!("{above}{section}{}", below.strip_prefix('\n').unwrap_or(below));
    }
    match old.split_once(ABOVE) {
        Some((above, below)) => format!("{above}{section}\n{ABOVE}{below}"),
        None => format!("{old}\n{section}"),
    }
}

/// A row of cells.
fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, cells: &[&str]) {
    row(text, &cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    let _ = writeln!(text, "|{}", "---|".repeat(cells.len()));
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| spread.to_string())
}

fn middle(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| short(spread.median))
}

/// `3 writers` or `1 writer`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A case in words.
fn words(shape: Shape) -> String {
    let Shape { batch, clients, payload } = shape;
    let batch = if batch == 1 { "single events".into() } else { format!("batches of {batch}") };
    format!("{batch}, {}, {payload} B", counted(clients, "client"))
}

/// Turns of Anabranch of as many nodes.
fn own(appends: &Appends, nodes: u16) -> Option<&[Turn]> {
    let own = |(name, of, _): &&(&str, u16, Vec<Turn>)| is_own(name) && *of == nodes;
    appends.peers.iter().find(own).map(|(_, _, turns)| turns.as_slice())
}

/// Of a figure of two peers in the same rounds.
fn ratio(of: &[Turn], to: &[Turn], figure: impl Fn(&Turn) -> f64) -> Option<Spread> {
    Spread::of(of.iter().zip(to).map(|(of, to)| figure(of) / figure(to)))
}

fn append_table(appends: &Appends) -> String {
    let syncs = cell(Spread::of(appends.syncs.iter().copied()));
    let mut text =
        format!("\n### Append: {}\n\nDisk: {syncs} fdatasync/s.\n\n", words(appends.shape));
    head(
        &mut text,
        &[
            "store",
            "nodes",
            "events/s",
            "CPU µs/event, servers",
            "clients",
            "p50 ms",
            "p99 ms",
            "Anabranch's rate ÷ its",
            "its CPU ÷ Anabranch's",
        ],
    );
    for (name, nodes, turns) in &appends.peers {
        let own = own(appends, *nodes).filter(|_| !is_own(name));
        let faster = own.and_then(|own| ratio(own, turns, |turn| turn.rate));
        let leaner = own.and_then(|own| ratio(turns, own, |turn| turn.servers_us));
        row(
            &mut text,
            &[
                (*name).to_owned(),
                nodes.to_string(),
                cell(Spread::by(turns, |turn| turn.rate)),
                cell(Spread::by(turns, |turn| turn.servers_us)),
                middle(Spread::by(turns, |turn| turn.clients_us)),
                middle(Spread::by(turns, |turn| turn.p50_ms)),
                middle(Spread::by(turns, |turn| turn.p99_ms)),
                middle(faster),
                middle(leaner),
            ],
        );
    }
    text
}

fn history_table(histories: &[History]) -> String {
    let mut text = String::new();
    if histories.is_empty() {
        return text;
    }
    let _ = write!(
        text,
        "\n### A history: disk, memory, start after kill -9, replay\n\nPayloads of {PAYLOAD} B.\n\n"
    );
    head(
        &mut text,
        &[
            "store",
            "nodes",
            "disk bytes/event/node",
            "MB/node, written",
            "MB/node, replayed",
            "start s",
            "replay events/s",
            "CPU µs/event, servers",
            "reader",
        ],
    );
    for History { name, nodes, disk, written_mb, starts } in histories {
        let per = f64::from(*nodes);
        row(
            &mut text,
            &[
                (*name).to_owned(),
                nodes.to_string(),
                short(disk / per),
                short(written_mb / per),
                middle(Spread::by(starts, |start| start.mb / per)),
                cell(Spread::by(starts, |start| start.ready_s)),
                cell(Spread::by(starts, |start| start.rate)),
                cell(Spread::by(starts, |start| start.servers_us)),
                middle(Spread::by(starts, |start| start.reader_us)),
            ],
        );
    }
    text
}

fn lag_table(lags: &[Lags]) -> String {
    let mut text = String::new();
    if lags.is_empty() {
        return text;
    }
    text += "\n### From an append to a subscriber\n\n";
    head(&mut text, &["store", "nodes", "p50 ms", "p99 ms"]);
    for Lags { name, nodes, p50_ms, p99_ms } in lags {
        let of = |figures: &[f64]| cell(Spread::of(figures.iter().copied()));
        row(&mut text, &[(*name).to_owned(), nodes.to_string(), of(p50_ms), of(p99_ms)]);
    }
    text
}

fn loss_table(losses: &[Losses]) -> String {
    let mut text = String::new();
    if losses.is_empty() {
        return text;
    }
    text += "\n### From kill -9 of the leader to the next write\n\n";
    head(&mut text, &["store", "nodes", "s"]);
    for Losses { name, nodes, seconds } in losses {
        let seconds = cell(Spread::of(seconds.iter().copied()));
        row(&mut text, &[(*name).to_owned(), nodes.to_string(), seconds]);
    }
    text
}

fn catch_up_table(catch_ups: &[CatchUps]) -> String {
    let mut text = String::new();
    let Some(CatchUps { events, .. }) = catch_ups.first() else { return text };
    let events = short(*events as f64);
    let _ = write!(text, "\n### Catch-up of a second site that missed {events} events\n\n");
    head(&mut text, &["store", "sites", "events/s", "CPU µs/event, servers"]);
    for CatchUps { name, turns, .. } in catch_ups {
        let of = |figure: fn(&CaughtUp) -> f64| cell(Spread::by(turns, figure));
        let cells = [of(CaughtUp::rate), of(CaughtUp::servers_us)];
        row(&mut text, &[&[(*name).to_owned(), "2".to_owned()], &cells[..]].concat());
    }
    text
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;

    pub fn turn(rate: f64, servers_us: f64) -> Turn {
        Turn { rate, servers_us, clients_us: 1.0, p50_ms: 1.0, p99_ms: 2.0 }
    }

    pub fn appends(batch: usize, clients: usize) -> Appends {
        let peers = vec![
            ("Anabranch", 1, vec![turn(20.0, 1.0), turn(40.0, 1.0), turn(60.0, 3.0)]),
            ("UmaDB", 1, vec![turn(10.0, 2.0), turn(10.0, 2.0), turn(10.0, 9.0)]),
            ("NATS R3", 3, vec![turn(5.0, 2.0)]),
        ];
        let shape = Shape { batch, clients, payload: 256 };
        Appends { shape, peers, syncs: vec![100.0, 300.0, 200.0] }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_the_same_number_of_nodes() {
        let table = append_table(&appends(1, 64));
        assert!(table.contains("single events, 64 clients, 256 B"), "{table}");
        assert!(table.contains("200 (100..300) fdatasync/s"), "{table}");
        let row = |name: &str| -> Vec<&str> {
            let row = table.lines().find(|row| row.starts_with(&format!("| {name} |"))).unwrap();
            row.trim_matches('|').split('|').map(str::trim).collect()
        };
        assert_eq!(row("UmaDB")[7..], ["4.00", "2.00"]);
        assert_eq!(row("UmaDB")[3], "2.00 (2.00..9.00)");
        assert_eq!(row("Anabranch")[7..], ["", ""]);
        assert_eq!(row("NATS R3")[7..], ["", ""]);
    }

    #[test]
    fn a_site_that_catches_up_has_a_rate_and_a_cost() {
        let caught = |ms| CaughtUp {
            missed: 1_000,
            took: Duration::from_millis(ms),
            servers: Duration::from_millis(20),
        };
        let turns = vec![caught(100), caught(200), caught(500)];
        let table = catch_up_table(&[CatchUps { name: "Anabranch", events: 200_000, turns }]);
        assert!(table.contains("missed 200k events"), "{table}");
        let row = "| Anabranch | 2 | 5000 (2000..10.0k) | 20.0 (20.0..20.0) |\n";
        assert!(table.ends_with(row), "{table}");
    }

    #[test]
    fn a_second_run_replaces_what_the_first_one_wrote() {
        let file = "# Results\n\nWords.\n\n## Whole system\n\nMore.\n";
        let first = within(file, "old");
        assert!(first.starts_with("# Results\n\nWords.\n\n<!--"), "{first}");
        assert!(first.ends_with("-->\n\n## Whole system\n\nMore.\n"), "{first}");
        assert_eq!(within(&first, "new"), first.replace("old", "new"));
        assert_eq!(within("", "x"), format!("\n{BEGIN}\nx\n{END}\n"));
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let report = Report::default();
        let tables = report.tables("compare");
        assert!(!tables.contains('|'), "{tables}");
        assert!(tables.contains("-- compare\n"), "{tables}");
    }
}
