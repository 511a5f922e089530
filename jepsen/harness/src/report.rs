//! What people read at the end.

use anabranch_history::checks::Verdict;
use anabranch_history::excerpt;
use anabranch_history::op::Outcome;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::nemesis::Kind;
use crate::run::Findings;
use crate::torture::Done;

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
pub fn notes(findings: &Findings) -> String {
    let left_out = findings.impossible.iter();
    let left_out = left_out.map(|(kind, why)| format!("left out: {}: {why}", kind.name()));
    let notes = findings.verdicts.iter().flat_map(|verdict| &verdict.notes);
    let notes = left_out.chain(notes.map(|note| format!("note: {note}")));
    notes.map(|note| note + "\n").collect()
}

/// Kinds of faults that were wanted, could be, and never struck; `power` also wants whole regions
/// killed.
pub fn missing(done: &Done, impossible: &[(Kind, String)], power: bool) -> Vec<&'static str> {
    let wanted = Kind::ALL.into_iter().filter(|kind| power || *kind != Kind::PowerOff);
    let possible = wanted.filter(|kind| impossible.iter().all(|(other, _)| other != kind));
    possible.filter(|kind| !done.struck.contains_key(kind)).map(Kind::name).collect()
}

fn happened(findings: &Findings) -> Table {
    let (evidence, history) = (&findings.evidence, &findings.evidence.history);
    let outcomes =
        |which: fn(&Outcome) -> bool| history.ops.iter().filter(|op| which(&op.outcome)).count();
    let refused = |words: &str| {
        let told = |outcome: &Outcome| match outcome {
            Outcome::Refused { why } => why.contains(words),
            _ => false,
        };
        history.ops.iter().filter(|op| told(&op.outcome)).count()
    };
    let moves: u32 = evidence.subscribed.iter().map(|subscribed| subscribed.moves).sum();
    let given: usize = evidence.subscribed.iter().map(|subscribed| subscribed.events.len()).sum();
    let again: usize = evidence.subscribed.iter().map(|given| given.forgotten.len()).sum();
    let events =
        evidence.regions.values().map(|read| read.regional.len()).max().unwrap_or_default();
    let rows = [
        ("wiped nodes that came back and noticed", findings.done.noticed as usize),
        ("wiped nodes whose successors vote", findings.done.replaced as usize),
        ("faults that came too late to begin", findings.done.left_out as usize),
        ("packets lost between regions", findings.packets.stopped as usize),
        ("bytes held up within regions", findings.bytes.stopped as usize),
        ("appends acknowledged", outcomes(|outcome| matches!(outcome, Outcome::Acknowledged(_)))),
        (
            "appends refused by expectation",
            outcomes(|told| matches!(told, Outcome::Conflict { .. })),
        ),
        ("appends refused otherwise", outcomes(|told| matches!(told, Outcome::Refused { .. }))),
        ("... because of a full disk", refused("disk is full")),
        ("... because of a doubted clock", refused("wall clock")),
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
    for kind in Kind::ALL {
        let struck = findings.done.struck.get(&kind).copied().unwrap_or_default().to_string();
        let left_out = findings.impossible.iter().any(|(other, _)| *other == kind);
        let how_much = if left_out { "left out".to_owned() } else { struck };
        table.add_row([kind.name().to_owned(), how_much]);
    }
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

    #[test]
    fn a_kind_of_fault_that_never_struck_is_missed_unless_there_could_be_none() {
        let mut done = Done::default();
        let all = Kind::ALL.into_iter().filter(|kind| *kind != Kind::FullDisk);
        done.struck.extend(all.map(|kind| (kind, 1)));
        assert_eq!(missing(&done, &[], true), [Kind::FullDisk.name()]);
        let impossible = [(Kind::FullDisk, "mount: permission denied".to_owned())];
        assert!(missing(&done, &impossible, true).is_empty());
        done.struck.remove(&Kind::PowerOff);
        assert!(missing(&done, &impossible, false).is_empty());
        assert_eq!(missing(&done, &impossible, true), [Kind::PowerOff.name()]);
    }
}
