//! Values: what fields hold and what operations carry.

use std::fmt;

use serde_json::Value as Json;

use crate::codec::{DecodeError, Put, Reader};

/// Bytes of the longest value, as JSON text.
pub const VALUE_BYTES: usize = 4 * 1024;

/// A JSON value with a total order, so that sets of them look the same everywhere.
///
/// Whole numbers that fit are numbers; what else JSON can say is kept as its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(Box<str>),
    /// An array, an object or another number, as compact JSON with sorted keys.
    Json(Box<str>),
}

/// A value that is longer than [`VALUE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value has {bytes} bytes, at most {VALUE_BYTES} are allowed")]
pub struct ValueTooLong {
    /// How many it has.
    pub bytes: usize,
}

impl Value {
    /// Takes a JSON value over.
    ///
    /// # Errors
    /// [`ValueTooLong`].
    pub fn from_json(json: &Json) -> Result<Self, ValueTooLong> {
        let value = match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Json(json.to_string().into()),
            },
            Json::String(text) => Self::Text(text.as_str().into()),
            Json::Array(_) | Json::Object(_) => Self::Json(json.to_string().into()),
        };
        match value.bytes() {
            bytes if bytes > VALUE_BYTES => Err(ValueTooLong { bytes }),
            _ => Ok(value),
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(whole) => Json::from(*whole),
            Self::Text(text) => Json::from(&**text),
            // Written by us from a value that was read, or damaged on the way here.
            Self::Json(text) => serde_json::from_str(text).unwrap_or(Json::Null),
        }
    }

    /// The value as the key of a map: texts, whole numbers and truth values can be one.
    pub fn to_key(&self) -> Option<Box<str>> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(whole) => Some(whole.to_string().into()),
            Self::Bool(value) => Some(value.to_string().into()),
            Self::Null | Self::Json(_) => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Text(_) => "text",
            Self::Json(_) => "a fraction, array or object",
        }
    }

    /// Bytes of memory it takes beside itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Null | Self::Bool(_) | Self::Int(_) => 0,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.put_byte(0),
            Self::Bool(false) => out.put_byte(1),
            Self::Bool(true) => out.put_byte(2),
            Self::Int(whole) => {
                out.put_byte(3);
                out.put_u64(*whole as u64);
            }
            Self::Text(text) => {
                out.put_byte(4);
                out.put_slice_with_len(text.as_bytes());
            }
            Self::Json(text) => {
                out.put_byte(5);
                out.put_slice_with_len(text.as_bytes());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.byte("kind of value")? {
            0 => Self::Null,
            1 => Self::Bool(false),
            2 => Self::Bool(true),
            3 => Self::Int(reader.u64("whole number")? as i64),
            4 => Self::Text(reader.text("text value")?.as_str().into()),
            5 => Self::Json(reader.text("JSON value")?.as_str().into()),
            value => {
                return Err(DecodeError::Invalid { what: "kind of value", value: value.into() });
            }
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_json(), f)
    }
}

impl From<i64> for Value {
    fn from(whole: i64) -> Self {
        Self::Int(whole)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// A sum as readers see it: a number up to 64 bits, text beyond.
pub(super) fn total_to_json(total: i128) -> Json {
    i64::try_from(total).map_or_else(|_| total.to_string().into(), Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_json_and_bytes() {
        for text in [
            "null",
            "true",
            "-7",
            r#""naïve""#,
            "1.5",
            r#"{"a":[1,2],"b":null}"#,
            "18446744073709551615",
        ] {
            let json: Json = serde_json::from_str(text).unwrap();
            let value = Value::from_json(&json).unwrap();
            assert_eq!(value.to_json(), json);
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            assert_eq!(Value::decode(&mut Reader::new(bytes.into())), Ok(value));
        }
    }

    #[test]
    fn objects_are_equal_whatever_the_order_of_their_keys() {
        let read = |text| Value::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(read(r#"{"a":1,"b":2}"#), read(r#"{"b":2,"a":1}"#));
    }

    #[test]
    fn the_longest_value_is_let_in_and_no_longer_one() {
        let text = |bytes| Value::from_json(&Json::from("x".repeat(bytes)));
        assert!(text(VALUE_BYTES).is_ok());
        assert_eq!(text(VALUE_BYTES + 1), Err(ValueTooLong { bytes: VALUE_BYTES + 1 }));
    }
}
