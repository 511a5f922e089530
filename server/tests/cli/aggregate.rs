//! Aggregates, worked with through the binary.

use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::region::{one_region, terminate};
use crate::{anabranch, run, text};

/// The command, and the region it speaks to.
struct Aggregates<'a> {
    at: &'a str,
}

impl Aggregates<'_> {
    fn run(&self, args: &[&str]) -> Output {
        run(["aggregate"].iter().chain(args).chain(&["--endpoint", self.at]))
    }
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[args, &["--json"]].concat())).unwrap()
    }
    /// What is said of a failure with code 1.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }
    /// Declares what is read from standard input.
    fn define(&self, definition: &Value) -> Output {
        let mut command = anabranch(["aggregate", "define", "-", "--endpoint", self.at]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = piped.spawn().unwrap();
        process.stdin.take().unwrap().write_all(definition.to_string().as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    }
}

fn stock(version: u32, on_hand: &str) -> Value {
    json!({
        "category": "stock",
        "version": version,
        "fields": { "on_hand": on_hand, "tags": "or-set", "todo": "list", "by": "map of pn-counter" },
        "on": { "Received": ["on_hand += $.count"] },
    })
}

#[test]
fn aggregates_are_defined_changed_shown_and_queried() {
    let (_dir, region) = one_region();
    let aggregates = Aggregates { at: &region.endpoint };

    let undefined = aggregates.refused(&["get", "stock-1"]);
    assert!(undefined.contains("no definition of aggregates of category \"stock\""), "{undefined}");
    assert!(undefined.contains("anabranch aggregate define FILE"), "{undefined}");
    let undefined = aggregates.refused(&["do", "stock-1", "on_hand += 1"]);
    assert!(undefined.contains("nothing was written: there is no definition"), "{undefined}");
    assert!(undefined.contains("anabranch aggregate define FILE"), "{undefined}");

    let defined = aggregates.define(&stock(1, "pn-counter"));
    assert_eq!(text(&defined.stdout), "stock version 1 is declared\n", "{}", text(&defined.stderr));
    let again = aggregates.define(&stock(1, "pn-counter"));
    assert_eq!(text(&again.stdout), "stock version 1 is there already\n");
    let clash = aggregates.define(&stock(1, "g-counter"));
    assert_eq!(clash.status.code(), Some(1));
    let said = text(&clash.stderr);
    assert!(said.starts_with("error: nothing was declared: definition.version: is 1"), "{said}");
    assert!(said.contains("fields.on_hand was pn-counter and would be g-counter"), "{said}");

    let change = |stream: &str, operations: &[&str]| {
        aggregates.done(&[&["do", stream][..], operations].concat())
    };
    let told = change("stock-1", &["on_hand += 5", r#"tags add "x""#, "by[alice] += 1"]);
    assert!(told.starts_with("stock-1@0  eu/"), "{told}");
    change("stock-1", &[r#"todo insert "tea""#, r#"{"field": "on_hand", "do": "increment"}"#]);
    change("stock-1", &[r#"todo insert "milk" at 0"#, "by[bob] -= 2"]);
    change("stock-1", &["todo delete at 1", "by[alice] remove-key"]);
    change("stock-2", &["on_hand += 90"]);
    let shown = aggregates.done(&["get", "stock-1"]);
    let wanted = "stock-1  version 1, 4 events\n  by       {\"bob\":-2}\n  on_hand  6\n  \
                  tags     [\"x\"]\n  todo     [\"milk\"]\n";
    assert_eq!(shown, wanted);

    let mistyped = aggregates.refused(&["do", "stock-1", "on_hand += 1", "on_hnad += 1"]);
    assert!(
        mistyped.contains("nothing was written: operations[1]: field \"on_hnad\""),
        "{mistyped}"
    );
    assert!(mistyped.contains("by, on_hand, tags, todo"), "{mistyped}");
    let wrong = aggregates.refused(&["do", "stock-1", r#"on_hand add "x""#]);
    assert!(wrong.contains("is a pn-counter, which has no \"add\""), "{wrong}");
    let wrong = aggregates.refused(&["do", "stock-1", "todo delete at 7"]);
    assert!(wrong.contains("at is not a place in the list"), "{wrong}");

    // The stream is as it was, in the end of the global order, too.
    let shown = aggregates.json(&["get", "stock-1"]);
    assert_eq!((&shown["events"], &shown["value"]["on_hand"]), (&json!(4), &json!(6)));
    assert!(shown["value"]["todo"][0]["id"].is_string(), "{shown}");
    crate::region::eventually("it is final", || {
        let last = aggregates.json(&["get", "stock-1", "--final"]);
        last["cut"].is_object() && last["value"] == shown["value"]
    });

    let query = |flags: &[&str]| {
        let output = aggregates.run(&[&["query", "stock"][..], flags].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        let streams = out.lines().map(|line| line.split(' ').next().unwrap().to_owned());
        (streams.collect::<Vec<_>>().join(","), said)
    };
    assert_eq!(query(&[]), ("stock-1,stock-2".into(), String::new()));
    assert_eq!(query(&["--where", "on_hand > 6"]).0, "stock-2");
    assert_eq!(query(&["--where", "on_hand >= 6", "--where", r#"tags == "x""#]).0, "stock-1");
    assert_eq!(
        query(&["--limit", "1"]),
        ("stock-1".into(), "more follow: --after stock-1\n".into())
    );
    assert_eq!(query(&["--limit", "1", "--after", "stock-1"]), ("stock-2".into(), String::new()));
    let wrong = aggregates.refused(&["query", "stock", "--where", "lines > 1"]);
    assert!(wrong.contains("conditions[0].field: is no field of stock, which has by"), "{wrong}");
}

#[test]
fn a_newer_version_counts_again_and_a_watch_shows_each_change() {
    let (_dir, region) = one_region();
    let aggregates = Aggregates { at: &region.endpoint };
    assert!(aggregates.define(&stock(1, "g-counter")).status.success());
    let append = |payload: &str| {
        let append = ["append", "stock-1", "Received", "--endpoint", aggregates.at, "--data"];
        crate::done(append.iter().chain(&[payload]));
    };
    let mut command = anabranch(["aggregate", "watch", "stock-1", "--json"]);
    let mut process =
        command.args(["--endpoint", aggregates.at]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["value"]["on_hand"], 0);
    append(r#"{"count": 5}"#);
    assert_eq!(next()["value"]["on_hand"], 5);
    append(r#"{"count": -3}"#);
    let shown = next();
    let counted = [&shown["events"], &shown["bad_events"], &shown["value"]["on_hand"]];
    assert_eq!(counted, [2, 1, 5], "a g-counter only grows");
    let listed = aggregates.done(&["list", "stock"]);
    let head =
        "stock version 1: serving; 2 events, 1 of them bad and left out\n  the last bad one: eu/";
    assert!(listed.starts_with(head), "{listed}");

    assert!(aggregates.define(&stock(2, "pn-counter")).status.success());
    assert_eq!(next()["version"], 2, "a watch goes on under it");
    assert_eq!(terminate(process), Some(0));
    let shown = aggregates.json(&["get", "stock-1"]);
    let counted = [&shown["version"], &shown["bad_events"], &shown["value"]["on_hand"]];
    assert_eq!(counted, [2, 0, 2], "all events were counted again");
    let listed = aggregates.json(&["list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["version"], &listed[0]["serving"]), (&json!(2), &json!(true)));
    assert_eq!(listed[0]["definition"], stock(2, "pn-counter"));
    let nothing = aggregates.run(&["list", "cart"]);
    assert!(nothing.status.success());
    assert!(text(&nothing.stderr).starts_with("there is no definition of cart; "));
}

#[test]
fn the_page_about_aggregates_shows_what_happens() {
    let (_dir, region) = one_region();
    let commands = crate::page::shows_what_happens("docs/aggregates.md", &region.endpoint);
    assert!(commands >= 10, "{commands}");
}
