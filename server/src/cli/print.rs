//! Events as lines: for people, or as JSON.

use std::io::{self, Write};

use anabranch_client::{Event, Place};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::conflicts::show::{run_json, standing};
use anabranch_server::hex::to_hex;

/// How events are printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
}

impl Format {
    /// Prints one event.
    ///
    /// # Errors
    /// Whoever reads our output went away.
    pub fn print(self, out: &mut impl Write, event: &Event) -> io::Result<()> {
        match self.json {
            true => writeln!(out, "{}", harmless(&as_json(event).to_string())),
            false => writeln!(out, "{}", clean(&as_text(event))),
        }
    }
}

/// Text of others for a terminal: what would move the cursor, end the line or turn the direction of
/// reading is shown as an escape.
pub fn clean(text: &str) -> String {
    escape(text, |c| c.escape_default().collect())
}

/// The same for JSON: such characters are inside strings only, where JSON has escapes for them.
pub fn harmless(json: &str) -> String {
    escape(json, |c| format!("\\u{:04x}", u32::from(c)))
}

fn escape(text: &str, shown: impl Fn(char) -> String) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => clean.push_str(&shown(c)),
            false => clean.push(c),
        }
    }
    clean
}

/// Whether a terminal may do something other than to show it. All of these fit in 16 bits.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn as_text(event: &Event) -> String {
    let place = match event.place {
        Place::Regional(position) => format!("{position:>8}"),
        Place::Global(position) => format!("{position:>8}g"),
    };
    let data = match std::str::from_utf8(&event.payload) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes)", event.payload.len()),
    };
    let Event { stream, revision, kind, dot, .. } = event;
    let mut line =
        format!("{place}  {}  {stream}@{revision}  {kind}  {data}  {dot}", utc(event.unix_ms()));
    if let Some(found) = &event.concurrency {
        let with: Vec<_> = found.with.iter().map(|run| run.newest().to_string()).collect();
        line += &format!("  {}, concurrent with {}", standing(found.standing), with.join(" and "));
    }
    line
}

fn as_json(event: &Event) -> Value {
    let data = match serde_json::from_slice::<&RawValue>(&event.payload) {
        Ok(raw) => json!(raw),
        Err(_) => Value::Null,
    };
    let mut line = json!({
        "dot": event.dot.to_string(),
        "region": event.dot.origin.region.as_str(),
        "id": event.id().to_string(),
        "stream": event.stream,
        "revision": event.revision,
        "type": event.kind,
        "unix_ms": event.unix_ms(),
        "metadata": event.metadata,
        "data": data,
    });
    if line["data"].is_null() {
        line["data_hex"] = to_hex(&event.payload).into();
    }
    if let Some(found) = &event.concurrency {
        line["conflict"] = json!({
            "standing": standing(found.standing),
            "with": found.with.iter().map(run_json).collect::<Vec<_>>(),
            "resolved_by": found.resolved_by.as_ref().map(ToString::to_string),
            "cut_short": found.cut_short,
        });
    }
    match event.place {
        Place::Regional(position) => line["position"] = position.into(),
        Place::Global(position) => line["global_position"] = position.into(),
    }
    line
}

/// A Unix time in milliseconds as RFC 3339 in UTC.
pub fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

/// Year, month and day of a number of days since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_cursor_and_makes_no_line() {
        assert_eq!(clean("tea für 2 \u{20ac}"), "tea für 2 \u{20ac}");
        assert_eq!(clean("\u{1b}[2Jfake\nline\u{9b}\u{7f}"), r"\u{1b}[2Jfake\nline\u{9b}\u{7f}");
        assert_eq!(clean("esc-\u{202e}abc"), r"esc-\u{202e}abc");
        let json = serde_json::to_string("a\n\u{1b}\u{9b}\u{202e}").unwrap();
        let harmless = harmless(&json);
        assert!(!harmless.chars().any(acts), "{harmless}");
        assert_eq!(serde_json::from_str::<String>(&harmless).unwrap(), "a\n\u{1b}\u{9b}\u{202e}");
    }

    #[test]
    fn times_read_as_dates() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(unix_ms), text);
        }
    }
}
