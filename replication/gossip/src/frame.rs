//! Frames: what travels on a session's own stream, and their bytes.
//!
//! A frame is a little-endian `u32` length, a kind byte and the fields. The version of the wire is in
//! [`Hello`], that of framing and hello themselves in the ALPN: so two versions can still tell each
//! other what they speak. An unknown kind is an error, never skipped. Decoding never panics and
//! never holds more than [`FRAME_BYTES_MAX`].

use anabranch_core::codec::{Put, Reader};
use anabranch_core::{DecodeError, Digest, NodeId, Origin, RegionName, Seq, ShardId};
use bytes::{Buf, Bytes, BytesMut};

/// Version that both hellos must carry. 2: questions.
pub const WIRE_VERSION: u16 = 2;

/// Longest frame that is read: the largest group there can be, and room to spare.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most digests in one frame.
const DIGESTS_MAX: usize = 1_024;

/// Bytes of the length before a frame.
const LENGTH_BYTES: usize = 4;

/// Which wanted origin a piece of history answers. Chosen by the puller, never reused in a session,
/// so that what is still under way for a want that was given up is not mistaken for its successor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantId(pub u32);

/// The first frame in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`WIRE_VERSION`] of the sender.
    pub version: u16,
    /// Name of the installation.
    pub cluster: String,
    /// Region of the sender; its certificate says the same.
    pub region: RegionName,
    /// Which node of the region.
    pub node: NodeId,
    /// Shard the session is about.
    pub shard: ShardId,
    /// Whose log the sender has, if it has one yet.
    pub origin: Option<Origin>,
}

/// What a region says regularly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The sender's wall clock, in Unix milliseconds.
    pub clock_unix_ms: u64,
    /// The sender's own digest first, then others it relays.
    pub digests: Vec<Digest>,
}

/// What travels on a session's own stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Who speaks. First, once, both ways.
    Hello(Hello),
    /// Puller to server: send `origin` from number `from` on, until told otherwise.
    Want {
        /// Names this want on the session.
        id: WantId,
        /// Whose events.
        origin: Origin,
        /// First number that is missing.
        from: Seq,
    },
    /// Puller to server: stop sending.
    Unwant {
        /// The want that ends.
        id: WantId,
    },
    /// Server to puller: the next group of a want, as stored.
    Group {
        /// The want it answers.
        id: WantId,
        /// The encoded group.
        group: Bytes,
    },
    /// Server to puller: digests and heartbeat.
    Report(Report),
}

const HELLO: u8 = 1;
const WANT: u8 = 2;
const UNWANT: u8 = 3;
const GROUP: u8 = 4;
const REPORT: u8 = 5;

impl Frame {
    /// The frame's bytes, length included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; LENGTH_BYTES];
        match self {
            Self::Hello(hello) => hello.encode(&mut out),
            Self::Want { id, origin, from } => {
                out.put_byte(WANT);
                out.put_u32(id.0);
                origin.encode(&mut out);
                out.put_varint(from.0);
            }
            Self::Unwant { id } => {
                out.put_byte(UNWANT);
                out.put_u32(id.0);
            }
            Self::Group { id, group } => {
                out.reserve(8 + group.len());
                out.put_byte(GROUP);
                out.put_u32(id.0);
                out.put(group);
            }
            Self::Report(report) => report.encode(&mut out),
        }
        let len = u32::try_from(out.len() - LENGTH_BYTES).expect("groups are a few megabytes");
        out[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
        out
    }

    /// Reads a frame without its length.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let frame = match reader.byte("frame kind")? {
            HELLO => Self::Hello(Hello::decode(&mut reader)?),
            WANT => Self::Want {
                id: WantId(reader.u32("want id")?),
                origin: Origin::decode(&mut reader)?,
                from: seq(&mut reader, "wanted seq")?,
            },
            UNWANT => Self::Unwant { id: WantId(reader.u32("want id")?) },
            GROUP => Self::Group { id: WantId(reader.u32("want id")?), group: reader.rest() },
            REPORT => Self::Report(Report::decode(&mut reader)?),
            value => return Err(DecodeError::Invalid { what: "frame kind", value: value.into() }),
        };
        reader.finish("frame")?;
        Ok(frame)
    }
}

