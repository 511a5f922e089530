//! What is declared for a category by an event: which aggregates it has, how its conflicts are decided.
//!
//! The declarations of a category are events of one stream. The one with the highest version counts; of
//! several with the same version the last by (stamp, dot). That is a function of the *set* of events, so
//! every region that holds the same ones goes by the same declaration, in whatever order they came.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::codec::{DecodeError, Put, Reader};
use crate::id::{Dot, Origin, Seq};
use crate::planted::{self, Bug};
use crate::stamp::Stamp;

/// Something that events declare.
pub trait Declare: Sized {
    /// Category of the streams that hold the declarations.
    const CATEGORY: &'static str;
    /// Type of the events in them.
    const EVENT_TYPE: &'static str;
    /// What it is called, for messages.
    const WHAT: &'static str;
    /// A bug that makes the last one that came count, among those of one version.
    const LAST_COUNTS: Option<Bug> = None;
    /// Why JSON is none.
    type Bad: Error + 'static;

    /// Reads the payload of an event.
    ///
    /// # Errors
    /// [`Bad`](Self::Bad) names the part that is wrong.
    fn from_json(json: &Json) -> Result<Self, Self::Bad>;
    /// The payload of an event.
    fn to_json(&self) -> Json;
    /// For which category it is.
    fn category(&self) -> &str;
    /// The higher one counts.
    fn version(&self) -> u32;

    /// The stream that holds a category's declarations.
    fn stream_of(category: &str) -> String {
        format!("{}-{category}", Self::CATEGORY)
    }
}

/// What was declared, and by which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared<T> {
    /// What it says.
    pub declaration: Arc<T>,
    /// When.
    pub stamp: Stamp,
    /// By which event.
    pub dot: Dot,
}

impl<T: Declare> Declared<T> {
    /// Which of two of a category counts: the same in every region that holds both.
    fn rank(&self) -> (u32, Stamp, &Dot) {
        (self.declaration.version(), self.stamp, &self.dot)
    }

    fn counts_over(&self, old: &Self) -> bool {
        let same_version = self.declaration.version() == old.declaration.version();
        let last_counts = same_version && T::LAST_COUNTS.is_some_and(planted::is);
        last_counts || old.rank() < self.rank()
    }
}

/// Why an event declares nothing.
#[derive(Debug, thiserror::Error)]
pub enum NoDeclaration<B: Error + 'static> {
    /// It is of another type.
    #[error("its type is {actual}, not {wanted}")]
    Kind {
        /// Its type.
        actual: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is no JSON.
    #[error("its payload is no JSON: {0}")]
    NoJson(serde_json::Error),
    /// It is JSON, but declares nothing of this sort.
    #[error("it is no {what}: {problem}")]
    Bad {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        problem: B,
    },
    /// It is in another category's stream.
    #[error("it is about {0}, which does not belong in this stream")]
    Elsewhere(String),
}

/// What counts, of every category for which something was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declarations<T> {
    current: BTreeMap<String, Declared<T>>,
}

impl<T> Default for Declarations<T> {
    fn default() -> Self {
        Self { current: BTreeMap::new() }
    }
}

impl<T: Declare> Declarations<T> {
    /// Takes an event of a stream of declarations in. What it declares, if that counts now.
    ///
    /// # Errors
    /// [`NoDeclaration`]; nothing has changed then.
    pub fn take(
        &mut self,
        dot: Dot,
        stamp: Stamp,
        stream: &str,
        kind: &str,
        payload: &[u8],
    ) -> Result<Option<Arc<T>>, NoDeclaration<T::Bad>> {
        if kind != T::EVENT_TYPE {
            let (actual, wanted) = (kind.to_owned(), T::EVENT_TYPE);
            return Err(NoDeclaration::Kind { actual, wanted });
        }
        let json: Json = serde_json::from_slice(payload).map_err(NoDeclaration::NoJson)?;
        let bad = |problem| NoDeclaration::Bad { what: T::WHAT, problem };
        let declaration = T::from_json(&json).map_err(bad)?;
        let category = declaration.category();
        if T::stream_of(category) != stream {
            return Err(NoDeclaration::Elsewhere(category.to_owned()));
        }
        let category = category.to_owned();
        let declaration = Arc::new(declaration);
        let declared = Declared { declaration: Arc::clone(&declaration), stamp, dot };
        let counts = self.current.get(&category).is_none_or(|old| declared.counts_over(old));
        if counts {
            self.current.insert(category, declared);
        }
        Ok(counts.then_some(declaration))
    }

    /// What counts for a category.
    pub fn of(&self, category: &str) -> Option<&Declared<T>> {
        self.current.get(category)
    }
    /// All that count, by category.
    pub fn iter(&self) -> impl Iterator<Item = &Declared<T>> {
        self.current.values()
    }

    /// Appends all of them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.current.len() as u64);
        for Declared { declaration, stamp, dot } in self.current.values() {
            write(declaration.as_ref(), out);
            out.put_u64(stamp.0);
            dot.origin.encode(out);
            out.put_varint(dot.seq.0);
        }
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut current = BTreeMap::new();
        for _ in 0..reader.count("declarations", 30)? {
            let declaration: Arc<T> = read(reader)?;
            let stamp = Stamp(reader.u64("stamp of a declaration")?);
            let origin = Origin::decode(reader)?;
            let dot = Dot { origin, seq: Seq(reader.varint("seq of a declaration")?) };
            let category = declaration.category().to_owned();
            current.insert(category, Declared { declaration, stamp, dot });
        }
        Ok(Self { current })
    }
}

/// Appends a declaration without the event.
pub fn write<T: Declare>(declaration: &T, out: &mut Vec<u8>) {
    out.put_slice_with_len(declaration.to_json().to_string().as_bytes());
}

/// Reads what [`write()`] wrote.
pub fn read<T: Declare>(reader: &mut Reader) -> Result<Arc<T>, DecodeError> {
    let text = reader.text(T::WHAT)?;
    let wrong = || DecodeError::Text { what: T::WHAT };
    let json: Json = serde_json::from_str(&text).map_err(|_| wrong())?;
    T::from_json(&json).map(Arc::new).map_err(|_| wrong())
}
