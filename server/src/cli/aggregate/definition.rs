//! `anabranch aggregate define` and `list`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anabranch_client::{DefineError, Standing};
use anyhow::{Context, Result, anyhow};
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::show::events;
use crate::cli::connect::{Connect, explain};
use crate::cli::print::{clean, harmless};
use crate::cli::{Exit, WrongUsage};

/// Declare which aggregates a category has, for all regions
///
/// A change needs a higher version; its aggregates are built anew from the events, in the background.
/// Until they are, those of the version before are shown. Declaring the same again changes nothing.
#[derive(Debug, clap::Args)]
pub struct Define {
    /// Definition, a file that ends in .toml or .json; `-` reads JSON from standard input
    file: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Show definitions, how far a node is with their aggregates, and which events they cannot be applied to
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only definitions of this category
    category: Option<String>,
    /// Print as JSON, with the definitions
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub async fn define(args: Define) -> Result<Exit> {
    let definition = read(&args.file)?;
    let client = args.connect.client().await?;
    let defined = match client.define(definition).await {
        Ok(defined) => defined,
        Err(DefineError::Refused(error)) => {
            return Err(explain(error).context("nothing was declared"));
        }
        Err(error @ DefineError::Unknown(_)) => {
            let error = clean(&error.to_string());
            eprintln!("error: {error}; it may be declared: declare the same again");
            return Ok(Exit::Unknown);
        }
    };
    let (category, version) = (&defined.category, defined.version);
    match args.json {
        true => println!(
            "{}",
            json!({
                "category": category,
                "version": version,
                "repeated": defined.repeated,
                "dot": defined.dot.map(|dot| dot.to_string()),
            })
        ),
        false if defined.repeated => println!("{category} version {version} is there already"),
        false => println!("{category} version {version} is declared"),
    }
    Ok(Exit::Done)
}

/// The definition as JSON.
fn read(file: &Path) -> Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    let is_toml = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => true,
        Some("json") => false,
        _ => {
            let problem = format!("{}: the name ends neither in .toml nor .json", file.display());
            return Err(WrongUsage(problem).into());
        }
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    match is_toml {
        true => of_toml(&text).with_context(|| file.display().to_string()),
        false => Ok(text),
    }
}

fn of_toml(text: &str) -> Result<String> {
    let json: Value = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        anyhow!("line {line}: {}", error.message())
    })?;
    Ok(json.to_string())
}

pub async fn list(args: List) -> Result<Exit> {
    let client = args.connect.client().await?;
    let category = args.category.unwrap_or_default();
    let standings = client.definitions(&category).await.map_err(explain)?;
    if args.json {
        let all = Value::from_iter(standings.iter().map(as_json));
        println!("{}", harmless(&all.to_string()));
        return Ok(Exit::Done);
    }
    if standings.is_empty() {
        let of = if category.is_empty() { "".into() } else { format!(" of {}", clean(&category)) };
        eprintln!("there is no definition{of}; {}", super::DEFINE_ONE);
    }
    standings.iter().for_each(|standing| println!("{}", as_text(standing)));
    Ok(Exit::Done)
}

fn as_json(standing: &Standing) -> Value {
    json!({
        "category": standing.category,
        "version": standing.version,
        "definition": standing.definition,
        "serving": standing.serving,
        "position": standing.position,
        "of": standing.of,
        "events": standing.events,
        "bad_events": standing.bad_events,
        "last_bad_event": standing.last_bad_event,
        "settled": standing.settled.as_ref().map(|settled| json!({
            "position": settled.position,
            "events": settled.events,
            "bad_events": settled.bad_events,
            "last_bad_event": settled.last_bad_event,
        })),
    })
}

fn as_text(standing: &Standing) -> String {
    let Standing { category, version, .. } = standing;
    let events = events(standing.events, standing.bad_events);
    let state = match standing.serving {
        true => "serving".to_owned(),
        false => format!(
            "being built, {} of {} events of the log looked through",
            HumanCount(standing.position),
            HumanCount(standing.of)
        ),
    };
    let mut text = clean(&format!("{category} version {version}: {state}; {events}"));
    if let Some(bad) = &standing.last_bad_event {
        text += &format!("\n  the last bad one: {}", clean(bad));
    }
    if let Some(settled) = &standing.settled {
        let events = self::events(settled.events, settled.bad_events);
        text += &format!("\n  settled of ordered fields: {events}");
        if let Some(bad) = &settled.last_bad_event {
            text += &format!("\n  the last bad one: {}", clean(bad));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_in_toml_is_the_same_in_json() {
        let toml = "category = \"stock\"\nversion = 1\n[fields]\non_hand = \"pn-counter\"\n[on]\n\
                    Received = [\"on_hand += $.n\"]\n";
        let json: Value = serde_json::from_str(&of_toml(toml).unwrap()).unwrap();
        let wanted = json!({
            "category": "stock",
            "version": 1,
            "fields": { "on_hand": "pn-counter" },
            "on": { "Received": ["on_hand += $.n"] },
        });
        assert_eq!(json, wanted);
        let error = of_toml("category = \"stock\"\nversion = \n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        let error = read(Path::new("stock.yaml")).unwrap_err();
        assert!(error.downcast_ref::<WrongUsage>().is_some(), "{error}");
    }

    #[test]
    fn what_is_being_built_says_how_far_it_is_and_what_is_bad_says_why() {
        let standing = Standing {
            category: "stock".into(),
            version: 2,
            definition: json!({}),
            serving: false,
            position: 1_500,
            of: 4_000,
            events: 20,
            bad_events: 1,
            last_bad_event: Some("eu/7: there is no $.n in the payload".into()),
            settled: None,
        };
        assert_eq!(
            as_text(&standing),
            "stock version 2: being built, 1,500 of 4,000 events of the log looked through; 20 events, \
             1 of them bad and left out\n  the last bad one: eu/7: there is no $.n in the payload"
        );
    }
}
