use super::*;
use crate::codec::Reader;
use crate::id::{Dot, Seq};
use crate::sample::{at, name, origin};

fn declared(home: &str) -> Change {
    again(home, 1)
}

fn again(home: &str, epoch: u32) -> Change {
    Change::Declared { category: "account".into(), home: name(home), epoch }
}

fn released(stream: Option<&str>, to: &str, epoch: u32) -> Change {
    let (category, stream) = ("account".into(), stream.map(str::to_owned));
    Change::Released { category, stream, to: name(to), epoch }
}

fn ended(epoch: u32) -> Change {
    Change::Ended { category: "account".into(), epoch }
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
    let handed = [released(None, "us", 2), released(Some("account-7-b"), "us", 9)];
    for change in handed.into_iter().chain([declared("eu"), again("us", 4), ended(3)]) {
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
        (DECLARED, r#"{"category":"account","home":"eu","epoch":-1}"#, "epoch is no number"),
        (ENDED, r#"{"category":"account"}"#, "epoch is no number"),
        (ENDED, r#"{"category":"account","epoch":2,"to":"us"}"#, r#""to" is no part of it"#),
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
fn only_the_home_of_all_streams_ends_and_what_is_declared_then_begins_anew() {
    let mut homes = Homes::default();
    assert_eq!(homes.next_epoch("account"), 1);
    let said = take(
        &mut homes,
        &[
            (ended(1), dot("eu", 1), 5),
            (declared("eu"), dot("eu", 2), 10),
            (released(Some("account-2"), "us", 2), dot("eu", 3), 20),
            (ended(3), dot("eu", 4), 30),
            (released(Some("account-2"), "eu", 3), dot("us", 1), 40),
            (ended(4), dot("us", 2), 50),
            (ended(3), dot("eu", 5), 50),
        ],
    );
    assert_eq!(said, [false, true, true, false, true, false, false]);
    assert_eq!(homes.next_epoch("account"), 4);
    assert_eq!(take(&mut homes, &[(ended(4), dot("eu", 6), 60)]), [true]);
    assert_eq!((home(&homes, "account-1"), home(&homes, "account-2")), (None, None));
    assert_eq!((homes.of_category("account"), homes.categories().count()), (None, 0));
    assert_eq!(homes.moved_of("account", "").count(), 0);
    let nothing = [
        (ended(5), dot("eu", 7), 70),
        (released(None, "us", 5), dot("eu", 8), 70),
        (declared("us"), dot("us", 9), 70),
        (again("us", 4), dot("us", 9), 70),
    ];
    assert_eq!(take(&mut homes, &nothing), [false; 4], "nobody is the home, and 5 is next");

    let (one, other) = ((again("us", 5), dot("us", 3), 90), (again("asia", 5), dot("asia", 1), 80));
    let mut first = homes.clone();
    assert_eq!(take(&mut first, &[one.clone(), other.clone()]), [true; 2]);
    assert_eq!(take(&mut homes, &[other, one]), [true, false]);
    assert_eq!(first, homes);
    for stream in ["account-1", "account-2"] {
        assert_eq!(home(&homes, stream), Some(("asia".into(), 5)), "of {stream}");
    }
    assert_eq!(homes.of_category("account").unwrap().since, 5);
}

#[test]
fn what_a_region_declares_that_began_anew_and_has_heard_of_nothing_is_not_taken_for_a_later_home() {
    let anew = || (declared("us"), dot("us", 1), 25);
    let known = [(declared("eu"), dot("eu", 1), 10), (ended(2), dot("eu", 2), 20)];
    let later = (again("asia", 3), dot("asia", 1), 30);
    let mut there = Homes::default();
    assert_eq!(take(&mut there, &[anew()]), [true], "as far as it knows");
    assert_eq!(take(&mut there, &known), [true; 2]);
    let mut here = Homes::default();
    take(&mut here, &known);
    let mut after = here.clone();
    assert_eq!(take(&mut here, &[anew()]), [false]);
    assert_eq!(here, there);
    for homes in [&mut here, &mut there] {
        assert_eq!(take(homes, std::slice::from_ref(&later)), [true]);
    }
    assert_eq!(take(&mut after, &[later, anew()]), [true, false]);
    assert_eq!((&here, &after), (&there, &there));
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
            (
                Change::Declared { category: "bed".into(), home: name("us"), epoch: 1 },
                dot("us", 1),
                30,
            ),
            (Change::Ended { category: "bed".into(), epoch: 2 }, dot("us", 2), 40),
        ],
    );
    assert_eq!((homes.next_epoch("bed"), homes.categories().count()), (3, 1));
    let mut bytes = Vec::new();
    homes.encode(&mut bytes);
    let mut reader = Reader::new(bytes.into());
    assert_eq!(Homes::decode(&mut reader), Ok(homes));
    reader.finish("homes").unwrap();
}
