//! Durations and sizes as people write them: `500ms`, `64MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration with its unit: `500ms`, `2s`, `5m`, `1h`. Whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes with its unit: `512B`, `16KiB`, `64MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write a whole number and a unit, as in {example}")]
pub struct InvalidUnit {
    text: String,
    what: &'static str,
    example: &'static str,
}

const SPANS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl Span {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl Size {
    /// So many mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }
    /// As a count of bytes in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The number times what its unit stands for.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that leaves a whole number.
fn write(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    let (name, factor) = units.iter().rev().find(whole).unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

impl FromStr for Span {
    type Err = InvalidUnit;
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid =
            InvalidUnit { text: text.to_owned(), what: "duration", example: "500ms, 2s or 5m" };
        parse(text, &SPANS).map(Self::millis).ok_or(invalid)
    }
}

impl FromStr for Size {
    type Err = InvalidUnit;
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid =
            InvalidUnit { text: text.to_owned(), what: "size", example: "512B, 16KiB or 64MiB" };
        parse(text, &SIZES).map(Self).ok_or(invalid)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPANS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, &SIZES, f)
    }
}

macro_rules! as_text {
    ($unit:ty) => {
        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(Span);
as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in ["0ms", "500ms", "2s", "5m", "1h", "1500ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["0B", "512B", "16KiB", "64MiB", "3GiB", "1025B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1024 MiB".parse::<Size>().unwrap().to_string(), "1GiB");
    }

    #[test]
    fn a_number_without_its_unit_or_beyond_all_bounds_is_refused() {
        for text in ["", "5", "ms", "-1s", "1.5s", "1 week", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["64", "64MB", "64mib", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
