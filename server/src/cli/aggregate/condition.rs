//! Conditions of a query, as people write them: `lines > 100`.

use std::str::FromStr;

use anabranch_client::Comparison;
use serde_json::Value;

use super::operation::field_of;

/// A condition on a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub field: String,
    pub comparison: Comparison,
    pub value: Value,
}

/// Longer signs come before those that they begin with.
const SIGNS: [(&str, Comparison); 7] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl FromStr for Condition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, mut rest) = field_of(text)?;
        let mut field = name.to_owned();
        // Of an ordered field, which value is meant.
        if let Some((part, after)) = rest.strip_prefix('.').and_then(|part| field_of(part).ok()) {
            field = format!("{name}.{part}");
            rest = after;
        }
        let sign = SIGNS.into_iter().find_map(|(sign, comparison)| {
            rest.strip_prefix(sign).map(|value| (value.trim(), comparison))
        });
        let (value, comparison) = sign.ok_or_else(|| {
            format!("after {field}, one of ==, !=, <, <=, >, >= is needed: `{field} > 100`")
        })?;
        let value = match value {
            "" => return Err("a value is needed at the end".to_owned()),
            value => serde_json::from_str(value)
                .map_err(|_| format!("{value} is no JSON; text needs quotes: \"{value}\""))?,
        };
        Ok(Self { field, comparison, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_read() {
        for (text, field, comparison, value) in [
            ("lines > 100", "lines", Comparison::Greater, json!(100)),
            ("lines>=-1", "lines", Comparison::GreaterOrEqual, json!(-1)),
            (r#" tags == "a b" "#, "tags", Comparison::Equal, json!("a b")),
            ("up = true", "up", Comparison::Equal, json!(true)),
            ("last != null", "last", Comparison::NotEqual, json!(null)),
            ("n <= 5", "n", Comparison::LessOrEqual, json!(5)),
            ("n < 5", "n", Comparison::Less, json!(5)),
            ("sum.settled<5", "sum.settled", Comparison::Less, json!(5)),
        ] {
            let field = field.to_owned();
            assert_eq!(text.parse(), Ok(Condition { field, comparison, value }), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_what_is_needed() {
        for (text, wanted) in [
            ("", "begin with the name of a field"),
            ("> 100", "begin with the name of a field"),
            ("lines", "after lines, one of ==, !="),
            ("lines is 5", "after lines, one of ==, !="),
            ("lines >", "a value is needed at the end"),
            ("tags == x", r#"text needs quotes: "x""#),
            ("lines > 1 and 2", "1 and 2 is no JSON"),
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
