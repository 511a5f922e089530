//! What people read at the end.

use anabranch_history::checks::Verdict;
use anabranch_history::excerpt;
use anabranch_history::op::Outcome;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::nemesis::What;
use crate::run::Findings;

/// What happened, and the verdicts, as tables.
pub fn tables(findings: &Findings) -> String {
    format!("{}\n\n{}", happened(findings), verdicts(&findings.verdicts))
}

/// The broken laws in words; nothing if all hold.
pub fn broken(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts.iter().filter(|verdict| !verdict.holds()) {
        text.push_str(&format!("\nbroken: {}\n", verdict.law));
        if verdict.facts == 0 {
            text.push_str("  nothing was there to check\n");
        }
        verdict.words.iter().for_each(|words| text.push_str(&format!("  {words}\n")));
        let more = verdict.broken - verdict.words.len() as u64;
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
    }
    text
}

/// Of each broken law, the part of the history that shows it.
pub fn excerpts(findings: &Findings) -> String {
    let broken = findings.verdicts.iter().filter(|verdict| verdict.broken > 0);
    broken
        .map(|verdict| format!("\n{}:\n{}", verdict.name, excerpt(&findings.evidence, verdict)))
        .collect()
}

/// What is no violation and must still be known.
pub fn notes(verdicts: &[Verdict]) -> String {
    let notes = verdicts.iter().flat_map(|verdict| &verdict.notes);
    notes.map(|note| format!("note: {note}\n")).collect()
}

fn happened(findings: &Findings) -> Table {
    let (evidence, history) = (&findings.evidence, &findings.evidence.history);
    let outcomes =
        |which: fn(&Outcome) -> bool| history.ops.iter().filter(|op| which(&op.outcome)).count();
    let faults = |which: fn(&What) -> bool| {
        findings.faults.iter().filter(|fault| which(&fault.what)).count()
    };
    let moves: u32 = evidence.subscribed.iter().map(|subscribed| subscribed.moves).sum();
    let given: usize = evidence.subscribed.iter().map(|subscribed| subscribed.events.len()).sum();
    let again: usize = evidence.subscribed.iter().map(|given| given.forgotten.len()).sum();
    let events =
        evidence.regions.values().map(|read| read.regional.len()).max().unwrap_or_default();
    let rows = [
        ("nodes killed with SIGKILL", faults(|what| matches!(what, What::Kill { .. }))),
        ("nodes paused with SIGSTOP", faults(|what| matches!(what, What::Pause { .. }))),
        ("whole regions killed", faults(|what| matches!(what, What::PowerOff { .. }))),
        ("links cut", faults(|what| matches!(what, What::Cut { .. }))),
        ("packets lost in cuts", findings.traffic.stopped as usize),
        ("appends acknowledged", outcomes(|outcome| matches!(outcome, Outcome::Acknowledged(_)))),
        (
            "appends refused by expectation",
            outcomes(|told| matches!(told, Outcome::Conflict { .. })),
        ),
        ("appends refused otherwise", outcomes(|told| matches!(told, Outcome::Refused { .. }))),
        (
            "appends of unknown outcome",
            outcomes(|outcome| matches!(outcome, Outcome::Unknown { .. })),
        ),
        ("appends repeated on purpose", history.repeats.len()),
        ("events in every region", events),
        ("events given to subscribers", given),
        ("moves of subscribers", moves as usize),
        ("events given again to killed subscribers", again),
        ("looks at nodes during the run", history.observations.len()),
        ("reads with a session", history.session_reads.len()),
        ("the same, given up at the deadline", history.session_gave_up as usize),
        ("ms from healing to agreement", findings.recovery.as_millis() as usize),
    ];
    let mut table = table(["what happened", "how much"]);
    for (what, count) in rows {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    align(table, 1)
}

fn verdicts(verdicts: &[Verdict]) -> Table {
    let mut table = table(["law", "facts", "verdict"]);
    for verdict in verdicts {
        let word = match (verdict.broken, verdict.facts) {
            (0, 0) => "NOT TESTED".to_owned(),
            (0, _) => "holds".to_owned(),
            (broken, _) => format!("BROKEN {broken} times"),
        };
        table.add_row([verdict.law.to_owned(), verdict.facts.to_string(), word]);
    }
    align(table, 1)
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn align(mut table: Table, column: usize) -> Table {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_that_was_not_tested_does_not_hold() {
        let mut verdict = Verdict::new("law", "a law");
        assert!(broken(std::slice::from_ref(&verdict)).contains("nothing was there to check"));
        verdict.check(true, String::new);
        assert_eq!(broken(std::slice::from_ref(&verdict)), "");
        verdict.check(false, || "eu/1/0:7 is lost".to_owned());
        assert!(broken(&[verdict]).contains("eu/1/0:7 is lost"));
    }
}
