//! The byte-level vocabulary of everything that is stored or shipped.
//!
//! Fixed integers are little-endian, lengths and small numbers are LEB128 varints, text is UTF-8
//! behind a varint length. A [`Reader`] never panics and never allocates more than its input is
//! long, so bytes from a stranger are safe to feed to it.

use bytes::{Buf, Bytes};

/// Why bytes could not be read as the thing they were said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside the named field.
    #[error("{what} is cut short: needs {needed} bytes, {left} are left")]
    Short {
        /// Field being read.
        what: &'static str,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that were there.
        left: usize,
    },
    /// The field holds a value that it may not hold.
    #[error("{what} holds {value}, which is not allowed")]
    Invalid {
        /// Field being read.
        what: &'static str,
        /// The value found.
        value: u64,
    },
    /// Text that is not UTF-8, or breaks the rules for its kind of name.
    #[error("{what} is not valid text")]
    Text {
        /// Field being read.
        what: &'static str,
    },
    /// The checksum is not that of the bytes before it.
    #[error("the checksum of {what} does not fit: it was cut or changed")]
    Checksum {
        /// Thing that was read.
        what: &'static str,
    },
    /// Bytes remain after the last field.
    #[error("{left} bytes remain after {what}")]
    Trailing {
        /// Thing that was read.
        what: &'static str,
        /// Bytes left over.
        left: usize,
    },
    /// The chain hash stored with a group is not the hash of its bytes.
    #[error("chain hash of the group at {at} does not match its bytes")]
    Chain {
        /// Dot of the group's first event.
        at: String,
    },
}

/// Appends fields to a buffer. The counterpart of [`Reader`].
pub trait Put {
    /// Appends raw bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    fn put_byte(&mut self, value: u8) {
        self.put(&[value]);
    }
    /// Appends a little-endian `u16`.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    /// Appends a little-endian `u32`.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    /// Appends a little-endian `u64`.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    /// Appends a little-endian `u128`.
    fn put_u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }
    /// Appends an LEB128 varint, 1 to 10 bytes.
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_byte((value as u8) | 0x80);
            value >>= 7;
        }
        self.put_byte(value as u8);
    }
    /// Appends a varint length and the bytes.
    fn put_slice_with_len(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Number of bytes [`Put::put_varint`] writes for `value`.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads fields off the front of shared bytes, without copying them.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }
    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }
    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// Takes `needed` bytes, sharing the allocation.
    pub fn take(&mut self, what: &'static str, needed: usize) -> Result<Bytes, DecodeError> {
        self.need(what, needed)?;
        Ok(self.bytes.split_to(needed))
    }
    /// Takes everything that is left.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }
    /// Takes one byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(what, 1)?;
        Ok(self.bytes.get_u8())
    }
    /// Takes a little-endian `u16`.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.need(what, 2)?;
        Ok(self.bytes.get_u16_le())
    }
    /// Takes a little-endian `u32`.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(what, 4)?;
        Ok(self.bytes.get_u32_le())
    }
    /// Takes a little-endian `u64`.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(what, 8)?;
        Ok(self.bytes.get_u64_le())
    }
    /// Takes a little-endian `u128`.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, DecodeError> {
        self.need(what, 16)?;
        Ok(self.bytes.get_u128_le())
    }
    /// Takes an array of `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        self.need(what, N)?;
        let mut array = [0; N];
        self.bytes.copy_to_slice(&mut array);
        Ok(array)
    }
    /// Takes an LEB128 varint. Longer than 10 bytes, or over 64 bits, is invalid.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        varint(what, || self.byte(what))
    }
    /// Takes a varint that counts things of at least `each` bytes, so it is bounded by the input.
    pub fn count(&mut self, what: &'static str, each: usize) -> Result<usize, DecodeError> {
        let value = self.varint(what)?;
        let count = usize::try_from(value).map_err(|_| DecodeError::Invalid { what, value })?;
        let needed = count.saturating_mul(each);
        self.need(what, needed)?;
        Ok(count)
    }
    /// Takes bytes behind a varint length.
    pub fn slice(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.count(what, 1)?;
        self.take(what, len)
    }
    /// Takes UTF-8 text behind a varint length.
    pub fn text(&mut self, what: &'static str) -> Result<Text, DecodeError> {
        Text::new(self.slice(what)?).ok_or(DecodeError::Text { what })
    }
    /// Refuses left-over bytes.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what, left }),
        }
    }

    fn need(&self, what: &'static str, needed: usize) -> Result<(), DecodeError> {
        let left = self.bytes.len();
        if left < needed { Err(DecodeError::Short { what, needed, left }) } else { Ok(()) }
    }
}

