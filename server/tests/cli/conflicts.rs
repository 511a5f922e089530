//! Conflicts of two regions, worked with through the binary.

use serde_json::Value;

use crate::page::{blocks, run_block};
use crate::region::{Region, eventually, two_linked_regions, two_regions_down};
use crate::{done, run, text};

/// Lines of JSON.
fn lines(args: &[&str], at: &Region) -> Vec<Value> {
    let output = done(args.iter().chain(&["--json", "--endpoint", &at.endpoint]));
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn append(stream: &str, data: &str, at: &Region) {
    done(["append", stream, "Set", "--data", data, "--endpoint", &at.endpoint]);
}

#[test]
fn conflicts_are_found_listed_followed_and_decided() {
    let (_dir, [mut eu, mut us]) = two_regions_down();
    // Each writes while the other is down.
    eu.start();
    append("cart-1", r#"{"by":"eu"}"#, &eu);
    assert_eq!(eu.stop(), Some(0));
    us.start();
    append("cart-1", r#"{"by":"us"}"#, &us);
    eu.start();
    let list = |at: &Region, order: &str| {
        lines(&["conflicts", "list", "--category", "cart", "--order", order], at)
    };
    eventually("both regions find it, in both orders", || {
        let lists = [(&eu, "regional"), (&us, "regional"), (&eu, "global"), (&us, "global")];
        lists.iter().all(|(at, order)| list(at, order).len() == 1)
    });
    assert_eq!(list(&eu, "global"), list(&us, "global"), "the same list in every region");
    let found = &list(&eu, "regional")[0];
    let said = (&found["stream"], &found["pairs"], &found["standing"], &found["policy"]);
    assert_eq!(said, (&"cart-1".into(), &1.into(), &"kept".into(), &"keep-all".into()));
    assert_eq!(
        (&found["events"]["region"], &found["against"][0]["region"]),
        (&"us".into(), &"eu".into())
    );

    let follow = ["conflicts", "watch", "--category", "cart", "--order", "global", "--limit", "1"];
    assert_eq!(lines(&follow, &us), list(&eu, "global"));

    // What became of the events, by the value that each holds.
    let standings = |at: &Region| -> Vec<(String, String)> {
        let read = ["read", "--stream", "cart-1", "--type", "Set", "--conflicts"];
        let of = |event: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["data"]["by"]), text(&event["conflict"]["standing"]))
        };
        let mut standings: Vec<_> = lines(&read, at).iter().map(of).collect();
        standings.sort();
        standings
    };
    let are = |eu_is: &str, us_is: &str| {
        [("eu", eu_is), ("us", us_is)].map(|(by, is)| (by.to_owned(), is.to_owned())).to_vec()
    };
    assert_eq!(standings(&eu), are("kept", "kept"));
    let policy = |args: &[&str]| {
        let args = [&["conflicts", "policy", "cart"], args, &["--endpoint", &eu.endpoint]].concat();
        done(args)
    };
    let in_both = |what: &str, wanted: Vec<(String, String)>| {
        eventually(what, || [&eu, &us].iter().all(|at| standings(at) == wanted));
    };
    assert_eq!(policy(&["last-writer-wins"]), "cart version 1 is last-writer-wins\n");
    assert_eq!(policy(&["last-writer-wins"]), "cart version 1 is last-writer-wins already\n");
    in_both("the later one wins", are("lost", "won"));
    policy(&["region-priority", "--regions", "eu,us"]);
    in_both("the first region wins", are("won", "lost"));
    policy(&["resolver"]);
    in_both("nobody has decided", are("open", "open"));
    let shown = policy(&[]);
    assert!(shown.starts_with("cart  resolver, version 3, since "), "{shown}");
    assert!(shown.contains("; 1 conflicts of 1 pairs of events"), "{shown}");

    let status = done(["status", "--endpoint", &us.endpoint]);
    assert!(status.contains(" conflicts of "), "{status}");

    let resolve =
        |event: &str| run(["conflicts", "resolve", "cart-1", event, "--endpoint", &us.endpoint]);
    let refused = resolve("us:99");
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("nothing was written") && said.contains("no conflict has such an event"),
        "{said}"
    );
    let conflict = list(&us, "regional").remove(0);
    let runs = [&conflict["events"], &conflict["against"][0]];
    let run_of_us = runs.into_iter().find(|run| run["region"] == "us").unwrap();
    let resolved = resolve(&format!("us:{}", run_of_us["first"]));
    assert!(resolved.status.success(), "{}", text(&resolved.stderr));
    in_both("us was chosen", are("lost", "won"));
    assert_eq!(
        lines(&["conflicts", "list", "--stream", "cart-1", "--open"], &us),
        Vec::<Value>::new()
    );

    let refused = run(["conflicts", "policy", "cart", "coin", "--endpoint", &eu.endpoint]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let args = [
        "conflicts",
        "policy",
        "cart",
        "keep-all",
        "--as-version",
        "2",
        "--endpoint",
        &eu.endpoint,
    ];
    let refused = run(args);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("nothing was set: version: is 2, and version 3 of cart is there"),
        "{said}"
    );
}

#[test]
fn the_page_about_conflicts_shows_what_happens() {
    let (_dir, [eu, us], link) = two_linked_regions();
    let names = [("EU", eu.endpoint.as_str()), ("US", us.endpoint.as_str())];
    let run = |block: &String| run_block(block, &names);
    let blocks = blocks("docs/conflicts.md");
    let [before, apart, together] = &blocks[..] else { panic!("other blocks: {blocks:?}") };
    let mut commands = run(before);
    link.cut();
    commands += run(apart);
    link.heal();
    commands += run(together);
    assert_eq!(commands, 7);
}
