//! The smallest part of a history that shows a violation, in words and in the order of time.

use std::collections::BTreeSet;
use std::time::Duration;

use anabranch_client::Dot;

use crate::case::Case;
use crate::evidence::Evidence;
use crate::observation::Observation;
use crate::op::{Op, Outcome, Repeat, SessionRead};
use crate::verdict::Verdict;

/// Lines of an excerpt; more are only counted.
const LINES_MAX: usize = 60;
/// Operations on the same streams and at the same time that are shown beside those that matter.
const BESIDE_MAX: usize = 12;

/// Tells of the operations, events and observations that a verdict names, of what was done at the
/// same time to the same streams, and of where the events are in the end.
pub fn excerpt(evidence: &Evidence, verdict: &Verdict) -> String {
    let case = Case::new(evidence);
    let history = &evidence.history;
    let mut ops: BTreeSet<usize> = verdict.ops.clone();
    ops.extend(verdict.dots.iter().filter_map(|dot| case.op_of(dot)));
    let beside = beside(&case, &ops);
    let mut lines: Vec<(Duration, String)> = Vec::new();
    for at in ops.iter().chain(&beside) {
        let op = case.op(*at);
        let mark = if ops.contains(at) { "*" } else { " " };
        lines.push((op.called, format!("{mark} {}", sent(*at, op))));
        if op.returned != Duration::MAX {
            lines.push((op.returned, format!("{mark} {}", told(*at, op))));
        }
    }
    let named: BTreeSet<&Dot> = verdict.dots.iter().collect();
    let concerned = |dot: &Dot| {
        named.contains(dot) || case.op_of(dot).is_some_and(|op| verdict.ops.contains(&op))
    };
    for read in &history.session_reads {
        let writers = ops.iter().any(|at| {
            let op = case.op(*at);
            op.writer == read.writer && op.events.iter().any(|asked| asked.stream == read.stream)
        });
        if writers || read.shown.iter().any(|dot| named.contains(dot)) {
            lines.push((read.returned, format!("  {}", was_shown(read))));
        }
    }
    for repeat in history.repeats.iter().filter(|repeat| concerned(&repeat.first.first)) {
        lines.push((Duration::MAX, format!("  {}", repeated(repeat))));
    }
    for at in &verdict.observations {
        let seen = &history.observations[*at];
        lines.push((seen.at, format!("* {}", observed(seen))));
    }
    lines.sort();
    let shown = where_in_the_end(&case, &verdict.dots);
    print(lines, shown)
}

/// Operations that overlap the given ones in time, on the same streams: the nearest few.
fn beside(case: &Case<'_>, ops: &BTreeSet<usize>) -> Vec<usize> {
    let streams: BTreeSet<&str> =
        ops.iter().flat_map(|at| &case.op(*at).events).map(|asked| asked.stream.as_str()).collect();
    let spans: Vec<(Duration, Duration)> =
        ops.iter().map(|at| (case.op(*at).called, case.op(*at).returned)).collect();
    let overlaps = |op: &Op| {
        spans.iter().any(|(called, returned)| op.called <= *returned && *called <= op.returned)
    };
    case.ops()
        .filter(|(at, op)| {
            !ops.contains(at)
                && op.events.iter().any(|asked| streams.contains(asked.stream.as_str()))
                && overlaps(op)
        })
        .map(|(at, _)| at)
        .take(BESIDE_MAX)
        .collect()
}

fn sent(at: usize, op: &Op) -> String {
    let mut streams: Vec<(&str, usize)> = Vec::new();
    for asked in &op.events {
        match streams.last_mut() {
            Some((stream, events)) if *stream == asked.stream => *events += 1,
            _ => streams.push((&asked.stream, 1)),
        }
    }
    let mut words: Vec<String> =
        streams.iter().map(|(stream, events)| format!("{events} on {stream}")).collect();
    for expectation in &op.expects {
        words.push(format!("expecting {:?} of {}", expectation.expected, expectation.stream));
    }
    format!("writer {} sends append {at} to {}: {}", op.writer, op.region, words.join(", "))
}

