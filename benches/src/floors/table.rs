//! The floors, their bounds, and the table of what was measured.

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;

use super::Figure;
use crate::spread::Spread;

/// On which side of its bounds a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    AtMost,
    AtLeast,
}

/// A figure that has bounds.
#[derive(Debug)]
pub(super) struct Floor {
    pub name: &'static str,
    /// What is measured, and its unit.
    what: &'static str,
    side: Side,
    /// What must hold.
    must: f64,
    /// What we aim at.
    goal: f64,
    /// Digits behind the point.
    digits: usize,
}

const fn at_most(
    name: &'static str,
    what: &'static str,
    [must, goal]: [f64; 2],
    digits: usize,
) -> Floor {
    Floor { name, what, side: Side::AtMost, must, goal, digits }
}

/// All of them, in the order of the table.
pub(super) const FLOORS: [Floor; 18] = [
    at_most(
        "batches-1x1",
        "append in batches of 1,000, one node: nodes' CPU µs/event",
        [2.0, 0.9],
        2,
    ),
    at_most("batches-1x3", "the same, three nodes", [9.0, 3.0], 2),
    at_most(
        "singles-1x1",
        "single appends of 64 clients, one node: nodes' CPU µs/event",
        [40.0, 20.0],
        1,
    ),
    at_most(
        "syncs",
        "during those: waits for the disk an acknowledged append",
        [1.0 / 16.0, 1.0 / 32.0],
        4,
    ),
    at_most("singles-1x3", "single appends, three nodes", [130.0, 60.0], 1),
    at_most(
        "regions-3x1",
        "three regions of one node, batches of 1,000, durable in all: nodes' CPU µs/event",
        [12.0, 4.0],
        2,
    ),
    at_most(
        "replay",
        "a million events in regional order: node's and reader's CPU µs/event",
        [1.2, 0.5],
        2,
    ),
    at_most("replay-global", "the same in global order", [1.2, 0.5], 2),
    at_most("disk", "bytes on disk over bytes of payload, type and stream's name", [1.25, 1.1], 3),
    at_most(
        "leader-kill",
        "kill -9 of the leader of three nodes, to the next acknowledged append: s",
        [1.5, 0.6],
        2,
    ),
    at_most(
        "latency",
        "p50 of an append of one client, less the disk's own fdatasync: ms",
        [0.3, 0.1],
        3,
    ),
    at_most(
        "lag",
        "p99 between regions at light load, regional order, less the distance: ms",
        [25.0, 5.0],
        1,
    ),
    at_most(
        "global-lag",
        "the same in global order, three regions, less the distance: ms",
        [150.0, 30.0],
        1,
    ),
    Floor {
        name: "catch-up",
        what: "200,000 events that a region missed, held durably: events/s",
        side: Side::AtLeast,
        must: 60_000.0,
        goal: 200_000.0,
        digits: 0,
    },
    at_most("start", "kill -9 and start, to the first read served: s", [3.0, 0.5], 2),
    at_most(
        "memory",
        "a node's memory, what the kernel caches of files apart: MiB",
        [1536.0, 400.0],
        0,
    ),
    at_most(
        "size",
        "nodes' CPU/event at the end of the history, over that at its beginning",
        [1.15, 1.02],
        3,
    ),
    at_most("size-both", "the same, with the clients'", [1.15, 1.02], 3),
];

/// What `--only` takes.
pub(super) fn names() -> PossibleValuesParser {
    FLOORS.iter().map(|floor| floor.name).collect::<Vec<_>>().into()
}

/// The figures of one floor, of all rounds.
#[derive(Debug)]
pub(super) struct Figures {
    /// Least first.
    values: Vec<f64>,
    note: String,
}

impl Figures {
    pub(super) fn of(row: &str, all: &[Figure]) -> Self {
        let own = || all.iter().filter(|figure| figure.row == row);
        let mut values: Vec<f64> = own().map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let note = own().next_back().map_or_else(String::new, |figure| figure.note.clone());
        Self { values, note }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
    /// As [`Spread`] has it; nothing that counts if there are none.
    fn median(&self) -> f64 {
        Spread::of(self.values.iter().copied()).map_or(f64::NAN, |spread| spread.median)
    }
}

impl Floor {
    pub(super) fn named(name: &str) -> anyhow::Result<&'static Self> {
        FLOORS.iter().find(|floor| floor.name == name).with_context(|| format!("no floor {name}"))
    }

