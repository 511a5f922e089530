//! Operations, as people write them.
//!
//! ```text
//! operation := '{' … '}'  |  field [ '[' key ']' ] what
//! what      := ( '+=' | '-=' ) number | '=' value | ( 'offer' | 'add' | 'remove' ) value
//!            | 'insert' value [ 'at' number ] | 'delete' ( 'at' number | "id" )
//!            | 'pass' number 'to' region | 'enable' | 'disable' | 'clear' | 'remove-key'
//! key       := "text" | what comes before the next ']'
//! ```
//! Values are JSON. Whether the field can do that, nodes know.

use anabranch_client::Operation;
use serde_json::Value;

const WHAT: &str =
    "+=, -=, =, pass, offer, add, remove, insert, delete, enable, disable, clear or remove-key";

/// Reads one operation.
pub fn parse(text: &str) -> Result<Operation, String> {
    let text = text.trim();
    if text.starts_with('{') {
        let json = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        return Ok(Operation::from_json(json));
    }
    let (field, rest) = field_of(text)?;
    let (key, rest) = key_of(rest)?;
    let (operation, rest) = what_of(field, key.as_deref(), rest)?;
    if !rest.is_empty() {
        return Err(format!("nothing more is expected at {rest:?}"));
    }
    Ok(match key {
        Some(key) => operation.key(key),
        None => operation,
    })
}

/// The field at the beginning, and the rest.
pub fn field_of(text: &str) -> Result<(&str, &str), String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let len = text.find(|c| !inside(c)).unwrap_or(text.len());
    match text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => Ok((&text[..len], text[len..].trim_start())),
        false => Err("begin with the name of a field".to_owned()),
    }
}

fn key_of(text: &str) -> Result<(Option<String>, &str), String> {
    let Some(rest) = text.strip_prefix('[') else { return Ok((None, text)) };
    let rest = rest.trim_start();
    let (key, rest) = match rest.starts_with('"') {
        true => match value_of(rest)? {
            (Value::String(key), rest) => (key, rest),
            _ => unreachable!("JSON that begins with a quote is text"),
        },
        false => {
            let end = rest.find(']').unwrap_or(rest.len());
            (rest[..end].trim_end().to_owned(), &rest[end..])
        }
    };
    let rest = rest.strip_prefix(']').ok_or("']' is needed after the key")?;
    Ok((Some(key), rest.trim_start()))
}

fn what_of<'a>(
    field: &str,
    key: Option<&str>,
    text: &'a str,
) -> Result<(Operation, &'a str), String> {
    if text.starts_with("==") {
        return Err("== compares; = sets a register".to_owned());
    }
    let sign = ["+=", "-=", "="].into_iter().find(|sign| text.starts_with(sign));
    let inside = |c: char| c.is_ascii_alphabetic() || c == '-';
    let len = sign.map_or_else(|| text.find(|c| !inside(c)).unwrap_or(text.len()), str::len);
    let (what, rest) = (&text[..len], text[len..].trim_start());
    let alone = |operation: Operation| Ok((operation, rest));
    match what {
        "enable" => alone(Operation::enable(field)),
        "disable" => alone(Operation::disable(field)),
        "clear" => alone(Operation::clear(field)),
        "remove-key" => {
            let key = key.ok_or_else(|| format!("name the key: {field}[KEY] remove-key"))?;
            alone(Operation::remove_key(field, key))
        }
        "delete" => delete(field, rest),
        "pass" => pass(field, rest),
        "insert" => insert(field, rest),
        "+=" | "-=" => {
            let (by, rest) = number_of(rest)?;
            let by = if what == "-=" { by.checked_neg() } else { Some(by) };
            let by = by.ok_or("the number does not fit into 64 bits")?;
            Ok((Operation::increment(field, by), rest))
        }
        "=" | "offer" | "add" | "remove" => {
            let (value, rest) = value_of(rest)?;
            let operation = match what {
                "=" => Operation::set(field, value),
                "offer" => Operation::offer(field, value),
                "add" => Operation::add(field, value),
                _ => Operation::remove(field, value),
            };
            Ok((operation, rest))
        }
        "" if text.is_empty() => Err(format!(
            "what to do is missing: {WHAT}; put all of one operation into quotes: '{field} += 5'"
        )),
        _ => Err(format!("at {text:?}, {WHAT} is needed")),
    }
}

fn pass<'a>(field: &str, text: &'a str) -> Result<(Operation, &'a str), String> {
    let (amount, rest) = number_of(text)?;
    let amount = u64::try_from(amount).map_err(|_| "what is passed on is 0 or more")?;
    let region = rest.strip_prefix("to ").ok_or("say to whom: `pass 5 to REGION`")?.trim_start();
    let end = region.find(char::is_whitespace).unwrap_or(region.len());
    match region[..end].is_empty() {
        true => Err("say to whom: `pass 5 to REGION`".to_owned()),
        false => Ok((Operation::pass(field, amount, &region[..end]), region[end..].trim_start())),
    }
}

fn insert<'a>(field: &str, text: &'a str) -> Result<(Operation, &'a str), String> {
    let (value, rest) = value_of(text)?;
    match at_of(rest)? {
        Some((at, rest)) => Ok((Operation::insert(field, at, value), rest)),
        None => Ok((Operation::push(field, value), rest)),
    }
}