/// Reads the number of an event: from 1, and in the half of the range that is in use.
pub(crate) fn seq(reader: &mut Reader, what: &'static str) -> Result<Seq, DecodeError> {
    match reader.varint(what)? {
        value @ (0 | 0x8000_0000_0000_0000..) => Err(DecodeError::Invalid { what, value }),
        value => Ok(Seq(value)),
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_byte(HELLO);
        out.put_u16(self.version);
        out.put_slice_with_len(self.cluster.as_bytes());
        self.region.encode(out);
        out.put_u64(self.node.0);
        out.put_u16(self.shard.0);
        out.put_byte(self.origin.is_some().into());
        self.origin.iter().for_each(|origin| origin.encode(out));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            version: reader.u16("wire version")?,
            cluster: reader.text("cluster")?.to_string(),
            region: RegionName::decode(reader)?,
            node: NodeId(reader.u64("node")?),
            shard: ShardId(reader.u16("shard")?),
            origin: match reader.byte("origin flag")? {
                0 => None,
                1 => Some(Origin::decode(reader)?),
                value => {
                    return Err(DecodeError::Invalid { what: "origin flag", value: value.into() });
                }
            },
        })
    }
}

impl Report {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_byte(REPORT);
        out.put_u64(self.clock_unix_ms);
        let digests = &self.digests[..self.digests.len().min(DIGESTS_MAX)];
        out.put_varint(digests.len() as u64);
        digests.iter().for_each(|digest| digest.encode(out));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let clock_unix_ms = reader.u64("clock")?;
        let count = reader.count("digests", Origin::ENCODED_MIN)?;
        if count > DIGESTS_MAX {
            return Err(DecodeError::Invalid { what: "digests", value: count as u64 });
        }
        let digests = (0..count).map(|_| Digest::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { clock_unix_ms, digests })
    }
}

/// What travels beside the streams, as a datagram: neither waits behind history nor for a reader, so
/// that the time it takes is the way's and nothing else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Puller to server: what is your time?
    ClockQuestion {
        /// The puller's own time, which only it reads: milliseconds since some moment of its own.
        asked_ms: u64,
    },
    /// Server to puller, at once.
    ClockAnswer {
        /// From the question.
        asked_ms: u64,
        /// The server's wall clock, in Unix milliseconds.
        unix_ms: u64,
        /// Whether something speaks for it besides itself.
        proven: bool,
    },
}

const CLOCK_QUESTION: u8 = 1;
const CLOCK_ANSWER: u8 = 2;

