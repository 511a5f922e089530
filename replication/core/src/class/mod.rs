//! Stream classes: who may append to the streams of a category.
//!
//! Streams are *multi-writer* unless their category was declared *homed*: then one region appends to
//! them, their home, and the others refuse and name it. So an expected revision of a homed stream is
//! one number, strict over all regions.
//!
//! # How a home comes to be, without asking a majority
//!
//! A [`Change`] is an event of the stream [`stream_of`] the category, so it takes the way of every event.
//!
//! - A region that holds the declaration appends to the category no more, unless it is the home. Once
//!   every member's receipt covers the declaration ([`Region::unconfirmed`](crate::Region::unconfirmed)),
//!   the home holds all that the others had appended before: a receipt is believed only together with
//!   the events that it speaks of. From then on the home's revisions are strict. Until then it appends,
//!   but says yes to no expectation.
//! - Of two declarations that did not know of each other the first one counts, by stamp. Whoever's
//!   declaration is confirmed by all has seen every other.
//! - A home that all have confirmed can end, if it is the home of all streams of its category: from that
//!   event on an expectation is exact within a region again, and a region that holds the event appends.
//!   It holds all that the home appended before. What is declared after the end is a home like the first.
//! - Handing over is an event, too: the home releases a stream, or the whole category, to another region
//!   and appends no more; the other one appends once it holds the release, and so everything before it.
//!
//! Everything here is a function of the set of events that are held, the same in every region.

mod homes;

pub use homes::{Declared, Home, Homes};
pub(crate) use homes::{Entry, Lookup};

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::event::{Event, category};
use crate::id::RegionName;

/// Category of the streams that hold the changes of class, one stream a category.
pub const CATEGORY: &str = "$class";
/// Type of the event that makes a category homed.
pub const DECLARED: &str = "HomeDeclared";
/// Type of the event that hands over.
pub const RELEASED: &str = "HomeReleased";
/// Type of the event that makes a category multi-writer again.
pub const ENDED: &str = "HomeEnded";

/// Beginning of the names of those streams.
const PREFIX: &str = "$class-";

/// The stream that holds a category's changes of class.
pub fn stream_of(category: &str) -> String {
    format!("{PREFIX}{category}")
}

/// Whether a stream holds changes of class.
pub fn is_of_classes(stream: &str) -> bool {
    stream.starts_with(PREFIX)
}

/// What an event of such a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The streams of the category are homed.
    Declared {
        /// The category.
        category: String,
        /// Their home.
        home: RegionName,
        /// Which home of the category that is: 1, or one more than the epoch of the end before it.
        epoch: u32,
    },
    /// The home gives up a stream, or all streams of the category that were not handed over by
    /// themselves.
    Released {
        /// The category.
        category: String,
        /// The stream; `None`: the category's others.
        stream: Option<String>,
        /// The home that comes next.
        to: RegionName,
        /// Which home that is: one more than the epoch of the home that releases.
        epoch: u32,
    },
    /// The home of all streams of the category gives them up to all regions.
    Ended {
        /// The category.
        category: String,
        /// One more than any epoch of the category or its streams.
        epoch: u32,
    },
}

/// Why an event of a stream of classes says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// It is of another type.
    #[error("its type is {0:?}, not {DECLARED}, {RELEASED} or {ENDED}")]
    Kind(String),
    /// Its payload is not what it has to be.
    #[error("its payload: {0}")]
    Form(String),
    /// It is about another category than its stream.
    #[error("it is about {0:?}, which does not belong in this stream")]
    Elsewhere(String),
    /// Streams that the store itself writes have no home.
    #[error("the store's own categories have no home; {0:?} begins with '$'")]
    Own(String),
}

impl Change {
    /// The category that it is about.
    pub fn category(&self) -> &str {
        match self {
            Self::Declared { category, .. }
            | Self::Released { category, .. }
            | Self::Ended { category, .. } => category,
        }
    }

    /// The home that comes next, if one does.
    pub fn next(&self) -> Option<&RegionName> {
        match self {
            Self::Declared { home: next, .. } | Self::Released { to: next, .. } => Some(next),
            Self::Ended { .. } => None,
        }
    }

    /// The event that says it.
    pub fn event(&self) -> Event {
        let mut json = Map::new();
        json.insert("category".into(), self.category().into());
        let kind = match self {
            Self::Declared { home, epoch, .. } => {
                json.insert("home".into(), home.as_str().into());
                if *epoch != 1 {
                    json.insert("epoch".into(), (*epoch).into());
                }
                DECLARED
            }
            Self::Released { stream, to, epoch, .. } => {
                if let Some(stream) = stream {
                    json.insert("stream".into(), stream.as_str().into());
                }
                json.insert("to".into(), to.as_str().into());
                json.insert("epoch".into(), (*epoch).into());
                RELEASED
            }
            Self::Ended { epoch, .. } => {
                json.insert("epoch".into(), (*epoch).into());
                ENDED
            }
        };
        Event {
            stream: stream_of(self.category()),
            id: None,
            kind: kind.to_owned(),
            metadata: BTreeMap::new(),
            payload: Json::Object(json).to_string().into(),
        }
    }

    /// Reads an event of a stream of classes.
    ///
    /// # Errors
    /// [`BadChange`]: it says nothing, in every region alike.
    pub fn read(stream: &str, kind: &str, payload: &[u8]) -> Result<Self, BadChange> {
        let form = |problem: &str| BadChange::Form(problem.to_owned());
        let known: &[&str] = match kind {
            DECLARED => &["category", "home", "epoch"],
            RELEASED => &["category", "stream", "to", "epoch"],
            ENDED => &["category", "epoch"],
            _ => return Err(BadChange::Kind(kind.to_owned())),
        };
        let json: Json =
            serde_json::from_slice(payload).map_err(|error| form(&error.to_string()))?;
        let json = json.as_object().ok_or_else(|| form("is not an object"))?;
        if let Some(other) = json.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(form(&format!("{other:?} is no part of it")));
        }
        let text = |name: &str| json.get(name).and_then(Json::as_str);
        let needed = |name: &str| text(name).ok_or_else(|| form(&format!("{name} is missing")));
        let region = |name: &str| {
            RegionName::new(needed(name)?).map_err(|error| form(&format!("{name}: {error}")))
        };
        let named = needed("category")?.to_owned();
        if stream_of(&named) != stream || named != category(&named) {
            return Err(BadChange::Elsewhere(named));
        }
        if named.starts_with('$') {
            return Err(BadChange::Own(named));
        }
        let epoch = json.get("epoch").and_then(Json::as_u64);
        let epoch = epoch.and_then(|epoch| u32::try_from(epoch).ok());
        let epoch = match json.contains_key("epoch") || kind != DECLARED {
            true => epoch.ok_or_else(|| form("epoch is no number of a home"))?,
            false => 1,
        };
        if kind == DECLARED {
            return Ok(Self::Declared { category: named, home: region("home")?, epoch });
        }
        if kind == ENDED {
            return Ok(Self::Ended { category: named, epoch });
        }
        let of = text("stream").map(str::to_owned);
        if json.contains_key("stream") && of.is_none() {
            return Err(form("stream is not text"));
        }
        if let Some(other) = of.as_ref().filter(|of| category(of) != named) {
            return Err(BadChange::Elsewhere(other.clone()));
        }
        Ok(Self::Released { category: named, stream: of, to: region("to")?, epoch })
    }
}

#[cfg(test)]
mod tests;
