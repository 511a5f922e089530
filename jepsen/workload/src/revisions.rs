//! What a region's clients know of its streams.

use std::collections::BTreeMap;

use anabranch_client::Expect;
use anabranch_history::op::Outcome;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;

/// The last revisions of streams, as the clients of one region were told.
///
/// For streams that other regions write to as well, it is a guess that is often wrong: imports move
/// the revision, too.
#[derive(Debug, Default)]
pub(crate) struct Revisions {
    known: Mutex<BTreeMap<String, Option<u64>>>,
}

impl Revisions {
    /// What the stream should be like now.
    pub(crate) fn expectation(&self, stream: &str) -> Expect {
        match self.known.lock().get(stream).copied().flatten() {
            Some(revision) => Expect::Revision(revision),
            None => Expect::NoStream,
        }
    }
    /// Takes in what the region said.
    pub(crate) fn learn(&self, outcome: &Outcome) {
        let mut known = self.known.lock();
        match outcome {
            Outcome::Acknowledged(ack) => {
                for (stream, last) in &ack.revisions {
                    let entry = known.entry(stream.clone()).or_default();
                    *entry = (*entry).max(Some(*last));
                }
            }
            // The region itself corrects us, also downwards: it may have begun anew.
            Outcome::Conflict { conflicts } => {
                for conflict in conflicts {
                    known.insert(conflict.expectation.stream.clone(), conflict.actual);
                }
            }
            Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }
}

/// An expectation that will hardly hold.
pub(crate) fn wrong(rng: &mut SmallRng, right: Expect) -> Expect {
    match right {
        Expect::Revision(revision) => match rng.random_range(0..3) {
            0 => Expect::Revision(revision + 1_000),
            1 if revision > 0 => Expect::Revision(revision - 1),
            _ => Expect::NoStream,
        },
        _ if rng.random_bool(0.5) => Expect::Exists,
        _ => Expect::Revision(7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_history::op::{Conflict, Expectation};

    #[test]
    fn a_region_is_believed_also_when_it_went_back() {
        let revisions = Revisions::default();
        assert_eq!(revisions.expectation("a"), Expect::NoStream);
        let told = |actual| Outcome::Conflict {
            conflicts: vec![Conflict {
                expectation: Expectation { stream: "a".into(), expected: Expect::NoStream },
                actual,
            }],
        };
        revisions.learn(&told(Some(9)));
        assert_eq!(revisions.expectation("a"), Expect::Revision(9));
        revisions.learn(&told(Some(2)));
        assert_eq!(revisions.expectation("a"), Expect::Revision(2));
    }

    #[test]
    fn a_wrong_expectation_is_another_than_the_right_one() {
        let mut rng = crate::dice::rng(1, "test", 0, 0);
        for right in [Expect::NoStream, Expect::Revision(0), Expect::Revision(5)] {
            for _ in 0..50 {
                assert_ne!(wrong(&mut rng, right), right);
            }
        }
    }
}
