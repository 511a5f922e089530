use super::*;
use crate::codec::Reader;
use crate::id::{Dot, Seq};
use crate::sample::{at, name, origin};

fn declared(home: &str) -> Change {
    Change::Declared { category: "account".into(), home: name(home) }
}

fn released(stream: Option<&str>, to: &str, epoch: u32) -> Change {
    let (category, stream) = ("account".into(), stream.map(str::to_owned));
    Change::Released { category, stream, to: name(to), epoch }
}

fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}

/// Takes changes in; says of each whether it said anything.
fn take(homes: &mut Homes, changes: &[(Change, Dot, u64)]) -> Vec<bool> {
    let mut take = |(change, by, ms): &(Change, Dot, u64)| {
        let entry = homes.effect(change, by, at(*ms));
        entry.map(|entry| homes.put(entry)).is_some()
    };
    changes.iter().map(&mut take).collect()
}

fn home(homes: &Homes, stream: &str) -> Option<(String, u32)> {
    homes.of(stream).map(|home| (home.region.to_string(), home.epoch))
}

#[test]
fn changes_come_back_from_their_events() {
    let changes = [declared("eu"), released(None, "us", 2), released(Some("account-7-b"), "us", 9)];
    for change in changes {
        let event = change.event();
        assert!(is_of_classes(&event.stream));
        assert_eq!(Change::read(&event.stream, &event.kind, &event.payload), Ok(change));
    }
}

#[test]
fn what_is_wrong_with_a_change_is_named() {
    for (kind, payload, wanted) in [
        ("Happened", "{}", r#"its type is "Happened""#),
        (DECLARED, "[]", "is not an object"),
        (DECLARED, r#"{"category":"account"}"#, "home is missing"),
        (DECLARED, r#"{"category":"account","home":"EU"}"#, "home: region name"),
        (DECLARED, r#"{"category":"account","home":"eu","to":"us"}"#, r#""to" is no part of it"#),
        (DECLARED, r#"{"category":"cart","home":"eu"}"#, r#"it is about "cart""#),
        (RELEASED, r#"{"category":"account","to":"us"}"#, "epoch is no number"),
        (RELEASED, r#"{"category":"account","to":"us","epoch":4294967296}"#, "epoch is no number"),
        (
            RELEASED,
            r#"{"category":"account","to":"us","epoch":2,"stream":7}"#,
            "stream is not text",
        ),
        (RELEASED, r#"{"category":"account","to":"us","epoch":2,"stream":"cart-1"}"#, "cart-1"),
    ] {
        let error = Change::read("$class-account", kind, payload.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{payload}: {error}");
    }
    let payload = br#"{"category":"$class","home":"eu"}"#;
    let own = Change::read("$class-$class", DECLARED, payload);
    assert_eq!(own, Err(BadChange::Own("$class".into())));
}

#[test]
fn a_stream_follows_its_category_until_it_is_handed_over_by_itself() {
    let mut homes = Homes::default();
    assert_eq!(home(&homes, "account-1"), None);
    let said = take(
        &mut homes,
        &[
            (declared("eu"), dot("us", 1), 10),
            (released(Some("account-2"), "asia", 2), dot("eu", 1), 20),
            (released(None, "us", 2), dot("eu", 2), 30),
            (released(None, "asia", 3), dot("us", 2), 40),
        ],
    );
    assert_eq!(said, [true; 4]);
    assert_eq!(home(&homes, "account-1"), Some(("asia".into(), 3)));
    assert_eq!(home(&homes, "account-2"), Some(("asia".into(), 2)));
    assert_eq!(home(&homes, "accounts-1"), None, "of another category");
    let moved: Vec<_> = homes.moved_of("account", "").map(|(stream, _)| stream).collect();
    assert_eq!(moved, ["account-2"]);
    assert_eq!(homes.moved_of("account", "account-2").count(), 0);
    assert_eq!(homes.moved_of("accoun", "").count(), 0);
}

#[test]
fn only_the_home_of_that_epoch_releases() {
    let mut homes = Homes::default();
    let said = take(
        &mut homes,
        &[
            (released(None, "us", 2), dot("eu", 1), 5),
            (declared("eu"), dot("eu", 2), 10),
            (released(None, "us", 2), dot("us", 1), 20),
            (released(None, "us", 3), dot("eu", 3), 30),
            (released(None, "us", 1), dot("eu", 3), 30),
            (released(None, "us", u32::MAX), dot("eu", 3), 30),
            (released(None, "us", 2), dot("eu", 4), 40),
            (released(None, "asia", 2), dot("eu", 5), 50),
        ],
    );
    assert_eq!(said, [false, true, false, false, false, false, true, false]);
    assert_eq!(home(&homes, "account-1"), Some(("us".into(), 2)));
}

#[test]
fn of_declarations_that_did_not_know_of_each_other_the_first_counts_everywhere() {
    let one = (declared("eu"), dot("eu", 1), 10);
    let other = (declared("us"), dot("us", 1), 9);
    let tie = (declared("asia"), dot("asia", 1), 9);
    let mut ends = Vec::new();
    for order in [[&one, &other, &tie], [&tie, &one, &other], [&other, &tie, &one]] {
        let mut homes = Homes::default();
        take(&mut homes, &order.map(Clone::clone));
        ends.push(homes);
    }
    assert_eq!(home(&ends[0], "account-1"), Some(("asia".into(), 1)), "a tie: by origin");
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn homes_come_back_from_their_bytes() {
    let mut homes = Homes::default();
    take(
        &mut homes,
        &[
            (declared("eu"), dot("eu", 1), 10),
            (released(Some("account-2"), "asia", 2), dot("eu", 2), 20),
        ],
    );
    let mut bytes = Vec::new();
    homes.encode(&mut bytes);
    let mut reader = Reader::new(bytes.into());
    assert_eq!(Homes::decode(&mut reader), Ok(homes));
    reader.finish("homes").unwrap();
}