    fn stands(&self, value: f64) -> &'static str {
        let within = |bound: f64| match self.side {
            Side::AtMost => value <= bound,
            Side::AtLeast => bound <= value,
        };
        match (within(self.must), within(self.goal)) {
            (_, true) => "goal",
            (true, false) => "must",
            (false, false) => "**beyond**",
        }
    }

    /// Its row of the table.
    pub(super) fn line(&self, figures: &Figures) -> String {
        let (digits, median) = (self.digits, figures.median());
        let range = match figures.values[..] {
            [first, .., last] => format!("{first:.digits$} to {last:.digits$}"),
            _ => "once".to_owned(),
        };
        let Self { name, what, must, goal, .. } = self;
        let (stands, note) = (self.stands(median), &figures.note);
        format!(
            "| {name} | {what} | {median:.digits$} | {range} | {must:.digits$} | {goal:.digits$} | {stands} | {note} |"
        )
    }
}

const HEAD: &str = "\
| row | what | measured | range | must | goal | reaches | besides |
|---|---|---|---|---|---|---|---|
";
const BEGIN: &str = "<!-- written by `anabranch-bench floors` -->\n";
const END: &str = "<!-- end of what `anabranch-bench floors` writes -->\n";

/// The table of these rows.
pub(super) fn table(lines: &[String]) -> String {
    lines.iter().fold(HEAD.to_owned(), |table, line| table + line + "\n")
}

/// The file with these rows in its table, in the order of [`FLOORS`]. Its other rows stay, and so does
/// what is around the table. A file without a table gets one at its end.
pub(super) fn replaced(old: &str, lines: &[String]) -> String {
    let (above, rest) = old.split_once(BEGIN).unwrap_or((old, ""));
    let (inside, below) = rest.split_once(END).unwrap_or(("", rest));
    let row_of = |name: &str| {
        let begins = format!("| {name} |");
        let new = lines.iter().map(String::as_str);
        new.chain(inside.lines()).find(|line| line.starts_with(&begins)).map(str::to_owned)
    };
    let rows: Vec<String> = FLOORS.iter().filter_map(|floor| row_of(floor.name)).collect();
    format!("{above}{BEGIN}\n{}\n{END}{below}", table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[f64]) -> Figures {
        let all: Vec<_> = values.iter().map(|value| Figure::new("disk", *value)).collect();
        Figures::of("disk", &all)
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(figures(&[3.0, 1.0, 20.0]).median(), 3.0);
        assert_eq!(figures(&[4.0, 1.0, 2.0, 20.0]).median(), 3.0);
        assert_eq!(figures(&[7.0]).median(), 7.0);
        let other = Figures::of("lag", &[Figure::new("disk", 1.0)]);
        assert!(other.is_empty());
    }

    #[test]
    fn a_row_says_what_it_reaches() {
        let cells = |name: &str, values: &[f64]| {
            let line = Floor::named(name).unwrap().line(&figures(values));
            let cells: Vec<_> = line.split(" | ").skip(2).map(str::to_owned).collect();
            cells.join(" ")
        };
        assert_eq!(cells("disk", &[1.25]), "1.250 once 1.250 1.100 must  |");
        assert_eq!(cells("disk", &[1.0, 1.1, 2.0]), "1.100 1.000 to 2.000 1.250 1.100 goal  |");
        assert_eq!(cells("disk", &[1.26]), "1.260 once 1.250 1.100 **beyond**  |");
        assert_eq!(cells("catch-up", &[59_999.0]), "59999 once 60000 200000 **beyond**  |");
        assert_eq!(cells("catch-up", &[60_000.0]), "60000 once 60000 200000 must  |");
        assert!(Floor::named("speed").is_err());
    }

    #[test]
    fn a_second_run_replaces_its_rows_and_keeps_all_else() {
        let line = |name: &str, value: f64| Floor::named(name).unwrap().line(&figures(&[value]));
        let first = replaced("# Results\n\nWords.\n", &[line("lag", 1.0), line("disk", 1.0)]);
        let first = format!("{first}\n## More\n");
        let second = replaced(&first, &[line("disk", 2.0), line("batches-1x1", 3.0)]);
        let rows = [line("batches-1x1", 3.0), line("disk", 2.0), line("lag", 1.0)].join("\n");
        assert_eq!(
            second,
            format!("# Results\n\nWords.\n{BEGIN}\n{HEAD}{rows}\n\n{END}\n## More\n")
        );
    }
}
