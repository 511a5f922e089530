//! Which definitions there are: folded from the events that declare them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::aggregate::{BadDefinition, Definition};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::planted::{self, Bug};
use anabranch_core::{Dot, Origin, Seq, Stamp};
use serde_json::Value as Json;

/// Category of the streams that hold definitions, one stream a category.
pub const CATEGORY: &str = "$definition";
/// Type of the events in them.
pub const EVENT_TYPE: &str = "DefinitionDeclared";

/// The stream that holds a category's definitions.
pub fn stream_of(category: &str) -> String {
    format!("{CATEGORY}-{category}")
}

/// A definition, and the event that declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The definition.
    pub definition: Arc<Definition>,
    /// When.
    pub stamp: Stamp,
    /// By which event.
    pub dot: Dot,
}

impl Declared {
    /// Which of two definitions of a category counts: the same in every region that holds both.
    fn rank(&self) -> (u32, Stamp, &Dot) {
        (self.definition.version, self.stamp, &self.dot)
    }
}

/// Why an event declares nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoDeclaration {
    #[error("its type is {0}, not {EVENT_TYPE}")]
    Kind(String),
    #[error("its payload is no JSON: {0}")]
    NoJson(#[from] serde_json::Error),
    #[error("it is no definition: {0}")]
    Definition(#[from] BadDefinition),
    #[error("it defines {0}, which does not belong in this stream")]
    Elsewhere(String),
}

/// The definition that counts, of every category.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    current: BTreeMap<String, Declared>,
}

impl Catalog {
    /// Takes an event of a stream of definitions in. Says which category's definition it changed.
    pub(super) fn take(
        &mut self,
        dot: Dot,
        stamp: Stamp,
        stream: &str,
        kind: &str,
        payload: &[u8],
    ) -> Result<Option<Declared>, NoDeclaration> {
        if kind != EVENT_TYPE {
            return Err(NoDeclaration::Kind(kind.to_owned()));
        }
        let json: Json = serde_json::from_slice(payload)?;
        let definition = Definition::from_json(&json)?;
        if stream_of(&definition.category) != stream {
            return Err(NoDeclaration::Elsewhere(definition.category));
        }
        let declared = Declared { definition: Arc::new(definition), stamp, dot };
        let category = &declared.definition.category;
        let counts = self.current.get(category).is_none_or(|old| {
            let same_version = old.definition.version == declared.definition.version;
            let last_counts = same_version && planted::is(Bug::LastDefinitionCounts);
            last_counts || old.rank() < declared.rank()
        });
        if counts {
            self.current.insert(category.clone(), declared.clone());
        }
        Ok(counts.then_some(declared))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.current.values()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.current.len() as u64);
        for declared in self.current.values() {
            out.put_slice_with_len(declared.definition.to_json().to_string().as_bytes());
            out.put_u64(declared.stamp.0);
            declared.dot.origin.encode(out);
            out.put_varint(declared.dot.seq.0);
        }
    }
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut catalog = Self::default();
        for _ in 0..reader.count("definitions", 30)? {
            let definition = read_definition(reader)?;
            let stamp = Stamp(reader.u64("stamp of a definition")?);
            let origin = Origin::decode(reader)?;
            let dot = Dot { origin, seq: Seq(reader.varint("seq of a definition")?) };
            let category = definition.category.clone();
            catalog.current.insert(category, Declared { definition, stamp, dot });
        }
        Ok(catalog)
    }
}

/// A definition as it is kept.
pub(super) fn read_definition(reader: &mut Reader) -> Result<Arc<Definition>, DecodeError> {
    let text = reader.text("definition")?;
    let wrong = DecodeError::Text { what: "definition" };
    let json: Json = serde_json::from_str(&text).map_err(|_| wrong.clone())?;
    Ok(Arc::new(Definition::from_json(&json).map_err(|_| wrong)?))
}
