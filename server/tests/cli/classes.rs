//! Homes, worked with through the binary.

use serde_json::{Value, json};

use crate::region::one_region;
use crate::{run, text};

#[test]
fn a_category_is_made_homed_and_looked_at() {
    let (_dir, region) = one_region();
    let classes = |args: &[&str]| {
        run(["classes"].iter().chain(args).chain(&["--endpoint", &region.endpoint]))
    };
    let done = |args: &[&str]| {
        let output = classes(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let refused = |args: &[&str]| {
        let output = classes(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&done(args)).unwrap() };
    assert!(text(&classes(&["list"]).stderr).contains("no category is homed"));
    assert_eq!(json(&["list", "--json"]), json!([]));
    let declared = json(&["declare", "account", "eu", "--wait=60", "--json"]);
    assert_eq!((&declared["epoch"], &declared["waits_for"]), (&json!(1), &json!([])));
    assert!(declared["dot"].as_str().unwrap().starts_with("eu/"), "{declared}");
    assert_eq!(done(&["declare", "account", "eu"]), "account is homed in eu, epoch 1 already\n");
    assert_eq!(
        done(&["list", "account"]),
        "account  homed in eu, epoch 1; all regions have confirmed it\n"
    );
    assert_eq!(json(&["list", "account", "--json"])["streams"], json!([]));
    assert!(text(&classes(&["list", "cart"]).stderr).contains("cart is not homed"));

    // To itself, for want of another.
    assert_eq!(
        done(&["hand-over", "account-ada", "eu", "--epoch", "2", "--wait"]),
        "account-ada is homed in eu, epoch 2, and all regions know\n"
    );
    assert!(done(&["list", "account"]).ends_with("\n  account-ada  eu, epoch 2\n"));
    assert_eq!(
        done(&["hand-over", "account", "eu"]),
        "account is homed in eu, epoch 1 already\n",
        "there is nothing to do"
    );
    let wrong = refused(&["hand-over", "account-ada", "eu", "--epoch", "7"]);
    assert!(wrong.starts_with("error: nothing was changed: class: "), "{wrong}");
    let wrong = refused(&["hand-over", "account", "us"]);
    assert!(wrong.contains("us"), "{wrong}");
    let wrong = refused(&["hand-over", "cart", "eu"]);
    assert!(wrong.contains("cart"), "{wrong}");
    let wrong = refused(&["end", "account", "--epoch", "2"]);
    assert!(
        wrong.contains("account is at epoch 2 of its homes, so the next is 3, not 2"),
        "{wrong}"
    );
    let ended = json(&["end", "account", "--epoch", "3", "--wait=60", "--json"]);
    assert_eq!((&ended["home"], &ended["waits_for"]), (&Value::Null, &json!([])));
    assert!(ended["dot"].as_str().unwrap().starts_with("eu/"), "{ended}");
    assert_eq!(done(&["end", "account"]), "account is multi-writer already\n");
    assert!(text(&classes(&["list"]).stderr).contains("no category is homed"));
    assert!(refused(&["end", "cart"]).contains("cart is not homed"));
    let wrong = refused(&["declare", "account-ada", "eu"]);
    assert!(wrong.starts_with("error: nothing was changed: category: "), "{wrong}");
}

#[test]
fn the_page_about_classes_shows_what_happens() {
    let (_dir, region) = one_region();
    let commands = crate::page::shows_what_happens("docs/classes.md", &region.endpoint);
    assert!(commands >= 5, "{commands}");
}
