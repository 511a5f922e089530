//! Where a log is at one of its entries: what every next number must be.

use std::collections::BTreeMap;

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::command::PlacedGroup;
use anabranch_core::{Chain, Command, Digest, Group, Origin, Seq, Stamp};

/// The numbers that the next accepted command has to continue.
///
/// Kept at every segment boundary, so that the index of a segment can be rebuilt from that segment
/// alone: [`accepts`](Self::accepts) tells again which of its commands were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    /// Regional position that the next event gets.
    pub next_position: u64,
    /// Greatest stamp of the log so far.
    pub stamp: Stamp,
    heads: BTreeMap<Origin, Head>,
}

/// Where one origin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number that the origin's next event gets.
    pub next: Seq,
    /// Chain hash after the origin's last group.
    pub chain: Chain,
}

impl Head {
    const START: Self = Self { next: Seq(1), chain: Chain::START };

    fn after(group: &Group) -> Self {
        Self { next: group.last().next(), chain: group.chain() }
    }

    fn continued_by(&self, group: &Group) -> bool {
        group.first() == self.next && group.header().prev == self.chain
    }
}

impl Frontier {
    /// Where `origin` is.
    pub fn head(&self, origin: &Origin) -> Head {
        self.heads.get(origin).copied().unwrap_or(Head::START)
    }

    /// Whether applying the log up to here and then `command` accepted it.
    ///
    /// A command carries every number that applying it assigns and is refused unless each is
    /// exactly right, so it acts as a compare-and-swap on the state it was made for. What is checked
    /// here is implied by that, so no accepted command is missed. It also suffices: a position is the
    /// sum of all seqs held, so equal positions with a context that is covered mean equal seqs of
    /// every origin; with equal chains these are the same events, hence the same revisions and
    /// producers; and the stamp tells states apart that differ only in promises.
    pub fn accepts(&self, command: &Command) -> bool {
        if command.position().is_some_and(|position| position != self.next_position) {
            return false;
        }
        match command {
            Command::Genesis { .. } | Command::Close { .. } => true,
            Command::Local { placed, .. } => {
                let group = &placed.group;
                self.head(group.origin()).continued_by(group)
                    && group.stamp() > self.stamp
                    && self.covers_context_of(group)
            }
            Command::Import { groups, digests, .. } => self.accepts_import(groups, digests),
        }
    }

    /// Each group goes on where its origin is, with all in its context held by then; and a digest
    /// speaks of events that are held then.
    fn accepts_import(&self, groups: &[PlacedGroup], digests: &[Digest]) -> bool {
        let mut heads: BTreeMap<&Origin, Head> = BTreeMap::new();
        for PlacedGroup { group, .. } in groups {
            let head = |origin| heads.get(origin).copied().unwrap_or_else(|| self.head(origin));
            let covered = group.header().context.iter().all(|(o, seq)| seq < head(o).next);
            if !covered || !head(group.origin()).continued_by(group) {
                return false;
            }
            heads.insert(group.origin(), Head::after(group));
        }
        let head = |origin| heads.get(origin).copied().unwrap_or_else(|| self.head(origin));
        digests.iter().all(|digest| digest.seq() < head(&digest.origin).next)
    }

    /// Whether everything is held that the group's region held when the group was made.
    fn covers_context_of(&self, group: &Group) -> bool {
        group.header().context.iter().all(|(origin, seq)| seq < self.head(origin).next)
    }

    /// Moves past an accepted command.
    ///
    /// # Panics
    /// If the command does not continue the numbers: the caller broke the order of the log.
    pub fn advance(&mut self, command: &Command) {
        if let Some(position) = command.position() {
            assert_eq!(position, self.next_position, "regional positions are dense");
            self.next_position += command.events();
        }
        for placed in command.groups() {
            let group = &placed.group;
            let head = self.head(group.origin());
            assert!(
                head.continued_by(group),
                "group at {} follows {:?} of its origin",
                group.first_dot(),
                head
            );
            self.place_head(group.origin(), Head::after(group));
        }
        self.stamp = self.stamp.max(raised_to(command));
    }

    pub(crate) fn place_head(&mut self, origin: &Origin, head: Head) {
        match self.heads.get_mut(origin) {
            Some(held) => *held = head,
            None => {
                self.heads.insert(origin.clone(), head);
            }
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.next_position);
        out.put_u64(self.stamp.0);
        out.put_varint(self.heads.len() as u64);
        for (origin, head) in &self.heads {
            origin.encode(out);
            out.put_varint(head.next.0);
            out.put(&head.chain.0);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let next_position = reader.varint("frontier position")?;
        let stamp = Stamp(reader.u64("frontier stamp")?);
        let count = reader.count("frontier origins", Origin::ENCODED_MIN + 17)?;
        let mut heads = BTreeMap::new();
        for _ in 0..count {
            let origin = Origin::decode(reader)?;
            let next = Seq(reader.varint("frontier seq")?);
            heads.insert(origin, Head { next, chain: Chain(reader.array("frontier chain")?) });
        }
        Ok(Self { next_position, stamp, heads })
    }
}

/// The stamp that the log's last stamp is raised to by an accepted command; zero if by none.
pub(crate) fn raised_to(command: &Command) -> Stamp {
    match command {
        Command::Close { stamp } => *stamp,
        _ => command.groups().iter().map(|placed| placed.group.stamp()).max().unwrap_or_default(),
    }
}