fn told(at: usize, op: &Op) -> String {
    let what = match &op.outcome {
        Outcome::Acknowledged(ack) => format!(
            "acknowledged as {} at position {}, revisions {:?}, in {} region(s)",
            ack.first, ack.position, ack.revisions, ack.regions
        ),
        Outcome::Conflict { conflicts } => {
            let found = conflicts.iter().map(|conflict| {
                format!("{} is at {:?}", conflict.expectation.stream, conflict.actual)
            });
            format!("refused, {}", found.collect::<Vec<_>>().join(", "))
        }
        Outcome::Refused { why } => format!("refused: {why}"),
        Outcome::Unknown { why } => format!("unknown: {why}"),
    };
    format!("writer {} is told of append {at}: {what}", op.writer)
}

fn was_shown(read: &SessionRead) -> String {
    let SessionRead { writer, region, stream, shown, .. } = read;
    let (count, last) = (shown.len(), shown.last());
    format!("writer {writer} is shown {count} events of {stream} in {region}, the last {last:?}")
}

fn repeated(repeat: &Repeat) -> String {
    let Repeat { first, by, region, again, said_so } = repeat;
    let said = if *said_so { "said to be repeated" } else { "not said to be repeated" };
    format!("{} is sent again to {region} by {by:?}: {}, {said}", first.first, again.first)
}

fn observed(seen: &Observation) -> String {
    let watermark = seen.watermark.map_or(String::new(), |stamp| format!(", watermark {stamp}"));
    let chain = seen.global_chain.as_ref().map_or(String::new(), |chain| format!(" ({chain:02x})"));
    format!(
        "{} (life {}) holds {}, {} final{chain}{watermark}",
        seen.name(),
        seen.life,
        seen.frontier,
        seen.global_position
    )
}

fn where_in_the_end(case: &Case<'_>, dots: &BTreeSet<Dot>) -> Vec<String> {
    let mut shown = Vec::new();
    for dot in dots {
        for log in &case.logs {
            let global = log.read.global.iter().find(|seen| seen.dot == *dot);
            let global = global.map_or("not in global order".into(), |seen| {
                format!("at {} of the global order", seen.place)
            });
            shown.push(match log.seen(dot) {
                Some(seen) => format!(
                    "{} shows {dot} at {}, revision {} of {}, stamped {}, {global}",
                    log.name, seen.place, seen.revision, seen.stream, seen.stamp
                ),
                None => format!("{} does not show {dot} in regional order, {global}", log.name),
            });
        }
    }
    shown
}

fn print(lines: Vec<(Duration, String)>, shown: Vec<String>) -> String {
    let all = lines.len() + shown.len();
    let time = |at: Duration| match at {
        Duration::MAX => "         ?".to_owned(),
        at => format!("{:9.3} s", at.as_secs_f64()),
    };
    let lines = lines.into_iter().map(|(at, words)| format!("{} {words}\n", time(at)));
    let ends = shown.into_iter().map(|words| format!("in the end   {words}\n"));
    let mut text: String = lines.chain(ends).take(LINES_MAX).collect();
    if all > LINES_MAX {
        text.push_str(&format!("and {} more\n", all - LINES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::checks::{durable, global_order};

    #[test]
    fn an_excerpt_names_what_shows_the_violation_and_nothing_else() {
        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional.remove(2);
        let text = excerpt(&evidence, &judge(durable::check, &evidence));
        assert!(text.contains("writer 1 sends append 1 to us: 2 on b"), "{text}");
        assert!(text.contains("told of append 1: acknowledged as us/"), "{text}");
        assert!(text.contains("us does not show us/"), "{text}");
        assert!(text.contains("eu shows us/"), "{text}");
        assert!(!text.contains("append 0"), "it has nothing to do with it: {text}");
        let times: Vec<f64> =
            text.lines().filter_map(|line| line.trim().split(' ').next()?.parse().ok()).collect();
        assert!(times.is_sorted() && times.len() >= 2, "{text}");
    }

    #[test]
    fn an_excerpt_tells_of_observations() {
        let mut evidence = sound();
        evidence.history.observations[1].global_chain = Some(vec![9; 16].into());
        let text = excerpt(&evidence, &judge(global_order::check, &evidence));
        assert!(text.contains("us-1 (life 0) holds eu:4 us:2, 6 final"), "{text}");
    }
}
