//! The state as bytes, so that a start need not read the log from its beginning.
//!
//! Derived: a checkpoint that is missing, old or unreadable costs time, never data.

use std::sync::Arc;

use bytes::Bytes;

use super::fingerprint::Fingerprint;
use super::producers::{Producer, Receipt};
use super::streams::{Head, Rows};
use super::{Identity, OriginHead, Region};
use crate::class::Homes;
use crate::codec::{DecodeError, Put, Reader};
use crate::digest::Digest;
use crate::event::{ContentHash, EventId, ProducerTag};
use crate::group::Chain;
use crate::id::{Origin, ProducerId, RegionName, Seq};
use crate::planted::{self, Bug};
use crate::rights::Rights;
use crate::stamp::Stamp;

/// 2: receipts have the hash of what was asked for. 3: homes and rights. 4: homes that ended.
const VERSION: u8 = 4;

/// Least number of bytes an encoded receipt takes.
const RECEIPT_MIN: usize = Origin::ENCODED_MIN + 3 + 8 + 8 + 1;

/// Bytes of streams that are encoded into one part.
const PART_BYTES: usize = 1024 * 1024;

/// A state as it stood, to be encoded while the region goes on. Taking it does not depend on how many
/// streams there are.
#[derive(Debug)]
pub struct Snapshot {
    before_streams: Vec<u8>,
    streams: Rows,
    after_streams: Vec<u8>,
}

impl Snapshot {
    /// The whole state in parts, to be put one after the other. States that came of the same log give equal
    /// bytes.
    pub fn encode(self) -> Vec<Bytes> {
        let mut parts: Vec<Bytes> = Vec::new();
        let mut part = self.before_streams;
        part.put_varint(self.streams.len() as u64);
        for (stream, head) in self.streams.iter() {
            if part.len() >= PART_BYTES {
                let next = Vec::with_capacity(PART_BYTES + PART_BYTES / 16);
                parts.push(std::mem::replace(&mut part, next).into());
            }
            part.put_slice_with_len(stream.as_bytes());
            part.put_varint(head.next_revision);
            part.put_varint(head.last_position);
            part.put_u128(head.fingerprint.0);
        }
        parts.extend([part.into(), self.after_streams.into()]);
        parts
    }
}

impl Region {
    /// The state as it stands.
    pub fn snapshot(&self) -> Snapshot {
        let mut before_streams = Vec::with_capacity(4096);
        before_streams.put_byte(VERSION);
        self.encode_identity(&mut before_streams);
        before_streams.put_u64(self.position);
        before_streams.put_u64(self.last_stamp.0);
        self.encode_origins(&mut before_streams);
        let mut after_streams = Vec::with_capacity(4096);
        self.encode_producers(&mut after_streams);
        self.homes.encode(&mut after_streams);
        self.rights.encode(&mut after_streams);
        Snapshot { before_streams, streams: self.streams.rows(), after_streams }
    }

    /// The whole state as it stands, in one piece; see [`Snapshot::encode`].
    pub fn encode_checkpoint(&self) -> Bytes {
        self.snapshot().encode().concat().into()
    }

    /// Reads what [`encode_checkpoint`](Self::encode_checkpoint) wrote.
    ///
    /// # Errors
    /// Any [`DecodeError`]: throw the checkpoint away and apply the log from its beginning.
    pub fn decode_checkpoint(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.byte("checkpoint version")? {
            VERSION => {}
            value => {
                return Err(DecodeError::Invalid {
                    what: "checkpoint version",
                    value: value.into(),
                });
            }
        }
        let mut region = Self::new();
        region.decode_identity(&mut reader)?;
        region.position = reader.u64("position")?;
        region.last_stamp = Stamp(reader.u64("last stamp")?);
        region.decode_origins(&mut reader)?;
        region.decode_streams(&mut reader)?;
        region.decode_producers(&mut reader)?;
        region.homes = Homes::decode(&mut reader)?;
        region.rights = Rights::decode(&mut reader)?;
        if planted::is(Bug::ProducersNotInCheckpoint) {
            region.producers = Default::default();
        }
        reader.finish("checkpoint")?;
        Ok(region)
    }

    fn encode_identity(&self, out: &mut Vec<u8>) {
        let Some(identity) = &self.identity else { return out.put_byte(0) };
        out.put_byte(1);
        identity.origin.encode(out);
        out.put_varint(identity.members.len() as u64);
        identity.members.iter().for_each(|member| member.encode(out));
    }

    fn decode_identity(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        match reader.byte("identity")? {
            0 => return Ok(()),
            1 => {}
            value => return Err(DecodeError::Invalid { what: "identity", value: value.into() }),
        }
        let origin = Origin::decode(reader)?;
        let count = reader.count("members", 2)?;
        let members = (0..count).map(|_| RegionName::decode(reader)).collect::<Result<_, _>>()?;
        self.identity = Some(Identity { origin, members });
        Ok(())
    }