fn varint(
    what: &'static str,
    mut next: impl FnMut() -> Result<u8, DecodeError>,
) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Invalid { what, value: bits });
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Invalid { what, value })
}

/// Reads fields off the front of bytes that somebody else keeps: nothing is shared, so nothing is counted.
/// For what is looked at once and for every event.
#[derive(Debug, Clone)]
pub struct SliceReader<'a> {
    bytes: &'a [u8],
}

impl<'a> SliceReader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
    /// Takes `needed` bytes.
    pub fn take(&mut self, what: &'static str, needed: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.len();
        let short = DecodeError::Short { what, needed, left };
        let (taken, rest) = self.bytes.split_at_checked(needed).ok_or(short)?;
        self.bytes = rest;
        Ok(taken)
    }
    /// Takes an array of `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (needed, left) = (N, self.bytes.len());
        let short = DecodeError::Short { what, needed, left };
        let (array, rest) = self.bytes.split_first_chunk().ok_or(short)?;
        self.bytes = rest;
        Ok(*array)
    }
    /// Takes one byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }
    /// Takes a little-endian `u32`.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }
    /// As [`Reader::varint`].
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        varint(what, || self.byte(what))
    }
    /// As [`Reader::count`].
    pub fn count(&mut self, what: &'static str, each: usize) -> Result<usize, DecodeError> {
        let value = self.varint(what)?;
        let count = usize::try_from(value).map_err(|_| DecodeError::Invalid { what, value })?;
        let (needed, left) = (count.saturating_mul(each), self.bytes.len());
        if left < needed { Err(DecodeError::Short { what, needed, left }) } else { Ok(count) }
    }
    /// Takes bytes behind a varint length.
    pub fn slice(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(what, 1)?;
        self.take(what, len)
    }
    /// Takes UTF-8 text behind a varint length.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.slice(what)?).map_err(|_| DecodeError::Text { what })
    }
}

/// UTF-8 text that shares the allocation it was read from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Wraps `bytes` if they are UTF-8.
    pub fn new(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).ok()?;
        Some(Self(bytes))
    }
    /// A part of `whole` that was read as text, sharing its allocation.
    ///
    /// # Panics
    /// If it is no part of it.
    pub fn part_of(whole: &Bytes, text: &str) -> Self {
        Self(whole.slice_ref(text.as_bytes()))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made, and immutable since")
    }
}

impl std::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}
impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}
impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_take_the_length_they_announce() {
        for value in [0, 1, 127, 128, 300, 1 << 21, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(bytes.len(), varint_len(value), "length of {value}");
            let mut reader = Reader::new(bytes.into());
            assert_eq!(reader.varint("n"), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_short_overlong_or_absurd() {
        let short = Reader::new(Bytes::from_static(&[1, 2])).u32("field");
        assert_eq!(short, Err(DecodeError::Short { what: "field", needed: 4, left: 2 }));
        let overlong = Reader::new(Bytes::from_static(&[0xff; 11])).varint("n");
        assert!(matches!(overlong, Err(DecodeError::Invalid { .. })), "{overlong:?}");
        let mut huge = Vec::new();
        huge.put_varint(u64::MAX);
        let count = Reader::new(huge.into()).count("items", 8);
        assert!(matches!(count, Err(DecodeError::Short { .. })), "{count:?}");
        let text = Reader::new(Bytes::from_static(&[1, 0xff])).text("name");
        assert_eq!(text, Err(DecodeError::Text { what: "name" }));
    }
}
