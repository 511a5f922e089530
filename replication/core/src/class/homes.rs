//! Which region is home to which streams.

use std::collections::BTreeMap;

use super::Change;
use crate::codec::{DecodeError, Put, Reader};
use crate::event::category;
use crate::id::{Dot, Origin, RegionName, Seq};
use crate::stamp::Stamp;

/// The region that appends to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Which region.
    pub region: RegionName,
    /// Which of the stream's homes, from 1: rises with every hand-over.
    pub epoch: u32,
}

/// A category whose streams are homed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Home of those of its streams that were not handed over by themselves.
    pub home: Home,
    /// The event that declared it.
    pub by: Dot,
    /// When.
    pub stamp: Stamp,
}

/// All homes that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homes {
    categories: BTreeMap<Box<str>, Declared>,
    /// Streams that were handed over by themselves.
    streams: BTreeMap<Box<str>, Home>,
}

/// Where homes are looked up: what is applied, or what will be.
pub(crate) trait Lookup {
    fn declared(&self, category: &str) -> Option<&Declared>;
    fn moved(&self, stream: &str) -> Option<&Home>;

    /// Home of a stream, if it has one.
    fn home(&self, stream: &str) -> Option<&Home> {
        let declared = self.declared(category(stream))?;
        Some(self.moved(stream).unwrap_or(&declared.home))
    }

    /// What a change comes to; `None` if it says nothing: it comes too late, or from a region that is
    /// not the home.
    fn effect(&self, change: &Change, by: &Dot, stamp: Stamp) -> Option<Entry> {
        match change {
            Change::Declared { category, home } => {
                let known = self.declared(category);
                let first = known.is_none_or(|known| (stamp, by) < (known.stamp, &known.by));
                let home = Home { region: home.clone(), epoch: 1 };
                let declared = Declared { home, by: by.clone(), stamp };
                first.then(|| Entry::Category(category.as_str().into(), declared))
            }
            Change::Released { category, stream, to, epoch } => {
                let declared = self.declared(category)?;
                let of = stream.as_deref();
                let home = of.map_or(Some(&declared.home), |stream| self.home(stream))?;
                if home.region != by.origin.region || home.epoch.checked_add(1) != Some(*epoch) {
                    return None;
                }
                let home = Home { region: to.clone(), epoch: *epoch };
                Some(match of {
                    Some(stream) => Entry::Stream(stream.into(), home),
                    None => Entry::Category(
                        category.as_str().into(),
                        Declared { home, ..declared.clone() },
                    ),
                })
            }
        }
    }
}

/// A new home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Category(Box<str>, Declared),
    Stream(Box<str>, Home),
}

impl Lookup for Homes {
    fn declared(&self, category: &str) -> Option<&Declared> {
        self.categories.get(category)
    }
    fn moved(&self, stream: &str) -> Option<&Home> {
        self.streams.get(stream)
    }
}

impl Homes {
    /// Whether no category is homed.
    pub fn is_empty(&self) -> bool {
        self.categories.is_empty()
    }
    /// Home of a stream; `None` if every region may append to it.
    pub fn of(&self, stream: &str) -> Option<&Home> {
        self.home(stream)
    }
    /// A category's declaration, if it has one.
    pub fn of_category(&self, category: &str) -> Option<&Declared> {
        self.declared(category)
    }
    /// The homed categories, by name.
    pub fn categories(&self) -> impl Iterator<Item = (&str, &Declared)> {
        self.categories.iter().map(|(name, declared)| (&**name, declared))
    }
    /// Streams of a category that were handed over by themselves, by name, after `after`.
    pub fn moved_of<'a>(
        &'a self,
        of: &'a str,
        after: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Home)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let first = if after < of { of } else { after };
        let streams = self.streams.range::<str, _>((Excluded(first), Unbounded));
        let streams = streams.map(|(stream, home)| (&**stream, home));
        streams
            .take_while(move |(stream, _)| stream.starts_with(of))
            .filter(move |(stream, _)| category(stream) == of)
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Category(category, declared) => drop(self.categories.insert(category, declared)),
            Entry::Stream(stream, home) => drop(self.streams.insert(stream, home)),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.categories.len() as u64);
        for (category, declared) in &self.categories {
            out.put_slice_with_len(category.as_bytes());
            declared.home.encode(out);
            declared.by.origin.encode(out);
            out.put_varint(declared.by.seq.0);
            out.put_u64(declared.stamp.0);
        }
        out.put_varint(self.streams.len() as u64);
        for (stream, home) in &self.streams {
            out.put_slice_with_len(stream.as_bytes());
            home.encode(out);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut homes = Self::default();
        for _ in 0..reader.count("homed categories", Origin::ENCODED_MIN)? {
            let category = reader.text("category")?;
            let home = Home::decode(reader)?;
            let origin = Origin::decode(reader)?;
            let by = Dot { origin, seq: Seq(reader.varint("seq of a declaration")?) };
            let stamp = Stamp(reader.u64("stamp of a declaration")?);
            homes.categories.insert(category.as_str().into(), Declared { home, by, stamp });
        }
        for _ in 0..reader.count("streams handed over", 7)? {
            let stream = reader.text("stream")?;
            homes.streams.insert(stream.as_str().into(), Home::decode(reader)?);
        }
        Ok(homes)
    }
}

impl Home {
    fn encode(&self, out: &mut Vec<u8>) {
        self.region.encode(out);
        out.put_u32(self.epoch);
    }
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { region: RegionName::decode(reader)?, epoch: reader.u32("epoch of a home")? })
    }
}
