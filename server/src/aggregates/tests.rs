//! Aggregates over real logs and stores, in several regions.

mod ordered;

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::aggregate::{Definition, Operations};
use anabranch_core::declared::Declare;
use anabranch_core::event::Event;
use anabranch_core::{Context, ShardId};
use anabranch_log::derived::states::{MemoryStates, StateError, States};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::board::Board;
use super::follow::{Follower, Pass, PassError};
use super::{AggregateError, Aggregates};
use crate::read::testing::{REGIONS, Rng, Site, settle};
use crate::states::SharedStates;
use crate::states::testing::Broken;

fn json_event(stream: &str, kind: &str, payload: &Json) -> Event {
    Event {
        stream: stream.into(),
        id: None,
        kind: kind.into(),
        metadata: Default::default(),
        payload: Bytes::from(payload.to_string()),
    }
}

fn definition(version: u32, fields: Json, on: Json) -> Event {
    let json = json!({ "category": "file", "version": version, "fields": fields, "on": on });
    json_event(&Definition::stream_of("file"), Definition::EVENT_TYPE, &json)
}

fn files(version: u32) -> Event {
    definition(
        version,
        json!({ "lines": "pn-counter", "authors": "or-set", "last": "lww-register", "by": "map of pn-counter" }),
        json!({ "Changed": ["lines += $.added - $.deleted", "authors add $.author",
                            "last = $.commit", "by[$.author] += 1"] }),
    )
}

fn change(stream: &str, added: i64, deleted: i64, author: &str) -> Event {
    let payload = json!({ "added": added, "deleted": deleted, "author": author, "commit": added * 31 + deleted });
    json_event(stream, "Changed", &payload)
}

/// A region whose aggregates are kept, over any number of starts.
struct Kept {
    site: Arc<Site>,
    states: MemoryStates,
    follower: Follower<Site>,
    board: Arc<Board>,
}