    fn encode_origins(&self, out: &mut Vec<u8>) {
        out.put_varint(self.origins.len() as u64);
        for (origin, head) in &self.origins {
            origin.encode(out);
            out.put_u64(head.seq.0);
            out.put(&head.chain.0);
            out.put_u64(head.stamp.0);
        }
        out.put_varint(self.peers.len() as u64);
        self.peers.values().for_each(|digest| digest.encode(out));
    }

    fn decode_origins(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        for _ in 0..reader.count("origins", Origin::ENCODED_MIN)? {
            let origin = Origin::decode(reader)?;
            let seq = Seq(reader.u64("seq")?);
            let chain = Chain(reader.array("chain")?);
            let stamp = Stamp(reader.u64("stamp")?);
            self.frontier.advance(&origin, seq);
            self.origins.insert(origin, OriginHead { seq, chain, stamp });
        }
        for _ in 0..reader.count("peers", Origin::ENCODED_MIN)? {
            let digest = Digest::decode(reader)?;
            self.peers.insert(digest.origin.clone(), digest);
        }
        Ok(())
    }

    fn decode_streams(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        for _ in 0..reader.count("streams", 19)? {
            let stream = reader.text("stream")?;
            let next_revision = reader.varint("revision")?;
            if next_revision == 0 {
                // A stream without events is none.
                return Err(DecodeError::Invalid { what: "next revision", value: 0 });
            }
            let last_position = reader.varint("position")?;
            let fingerprint = Fingerprint(reader.u128("fingerprint")?);
            self.buckets.add(&stream, fingerprint);
            self.streams.restore(&stream, Head { next_revision, last_position, fingerprint });
        }
        Ok(())
    }

    fn encode_producers(&self, out: &mut Vec<u8>) {
        out.put_u64(self.producers.duplicates);
        out.put_varint(self.producers.by_id.len() as u64);
        for (id, producer) in &self.producers.by_id {
            out.put(&id.0);
            out.put_u32(producer.epoch);
            out.put_varint(producer.floor);
            out.put_varint(producer.last_position);
            out.put_varint(producer.window.len() as u64);
            for (sequence, receipt) in &producer.window {
                out.put_varint(*sequence);
                encode_receipt(receipt, out);
            }
        }
        out.put_varint(self.producers.order.len() as u64);
        for tag in &self.producers.order {
            out.put(&tag.id.0);
            out.put_u32(tag.epoch);
            out.put_varint(tag.sequence);
        }
        out.put_varint(self.producers.event_order.len() as u64);
        for id in &self.producers.event_order {
            out.put(&id.0);
            let receipt = self.producers.receipt_of_id(id).expect("ids are forgotten in order");
            encode_receipt(receipt, out);
        }
    }

    fn decode_producers(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        self.producers.duplicates = reader.u64("duplicates")?;
        for _ in 0..reader.count("producers", 23)? {
            let id = ProducerId(reader.array("producer id")?);
            let epoch = reader.u32("epoch")?;
            let floor = reader.varint("floor")?;
            let last_position = reader.varint("last position")?;
            let count = reader.count("window", 1 + RECEIPT_MIN)?;
            let window = (0..count)
                .map(|_| Ok((reader.varint("sequence")?, Arc::new(decode_receipt(reader)?))))
                .collect::<Result<_, DecodeError>>()?;
            self.producers.restore(id, Producer { epoch, floor, last_position, window });
        }
        for _ in 0..reader.count("remembered requests", 21)? {
            let id = ProducerId(reader.array("producer id")?);
            let epoch = reader.u32("epoch")?;
            let sequence = reader.varint("sequence")?;
            self.producers.order.push_back(ProducerTag { id, epoch, sequence });
        }
        for _ in 0..reader.count("event ids", 16 + RECEIPT_MIN)? {
            let id = EventId(reader.array("event id")?);
            let receipt = Arc::new(decode_receipt(reader)?);
            self.producers.record_id(id, &receipt);
        }
        Ok(())
    }
}

fn encode_receipt(receipt: &Receipt, out: &mut Vec<u8>) {
    receipt.origin.encode(out);
    out.put_varint(receipt.first.0);
    out.put_varint(u64::from(receipt.events));
    out.put_u64(receipt.content.0);
    out.put_varint(receipt.position);
    out.put_u64(receipt.stamp.0);
    out.put_varint(receipt.last_revisions.len() as u64);
    receipt.last_revisions.iter().for_each(|revision| out.put_varint(*revision));
}

fn decode_receipt(reader: &mut Reader) -> Result<Receipt, DecodeError> {
    let origin = Origin::decode(reader)?;
    let first = Seq(reader.varint("first seq")?);
    let value = reader.varint("events")?;
    let too_many = DecodeError::Invalid { what: "events", value };
    let events = u32::try_from(value).map_err(|_| too_many)?;
    let content = ContentHash(reader.u64("content hash")?);
    let position = reader.varint("position")?;
    let stamp = Stamp(reader.u64("stamp")?);
    let count = reader.count("last revisions", 1)?;
    let last_revisions = (0..count).map(|_| reader.varint("revision")).collect::<Result<_, _>>()?;
    Ok(Receipt { origin, first, events, content, position, stamp, last_revisions })
}
