//! Comparing fingerprints: pure, and so tested by tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anabranch_client::wire::{FingerprintResponse, StatusResponse};
use anabranch_client::{Context, Origin};
use anyhow::{Context as _, Result};
use bytes::Bytes;

/// What one node holds, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where it was asked.
    pub at: String,
    pub region: String,
    /// The life of its region that it is of, and those of the others that it knows; of some it may not
    /// have heard.
    pub lives: BTreeMap<String, Bytes>,
    pub frontier: Context,
    pub events: u64,
    pub streams: u64,
    pub buckets: Vec<Bytes>,
    /// Streams that were asked for: number of events, and hash.
    pub named: BTreeMap<String, (u64, Bytes)>,
    /// Of each origin: its last event's number, and the chain hash there.
    pub chains: BTreeMap<Origin, (u64, Bytes)>,
    /// Hash of the global order up to a position.
    pub marks: BTreeMap<u64, Bytes>,
}

impl Held {
    /// Reads a node's answer.
    pub fn new(
        endpoint: &str,
        answer: FingerprintResponse,
        status: StatusResponse,
    ) -> Result<Self> {
        let malformed = || format!("{endpoint} answered what cannot be read");
        let frontier =
            answer.frontier.with_context(malformed)?.try_into().with_context(malformed)?;
        let mut chains = BTreeMap::new();
        for at in answer.chains {
            let origin = at.origin.with_context(malformed)?.try_into().with_context(malformed)?;
            chains.insert(origin, (at.seq, at.chain));
        }
        let mut marks: BTreeMap<_, _> =
            answer.marks.into_iter().map(|mark| (mark.position, mark.chain)).collect();
        if answer.global_position > 0 {
            marks.insert(answer.global_position, answer.global_chain);
        }
        let named = answer.named.into_iter().map(|s| (s.stream, (s.events, s.hash))).collect();
        let known = status.regions.into_iter().map(|region| (region.region, region.incarnation));
        let lives = known.chain([(status.region, status.incarnation)]);
        Ok(Self {
            at: format!("{} ({endpoint})", answer.region),
            region: answer.region,
            lives: lives.filter(|(_, life)| !life.is_empty()).collect(),
            frontier,
            events: answer.events,
            streams: answer.streams,
            buckets: answer.buckets,
            named,
            chains,
            marks,
        })
    }
}

/// Nothing contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// All hold the same events, and they are the same events.
    Full { events: u64, streams: u64 },
    /// They hold different sets of events; what can be compared is equal.
    Partial {
        /// Up to here the global order is the same; 0 if no position could be compared.
        global: u64,
        /// Origins whose chain could be compared between at least two.
        chains: usize,
    },
}

/// Something contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// They know two lives of one region: it was rebuilt, or a restored copy of it was.
    Lives { region: String, at: [String; 2] },
    /// Two histories under one origin.
    Chain { origin: Origin, seq: u64, at: [String; 2] },
    /// Two global orders.
    Order { position: u64, at: [String; 2] },
    /// The same events by number, but not by content.
    Buckets { buckets: Vec<u32>, at: [String; 2] },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lives { region, at: [one, other] } => write!(
                f,
                "{one} and {other} know different lives of region {region}: it began anew \
                 (docs/runbooks/region-set-back.md)"
            ),
            Self::Chain { origin, seq, at: [one, other] } => {
                write!(f, "{one} and {other} hold different events of {origin} up to {seq}")
            }
            Self::Order { position, at: [one, other] } => {
                write!(f, "{one} and {other} have another global order before {position}")
            }
            Self::Buckets { buckets, at: [one, other] } => {
                let count = buckets.len();
                write!(f, "streams in {count} of the buckets differ between {one} and {other}")
            }
        }
    }
}

/// Compares all with each other.
pub fn compare(held: &[Held]) -> Result<Agreement, Difference> {
    let mut chains = BTreeSet::new();
    let mut global = None;
    let mut full = true;
    for (nth, one) in held.iter().enumerate() {
        for other in &held[nth + 1..] {
            compare_lives(one, other)?;
            compare_chains(one, other, &mut chains)?;
            let equal_up_to = compare_marks(one, other)?;
            global = Some(global.map_or(equal_up_to, |least: u64| least.min(equal_up_to)));
            match one.frontier == other.frontier {
                true => compare_buckets(one, other)?,
                false => full = false,
            }
        }
    }
    Ok(match (full, held.first()) {
        (true, Some(Held { events, streams, .. })) => {
            Agreement::Full { events: *events, streams: *streams }
        }
        _ => Agreement::Partial { global: global.unwrap_or(0), chains: chains.len() },
    })
}

fn compare_lives(one: &Held, other: &Held) -> Result<(), Difference> {
    let differs = |(region, life): &(&String, &Bytes)| {
        other.lives.get(*region).is_some_and(|theirs| theirs != *life)
    };
    match one.lives.iter().find(differs) {
        None => Ok(()),
        Some((region, _)) => {
            Err(Difference::Lives { region: region.clone(), at: names(one, other) })
        }
    }
}

