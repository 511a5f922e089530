//! Questions between regions, and their answers: their bytes.
//!
//! Each question has a two-way QUIC stream of its own, beside the session's. The puller writes a head
//! and the question; the server writes one answer. Both say how long they are: what is cut short, by
//! whomever, is never taken for whole. So a server acts on a question only once all of it is there, and
//! whoever could not hand all of it to the transport knows that nobody acts on it.

use std::time::Duration;

use anabranch_core::DecodeError;
use anabranch_core::codec::{Put, Reader};
use bytes::Bytes;

/// Bytes before a question.
pub const HEAD_BYTES: usize = 9;
/// Most bytes before an answer, and of a refusal.
pub const ANSWER_HEAD_BYTES_MAX: usize = 6;

/// The longest that a question can be given.
pub const WITHIN_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// What goes before a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How long the answer may take, in whole milliseconds, from when this is read.
    pub within: Duration,
    /// Bytes of the question.
    pub len: u32,
}

/// Why the other side did nothing about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is starting or stopping, or answers no questions about this shard.
    #[error("it is not ready to answer")]
    NotReady,
    /// It answers too many questions already, by their bytes.
    #[error("it answers too many questions already")]
    Busy,
    /// The question is longer than it takes.
    #[error("it takes questions of at most {limit} bytes")]
    TooLong {
        /// Bytes that it takes.
        limit: u32,
    },
    /// The question's time had passed before all of it was there.
    #[error("the question came too late")]
    Late,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The answer. Whatever the question asked for was begun.
    Answer(Bytes),
    /// Nothing was begun.
    Refused(Refusal),
}

const QUESTION: u8 = 1;

const ANSWER: u8 = 1;
const REFUSED: u8 = 2;

const NOT_READY: u8 = 1;
const BUSY: u8 = 2;
const TOO_LONG: u8 = 3;
const LATE: u8 = 4;

impl Head {
    /// The head's bytes. A time beyond [`WITHIN_MAX`] is shortened to it.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.put_byte(QUESTION);
        out.put_u32(u32::try_from(self.within.as_millis()).unwrap_or(u32::MAX));
        out.put_u32(self.len);
        out.try_into().expect("a byte and twice four")
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`DecodeError`] unless it is that of a question.
    pub fn decode(bytes: [u8; HEAD_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(&bytes));
        match reader.byte("kind of question")? {
            QUESTION => {}
            value => {
                let value = value.into();
                return Err(DecodeError::Invalid { what: "kind of question", value });
            }
        }
        let within = Duration::from_millis(reader.u32("time of the question")?.into());
        Ok(Self { within, len: reader.u32("length of the question")? })
    }
}

/// What goes before an answer of `len` bytes.
pub fn answer_head(len: u32) -> Bytes {
    let mut out = Vec::with_capacity(ANSWER_HEAD_BYTES_MAX);
    out.put_byte(ANSWER);
    out.put_u32(len);
    out.into()
}

impl Refusal {
    /// All the bytes of a reply that refuses.
    pub fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(ANSWER_HEAD_BYTES_MAX);
        out.put_byte(REFUSED);
        match self {
            Self::NotReady => out.put_byte(NOT_READY),
            Self::Busy => out.put_byte(BUSY),
            Self::TooLong { limit } => {
                out.put_byte(TOO_LONG);
                out.put_u32(limit);
            }
            Self::Late => out.put_byte(LATE),
        }
        out.into()
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.byte("refusal")? {
            NOT_READY => Ok(Self::NotReady),
            BUSY => Ok(Self::Busy),
            TOO_LONG => Ok(Self::TooLong { limit: reader.u32("bytes taken")? }),
            LATE => Ok(Self::Late),
            value => Err(DecodeError::Invalid { what: "refusal", value: value.into() }),
        }
    }
}

impl Reply {
    /// Reads all that came back.
    ///
    /// # Errors
    /// Any [`DecodeError`], also for an answer that was cut short.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.byte("kind of reply")? {
            ANSWER => {
                let len = reader.u32("length of the answer")?;
                let answer = reader.rest();
                if answer.len() != len as usize {
                    let value = answer.len() as u64;
                    return Err(DecodeError::Invalid { what: "length of the answer", value });
                }
                Self::Answer(answer)
            }
            REFUSED => Self::Refused(Refusal::decode(&mut reader)?),
            value => {
                return Err(DecodeError::Invalid { what: "kind of reply", value: value.into() });
            }
        };
        reader.finish("reply")?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies() -> Vec<(Reply, Vec<u8>)> {
        let answer = |text: &'static [u8]| {
            let bytes = [&answer_head(text.len() as u32)[..], text].concat();
            (Reply::Answer(Bytes::from_static(text)), bytes)
        };
        let refused = |refusal: Refusal| (Reply::Refused(refusal), refusal.encode().to_vec());
        vec![
            answer(b"yes"),
            answer(b""),
            refused(Refusal::NotReady),
            refused(Refusal::Busy),
            refused(Refusal::TooLong { limit: 300 }),
            refused(Refusal::Late),
        ]
    }

    #[test]
    fn a_head_comes_back_with_its_time_in_whole_milliseconds() {
        let head = Head { within: Duration::from_micros(1_999), len: 7 };
        let read = Head::decode(head.encode()).unwrap();
        assert_eq!(read, Head { within: Duration::from_millis(1), len: 7 });
        let for_ever = Head { within: Duration::MAX, len: u32::MAX };
        let read = Head::decode(for_ever.encode()).unwrap();
        assert_eq!(read, Head { within: WITHIN_MAX, len: u32::MAX });
        let unknown = Head::decode([9; HEAD_BYTES]).unwrap_err();
        assert!(matches!(unknown, DecodeError::Invalid { value: 9, .. }), "{unknown}");
    }

    #[test]
    fn replies_come_back_and_no_cut_of_one_is_taken_for_whole() {
        for (reply, bytes) in replies() {
            assert_eq!(Reply::decode(Bytes::from(bytes.clone())), Ok(reply.clone()));
            for len in 0..bytes.len() {
                let cut = Bytes::from(bytes[..len].to_vec());
                assert!(Reply::decode(cut).is_err(), "{reply:?} cut at {len}");
            }
            let longer = Bytes::from([&bytes[..], &[0]].concat());
            assert!(Reply::decode(longer).is_err(), "{reply:?} and one byte more");
        }
        for unknown in [[7, 1], [REFUSED, 9]] {
            assert!(Reply::decode(Bytes::copy_from_slice(&unknown)).is_err(), "{unknown:?}");
        }
    }
}
