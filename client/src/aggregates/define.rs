//! Definitions: declared, and looked at.

use std::sync::atomic::{AtomicU32, Ordering};

use anabranch_core::Dot;
use anabranch_proto::v1;
use bytes::Bytes;
use serde_json::Value as Json;

use super::{json, service};
use crate::call::Asking;
use crate::client::Client;
use crate::error::{Malformed, ReadError};
use crate::failure::is_in_doubt;

/// A definition that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    /// The category whose aggregates it defines.
    pub category: String,
    /// Its version.
    pub version: u32,
    /// True if the same definition counted already, and nothing was written.
    pub repeated: bool,
    /// The event that declares it, if it was written now.
    pub dot: Option<Dot>,
}

/// Why a definition was not declared as asked.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    /// Nothing was declared.
    #[error(transparent)]
    Refused(ReadError),
    /// It may have been declared: an attempt went unanswered. Declaring the same again counts once.
    #[error("no acknowledgement: {0}")]
    Unknown(#[source] ReadError),
}

/// A definition that a node knows, and how far it has come with the aggregates.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The category.
    pub category: String,
    /// The version.
    pub version: u32,
    /// The definition, as JSON.
    pub definition: Json,
    /// Whether readers see these aggregates. If not, they are being built.
    pub serving: bool,
    /// Events of the log that were looked at.
    pub position: u64,
    /// Events that the node held when it answered.
    pub of: u64,
    /// Events of the category among those looked at.
    pub events: u64,
    /// Of these, the ones that were left out.
    pub bad_events: u64,
    /// Which one was left out last, and why.
    pub last_bad_event: Option<String>,
    /// How far the ordered fields are, if there are any.
    pub settled: Option<Settled>,
}

/// How far a node is with ordered fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Events of the global order that were looked at.
    pub position: u64,
    /// Events of the category among them.
    pub events: u64,
    /// Of these, the ones that were left out.
    pub bad_events: u64,
    /// Which one was left out last, and why.
    pub last_bad_event: Option<String>,
}

impl Client {
    /// Declares a definition for all regions, or a newer version of one. It is JSON of the form
    /// `{"category": …, "version": …, "fields": {name: type}, "on": {event type: [statement]}}`.
    ///
    /// Aggregates are built in the background; until they are, those of the version before are served.
    /// It is tried again until there is an answer or the deadline has come: the same counts once.
    ///
    /// # Errors
    /// [`DefineError::Refused`] with [`ReadError::Invalid`] if a part is wrong, or if another definition
    /// of this or a higher version is there.
    pub async fn define(&self, definition: impl Into<String>) -> Result<Defined, DefineError> {
        let request = v1::DefineRequest { definition: definition.into().into() };
        let unanswered = AtomicU32::new(0);
        let ask = |channel| {
            let (request, unanswered) = (request.clone(), &unanswered);
            async move {
                // Cut off by the time limit, it stays counted.
                unanswered.fetch_add(1, Ordering::Relaxed);
                let answer = service(channel).define(request).await;
                if answer.as_ref().err().is_some_and(|status| !is_in_doubt(status)) {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                }
                answer
            }
        };
        let answer = self.ask(self.asking_at_home(), ask).await;
        let wire = answer.map_err(|error| match unanswered.load(Ordering::Relaxed) {
            0 => DefineError::Refused(error),
            _ => DefineError::Unknown(error),
        })?;
        let unreadable = |error: ReadError| DefineError::Unknown(error);
        self.session()
            .merge_answer(&wire.session_token)
            .map_err(|error| unreadable(error.into()))?;
        let dot = wire.dot.map(Dot::try_from).transpose();
        let dot = dot.map_err(|error| unreadable(error.into()))?;
        let v1::DefineResponse { category, version, repeated, .. } = wire;
        Ok(Defined { category, version, repeated, dot })
    }

    /// The definitions of `category` that a node of the own region knows, and how far it is with them;
    /// all definitions if it is empty. By category; of two versions, the one that is served first.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn definitions(
        &self,
        category: impl Into<String>,
    ) -> Result<Vec<Standing>, ReadError> {
        let request = v1::DefinitionsRequest { category: category.into() };
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).definitions(request).await }
        };
        let wire = self.ask(self.asking_at_home(), ask).await?;
        let standing = |standing| Standing::from_wire(standing, wire.position);
        wire.definitions.into_iter().map(standing).collect()
    }

    fn asking_at_home(&self) -> Asking {
        let options = self.options();
        let (patience, answer_within) = (options.timeout, options.attempt_timeout);
        Asking { portable: false, patience, answer_within }
    }
}

impl Standing {
    fn from_wire(wire: v1::DefinitionStanding, of: u64) -> Result<Self, ReadError> {
        let definition: Json = read(&wire.definition)?;
        let lacks = |name: &str| ReadError::Malformed {
            problem: Malformed::Json { field: "definition", problem: format!("lacks {name}") },
        };
        let category = definition["category"].as_str().ok_or_else(|| lacks("category"))?.to_owned();
        let version = definition["version"].as_u64().and_then(|version| version.try_into().ok());
        Ok(Self {
            category,
            version: version.ok_or_else(|| lacks("version"))?,
            definition,
            serving: wire.serving,
            position: wire.position,
            of,
            events: wire.events,
            bad_events: wire.bad_events,
            last_bad_event: said(wire.last_bad_event),
            settled: wire.settled.map(|settled| Settled {
                position: settled.position,
                events: settled.events,
                bad_events: settled.bad_events,
                last_bad_event: said(settled.last_bad_event),
            }),
        })
    }
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn read(bytes: &Bytes) -> Result<Json, ReadError> {
    serde_json::from_slice(bytes).map_err(|error| json("definition", &error))
}
