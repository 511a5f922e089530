//! A run's evidence as JSON lines: canonical, so that two runs of one seed can be compared byte by
//! byte, and complete, so that a saved run can be judged again.
//!
//! Times are in nanoseconds since the run began. Origins are written in full.

use std::borrow::Cow;

use anabranch_client::{Order, Origin};
use serde::{Deserialize, Serialize};

use crate::evidence::{
    Blame, Death, Evidence, Expectations, Listed, Print, Recovery, RegionRead, Seen, Selection,
    Served, Subscribed,
};
use crate::note::Note;
use crate::observation::Observation;
use crate::op::{History, Op, Repeat, SessionRead};
use crate::text;

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of a saved run cannot be read")]
pub struct Unreadable {
    /// Its number, from 1.
    pub line: usize,
    /// Why.
    #[source]
    pub source: serde_json::Error,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line<'a> {
    Append(Cow<'a, Op>),
    Repeat(Cow<'a, Repeat>),
    SessionRead(Cow<'a, SessionRead>),
    SessionGaveUp {
        times: u64,
    },
    Observation(Cow<'a, Observation>),
    Note {
        note: Cow<'a, Note>,
    },
    Region {
        region: Cow<'a, str>,
        lost: bool,
        #[serde(with = "text::option")]
        own: Option<Origin>,
    },
    Event {
        region: Cow<'a, str>,
        lost: bool,
        #[serde(with = "text")]
        order: Order,
        #[serde(flatten)]
        event: Cow<'a, Seen>,
    },
    Selection(Cow<'a, Selection>),
    Served(Cow<'a, Served>),
    Listed(Cow<'a, Listed>),
    Print {
        node: Cow<'a, str>,
        #[serde(flatten)]
        print: Cow<'a, Print>,
    },
    Blame {
        node: Cow<'a, str>,
        #[serde(flatten)]
        blame: Cow<'a, Blame>,
    },
    Subscribed(Cow<'a, Subscribed>),
    Death(Cow<'a, Death>),
    Recovery(Cow<'a, Recovery>),
    Expectations(Cow<'a, Expectations>),
}

fn push(out: &mut String, line: &Line<'_>) {
    out.push_str(&serde_json::to_string(line).expect("texts, numbers and maps of texts have JSON"));
    out.push('\n');
}

impl History {
    /// Appends what clients did and were told, and what was observed, in the order of the ledger.
    pub fn write_jsonl(&self, out: &mut String) {
        self.ops.iter().for_each(|op| push(out, &Line::Append(Cow::Borrowed(op))));
        self.repeats.iter().for_each(|repeat| push(out, &Line::Repeat(Cow::Borrowed(repeat))));
        let reads = self.session_reads.iter();
        reads.for_each(|read| push(out, &Line::SessionRead(Cow::Borrowed(read))));
        push(out, &Line::SessionGaveUp { times: self.session_gave_up });
        let observations = self.observations.iter();
        observations.for_each(|seen| push(out, &Line::Observation(Cow::Borrowed(seen))));
        self.notes.iter().for_each(|note| push(out, &Line::Note { note: Cow::Borrowed(note) }));
    }

    /// One hash over all of it, in hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        self.write_jsonl(&mut text);
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}

impl Evidence {
    /// Appends everything.
    pub fn write_jsonl(&self, out: &mut String) {
        push(out, &Line::Expectations(Cow::Borrowed(&self.expectations)));
        self.history.write_jsonl(out);
        for (lost, regions) in [(false, &self.regions), (true, &self.before_loss)] {
            for (region, read) in regions {
                write_region(out, region, read, lost);
            }
        }
        for selection in &self.selections {
            push(out, &Line::Selection(Cow::Borrowed(selection)));
        }
        self.served.iter().for_each(|served| push(out, &Line::Served(Cow::Borrowed(served))));
        self.listed.iter().for_each(|listed| push(out, &Line::Listed(Cow::Borrowed(listed))));
        for (node, print) in &self.prints {
            push(out, &Line::Print { node: node.into(), print: Cow::Borrowed(print) });
        }
        for (node, blame) in &self.blames {
            push(out, &Line::Blame { node: node.into(), blame: Cow::Borrowed(blame) });
        }
        self.subscribed.iter().for_each(|given| push(out, &Line::Subscribed(Cow::Borrowed(given))));
        self.deaths.iter().for_each(|death| push(out, &Line::Death(Cow::Borrowed(death))));
        if let Some(recovery) = &self.recovery {
            push(out, &Line::Recovery(Cow::Borrowed(recovery)));
        }
    }

    /// One hash over everything, in hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        self.write_jsonl(&mut text);
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Reads what [`write_jsonl`](Self::write_jsonl) wrote.
    ///
    /// # Errors
    /// [`Unreadable`] at the first line that is not one of them.
    pub fn read_jsonl(text: &str) -> Result<Self, Unreadable> {
        let mut evidence = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line =
                serde_json::from_str(line).map_err(|source| Unreadable { line: at + 1, source })?;
            evidence.take(line);
        }
        Ok(evidence)
    }

    fn take(&mut self, line: Line<'_>) {
        let history = &mut self.history;
        match line {
            Line::Append(op) => history.ops.push(op.into_owned()),
            Line::Repeat(repeat) => history.repeats.push(repeat.into_owned()),
            Line::SessionRead(read) => history.session_reads.push(read.into_owned()),
            Line::SessionGaveUp { times } => history.session_gave_up += times,
            Line::Note { note } => history.notes.push(note.into_owned()),
            Line::Observation(seen) => history.observations.push(seen.into_owned()),
            Line::Region { region, lost, own } => self.region(region, lost).own = own,
            Line::Event { region, lost, order, event } => {
                let read = self.region(region, lost);
                let events = match order {
                    Order::Regional => &mut read.regional,
                    Order::Global => &mut read.global,
                };
                events.push(event.into_owned());
            }
            Line::Selection(selection) => self.selections.push(selection.into_owned()),
            Line::Served(served) => self.served.push(served.into_owned()),
            Line::Listed(listed) => self.listed.push(listed.into_owned()),
            Line::Print { node, print } => {
                self.prints.insert(node.into_owned(), print.into_owned());
            }
            Line::Blame { node, blame } => {
                self.blames.insert(node.into_owned(), blame.into_owned());
            }
            Line::Subscribed(given) => self.subscribed.push(given.into_owned()),
            Line::Death(death) => self.deaths.push(death.into_owned()),
            Line::Recovery(recovery) => self.recovery = Some(recovery.into_owned()),
            Line::Expectations(expectations) => self.expectations = expectations.into_owned(),
        }
    }

    fn region(&mut self, region: Cow<'_, str>, lost: bool) -> &mut RegionRead {
        let regions = if lost { &mut self.before_loss } else { &mut self.regions };
        regions.entry(region.into_owned()).or_default()
    }
}

fn write_region(out: &mut String, region: &str, read: &RegionRead, lost: bool) {
    push(out, &Line::Region { region: region.into(), lost, own: read.own.clone() });
    for (order, events) in [(Order::Regional, &read.regional), (Order::Global, &read.global)] {
        for event in events {
            let event = Cow::Borrowed(event);
            push(out, &Line::Event { region: region.into(), lost, order, event });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{conflict, sound};
    use anabranch_client::Expect;

    fn full() -> Evidence {
        let mut evidence = sound();
        let streams = [
            ("a", Expect::Any, None),
            ("b", Expect::Revision(3), Some(1)),
            ("c", Expect::Exists, None),
        ];
        evidence.history.ops.push(conflict("eu", &streams, 3));
        evidence.history.ops[0].outcome = crate::op::Outcome::Unknown { why: "silence".into() };
        evidence.history.ops[0].returned = std::time::Duration::MAX;
        let at = std::time::Duration::from_secs(1);
        evidence.history.notes.push(Note::Silent { writer: 3, at, what: "a read".into() });
        evidence.before_loss = evidence.regions.clone();
        evidence.expectations.lost.insert("asia".into());
        evidence.deaths.push(Death { node: "eu-1".into(), why: "gone".into(), excuse: None });
        evidence.recovery.as_mut().unwrap().served.insert("asia".into(), None);
        evidence.blames.get_mut("eu-1").unwrap().blocked_by.insert("asia".into());
        evidence
    }

    #[test]
    fn a_run_comes_back_from_its_lines_whole() {
        let evidence = full();
        let mut text = String::new();
        evidence.write_jsonl(&mut text);
        let back = Evidence::read_jsonl(&text).unwrap();
        assert_eq!(back, evidence);
        assert_eq!(back.hash(), evidence.hash());
        let odd = text.replacen("\"kind\":\"append\"", "\"kind\":\"other\"", 1);
        assert_eq!(Evidence::read_jsonl(&odd).unwrap_err().line, 2);
    }

    #[test]
    fn another_run_has_another_hash() {
        let mut other = full();
        other.history.ops[1].called += std::time::Duration::from_nanos(1);
        assert_ne!(other.hash(), full().hash());
        assert_ne!(other.history.hash(), full().history.hash());
    }
}