impl Kept {
    fn new(site: &Arc<Site>) -> Self {
        Self::open(site, MemoryStates::new())
    }
    fn open(site: &Arc<Site>, states: MemoryStates) -> Self {
        let board = Arc::new(Board::new());
        let held: Arc<dyn States> = Arc::new(states.clone());
        let follower = Follower::open(Arc::clone(site), ShardId(0), held, Arc::clone(&board));
        Self { site: Arc::clone(site), states, follower, board }
    }
    /// What is not written is forgotten, as when the process dies.
    fn restart(self) -> Self {
        Self::open(&self.site, self.states)
    }
    /// As the task does it: what is damaged is given up.
    fn pass(&mut self) -> Pass {
        match self.follower.pass() {
            Ok(pass) => pass,
            Err(PassError::States(error)) => {
                self.follower.recover(&error);
                Pass::More
            }
            Err(error) => panic!("{error}"),
        }
    }
    fn follow(&mut self) {
        while self.follower.pass().unwrap() == Pass::More {}
    }
    fn aggregates(&self) -> Aggregates<Site> {
        Aggregates { view: Arc::clone(&self.site), board: Arc::clone(&self.board) }
    }
    fn value(&self, stream: &str) -> Json {
        Json::Object(self.board.serving()["file"].show(stream).unwrap().unwrap().value)
    }
    fn canonical(&self, stream: &str) -> Vec<u8> {
        self.board.serving()["file"].canonical(stream)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

const STREAMS: [&str; 4] = ["file-a", "file-b", "file-c", "other-a"];

/// Stream, lines more, and author of a change.
type Written = (String, i64, String);

/// Three regions that write the same streams, and hear of each other now and then.
fn history(seed: u64) -> (Vec<Arc<Site>>, Vec<Vec<Written>>) {
    let mut rng = Rng(seed);
    let sites: Vec<_> = REGIONS.iter().map(|region| Site::new(region, &REGIONS, 16)).collect();
    let mut written = vec![Vec::new(); 3];
    sites[1].append(1, vec![vec![files(1)]]);
    for step in 0..200 {
        let at = rng.below(3) as usize;
        if rng.below(3) == 0 {
            let from = (at + 1 + rng.below(2) as usize) % 3;
            sites[at].import(&sites[from], 1 + rng.below(5) as usize);
            continue;
        }
        let stream = *rng.pick::<&str>(&STREAMS);
        let (added, deleted) = (rng.below(50) as i64, rng.below(20) as i64);
        let author = format!("author-{}", rng.below(5));
        sites[at].append(10 + step, vec![vec![change(stream, added, deleted, &author)]]);
        written[at].push((stream.to_owned(), added - deleted, author));
    }
    settle(&sites, 1_000);
    (sites, written)
}

#[test]
fn every_region_folds_the_same_and_what_a_plain_fold_gives() {
    for seed in 0..8 {
        let (sites, written) = history(seed);
        let mut kept: Vec<_> = sites.iter().map(Kept::new).collect();
        kept.iter_mut().for_each(Kept::follow);
        for stream in &STREAMS[..3] {
            let mine = || written.iter().flatten().filter(|(of, _, _)| of == stream);
            let lines: i64 = mine().map(|(_, lines, _)| lines).sum();
            let authors: std::collections::BTreeSet<_> =
                mine().map(|(_, _, author)| author).collect();
            for region in &kept {
                let value = region.value(stream);
                assert_eq!(value["lines"], json!(lines), "seed {seed}, {stream}");
                assert_eq!(value["authors"], json!(authors), "seed {seed}, {stream}");
                assert!(region.canonical(stream) == kept[0].canonical(stream), "seed {seed}");
                assert_eq!(value, kept[0].value(stream), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_start_goes_on_where_it_was_written_and_forgets_nothing() {
    let (sites, _) = history(3);
    let mut whole = Kept::new(&sites[0]);
    whole.follow();
    let mut rng = Rng(5);
    let mut kept = Kept::new(&sites[0]);
    for round in 0..40 {
        kept.follower.pass().unwrap();
        if rng.below(2) == 0 {
            kept.follower.flush().unwrap();
        }
        kept = kept.restart();
        sites[0].append(2_000 + round, vec![vec![change("file-a", 1, 0, "late")]]);
    }
    kept.follow();
    whole.follow();
    for stream in STREAMS {
        assert!(kept.canonical(stream) == whole.canonical(stream), "{stream}");
    }
    let tally = |kept: &Kept| kept.aggregates().standings()[0].tally.clone();
    assert_eq!(tally(&kept), tally(&whole));
    kept.follower.flush().unwrap();
    let mut again = kept.restart();
    again.follower.pass().unwrap();
    assert_eq!(tally(&again).events, tally(&whole).events, "nothing was folded twice");
}

/// States of which one is damaged: a bit of it is wrong, it is gone, or half of it is.
fn damaged(all: &[(Vec<u8>, Bytes)], key: &[u8], damage: usize) -> MemoryStates {
    let copy = MemoryStates::new();
    let write = |key: &[u8], value: Option<Bytes>| copy.write(&[(key.to_vec(), value)]).unwrap();
    all.iter().for_each(|(key, value)| write(key, Some(value.clone())));
    match damage {
        0 => assert!(copy.flip_bit(key, 13)),
        1 => write(key, None),
        // Read whole, and no state of ours.
        _ => {
            let value = copy.get(key).unwrap().unwrap();
            write(key, Some(value.slice(..value.len() / 2)));
        }
    }
    copy
}

#[test]
fn what_is_damaged_or_of_another_time_or_log_is_folded_again() {
    let (sites, _) = history(4);
    let mut whole = Kept::new(&sites[0]);
    whole.follow();
    whole.follower.flush().unwrap();
    let all = whole.states.scan(&[], None, 1000).unwrap();
    for (nth, (key, _)) in all.iter().enumerate() {
        for damage in 0..3 {
            let mut kept = Kept::open(&sites[0], damaged(&all, key, damage));
            sites[0].append(
                3_000 + nth as u64,
                vec![STREAMS[..3].iter().map(|s| change(s, 1, 1, "x")).collect()],
            );
            let mut passes = 0;
            while kept.pass() == Pass::More {
                passes += 1;
                assert!(passes < 100, "damage {damage} of {key:?}");
            }
            whole.follow();
            for stream in &STREAMS[..3] {
                let same = kept.canonical(stream) == whole.canonical(stream);
                assert!(same, "damage {damage} of {}", key.escape_ascii());
            }
        }
    }
    let (others, _) = history(9);
    let more = (0..200).map(|_| change("file-a", 1, 0, "more")).collect();
    others[0].append(9_000, vec![more]);
    let mut foreign = Kept::open(&others[0], whole.states.clone());
    foreign.follow();
    let mut own = Kept::new(&others[0]);
    own.follow();
    assert!(foreign.canonical("file-a") == own.canonical("file-a"), "kept of another log");
}

#[tokio::test]
async fn a_newer_definition_is_built_while_the_older_one_serves() {
    let (sites, _) = history(6);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    let before = kept.value("file-a");
    let newer =
        definition(2, json!({ "changes": "g-counter" }), json!({ "Changed": ["changes += 1"] }));
    sites[0].append(5_000, vec![vec![newer]]);
    let position = sites[0].state.region(|region| region.position());
    kept.follower.take_next(position);
    let standings = kept.aggregates().standings();
    let serving: Vec<_> = standings.iter().map(|s| (s.definition.version, s.serving)).collect();
    assert_eq!(serving, [(1, true), (2, false)]);
    assert_eq!(kept.value("file-a"), before, "the older one serves");
    let newest = kept.aggregates().newest("file", soon()).await.unwrap().unwrap();
    assert_eq!(newest.version, 2);
    kept.follower.flush().unwrap();
    kept = kept.restart();
    assert_eq!(kept.value("file-a"), before, "also after a start");
    assert_eq!(kept.aggregates().standings().len(), 2);
    kept.follow();
    let events = sites[0].state.region(|region| region.stream("file-a").unwrap().next_revision);
    assert_eq!(kept.value("file-a"), json!({ "changes": events }));
    assert_eq!(kept.aggregates().standings().len(), 1);
    kept.follower.flush().unwrap();
    let mut again = kept.restart();
    again.follow();
    assert_eq!(again.value("file-a"), json!({ "changes": events }));
    // An older version, and what is no definition, change nothing.
    sites[0].append(5_001, vec![vec![files(1)]]);
    sites[0].append(
        5_002,
        vec![vec![json_event("$definition-file", Definition::EVENT_TYPE, &json!(7))]],
    );
    again.follow();
    assert_eq!(again.value("file-a"), json!({ "changes": events }));
}

#[test]
fn a_definition_that_is_declared_again_goes_on() {
    let (sites, _) = history(5);
    let mut plain = Kept::new(&sites[0]);
    plain.follow();
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    sites[0].append(6_000, vec![vec![files(1)]]);
    for again in 0..2 {
        kept.follow();
        kept.follower.flush().unwrap();
        kept = kept.restart();
        kept.follow();
        for stream in &STREAMS[..3] {
            assert_eq!(kept.value(stream), plain.value(stream), "{again}: {stream}");
        }
        // Once more, with another one between, which is not served yet.
        let events = vec![
            definition(1, json!({ "other": "max" }), json!({})),
            files(1),
            change("file-new", 1, 0, "x"),
            files(1),
        ];
        sites[0].append(6_001, vec![events]);
    }
    kept.follow();
    assert_eq!(kept.value("file-new")["lines"], json!(2));
    assert_eq!(kept.value("file-a"), plain.value("file-a"));
    let keys = kept.states.scan(b"aggregates", None, 100).unwrap();
    let prefixes: std::collections::BTreeSet<_> =
        keys.iter().map(|(key, _)| key[..28].to_vec()).collect();
    assert_eq!(prefixes.len(), 1, "nothing is left of the other one");
}

#[test]
fn a_log_that_cannot_be_read_now_is_gone_on_with_later() {
    let (sites, _) = history(6);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    let newer =
        definition(2, json!({ "changes": "g-counter" }), json!({ "Changed": ["changes += 1"] }));
    sites[0].append(5_000, vec![vec![newer]]);
    kept.follower.take_next(sites[0].state.region(|region| region.position()));
    sites[0].flip_log();
    kept.follower.pass().unwrap_err();
    kept.follower.pass().unwrap_err();
    sites[0].flip_log();
    kept.follow();
    let events = sites[0].state.region(|region| region.stream("file-a").unwrap().next_revision);
    assert_eq!(kept.value("file-a"), json!({ "changes": events }));

    // Whether it is the log that was followed is found out as soon as it can be read.
    kept.follower.flush().unwrap();
    let (others, _) = history(9);
    others[0].append(9_000, vec![(0..200).map(|_| change("file-a", 1, 0, "more")).collect()]);
    let mut foreign = Kept::open(&others[0], kept.states.clone());
    others[0].flip_log();
    foreign.follower.pass().unwrap_err();
    others[0].flip_log();
    foreign.follow();
    let mut own = Kept::new(&others[0]);
    own.follow();
    assert!(foreign.canonical("file-a") == own.canonical("file-a"), "kept of another log");
}

#[test]
fn who_still_holds_what_was_given_up_gets_nothing_from_it() {
    let (sites, _) = history(6);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    let held = Arc::clone(&kept.board.serving()["file"]);
    let newer = definition(2, json!({ "changes": "g-counter" }), json!({}));
    sites[0].append(5_000, vec![vec![newer]]);
    kept.follow();
    assert_eq!(held.show("file-a"), Ok(None), "another definition took its place");
    assert_eq!(held.page(None, 9), Ok(None));

    let held = Arc::clone(&kept.board.serving()["file"]);
    kept.follower.recover(&StateError::OutOfUse);
    kept.follow();
    assert_eq!(held.show("file-a"), Ok(None), "it was folded again");
    assert!(kept.board.serving()["file"].show("file-a").unwrap().is_some());
}

#[tokio::test]
async fn what_only_a_reader_finds_damaged_is_folded_again() {
    let (sites, _) = history(7);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    let whole = kept.canonical("file-a");
    kept.follower.flush().unwrap();
    for (key, _) in kept.states.scan(b"aggregates", None, 100).unwrap() {
        if key.ends_with(b"file-a") {
            assert!(kept.states.flip_bit(&key, 13));
        }
    }
    let mut kept = kept.restart();
    kept.follow();
    let error = kept.aggregates().get("file-a", &Context::new(), soon()).await.unwrap_err();
    assert!(matches!(error, AggregateError::States { .. }), "{error}");
    let Err(super::follow::PassError::States(error)) = kept.follower.pass() else {
        panic!("the reader's finding is passed on");
    };
    kept.follower.recover(&error);
    kept.follow();
    assert!(kept.canonical("file-a") == whole);
}

#[test]
fn an_aggregate_that_is_too_large_to_be_kept_is_folded_again_after_a_start() {
    let site = Site::new("eu", &["eu"], 8);
    let noted = json!({ "Changed": ["notes[$.commit] = $.note"], "Gone": ["notes clear"] });
    let fields = json!({ "notes": "map of lww-register" });
    site.append(1, vec![vec![definition(1, fields, noted)]]);
    let note = |nth: usize| {
        let payload = json!({ "commit": nth, "note": "x".repeat(4000) });
        json_event("file-a", "Changed", &payload)
    };
    let notes = |kept: &Kept| kept.value("file-a")["notes"].as_object().unwrap().len();
    let mut kept = Kept::new(&site);
    for nth in 0..40 {
        site.append(2 + nth as u64, vec![vec![note(nth), change("file-b", 1, 0, "x")]]);
        kept.follow();
        kept.follower.flush().unwrap();
        assert_eq!(notes(&kept), nth + 1);
    }
    // 160 KB, and 64 KiB are kept in tests.
    kept = kept.restart();
    kept.follow();
    assert_eq!(notes(&kept), 40);
    site.append(99, vec![vec![json_event("file-a", "Gone", &Json::Null)]]);
    site.append(99, vec![vec![note(7)]]);
    kept.follow();
    kept.follower.flush().unwrap();
    kept = kept.restart();
    assert_eq!(notes(&kept), 1, "small enough again, it was kept");
}

#[test]
fn what_is_left_of_states_that_were_not_removed_whole_is_not_gone_on_with() {
    let (sites, _) = history(2);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    let whole = kept.canonical("file-a");
    kept.follower.flush().unwrap();
    let first = kept.states.scan(b"aggregates", None, 1).unwrap().remove(0).0;
    kept.states.write(&[(first, None)]).unwrap();
    kept = kept.restart();
    kept.follow();
    assert!(kept.canonical("file-a") == whole);
}

#[test]
fn a_definition_amid_the_events_of_one_append_sees_those_before_and_after_it() {
    for before in 0..3 {
        let site = Site::new("eu", &["eu"], 8);
        let mut events: Vec<Event> = (0..3).map(|_| change("file-a", 2, 1, "x")).collect();
        events.insert(before, files(1));
        site.append(1, vec![events]);
        let mut kept = Kept::new(&site);
        kept.follow();
        assert_eq!(kept.value("file-a")["lines"], json!(3), "{before} before it");
    }
}

#[tokio::test]
async fn two_regions_that_define_at_once_end_with_one_definition() {
    let (eu, us) = (Site::new("eu", &["eu", "us"], 8), Site::new("us", &["eu", "us"], 8));
    eu.append(1, vec![vec![definition(1, json!({ "a": "max" }), json!({}))]]);
    us.append(1, vec![vec![definition(1, json!({ "b": "min" }), json!({}))]]);
    let mut kept = [Kept::new(&eu), Kept::new(&us)];
    kept.iter_mut().for_each(Kept::follow);
    settle(&[Arc::clone(&eu), Arc::clone(&us)], 10);
    kept.iter_mut().for_each(Kept::follow);
    let newest = |kept: &Kept| {
        let aggregates = kept.aggregates();
        async move { aggregates.newest("file", soon()).await.unwrap().unwrap() }
    };
    assert_eq!(newest(&kept[0]).await, newest(&kept[1]).await);
    let values = kept.each_ref().map(|kept| kept.value("file-a"));
    assert_eq!(values[0], values[1]);
}

#[tokio::test]
async fn readers_get_what_was_there_when_they_asked_or_a_reason() {
    let (sites, _) = history(7);
    let stop = tokio::sync::watch::Sender::new(false);
    let states: Arc<dyn States> = Arc::new(MemoryStates::new());
    let (aggregates, folding) =
        Aggregates::open(Arc::clone(&sites[0]), ShardId(0), states, stop.subscribe());
    let late = Instant::now() + Duration::from_millis(20);
    let error = aggregates.get("file-a", &Context::new(), late).await.unwrap_err();
    assert!(matches!(error, AggregateError::Behind { done: 0, .. }), "{error}");
    let folding = tokio::spawn(folding);
    let shown = aggregates.get("file-a", &Context::new(), soon()).await.unwrap();
    let events = sites[0].state.region(|region| region.stream("file-a").unwrap().next_revision);
    assert_eq!(shown.events, events);
    let error = aggregates.get("nothing-1", &Context::new(), soon()).await.unwrap_err();
    assert!(matches!(error, AggregateError::NoDefinition { .. }), "{error}");
    let blank = aggregates.get("file-none", &Context::new(), soon()).await.unwrap();
    assert_eq!((blank.events, &blank.value["lines"]), (0, &json!(0)));

    // What another region has written, and this one does not hold yet, is waited for.
    sites[1].append(9_000, vec![vec![change("file-a", 1000, 0, "far")]]);
    let session = sites[1].frontier();
    let late = Instant::now() + Duration::from_millis(20);
    let error = aggregates.get("file-a", &session, late).await.unwrap_err();
    assert!(matches!(error, AggregateError::NotCaughtUp { .. }), "{error}");
    sites[0].import(&sites[1], 99);
    let after = aggregates.get("file-a", &session, soon()).await.unwrap();
    assert_eq!(after.events, events + 1);

    // A cut is the same everywhere, whatever came in since.
    let cut = sites[2].frontier();
    let then = aggregates.get_at("file-a", &cut, soon()).await.unwrap();
    assert_eq!(then, shown, "before the far one");

    let page = aggregates.page("file", None, 2, &session, soon()).await.unwrap();
    let next = aggregates.page("file", Some("file-b".into()), 2, &session, soon()).await.unwrap();
    let names = |page: &[super::Shown]| page.iter().map(|s| s.stream.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&page), names(&next)),
        (vec!["file-a".into(), "file-b".into()], vec!["file-c".into()])
    );
    stop.send_replace(true);
    folding.await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_not_served_before_it_was_compared_with_the_log() {
    let (sites, _) = history(2);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    let mut again = kept.restart();
    let aggregates = again.aggregates();
    let late = || Instant::now() + Duration::from_millis(20);
    let error = aggregates.get("file-a", &Context::new(), late()).await.unwrap_err();
    assert!(matches!(error, AggregateError::Behind { done: 0, .. }), "{error}");
    let error = aggregates.newest("file", late()).await.unwrap_err();
    assert!(matches!(error, AggregateError::Behind { .. }), "{error}");
    again.follower.pass().unwrap();
    assert!(aggregates.get("file-a", &Context::new(), soon()).await.unwrap().events > 0);
}

#[test]
fn bad_events_are_counted_with_the_reason_of_the_last() {
    let site = Site::new("eu", &["eu"], 8);
    site.append(1, vec![vec![files(1)]]);
    site.append(2, vec![vec![json_event("file-a", "Changed", &json!({ "added": 1 }))]]);
    let operations =
        Operations::from_json(br#"{"do":[{"field":"lines","do":"increment","by":4}]}"#).unwrap();
    let payload: Json = serde_json::from_str(&operations.to_json()).unwrap();
    site.append(
        3,
        vec![vec![json_event("file-a", anabranch_core::aggregate::EVENT_TYPE, &payload)]],
    );
    let mut kept = Kept::new(&site);
    kept.follow();
    let tally = kept.aggregates().standings()[0].tally.clone();
    assert_eq!((tally.events, tally.bad), (2, 1));
    assert!(tally.last_bad.contains("there is no $.deleted in the payload"), "{}", tally.last_bad);
    assert_eq!(kept.value("file-a")["lines"], json!(4));
}

#[tokio::test]
async fn a_node_whose_derived_store_is_out_of_use_folds_in_memory() {
    let (sites, _) = history(8);
    let stop = tokio::sync::watch::Sender::new(false);
    let states = Arc::new(SharedStates::over(Arc::new(Broken)));
    let (aggregates, folding) =
        Aggregates::open(Arc::clone(&sites[0]), ShardId(0), states, stop.subscribe());
    let folding = tokio::spawn(folding);
    let shown = aggregates.get("file-a", &Context::new(), soon()).await.unwrap();
    assert!(shown.events > 0);
    stop.send_replace(true);
    folding.await.unwrap();
}

/// Brings nothing back as it was put.
#[derive(Default)]
struct Forgetful {
    states: MemoryStates,
    removed: std::sync::atomic::AtomicU32,
}

impl States for Forgetful {
    fn write(&self, changes: &[(Vec<u8>, Option<Bytes>)]) -> Result<(), StateError> {
        self.states.write(changes)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match key.ends_with(b"file-a") {
            true => Err(StateError::Damaged { key: key.to_vec() }),
            false => self.states.get(key),
        }
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        self.states.scan(prefix, after, limit)
    }
    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        self.removed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.states.remove_all(prefix)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_again_and_again_is_folded_again_now_and_then() {
    let (sites, _) = history(5);
    let stop = tokio::sync::watch::Sender::new(false);
    let states = Arc::new(Forgetful::default());
    let held: Arc<dyn States> = Arc::clone(&states) as _;
    let (_, folding) = Aggregates::open(Arc::clone(&sites[0]), ShardId(0), held, stop.subscribe());
    let folding = tokio::spawn(folding);
    let removed = || states.removed.load(std::sync::atomic::Ordering::Relaxed);
    while removed() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Without a pause it would be thousands.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(removed() < 20, "{} times", removed());
    stop.send_replace(true);
    folding.await.unwrap();
}

#[test]
fn definitions_are_read_as_they_are_written() {
    let json: Json = serde_json::from_slice(&files(3).payload).unwrap();
    assert_eq!(Definition::from_json(&json).unwrap().version, 3);
}
