//! What a client carries between calls and between regions: cursors and session tokens.
//!
//! Both hold a [`Context`], so they mean the same in every region. To the client they are opaque.

use bytes::Bytes;

use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;

/// Which of the two orders a reader reads in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadOrder {
    /// As this region received it.
    Regional,
    /// The same in every region, final once delivered.
    Global,
}

/// Where a reader is: everything in the context was delivered, nothing else was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The order it was read in. A cursor of one order does not resume the other.
    pub order: ReadOrder,
    /// What was delivered, or passed over because the filter did not match.
    pub context: Context,
}

/// What a client has seen and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionToken {
    /// Everything the session may depend on.
    pub context: Context,
}

const VERSION: u8 = 1;
const REGIONAL: u8 = b'r';
const GLOBAL: u8 = b'g';
const SESSION: u8 = b's';

impl Cursor {
    /// Before the first event of `order`.
    pub fn start(order: ReadOrder) -> Self {
        Self { order, context: Context::new() }
    }
    /// The bytes a client keeps.
    pub fn encode(&self) -> Bytes {
        let kind = match self.order {
            ReadOrder::Regional => REGIONAL,
            ReadOrder::Global => GLOBAL,
        };
        encode(kind, &self.context)
    }
    /// Reads what a client brings.
    ///
    /// # Errors
    /// Any [`DecodeError`] if these are not the bytes of a cursor.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (kind, context) = decode("cursor", bytes)?;
        let order = match kind {
            REGIONAL => ReadOrder::Regional,
            GLOBAL => ReadOrder::Global,
            value => return Err(DecodeError::Invalid { what: "cursor kind", value: value.into() }),
        };
        Ok(Self { order, context })
    }
}

impl SessionToken {
    /// The bytes a client keeps.
    pub fn encode(&self) -> Bytes {
        encode(SESSION, &self.context)
    }
    /// Reads what a client brings.
    ///
    /// # Errors
    /// Any [`DecodeError`] if these are not the bytes of a session token.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        match decode("session token", bytes)? {
            (SESSION, context) => Ok(Self { context }),
            (value, _) => {
                Err(DecodeError::Invalid { what: "session token kind", value: value.into() })
            }
        }
    }
}

fn encode(kind: u8, context: &Context) -> Bytes {
    let mut out = vec![VERSION, kind];
    context.encode(&mut out);
    let check = xxhash_rust::xxh3::xxh3_64(&out) as u16;
    out.put_u16(check);
    out.into()
}

/// The check is against accidents (a token cut by a column, a cursor of another system), not malice.
fn decode(what: &'static str, bytes: Bytes) -> Result<(u8, Context), DecodeError> {
    let Some(body_len) = bytes.len().checked_sub(2) else {
        return Err(DecodeError::Short { what, needed: 2, left: bytes.len() });
    };
    let check = xxhash_rust::xxh3::xxh3_64(&bytes[..body_len]) as u16;
    let mut reader = Reader::new(bytes.slice(body_len..));
    if reader.u16(what)? != check {
        return Err(DecodeError::Checksum { what });
    }
    let mut reader = Reader::new(bytes.slice(..body_len));
    match reader.byte(what)? {
        VERSION => {}
        value => return Err(DecodeError::Invalid { what, value: value.into() }),
    }
    let kind = reader.byte(what)?;
    let context = Context::decode(&mut reader)?;
    reader.finish(what)?;
    Ok((kind, context))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Origin, RegionName, Seq, ShardId};

    #[test]
    fn tokens_come_back_and_are_not_mistaken_for_each_other() {
        let region = RegionName::new("eu").unwrap();
        let origin = Origin { region, incarnation: Incarnation(1), shard: ShardId(0) };
        let context: Context = [(origin, Seq(9))].into_iter().collect();
        let cursor = Cursor { order: ReadOrder::Global, context: context.clone() };
        assert_eq!(Cursor::decode(cursor.encode()), Ok(cursor.clone()));
        let token = SessionToken { context };
        assert_eq!(SessionToken::decode(token.encode()), Ok(token.clone()));
        assert!(SessionToken::decode(cursor.encode()).is_err());
        assert!(Cursor::decode(token.encode()).is_err());
        let cut = cursor.encode();
        let cut = Cursor::decode(cut.slice(..cut.len() - 1));
        assert_eq!(cut, Err(DecodeError::Checksum { what: "cursor" }));
    }
}