fn compare_chains(
    one: &Held,
    other: &Held,
    compared: &mut BTreeSet<Origin>,
) -> Result<(), Difference> {
    for (origin, (seq, chain)) in &one.chains {
        match other.chains.get(origin) {
            Some((same, theirs)) if same == seq => {
                if theirs != chain {
                    let (origin, seq) = (origin.clone(), *seq);
                    return Err(Difference::Chain { origin, seq, at: names(one, other) });
                }
                compared.insert(origin.clone());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The highest position that both have a hash for, and it is the same.
fn compare_marks(one: &Held, other: &Held) -> Result<u64, Difference> {
    let common = |(position, chain): (&u64, &Bytes)| {
        other.marks.get(position).map(|theirs| (*position, theirs == chain))
    };
    // The lowest that differs says most about where the orders part.
    match one.marks.iter().filter_map(common).find(|(_, equal)| !equal) {
        Some((position, _)) => Err(Difference::Order { position, at: names(one, other) }),
        None => Ok(one.marks.iter().filter_map(common).last().map_or(0, |(position, _)| position)),
    }
}

fn compare_buckets(one: &Held, other: &Held) -> Result<(), Difference> {
    let most = one.buckets.len().max(other.buckets.len());
    let differs = |nth: &usize| one.buckets.get(*nth) != other.buckets.get(*nth);
    let buckets: Vec<u32> = (0..most).filter(differs).map(|nth| nth as u32).collect();
    match buckets.is_empty() && one.events == other.events && one.streams == other.streams {
        true => Ok(()),
        false => Err(Difference::Buckets { buckets, at: names(one, other) }),
    }
}

fn names(one: &Held, other: &Held) -> [String; 2] {
    [one.at.clone(), other.at.clone()]
}

/// Streams that not all hold the same: of each, how many events it has where.
pub fn differing_streams(held: &[Held]) -> BTreeMap<String, Vec<(String, u64)>> {
    let streams: BTreeSet<&String> = held.iter().flat_map(|held| held.named.keys()).collect();
    let mut differing = BTreeMap::new();
    for stream in streams {
        let of = |held: &Held| held.named.get(stream).cloned();
        if held.windows(2).any(|pair| of(&pair[0]) != of(&pair[1])) {
            let count = |held: &Held| (held.at.clone(), of(held).map_or(0, |(events, _)| events));
            differing.insert(stream.clone(), held.iter().map(count).collect());
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::{Incarnation, RegionName, Seq, ShardId};

    fn origin(region: &str) -> Origin {
        let region = RegionName::new(region).unwrap();
        Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
    }
    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }
    /// Holds `eu` events of eu, and `us` of us.
    fn held(at: &str, eu: u64, us: u64) -> Held {
        let seqs = [(origin("eu"), eu), (origin("us"), us)];
        Held {
            at: at.to_owned(),
            region: at.to_owned(),
            lives: BTreeMap::from([("us".to_owned(), bytes("1"))]),
            frontier: seqs.iter().map(|(origin, seq)| (origin.clone(), Seq(*seq))).collect(),
            events: eu + us,
            streams: 1,
            buckets: vec![bytes("a"), bytes("b")],
            named: BTreeMap::new(),
            chains: seqs.into_iter().map(|(origin, seq)| (origin, (seq, bytes("c")))).collect(),
            marks: BTreeMap::from([(5, bytes("m5")), (8, bytes("m8"))]),
        }
    }

    #[test]
    fn equal_frontiers_and_equal_hashes_are_full_agreement() {
        let all = [held("A", 5, 3), held("B", 5, 3), held("C", 5, 3)];
        assert_eq!(compare(&all), Ok(Agreement::Full { events: 8, streams: 1 }));
    }

    #[test]
    fn unequal_frontiers_agree_as_far_as_all_of_them_go() {
        let mut behind = held("B", 5, 2);
        behind.marks.remove(&8);
        let partial = Agreement::Partial { global: 5, chains: 1 };
        assert_eq!(compare(&[held("A", 5, 3), behind]), Ok(partial));
        let mut fresh = held("B", 0, 0);
        fresh.marks.clear();
        let nothing = Agreement::Partial { global: 0, chains: 0 };
        assert_eq!(compare(&[held("A", 5, 3), fresh]), Ok(nothing));
    }

    #[test]
    fn every_contradiction_is_found_and_named() {
        let at = || ["A".to_owned(), "B".to_owned()];
        let mut rebuilt = held("B", 0, 0);
        rebuilt.lives.insert("us".to_owned(), bytes("2"));
        let lives = Difference::Lives { region: "us".to_owned(), at: at() };
        assert_eq!(compare(&[held("A", 5, 3), rebuilt]), Err(lives));

        let mut forked = held("B", 5, 2);
        forked.chains.insert(origin("eu"), (5, bytes("x")));
        let chain = Difference::Chain { origin: origin("eu"), seq: 5, at: at() };
        assert_eq!(compare(&[held("A", 5, 3), forked]), Err(chain));

        let mut other_order = held("B", 5, 2);
        other_order.marks.insert(5, bytes("x"));
        let order = Difference::Order { position: 5, at: at() };
        assert_eq!(compare(&[held("A", 5, 3), other_order]), Err(order));

        let mut changed = held("B", 5, 3);
        changed.buckets[1] = bytes("x");
        let buckets = Difference::Buckets { buckets: vec![1], at: at() };
        assert_eq!(compare(&[held("A", 5, 3), changed]), Err(buckets));
    }

    #[test]
    fn the_streams_that_differ_are_named_with_their_counts() {
        let (mut one, mut other) = (held("A", 5, 3), held("B", 5, 3));
        one.named = BTreeMap::from([("s".into(), (2, bytes("x"))), ("t".into(), (1, bytes("y")))]);
        other.named = BTreeMap::from([("t".into(), (1, bytes("y")))]);
        let counts = vec![("A".to_owned(), 2), ("B".to_owned(), 0)];
        assert_eq!(differing_streams(&[one, other]), BTreeMap::from([("s".to_owned(), counts)]));
    }
}
