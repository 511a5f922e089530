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

/// A category whose streams are homed, or were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Home of those of its streams that were not handed over by themselves; the last one, if it ended.
    pub home: Home,
    /// Epoch of the home that was declared. Whatever a stream had before is over.
    pub since: u32,
    /// Every region writes the streams again; the epoch of `home` is that of the end.
    pub ended: bool,
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
    /// What `moved` knows of a category's streams, by name.
    fn moved_in<'a>(&'a self, category: &'a str) -> BTreeMap<&'a str, &'a Home>;

    /// A category, if it is homed now.
    fn homed(&self, category: &str) -> Option<&Declared> {
        self.declared(category).filter(|declared| !declared.ended)
    }
    /// Epoch of the home that may be declared for a category that is not homed.
    fn next_declared(&self, category: &str) -> Option<u32> {
        self.declared(category).map_or(Some(1), |ended| ended.home.epoch.checked_add(1))
    }
    /// Home of a stream of a category that is homed.
    fn home_in<'a>(&'a self, declared: &'a Declared, stream: &str) -> &'a Home {
        let moved = self.moved(stream).filter(|home| home.epoch > declared.since);
        moved.unwrap_or(&declared.home)
    }
    /// Home of a stream, if it has one.
    fn home(&self, stream: &str) -> Option<&Home> {
        let declared = self.homed(category(stream))?;
        Some(self.home_in(declared, stream))
    }
    /// The newest epoch in a category that is homed, and the first of its streams, by name, that has
    /// another home than the category.
    fn apart<'a>(
        &'a self,
        category: &'a str,
        declared: &'a Declared,
    ) -> (u32, Option<(&'a str, &'a Home)>) {
        let moved = self.moved_in(category);
        let moved = moved.into_iter().filter(|(_, home)| home.epoch > declared.since);
        let (mut newest, mut apart) = (declared.home.epoch, None);
        for (stream, home) in moved {
            newest = newest.max(home.epoch);
            if home.region != declared.home.region {
                apart = apart.or(Some((stream, home)));
            }
        }
        (newest, apart)
    }

    /// What a change comes to; `None` if it says nothing: it comes too late, or from a region that is
    /// not the home.
    fn effect(&self, change: &Change, by: &Dot, stamp: Stamp) -> Option<Entry> {
        match change {
            Change::Declared { category, home, epoch } => {
                let since = *epoch;
                let counts = match self.declared(category) {
                    Some(known) if !known.ended => {
                        known.since == since && (stamp, by) < (known.stamp, &known.by)
                    }
                    // A region that began anew and knows of no home declares the first one: too late.
                    _ => self.next_declared(category) == Some(since),
                };
                let home = Home { region: home.clone(), epoch: since };
                let declared = Declared { home, since, ended: false, by: by.clone(), stamp };
                counts.then(|| Entry::Category(category.as_str().into(), declared))
            }
            Change::Released { category, stream, to, epoch } => {
                let declared = self.homed(category)?;
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
            Change::Ended { category, epoch } => {
                let declared = self.homed(category)?;
                let (newest, apart) = self.apart(category, declared);
                let is_home = declared.home.region == by.origin.region && apart.is_none();
                if !is_home || newest.checked_add(1) != Some(*epoch) {
                    return None;
                }
                let home = Home { epoch: *epoch, ..declared.home.clone() };
                let ended = Declared { home, ended: true, ..declared.clone() };
                Some(Entry::Category(category.as_str().into(), ended))
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
    fn moved_in<'a>(&'a self, category: &'a str) -> BTreeMap<&'a str, &'a Home> {
        self.moved_of(category, "").collect()
    }
}

impl Homes {
    /// Whether no category is homed, or ever was.
    pub fn is_empty(&self) -> bool {
        self.categories.is_empty()
    }
    /// Home of a stream; `None` if every region may append to it.
    pub fn of(&self, stream: &str) -> Option<&Home> {
        self.home(stream)
    }
    /// A category's declaration, if it is homed.
    pub fn of_category(&self, category: &str) -> Option<&Declared> {
        self.homed(category)
    }
    /// Epoch that a category's next home gets, or its end: above all that any of its streams had.
    pub fn next_epoch(&self, category: &str) -> u32 {
        let newest = self.declared(category).map(|declared| self.apart(category, declared).0);
        newest.unwrap_or_default().saturating_add(1)
    }
    /// The homed categories, by name.
    pub fn categories(&self) -> impl Iterator<Item = (&str, &Declared)> {
        let all = self.categories.iter().map(|(name, declared)| (&**name, declared));
        all.filter(|(_, declared)| !declared.ended)
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
            Entry::Category(of, declared) => {
                if declared.ended {
                    self.streams.retain(|stream, _| category(stream) != &*of);
                }
                self.categories.insert(of, declared);
            }
            Entry::Stream(stream, home) => drop(self.streams.insert(stream, home)),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.categories.len() as u64);
        for (category, declared) in &self.categories {
            out.put_slice_with_len(category.as_bytes());
            declared.home.encode(out);
            out.put_u32(declared.since);
            out.put_byte(declared.ended.into());
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
            let since = reader.u32("epoch of a declaration")?;
            let ended = reader.byte("end of a home")? != 0;
            let origin = Origin::decode(reader)?;
            let by = Dot { origin, seq: Seq(reader.varint("seq of a declaration")?) };
            let stamp = Stamp(reader.u64("stamp of a declaration")?);
            let declared = Declared { home, since, ended, by, stamp };
            homes.categories.insert(category.as_str().into(), declared);
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
