//! Conflicts as text: for people, or as JSON.

use anabranch_client::{ConflictStanding, FoundConflict, Run};
use serde_json::{Value, json};

use crate::cli::print::{clean, harmless, utc};
use anabranch_server::hex::to_hex;

/// As a word.
pub fn standing(standing: ConflictStanding) -> &'static str {
    match standing {
        ConflictStanding::Kept => "kept",
        ConflictStanding::Won => "won",
        ConflictStanding::Lost => "lost",
        ConflictStanding::Open => "open",
    }
}

/// The stream, the events, what they are against, and what came of it, in one line.
pub fn as_text(conflict: &FoundConflict) -> String {
    let FoundConflict { position, stream, events, policy, .. } = conflict;
    let against: Vec<_> = conflict.against.iter().map(run).collect();
    let outcome = match (&conflict.winner, conflict.standing) {
        (Some(winner), _) => format!("{winner} counts"),
        (None, ConflictStanding::Kept) => "all count".to_owned(),
        (None, standing_of) => standing(standing_of).to_owned(),
    };
    clean(&format!(
        "{position:>8}  {}  {stream}  {} against {}  {policy}: {outcome}",
        utc(events.first_stamp.unix_ms()),
        run(events),
        against.join(" and "),
    ))
}

/// The dot of a single event, or of the first and the number of the last.
fn run(run: &Run) -> String {
    match run.events {
        1 => run.oldest().to_string(),
        events => format!("{}..{} ({events} events)", run.oldest(), run.last),
    }
}

/// Everything, in one line.
pub fn as_json(conflict: &FoundConflict) -> String {
    let json = json!({
        "id": conflict.id.to_string(),
        "stream": conflict.stream,
        "events": run_json(&conflict.events),
        "against": conflict.against.iter().map(run_json).collect::<Vec<_>>(),
        "pairs": conflict.pairs,
        "position": conflict.position,
        "policy": conflict.policy,
        "standing": standing(conflict.standing),
        "winner": conflict.winner.as_ref().map(ToString::to_string),
        "resolved_by": conflict.resolved_by.as_ref().map(ToString::to_string),
        "cursor": to_hex(&conflict.cursor.encode()),
    });
    harmless(&json.to_string())
}

/// A run, with its region by name.
pub fn run_json(run: &Run) -> Value {
    json!({
        "origin": run.origin.to_string(),
        "region": run.origin.region.as_str(),
        "first": run.first.0,
        "last": run.last.0,
        "events": run.events,
    })
}
