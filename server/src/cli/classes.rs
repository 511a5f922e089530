//! `anabranch classes`.

use std::time::Duration;

use anabranch_client::{Classes, HandOver, HomeChanged, HomeEnded, HomeError, HomedCategory};
use anabranch_core::event::category;
use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Exit;
use super::connect::{Connect, explain};
use super::print::{clean, harmless};

/// Work with classes of streams: which categories have a home, a region that alone writes their streams
///
/// docs/classes.md says what that is for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    List(List),
    Declare(Declare),
    HandOver(Handing),
    End(End),
}

/// Show the homed categories, and which regions have not confirmed them
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only this category, with the streams that were handed over by themselves
    category: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Make the streams of a category homed, for all regions
///
/// The home says yes to `--expect` once every region has confirmed it.
#[derive(Debug, clap::Args)]
pub struct Declare {
    /// Category: `account` has the streams `account-42` and `account-7`
    category: String,
    /// The region that writes them from now on
    home: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connect: Connect,
}

/// Have the home give a stream, or a category, to another region
///
/// Asked for in any region: the home does it.
#[derive(Debug, clap::Args)]
pub struct Handing {
    /// Stream, as `account-42`; or a category, as `account`: all its streams that were not handed over by
    /// themselves
    name: String,
    /// The region that writes from now on
    to: String,
    /// Only as this home, one more than the present one: nobody else has handed over since it was looked at
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    epoch: Option<u32>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connect: Connect,
}

/// Make a category multi-writer again: every region writes its streams
///
/// Asked for in any region: the home does it, if it is the home of all streams of the category.
#[derive(Debug, clap::Args)]
pub struct End {
    /// Category, as `account`
    category: String,
    /// Only if it gets this epoch, one more than the newest one in the category: nobody else has changed a
    /// home since it was looked at
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    epoch: Option<u32>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connect: Connect,
}

/// Waiting for all regions
#[derive(Debug, clap::Args)]
struct Wait {
    /// Wait until all regions have confirmed it, for so many seconds at most
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "30")]
    wait: Option<u32>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Does what the command says.
pub async fn run(command: Command) -> Result<Exit> {
    match command {
        Command::List(args) => list(args).await,
        Command::Declare(args) => {
            let classes = args.connect.client().await?.classes();
            let changed = classes.declare(&args.category, &args.home).await;
            let changed = changed.map(|changed| Said::changed(&args.category, changed));
            tell(&classes, &args.category, changed, &args.wait).await
        }
        Command::HandOver(args) => {
            let classes = args.connect.client().await?.classes();
            let of = category(&args.name);
            let mut hand_over = match of == args.name {
                true => HandOver::category(&args.name, &args.to),
                false => HandOver::stream(&args.name, &args.to),
            };
            if let Some(epoch) = args.epoch {
                hand_over = hand_over.epoch(epoch);
            }
            let changed = classes.hand_over(hand_over).await;
            let changed = changed.map(|changed| Said::changed(&args.name, changed));
            tell(&classes, of, changed, &args.wait).await
        }
        Command::End(args) => {
            let classes = args.connect.client().await?.classes();
            let ended = classes.end(&args.category, args.epoch).await;
            let ended = ended.map(|ended| Said::ended(&args.category, ended));
            tell(&classes, &args.category, ended, &args.wait).await
        }
    }
}

/// What came of a change, in words and as JSON.
struct Said {
    words: String,
    json: Value,
    repeated: bool,
}

impl Said {
    fn changed(name: &str, changed: HomeChanged) -> Self {
        let HomeChanged { home, repeated, dot } = changed;
        let words = format!("{name} is homed in {}, epoch {}", home.region, home.epoch);
        let dot = dot.map(|dot| dot.to_string());
        let (region, epoch) = (home.region, home.epoch);
        let json = json!({ "name": name, "home": region, "epoch": epoch, "repeated": repeated, "dot": dot });
        Self { words, json, repeated }
    }

    fn ended(category: &str, ended: HomeEnded) -> Self {
        let HomeEnded { repeated, dot } = ended;
        let words = format!("{category} is multi-writer");
        let dot = dot.map(|dot| dot.to_string());
        let json = json!({ "name": category, "home": null, "repeated": repeated, "dot": dot });
        Self { words, json, repeated }
    }
}

