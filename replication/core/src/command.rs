//! Commands: what one Raft entry of a region's log holds.
//!
//! A command is complete: together with the entry's index it says every number that applying it
//! assigns (positions, revisions, seqs, stamps). The leader's [`sequencer`](crate::sequencer) writes
//! them in advance, [`region`](crate::region) accepts the command only if each of them is exactly
//! what applying gives, so the bytes in the log are final: nothing is stored beside them, nothing is
//! re-encoded later, and a command proposed on a view of the log that turned out differently is
//! refused whole (docs/adr/0003-complete-commands.md).

use bytes::Bytes;

use crate::codec::{DecodeError, Put, Reader, varint_len};
use crate::digest::Digest;
use crate::event::Request;
use crate::group::{Group, GroupHeader};
use crate::id::{Origin, RegionName};
use crate::stamp::Stamp;

/// A group with the revisions its events get in this region's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedGroup {
    /// The group, byte for byte as its origin made it.
    pub group: Group,
    /// One per event: its place in its stream, in this region's order, from 0.
    pub revisions: Vec<u64>,
}

/// What one Raft entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The first command of a log: which life of the region this is, and which regions there are.
    Genesis {
        /// Region, incarnation and shard of this log.
        origin: Origin,
        /// All member regions, this one included, sorted.
        members: Vec<RegionName>,
    },
    /// Events that this region originates.
    Local {
        /// Regional position of the first event; the others follow densely.
        position: u64,
        /// The events.
        placed: PlacedGroup,
    },
    /// Events and statements of other regions: progress and content in one entry.
    Import {
        /// Regional position of the first event; the others follow densely.
        position: u64,
        /// Groups, each after all that is in its context. May be empty.
        groups: Vec<PlacedGroup>,
        /// What other regions said of themselves, at most one per origin. May be empty.
        digests: Vec<Digest>,
    },
    /// A promise of this region: no later event of it is stamped at or below this.
    Close {
        /// The promise.
        stamp: Stamp,
    },
}

const GENESIS: u8 = 1;
const LOCAL: u8 = 2;
const IMPORT: u8 = 3;
const CLOSE: u8 = 4;

impl PlacedGroup {
    fn encoded_len(&self) -> usize {
        let revisions: usize = self.revisions.iter().map(|r| varint_len(*r)).sum();
        let group = self.group.encoded().len();
        revisions + varint_len(self.revisions.len() as u64) + varint_len(group as u64) + group
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_revisions(&self.revisions, out);
        out.put_slice_with_len(self.group.encoded());
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count("revisions", 1)?;
        let revisions =
            (0..count).map(|_| reader.varint("revision")).collect::<Result<Vec<_>, _>>()?;
        let group = Group::decode_trusted(reader.slice("group")?)?;
        if revisions.len() != group.header().events as usize {
            return Err(DecodeError::Invalid { what: "revisions", value: count as u64 });
        }
        Ok(Self { group, revisions })
    }
}

fn encode_revisions(revisions: &[u64], out: &mut Vec<u8>) {
    out.put_varint(revisions.len() as u64);
    for revision in revisions {
        out.put_varint(*revision);
    }
}

impl Command {
    /// The command that appends these requests, and what [`encode`](Self::encode) makes of it: the
    /// group lies in there, so that events are written only once.
    ///
    /// # Panics
    /// As [`Group::build`].
    pub fn local(
        position: u64,
        revisions: Vec<u64>,
        header: GroupHeader,
        requests: &[Request],
    ) -> (Self, Bytes) {
        let numbers: usize = revisions.iter().map(|revision| varint_len(*revision)).sum();
        // A byte, and three numbers of at most ten.
        let (group, encoded) = Group::build_behind(header, requests, 31 + numbers, |len, out| {
            out.put_byte(LOCAL);
            out.put_varint(position);
            encode_revisions(&revisions, out);
            out.put_varint(len as u64);
        });
        (Self::Local { position, placed: PlacedGroup { group, revisions } }, encoded)
    }

    /// The bytes that go into the Raft entry.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len_hint());
        match self {
            Self::Genesis { origin, members } => {
                out.put_byte(GENESIS);
                origin.encode(&mut out);
                out.put_varint(members.len() as u64);
                members.iter().for_each(|member| member.encode(&mut out));
            }
            Self::Local { position, placed } => {
                out.put_byte(LOCAL);
                out.put_varint(*position);
                placed.encode(&mut out);
            }
            Self::Import { position, groups, digests } => {
                out.put_byte(IMPORT);
                out.put_varint(*position);
                out.put_varint(groups.len() as u64);
                groups.iter().for_each(|group| group.encode(&mut out));
                out.put_varint(digests.len() as u64);
                digests.iter().for_each(|digest| digest.encode(&mut out));
            }
            Self::Close { stamp } => {
                out.put_byte(CLOSE);
                out.put_u64(stamp.0);
            }
        }
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote. Groups share the bytes; their chain hashes are not
    /// checked again, because the log's records carry checksums of their own.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let command = match reader.byte("command kind")? {
            GENESIS => {
                let origin = Origin::decode(&mut reader)?;
                let count = reader.count("members", 2)?;
                let members = (0..count)
                    .map(|_| RegionName::decode(&mut reader))
                    .collect::<Result<Vec<_>, _>>()?;
                Self::Genesis { origin, members }
            }
            LOCAL => {
                let position = reader.varint("position")?;
                Self::Local { position, placed: PlacedGroup::decode(&mut reader)? }
            }
            IMPORT => {
                let position = reader.varint("position")?;
                let count = reader.count("groups", 2)?;
                let groups = (0..count)
                    .map(|_| PlacedGroup::decode(&mut reader))
                    .collect::<Result<Vec<_>, _>>()?;
                let count = reader.count("digests", Origin::ENCODED_MIN)?;
                let digests = (0..count)
                    .map(|_| Digest::decode(&mut reader))
                    .collect::<Result<Vec<_>, _>>()?;
                Self::Import { position, groups, digests }
            }
            CLOSE => Self::Close { stamp: Stamp(reader.u64("close stamp")?) },
            value => {
                return Err(DecodeError::Invalid { what: "command kind", value: value.into() });
            }
        };
        reader.finish("command")?;
        Ok(command)
    }

    /// The command's groups, in the order in which they are applied.
    pub fn groups(&self) -> &[PlacedGroup] {
        match self {
            Self::Local { placed, .. } => std::slice::from_ref(placed),
            Self::Import { groups, .. } => groups,
            Self::Genesis { .. } | Self::Close { .. } => &[],
        }
    }

    /// Regional position of the command's first event, if it has any.
    pub fn position(&self) -> Option<u64> {
        match self {
            Self::Local { position, .. } => Some(*position),
            Self::Import { position, groups, .. } if !groups.is_empty() => Some(*position),
            _ => None,
        }
    }

    /// Number of events in the command.
    pub fn events(&self) -> u64 {
        self.groups().iter().map(|placed| placed.revisions.len() as u64).sum()
    }

    fn encoded_len_hint(&self) -> usize {
        64 + self.groups().iter().map(PlacedGroup::encoded_len).sum::<usize>()
    }
}