fn delete<'a>(field: &str, text: &'a str) -> Result<(Operation, &'a str), String> {
    if let Some((at, rest)) = at_of(text)? {
        return Ok((Operation::delete(field, at), rest));
    }
    match value_of(text) {
        Ok((Value::String(id), rest)) => Ok((Operation::delete_element(field, id), rest)),
        _ => {
            Err("say which: `delete at 0`, or `delete \"ID\"` with an id as `get --json` shows it"
                .to_owned())
        }
    }
}

fn at_of(text: &str) -> Result<Option<(u64, &str)>, String> {
    let Some(rest) = text.strip_prefix("at").filter(|rest| rest.starts_with(char::is_whitespace))
    else {
        return Ok(None);
    };
    let (at, rest) = number_of(rest.trim_start())?;
    let at = u64::try_from(at).map_err(|_| format!("at {at}: places are counted from 0"))?;
    Ok(Some((at, rest)))
}

fn number_of(text: &str) -> Result<(i64, &str), String> {
    let (value, rest) = value_of(text)?;
    let number = value.as_i64();
    let number = number.ok_or_else(|| format!("{value} is no whole number of 64 bits"))?;
    Ok((number, rest))
}

/// The JSON at the beginning, and the rest.
fn value_of(text: &str) -> Result<(Value, &str), String> {
    if text.is_empty() {
        return Err("a value is missing at the end".to_owned());
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok((value, text[values.byte_offset()..].trim_start())),
        _ if text.starts_with(|c: char| c.is_alphabetic()) => {
            let word = text.split(char::is_whitespace).next().unwrap_or_default();
            Err(format!("text needs quotes: \"{word}\""))
        }
        _ => Err(format!("at {text:?}, a value in JSON is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read() {
        for (text, wanted) in [
            ("on_hand += 5", r#"{"by":5,"do":"increment","field":"on_hand"}"#),
            ("on_hand-=5", r#"{"by":-5,"do":"increment","field":"on_hand"}"#),
            ("left pass 5 to us", r#"{"by":5,"do":"pass","field":"left","to":"us"}"#),
            ("n += -3", r#"{"by":-3,"do":"increment","field":"n"}"#),
            (r#"tags add "x y""#, r#"{"do":"add","field":"tags","value":"x y"}"#),
            (r#"tags remove {"a": [1]}"#, r#"{"do":"remove","field":"tags","value":{"a":[1]}}"#),
            (r#"name = "x""#, r#"{"do":"set","field":"name","value":"x"}"#),
            ("name=null", r#"{"do":"set","field":"name","value":null}"#),
            ("highest offer 7", r#"{"do":"offer","field":"highest","value":7}"#),
            ("flag enable", r#"{"do":"enable","field":"flag"}"#),
            ("  flag disable  ", r#"{"do":"disable","field":"flag"}"#),
            ("tags clear", r#"{"do":"clear","field":"tags"}"#),
            ("by[alice] += 1", r#"{"by":1,"do":"increment","field":"by","key":"alice"}"#),
            (r#"by["a]b"] += 1"#, r#"{"by":1,"do":"increment","field":"by","key":"a]b"}"#),
            ("by[ a b ] clear", r#"{"do":"clear","field":"by","key":"a b"}"#),
            ("by[alice] remove-key", r#"{"do":"remove-key","field":"by","key":"alice"}"#),
            (r#"todo insert "m" at 0"#, r#"{"at":0,"do":"insert","field":"todo","value":"m"}"#),
            (r#"todo insert "m""#, r#"{"do":"insert","field":"todo","value":"m"}"#),
            ("todo delete at 3", r#"{"at":3,"do":"delete","field":"todo"}"#),
            (r#"todo delete "1@a.0""#, r#"{"do":"delete","element":"1@a.0","field":"todo"}"#),
            (r#"{"field": "n", "do": "clear"}"#, r#"{"do":"clear","field":"n"}"#),
        ] {
            let operation = parse(text).map(|operation| operation.to_string());
            assert_eq!(operation.as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_what_is_needed_and_where() {
        for (text, wanted) in [
            ("", "begin with the name of a field"),
            ("+= 5", "begin with the name of a field"),
            ("on_hand", "what to do is missing: +=, -=, ="),
            ("on_hand", "put all of one operation into quotes: 'on_hand += 5'"),
            ("on_hand grow 5", r#"at "grow 5", +=, -=, ="#),
            ("on_hand * 5", r#"at "* 5", +=, -=, ="#),
            ("on_hand +=", "a value is missing at the end"),
            ("on_hand += 1.5", "1.5 is no whole number"),
            ("on_hand += 99999999999999999999", "is no whole number of 64 bits"),
            ("on_hand -= -9223372036854775808", "does not fit into 64 bits"),
            ("on_hand += 5 6", r#"nothing more is expected at "6""#),
            ("on_hand == 5", "= sets a register"),
            ("tags add x", r#"text needs quotes: "x""#),
            (r#"tags add "x"#, r#"at "\"x", a value in JSON is needed"#),
            ("left pass 5", "say to whom: `pass 5 to REGION`"),
            ("left pass 5 to ", "say to whom: `pass 5 to REGION`"),
            ("left pass -5 to us", "what is passed on is 0 or more"),
            ("flag enable 1", r#"nothing more is expected at "1""#),
            ("by[alice += 1", "']' is needed after the key"),
            ("todo delete", "say which: `delete at 0`"),
            ("todo delete 0", "say which: `delete at 0`"),
            ("todo insert 1 at -1", "places are counted from 0"),
            ("todo insert 1 at", r#"nothing more is expected at "at""#),
            ("by remove-key", "name the key: by[KEY] remove-key"),
            ("{", "is no JSON"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