/// Says what came of a change, and waits if asked to.
async fn tell(
    classes: &Classes,
    category: &str,
    changed: Result<Said, HomeError>,
    wait: &Wait,
) -> Result<Exit> {
    let Said { words, mut json, repeated } = match changed {
        Ok(said) => said,
        Err(HomeError::Refused(error)) => return Err(explain(error).context("nothing was changed")),
        Err(error @ HomeError::Unknown(_)) => {
            let error = clean(&error.to_string());
            eprintln!("error: {error}; it may be changed: look with `anabranch classes list`");
            return Ok(Exit::Unknown);
        }
    };
    let missing = match wait.wait {
        Some(seconds) => {
            let within = Duration::from_secs(seconds.into());
            Some(classes.await_all(category, within).await.map_err(explain)?)
        }
        None => None,
    };
    if wait.json {
        json["waits_for"] = json!(missing);
        println!("{}", harmless(&json.to_string()));
    } else {
        let already = if repeated { " already" } else { "" };
        let known = match &missing {
            Some(missing) if missing.is_empty() => ", and all regions know",
            _ => "",
        };
        println!("{}", clean(&format!("{words}{already}{known}")));
    }
    match missing {
        Some(missing) if !missing.is_empty() => {
            bail!("it is so, but not known yet to be known in {}", missing.join(", "))
        }
        _ => Ok(Exit::Done),
    }
}

async fn list(args: List) -> Result<Exit> {
    let classes = args.connect.client().await?.classes();
    let Some(category) = args.category else {
        let all = classes.list().await.map_err(explain)?;
        if args.json {
            let all = Value::from_iter(all.iter().map(as_json));
            println!("{}", harmless(&all.to_string()));
        } else if all.is_empty() {
            eprintln!("no category is homed: every region writes every stream");
        }
        if !args.json {
            all.iter().for_each(|category| println!("{}", as_text(category)));
        }
        return Ok(Exit::Done);
    };
    let class = classes.get(&category).await.map_err(explain)?;
    let mut json = class.as_ref().map(as_json);
    match &class {
        _ if args.json => {}
        Some(class) => println!("{}", as_text(class)),
        None => eprintln!("{} is not homed: every region writes its streams", clean(&category)),
    }
    let mut after = String::new();
    loop {
        let page = classes.handed_over(&category, after).await.map_err(explain)?;
        for (stream, home) in page.streams {
            match &mut json {
                Some(json) if args.json => {
                    let stream =
                        json!({ "stream": stream, "home": home.region, "epoch": home.epoch });
                    json["streams"].as_array_mut().expect("it is an array").push(stream);
                }
                _ => {
                    let line = format!("  {stream}  {}, epoch {}", home.region, home.epoch);
                    println!("{}", clean(&line));
                }
            }
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    if args.json {
        println!("{}", harmless(&json.unwrap_or_default().to_string()));
    }
    Ok(Exit::Done)
}

fn as_json(class: &HomedCategory) -> Value {
    json!({
        "category": class.category,
        "home": class.home.region,
        "epoch": class.home.epoch,
        "waits_for": class.waits_for,
        "streams": [],
    })
}

fn as_text(class: &HomedCategory) -> String {
    let known = match class.waits_for.as_slice() {
        [] => "all regions have confirmed it".to_owned(),
        regions => format!("waits for {}", regions.join(", ")),
    };
    let HomedCategory { category, home, .. } = class;
    clean(&format!("{category}  homed in {}, epoch {}; {known}", home.region, home.epoch))
}

#[cfg(test)]
mod tests {
    use anabranch_client::Home;

    use super::*;

    #[test]
    fn a_line_says_who_is_awaited() {
        let home = Home { region: "eu".into(), epoch: 1 };
        let mut class =
            HomedCategory { category: "account".into(), home, waits_for: vec!["us".into()] };
        assert_eq!(as_text(&class), "account  homed in eu, epoch 1; waits for us");
        class.waits_for.clear();
        assert_eq!(as_text(&class), "account  homed in eu, epoch 1; all regions have confirmed it");
    }
}
