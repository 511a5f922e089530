//! Resolutions: events that say which of several concurrent events counts.

use serde_json::{Value as Json, json};

use super::run::Run;
use crate::aggregate::{context_of_hex, hex_of_context};
use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::id::{Dot, Incarnation, Origin, RegionName, Seq, ShardId};
use crate::stamp::Stamp;

/// Type of the events that resolve conflicts of their stream. They decide between others, and are
/// themselves in no conflict.
pub const RESOLVED: &str = "$resolved";

/// What an event of type [`RESOLVED`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The event that counts.
    pub winner: Dot,
    /// What whoever decided had seen; nothing: what the region held. What was not seen is not resolved.
    pub observed: Option<Context>,
}

/// Why an event of type [`RESOLVED`] resolves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResolution {
    /// It is no JSON.
    #[error("its payload is no JSON: {0}")]
    NoJson(String),
    /// A part is missing, or is something else.
    #[error("{part} {problem}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Resolution {
    /// The payload, JSON.
    pub fn to_json(&self) -> String {
        let Dot { origin, seq } = &self.winner;
        let mut json = json!({ "winner": {
            "region": origin.region.as_str(),
            "incarnation": origin.incarnation.to_string(),
            "shard": origin.shard.0,
            "seq": seq.0,
        } });
        if let Some(observed) = &self.observed {
            json["observed"] = hex_of_context(observed).into();
        }
        json.to_string()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`BadResolution`] names the part that is wrong.
    pub fn from_json(payload: &[u8]) -> Result<Self, BadResolution> {
        let json: Json = serde_json::from_slice(payload)
            .map_err(|error| BadResolution::NoJson(error.to_string()))?;
        let wrong = |part, problem| BadResolution::Part { part, problem };
        let winner = json.get("winner").ok_or(wrong("winner", "is missing"))?;
        let text = |name: &str| winner.get(name).and_then(Json::as_str);
        let number = |name: &str| winner.get(name).and_then(Json::as_u64);
        let region = text("region").and_then(|name| RegionName::new(name).ok());
        let incarnation = text("incarnation").filter(|digits| digits.len() == 32);
        let incarnation = incarnation.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        let shard = number("shard").and_then(|shard| u16::try_from(shard).ok());
        let seq = number("seq").filter(|seq| (1..=u64::MAX / 2).contains(seq));
        let origin = Origin {
            region: region.ok_or(wrong("winner.region", "is no name of a region"))?,
            incarnation: Incarnation(
                incarnation.ok_or(wrong("winner.incarnation", "is not 32 hexadecimal digits"))?,
            ),
            shard: ShardId(shard.ok_or(wrong("winner.shard", "is no number of a shard"))?),
        };
        let seq = Seq(seq.ok_or(wrong("winner.seq", "is no number of an event"))?);
        let observed = match json.get("observed") {
            None => None,
            Some(hex) => {
                let context = hex.as_str().and_then(context_of_hex);
                Some(context.ok_or(wrong("observed", "is no context"))?)
            }
        };
        Ok(Self { winner: Dot { origin, seq }, observed })
    }
}

/// A resolution, and the event that made it.
///
/// Of several that cover a conflict the first counts, by stamp, origin and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// When.
    pub stamp: Stamp,
    /// By which event.
    pub by: Dot,
    /// The event that counts.
    pub winner: Dot,
    /// What it resolves: what whoever decided had seen, and the region held.
    pub covers: Context,
}

impl Resolved {
    /// What the event `by` resolves, whose region held `context` of other origins.
    pub fn new(by: Dot, stamp: Stamp, context: &Context, resolution: Resolution) -> Self {
        let mut held = context.clone();
        held.advance(&by.origin, Seq(by.seq.0.saturating_sub(1)));
        let covers = match &resolution.observed {
            Some(observed) => held.meet(observed),
            None => held,
        };
        Self { stamp, by, winner: resolution.winner, covers }
    }

    /// Whether whoever decided had seen the event `event`, and all that is against it.
    pub fn covers(&self, event: &Dot, against: &[Run]) -> bool {
        let seen = |run: &Run| run.last <= self.covers.seq(&run.origin);
        self.covers.covers_dot(event) && against.iter().all(seen)
    }

    /// Appends all of it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.stamp.0);
        for dot in [&self.by, &self.winner] {
            dot.origin.encode(out);
            out.put_varint(dot.seq.0);
        }
        self.covers.encode(out);
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let stamp = Stamp(reader.u64("stamp of a resolution")?);
        let mut dot = || {
            let origin = Origin::decode(reader)?;
            Ok(Dot { origin, seq: Seq(reader.varint("seq of a resolution")?) })
        };
        let (by, winner) = (dot()?, dot()?);
        Ok(Self { stamp, by, winner, covers: Context::decode(reader)? })
    }
}

/// The resolution that counts for an event and all that is against it, if there is one.
pub fn first_of<'a>(
    resolutions: impl IntoIterator<Item = &'a Resolved>,
    event: &Dot,
    against: &[Run],
) -> Option<&'a Resolved> {
    let covering = resolutions.into_iter().filter(|resolved| resolved.covers(event, against));
    covering.min_by_key(|resolved| (resolved.stamp, &resolved.by))
}
