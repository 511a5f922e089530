//! What a comparison came to, for people and for programs.

use std::collections::BTreeMap;

use indicatif::HumanCount;
use serde_json::{Value, json};

use super::compare::{Agreement, Difference, Held};

/// Streams named at most, for people.
const STREAMS_SHOWN: usize = 20;

/// What a comparison came to.
#[derive(Debug)]
pub enum Report {
    /// Nothing contradicts.
    Agree {
        agreement: Agreement,
        /// Nodes of one region, which were compared as if they were regions.
        of_one_region: Vec<String>,
    },
    /// Something does.
    Differ {
        difference: Difference,
        /// Streams that differ, and how many events they have where.
        streams: BTreeMap<String, Vec<(String, u64)>>,
    },
}

impl Report {
    /// Of what `held` came to.
    pub fn agree(held: &[Held], agreement: Agreement) -> Self {
        let of_same =
            |one: &&Held| held.iter().filter(|other| other.region == one.region).count() > 1;
        let of_one_region = held.iter().filter(of_same).map(|held| held.at.clone()).collect();
        Self::Agree { agreement, of_one_region }
    }

    /// Whether something was compared, and is equal.
    pub fn holds(&self) -> bool {
        match self {
            Self::Agree { agreement: Agreement::Partial { global, chains }, .. } => {
                *global > 0 || *chains > 0
            }
            Self::Agree { agreement: Agreement::Full { .. }, .. } => true,
            Self::Differ { .. } => false,
        }
    }

    /// Lines for people.
    pub fn as_text(&self) -> String {
        match self {
            Self::Agree { agreement, of_one_region } => {
                let mut text = agreement_text(agreement);
                if !of_one_region.is_empty() {
                    let nodes = of_one_region.join(", ");
                    text += &format!("note: of one region are {nodes}; give one address of each\n");
                }
                text
            }
            Self::Differ { difference, streams } => {
                let mut text = format!("DIFFERENT: {difference}\n");
                for (stream, counts) in streams.iter().take(STREAMS_SHOWN) {
                    let counts: Vec<_> =
                        counts.iter().map(|(at, events)| format!("{at}: {events}")).collect();
                    text += &format!("  {stream}  events {}\n", counts.join(", "));
                }
                match streams.len().saturating_sub(STREAMS_SHOWN) {
                    0 => text,
                    more => text + &format!("  and {more} more streams\n"),
                }
            }
        }
    }

    /// The same for programs.
    pub fn as_json(&self) -> Value {
        match self {
            Self::Agree { agreement: Agreement::Full { events, streams }, of_one_region } => {
                json!({
                    "outcome": "equal",
                    "events": events,
                    "streams": streams,
                    "of_one_region": of_one_region,
                })
            }
            Self::Agree { agreement: Agreement::Partial { global, chains }, of_one_region } => {
                json!({
                    "outcome": if self.holds() { "equal so far" } else { "not comparable" },
                    "global_position": global,
                    "chains": chains,
                    "of_one_region": of_one_region,
                })
            }
            Self::Differ { difference, streams } => {
                let counts = |counts: &Vec<(String, u64)>| {
                    counts.iter().map(|(at, events)| (at.clone(), json!(events))).collect::<Value>()
                };
                let streams = streams.iter().map(|(stream, held)| (stream.clone(), counts(held)));
                json!({
                    "outcome": "different",
                    "difference": difference.to_string(),
                    "streams": streams.collect::<Value>(),
                })
            }
        }
    }
}

fn agreement_text(agreement: &Agreement) -> String {
    match agreement {
        Agreement::Full { events, streams } => {
            let (events, streams) = (HumanCount(*events), HumanCount(*streams));
            format!("equal: all {events} events of {streams} streams\n")
        }
        Agreement::Partial { global: 0, chains: 0 } => {
            "not comparable yet: the regions have nothing in common that is final\n".to_owned()
        }
        Agreement::Partial { global, chains } => {
            let global = HumanCount(*global);
            format!(
                "equal up to global position {global}, and {chains} origins' chains as far as held; \
                 the regions do not hold the same events yet\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_compared_is_no_agreement() {
        let report = |global, chains| Report::Agree {
            agreement: Agreement::Partial { global, chains },
            of_one_region: Vec::new(),
        };
        assert!(report(5, 0).holds() && report(0, 1).holds());
        let nothing = report(0, 0);
        assert!(!nothing.holds());
        assert_eq!(nothing.as_json()["outcome"], "not comparable");
    }
}
