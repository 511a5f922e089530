//! `anabranch append`.

use std::io::Read;
use std::str::FromStr;
use std::time::Duration;

use anabranch_client::{AppendError, Appended, Expect, Regions, event};
use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Exit;
use super::aggregate::DEFINE_ONE;
use super::connect::Connect;
use super::print::clean;

/// Append one event
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stream to append to, as `cart-42`
    stream: String,
    /// Type of the event, as `ItemAdded`
    r#type: String,
    /// Payload; `-` reads it from standard input
    #[arg(long, short, value_name = "JSON", default_value = "{}")]
    data: String,
    /// What the payload is, as metadata `content-type`; empty for no such metadata. Only
    /// application/json must be JSON
    #[arg(long, value_name = "TYPE", default_value = JSON)]
    content_type: String,
    /// What must be true of the stream: any, none (it is new), exists, or its last revision
    #[arg(long, value_name = "WHAT", default_value = "any")]
    expect: Expected,
    /// Metadata; may be given several times
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// Wait until so many regions hold it durably, this one included
    #[arg(long, value_name = "N", default_value_t = 1)]
    regions: u32,
    /// How long to wait for other regions, in seconds; 0 asks only how many hold it already
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    within: u64,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// What a payload is unless it is said.
const JSON: &str = "application/json";

/// An expectation as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected(Expect);

impl FromStr for Expected {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "any" => Expect::Any,
            "none" => Expect::NoStream,
            "exists" => Expect::Exists,
            number => Expect::Revision(
                number.parse().map_err(|_| "write any, none, exists or a revision".to_owned())?,
            ),
        }))
    }
}

/// Cuts `key=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".to_owned()),
    }
}

/// Appends, and says what came of it.
pub async fn run(args: Args) -> Result<Exit> {
    let mut new = event(args.r#type).payload(payload(&args.data, &args.content_type)?);
    if !args.content_type.is_empty() {
        new = new.metadata("content-type", args.content_type);
    }
    for (key, value) in args.meta {
        new = new.metadata(key, value);
    }
    let client = args.connect.client().await?;
    let append = client
        .append(&args.stream, new)
        .expect(args.expect.0)
        .acknowledge(Regions(args.regions), Duration::from_secs(args.within));
    tell(&args.stream, append.await, args.json)
}

/// Says what came of an append to `stream`.
pub fn tell(stream: &str, outcome: Result<Appended, AppendError>, as_json: bool) -> Result<Exit> {
    match outcome {
        Ok(appended) => {
            print(stream, &appended, as_json);
            Ok(Exit::Done)
        }
        Err(AppendError::RegionsShort { wanted, reached, appended }) => {
            print(stream, &appended, as_json);
            bail!("written, but only {reached} of {wanted} regions are known to hold it by now")
        }
        Err(error) if error.is_unknown() => {
            let error = clean(&error.to_string());
            eprintln!("error: {error}; it may have been written: read the stream before repeating");
            Ok(Exit::Unknown)
        }
        Err(error) => Err(refused(stream, error)),
    }
}

fn payload(data: &str, content_type: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match data {
        "-" => {
            std::io::stdin().read_to_end(&mut bytes).context("read standard input")?;
        }
        text => bytes.extend_from_slice(text.as_bytes()),
    }
    if content_type == JSON {
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes);
        json.context("--data is no JSON; --content-type says what else it is")?;
    }
    Ok(bytes)
}

fn refused(stream: &str, error: AppendError) -> anyhow::Error {
    if let AppendError::Conflict { conflicts } = &error {
        let of_stream = conflicts.iter().find(|conflict| conflict.stream == stream);
        let actual = of_stream.map(|conflict| match conflict.actual {
            Some(revision) => format!("{stream} is at revision {revision}"),
            None => format!("{stream} has no events"),
        });
        if let Some(actual) = actual {
            return anyhow::anyhow!("nothing was written: {actual}");
        }
    }
    if let AppendError::NoDefinition { .. } = &error {
        return anyhow::anyhow!("nothing was written: {error}; {DEFINE_ONE}");
    }
    anyhow::Error::new(error).context("nothing was written")
}

fn print(stream: &str, appended: &Appended, as_json: bool) {
    let (dot, revision) = (&appended.first, appended.revision_of(stream));
    if as_json {
        let outcome = json!({
            "dot": dot.to_string(),
            "revision": revision,
            "position": appended.position,
            "unix_ms": appended.stamp.unix_ms(),
            "repeated": appended.repeated,
            "regions": appended.regions,
        });
        println!("{outcome}");
        return;
    }
    let revision = revision.map_or_else(String::new, |revision| format!("@{revision}"));
    let held_by = match appended.regions {
        1 => "1 region".to_owned(),
        regions => format!("{regions} regions"),
    };
    let line = format!("{stream}{revision}  {dot}  position {}, in {held_by}", appended.position);
    println!("{}", clean(&line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_words_or_revisions() {
        let expect = |text: &str| text.parse::<Expected>().map(|expected| expected.0);
        assert_eq!(expect("any"), Ok(Expect::Any));
        assert_eq!(expect("none"), Ok(Expect::NoStream));
        assert_eq!(expect("exists"), Ok(Expect::Exists));
        assert_eq!(expect("7"), Ok(Expect::Revision(7)));
        assert!(expect("-1").is_err() && expect("some").is_err());
    }

    #[test]
    fn only_what_is_said_to_be_json_must_be() {
        assert_eq!(payload("{}", JSON).unwrap(), b"{}");
        assert!(payload("tea", JSON).is_err());
        for content_type in ["text/plain", ""] {
            assert_eq!(payload("tea", content_type).unwrap(), b"tea");
        }
    }

    #[test]
    fn metadata_is_cut_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