impl Beside {
    /// The datagram's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(18);
        match self {
            Self::ClockQuestion { asked_ms } => {
                out.put_byte(CLOCK_QUESTION);
                out.put_u64(*asked_ms);
            }
            Self::ClockAnswer { asked_ms, unix_ms, proven } => {
                out.put_byte(CLOCK_ANSWER);
                out.put_u64(*asked_ms);
                out.put_u64(*unix_ms);
                out.put_byte((*proven).into());
            }
        }
        out.into()
    }

    /// Reads a datagram. One of a kind that this version does not know may be passed over: nothing
    /// depends on it.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let beside = match reader.byte("datagram kind")? {
            CLOCK_QUESTION => Self::ClockQuestion { asked_ms: reader.u64("time of the question")? },
            CLOCK_ANSWER => Self::ClockAnswer {
                asked_ms: reader.u64("time of the question")?,
                unix_ms: reader.u64("clock")?,
                proven: match reader.byte("clock's proof")? {
                    0 => false,
                    1 => true,
                    value => {
                        let value = value.into();
                        return Err(DecodeError::Invalid { what: "clock's proof", value });
                    }
                },
            },
            value => {
                return Err(DecodeError::Invalid { what: "datagram kind", value: value.into() });
            }
        };
        reader.finish("datagram")?;
        Ok(beside)
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the stream cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*length) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(DecodeError::Invalid { what: "frame length", value: len as u64 });
        }
        if self.bytes.len() < LENGTH_BYTES + len {
            self.bytes.reserve(LENGTH_BYTES + len - self.bytes.len());
            return Ok(None);
        }
        self.bytes.advance(LENGTH_BYTES);
        Frame::decode(self.bytes.split_to(len).freeze()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::{Incarnation, Stamp};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn origin(region: &str) -> Origin {
        let region = RegionName::new(region).unwrap();
        Origin { region, incarnation: Incarnation(7), shard: ShardId(0) }
    }

    fn samples() -> Vec<Frame> {
        let eu = origin("eu");
        let frontier = [(eu.clone(), Seq(8)), (origin("us"), Seq(300))].into_iter().collect();
        let digest = Digest { origin: eu.clone(), stamp: Stamp(99), frontier };
        vec![
            Frame::Hello(Hello {
                version: WIRE_VERSION,
                cluster: "test".into(),
                region: eu.region.clone(),
                node: NodeId(3),
                shard: ShardId(0),
                origin: Some(eu.clone()),
            }),
            Frame::Want { id: WantId(1), origin: eu, from: Seq(9) },
            Frame::Unwant { id: WantId(1) },
            Frame::Group { id: WantId(2), group: Bytes::from_static(b"group") },
            Frame::Report(Report { clock_unix_ms: 5, digests: vec![digest.clone(), digest] }),
        ]
    }

    #[test]
    fn frames_come_back_however_the_stream_is_cut() {
        let bytes: Vec<u8> = samples().iter().flat_map(Frame::encode).collect();
        for step in [1, 3, 7, bytes.len()] {
            let mut buffer = FrameBuffer::default();
            let mut read = Vec::new();
            for chunk in bytes.chunks(step) {
                buffer.push(chunk);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, samples(), "in chunks of {step}");
        }
    }

    #[test]
    fn datagrams_come_back_and_cut_or_unknown_ones_are_refused() {
        let question = Beside::ClockQuestion { asked_ms: 7 };
        let answer = |proven| Beside::ClockAnswer { asked_ms: 7, unix_ms: u64::MAX, proven };
        for beside in [question, answer(true), answer(false)] {
            let bytes = beside.encode();
            assert_eq!(Beside::decode(bytes.clone()), Ok(beside));
            for len in 0..bytes.len() {
                assert!(Beside::decode(bytes.slice(..len)).is_err(), "{beside:?} cut at {len}");
            }
        }
        let unknown = Bytes::from_static(&[9; 9]);
        assert!(matches!(Beside::decode(unknown), Err(DecodeError::Invalid { value: 9, .. })));
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_arrives() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(matches!(
            buffer.next_frame(),
            Err(DecodeError::Invalid { what: "frame length", .. })
        ));
    }

    #[test]
    fn every_cut_of_a_frame_is_refused_not_misread() {
        for frame in samples() {
            let whole = Bytes::from(frame.encode()).slice(LENGTH_BYTES..);
            for len in 0..whole.len() {
                match Frame::decode(whole.slice(..len)) {
                    Err(_) => {}
                    // A group's length is the frame's: the chain hash inside it notices the cut.
                    Ok(Frame::Group { .. }) => {}
                    Ok(other) => panic!("cut at {len} reads as {other:?}"),
                }
            }
        }
    }

    #[test]
    fn garbage_never_panics_and_what_decodes_encodes_to_something_that_decodes_the_same() {
        let mut rng = SmallRng::seed_from_u64(11);
        let valid: Vec<Vec<u8>> = samples().iter().map(Frame::encode).collect();
        let mut decoded = 0;
        for round in 0..60_000 {
            let mut bytes = valid[round % valid.len()][LENGTH_BYTES..].to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len() * 2).min(bytes.len()));
            if let Ok(frame) = Frame::decode(bytes.into()) {
                decoded += 1;
                let again = Frame::decode(Bytes::from(frame.encode()).slice(LENGTH_BYTES..));
                assert_eq!(again, Ok(frame));
            }
        }
        assert!(decoded > 1_000, "only {decoded} mutants decoded: the test looks at nothing");
    }
}
