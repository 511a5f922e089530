//! What a client has written and seen.

use std::sync::Arc;

use anabranch_core::{DecodeError, SessionToken};
use bytes::Bytes;
use parking_lot::Mutex;

/// What this client has written and seen: reads wait until they can show all of it.
///
/// The client merges the token of every answer into it and sends it with every read. Its bytes mean
/// the same in every region, so a user's next request may carry them anywhere: take
/// [`token`](Self::token) after the last call, [`merge`](Self::merge) it into the client that
/// serves the next one. Clones share one session.
#[derive(Debug, Clone, Default)]
pub struct Session {
    token: Arc<Mutex<SessionToken>>,
}

/// Bytes that are not a session token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no session token")]
pub struct BadToken {
    /// Why not.
    #[from]
    source: DecodeError,
}

impl Session {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }
    /// The session as bytes to keep or to hand on.
    pub fn token(&self) -> Bytes {
        self.token.lock().encode()
    }
    /// Adds what another session has seen.
    ///
    /// # Errors
    /// [`BadToken`], and nothing is changed.
    pub fn merge(&self, token: &[u8]) -> Result<(), BadToken> {
        let other = SessionToken::decode(Bytes::copy_from_slice(token))?;
        self.token.lock().context.merge(&other.context);
        Ok(())
    }
    /// Forgets what was seen and goes on from `token`; from nothing if it is empty.
    ///
    /// # Errors
    /// [`BadToken`], and nothing is changed.
    pub fn replace(&self, token: &[u8]) -> Result<(), BadToken> {
        let token = match token {
            [] => SessionToken::default(),
            bytes => SessionToken::decode(Bytes::copy_from_slice(bytes))?,
        };
        *self.token.lock() = token;
        Ok(())
    }

    /// The token to send: no bytes while nothing was seen.
    pub(crate) fn to_send(&self) -> Bytes {
        let token = self.token.lock();
        if token.context.is_empty() { Bytes::new() } else { token.encode() }
    }
    /// Adds what an answer carries; an answer without a token adds nothing.
    pub(crate) fn merge_answer(&self, token: &Bytes) -> Result<(), DecodeError> {
        if token.is_empty() {
            return Ok(());
        }
        let other = SessionToken::decode(token.clone())?;
        self.token.lock().context.merge(&other.context);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::{Incarnation, Origin, RegionName, Seq, ShardId};

    fn token(region: &str, seq: u64) -> Bytes {
        let region = RegionName::new(region).unwrap();
        let origin = Origin { region, incarnation: Incarnation(1), shard: ShardId(0) };
        SessionToken { context: [(origin, Seq(seq))].into_iter().collect() }.encode()
    }

    #[test]
    fn a_session_only_grows_unless_it_is_replaced() {
        let session = Session::new();
        assert!(session.to_send().is_empty(), "nothing seen, nothing to wait for");
        session.merge(&token("eu", 5)).unwrap();
        session.clone().merge(&token("eu", 3)).unwrap();
        assert_eq!(session.token(), token("eu", 5), "clones share it, and it never goes back");
        session.replace(&token("us", 1)).unwrap();
        assert_eq!(session.token(), token("us", 1));
        assert!(session.merge(b"junk").is_err());
        assert_eq!(session.token(), token("us", 1));
        session.replace(b"").unwrap();
        assert!(session.to_send().is_empty());
    }
}
