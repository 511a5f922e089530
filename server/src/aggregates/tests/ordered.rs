//! Ordered fields over real logs and stores: settled, tentative, and both after starts and losses.

use std::collections::BTreeMap;

use super::*;
use crate::aggregates::Shown;
use crate::read::View;
use crate::read::testing::global;

/// What a file's events say, in order: `who` changed it last, how often that was somebody else than
/// before, and a balance that changes may not overdraw.
fn ledger(version: u32) -> Event {
    definition(
        version,
        json!({ "lines": "pn-counter", "who": "ordered", "turns": "ordered from 0",
                "balance": "ordered from 10", "refused": "ordered from 0" }),
        json!({ "Changed": ["lines += $.added", "turns += 1 when who != $.author", "who = $.author",
                            "balance += $.added - $.deleted when balance + $.added >= $.deleted",
                            "refused += 1 when balance + $.added < $.deleted"] }),
    )
}

/// The same by hand, of changes in the order given.
fn plain<'a>(changes: impl Iterator<Item = &'a Json>) -> Json {
    let (mut who, mut turns, mut balance, mut refused) = (Json::Null, 0, 10, 0);
    for change in changes {
        turns += i64::from(who != change["author"]);
        who = change["author"].clone();
        let by = change["added"].as_i64().unwrap() - change["deleted"].as_i64().unwrap();
        match balance + by >= 0 {
            true => balance += by,
            false => refused += 1,
        }
    }
    json!({ "balance": balance, "refused": refused, "turns": turns, "who": who })
}

/// The events of a stream that a region holds, in the global order.
fn in_order(site: &Site, stream: &str) -> Vec<(anabranch_core::Dot, Json)> {
    let held = site.state.region(|region| region.stream(stream).map_or(0, |h| h.next_revision));
    let forward = anabranch_log::index::Direction::Forward;
    let mut payloads = BTreeMap::new();
    let mut next = 0;
    while next < held {
        for event in site.state.store().read_stream(stream, next, forward, 99, 1 << 20).unwrap() {
            next = event.revision + 1;
            let payload = super::super::follow::placed(&event).event.payload;
            payloads.insert(event.dot(), serde_json::from_slice(&payload).unwrap());
        }
    }
    let known = global(site).into_iter().filter(|known| known.stream == stream);
    known.map(|known| (known.dot.clone(), payloads.remove(&known.dot).unwrap())).collect()
}

async fn shown(kept: &Kept, stream: &str) -> Shown {
    kept.aggregates().get(stream, &Context::new(), soon()).await.unwrap()
}

fn part(shown: &Shown, part: &str) -> Json {
    let fields = ["balance", "refused", "turns", "who"];
    fields.iter().map(|name| ((*name).to_owned(), shown.value[*name][part].clone())).collect()
}

/// Holds what is shown against a plain fold; says how many events are settled, and how many are not.
async fn check(kept: &Kept, stream: &str) -> (u64, u64) {
    let events = in_order(&kept.site, stream);
    let shown = shown(kept, stream).await;
    let counts = shown.ordered.unwrap();
    let settled = counts.settled_events as usize;
    let payloads = || events.iter().map(|(_, payload)| payload);
    assert_eq!(part(&shown, "settled"), plain(payloads().take(settled)), "{stream}");
    assert_eq!(part(&shown, "tentative"), plain(payloads()), "{stream}");
    assert_eq!(counts.tentative_events, events.len() as u64, "{stream}");
    let is_final = global(&kept.site).into_iter().take(kept.site.final_position() as usize);
    let is_final = is_final.filter(|known| known.stream == stream).count();
    assert_eq!(settled, is_final, "{stream}: all that is final is settled");
    (counts.settled_events, counts.tentative_events - counts.settled_events)
}

/// Three regions that write, hear of each other, stop and start.
async fn live(seed: u64) -> (u64, u64) {
    let mut rng = Rng(seed);
    let sites: Vec<_> = REGIONS.iter().map(|region| Site::new(region, &REGIONS, 16)).collect();
    sites[1].append(1, vec![vec![ledger(1)]]);
    settle(&sites, 5);
    let mut kept: Vec<_> = sites.iter().map(Kept::new).collect();
    kept.iter_mut().for_each(Kept::follow);
    let (mut settled, mut unsettled) = (0, 0);
    for step in 0..150 {
        let at = rng.below(3) as usize;
        match rng.below(8) {
            0 => sites[at].close(10 + step),
            1..5 => {
                let from = (at + 1 + rng.below(2) as usize) % 3;
                sites[at].import(&sites[from], 1 + rng.below(5) as usize);
            }
            _ => {
                let change = |rng: &mut Rng| {
                    let (stream, author) = (*rng.pick::<&str>(&STREAMS), rng.below(3).to_string());
                    change(stream, rng.below(9) as i64, rng.below(15) as i64, &author)
                };
                let changes = (0..1 + rng.below(3)).map(|_| change(&mut rng)).collect();
                sites[at].append(10 + step, vec![changes]);
            }
        }
        if rng.below(4) == 0 {
            kept[at].follow();
            for stream in &STREAMS[..3] {
                let found = check(&kept[at], stream).await;
                (settled, unsettled) = (settled + found.0, unsettled + found.1);
            }
        }
        if rng.below(12) == 0 {
            if rng.below(2) == 0 {
                kept[at].follower.flush().unwrap();
            }
            let before = kept.remove(at).restart();
            kept.insert(at, before);
        }
    }
    settle(&sites, 1_000);
    kept.iter_mut().for_each(Kept::follow);
    for stream in &STREAMS[..3] {
        for region in &kept {
            assert_eq!(check(region, stream).await.1, 0, "seed {seed}: all is final");
        }
    }
    (settled, unsettled)
}

#[tokio::test]
async fn settled_and_tentative_are_plain_folds_whatever_comes_in_and_when() {
    let (mut settled, mut unsettled) = (0, 0);
    for seed in 0..6 {
        let found = live(seed).await;
        (settled, unsettled) = (settled + found.0, unsettled + found.1);
    }
    assert!(settled > 1000 && unsettled > 500, "{settled}, {unsettled}");
}

fn pair() -> [Arc<Site>; 2] {
    let regions = ["eu", "us"];
    regions.map(|region| Site::new(region, &regions, 8))
}

#[tokio::test]
async fn an_event_that_comes_before_others_changes_what_is_tentative_and_nothing_that_is_settled() {
    let sites = pair();
    let [eu, us] = &sites;
    eu.append(1, vec![vec![ledger(1), change("file-a", 5, 0, "ada")]]);
    settle(&sites, 2);
    let mut kept = Kept::new(eu);
    kept.follow();
    us.append(100, vec![vec![change("file-a", 0, 12, "us")]]);
    eu.append(200, vec![vec![change("file-a", 0, 10, "eu")]]);
    kept.follow();
    let first = shown(&kept, "file-a").await;
    assert_eq!(part(&first, "settled")["balance"], 15);
    assert_eq!(part(&first, "tentative")["balance"], 5, "as far as eu knows");
    eu.import(us, 9);
    kept.follow();
    let second = shown(&kept, "file-a").await;
    let settled = json!({ "balance": 3, "refused": 0, "turns": 2, "who": "us" });
    assert_eq!(part(&second, "settled"), settled, "it goes on, in order");
    let wanted = json!({ "balance": 3, "refused": 1, "turns": 3, "who": "eu" });
    assert_eq!(part(&second, "tentative"), wanted, "us was first, and eu is refused");
    settle(&sites, 300);
    kept.follow();
    let third = shown(&kept, "file-a").await;
    assert_eq!(part(&third, "settled"), wanted);
    assert_eq!(part(&third, "tentative"), wanted);
}

#[tokio::test]
async fn as_of_a_cut_ordered_fields_are_the_same_in_every_region() {
    let (sites, _) = history(3);
    sites[0].append(2_000, vec![vec![ledger(2)]]);
    settle(&sites, 3_000);
    let mut kept: Vec<_> = sites.iter().map(Kept::new).collect();
    kept.iter_mut().for_each(Kept::follow);
    let cut = sites[0].frontier();
    sites[0].append(4_000, vec![vec![change("file-a", 1, 0, "later")]]);
    kept.iter_mut().for_each(Kept::follow);
    let mut all = Vec::new();
    for region in &kept {
        let then = region.aggregates().get_at("file-a", &cut, soon()).await.unwrap();
        let events = in_order(&region.site, "file-a");
        let covered = events.iter().filter(|(dot, _)| cut.covers_dot(dot));
        assert_eq!(part(&then, "settled"), plain(covered.map(|(_, payload)| payload)));
        assert!(then.value["balance"].get("tentative").is_none());
        all.push(then);
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test]
async fn what_is_lost_or_damaged_of_what_is_settled_is_folded_again() {
    let (sites, _) = history(4);
    sites[0].append(2_000, vec![vec![ledger(2)]]);
    settle(&sites, 3_000);
    let mut whole = Kept::new(&sites[0]);
    whole.follow();
    whole.follower.flush().unwrap();
    let all = whole.states.scan(&[], None, 1000).unwrap();
    let settled = all.iter().filter(|(key, _)| key.get(28) == Some(&2)).count();
    assert_eq!(settled, 4, "three streams, and how far it is");
    for (key, _) in &all {
        for damage in 0..3 {
            let mut kept = Kept::open(&sites[0], damaged(&all, key, damage));
            // A reader may be the first to find it, and tries again.
            for round in 0.. {
                assert!(round < 100, "damage {damage} of {}", key.escape_ascii());
                if kept.pass() == Pass::More {
                    continue;
                }
                let aggregates = kept.aggregates();
                let mut found = true;
                for stream in &STREAMS[..3] {
                    let got = aggregates.get(stream, &Context::new(), soon()).await;
                    found &= got.is_ok();
                }
                if found {
                    break;
                }
            }
            for stream in &STREAMS[..3] {
                assert_eq!(check(&kept, stream).await.1, 0, "damage {damage}");
            }
        }
    }
}

#[tokio::test]
async fn a_newer_definition_with_ordered_fields_is_served_when_it_has_settled_all() {
    let (sites, _) = history(6);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    sites[0].append(2_000, vec![vec![ledger(2)]]);
    kept.follower.take_next(sites[0].state.region(|region| region.position()));
    let serving = |kept: &Kept| {
        let standings = kept.aggregates().standings();
        standings.iter().map(|s| (s.definition.version, s.serving)).collect::<Vec<_>>()
    };
    assert_eq!(serving(&kept), [(1, true), (2, false)]);
    kept.follow();
    assert_eq!(serving(&kept), [(2, true)]);
    check(&kept, "file-a").await;
    // The next one has ordered fields, too: both are folded until it takes over, also after a start.
    sites[0].append(2_001, vec![vec![ledger(3)]]);
    kept.follower.take_next(sites[0].state.region(|region| region.position()));
    kept.follower.flush().unwrap();
    kept = kept.restart();
    assert_eq!(serving(&kept), [(2, true), (3, false)]);
    kept.follow();
    assert_eq!(serving(&kept), [(3, true)]);
    settle(&sites, 3_000);
    kept.follow();
    for stream in &STREAMS[..3] {
        assert_eq!(check(&kept, stream).await.1, 0);
    }
    let settled = kept.aggregates().standings().remove(0).settled.unwrap();
    assert_eq!(settled.position, sites[0].frontier().events());
}

#[tokio::test]
async fn settled_is_not_shown_before_it_is_where_it_was_before_the_start() {
    let sites = pair();
    sites[0].append(1, vec![vec![ledger(1), change("file-a", 5, 0, "ada")]]);
    settle(&sites, 2);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    sites[0].append(10, vec![vec![change("file-a", 1, 0, "ada")]]);
    settle(&sites, 20);
    kept.follow();
    assert_eq!(shown(&kept, "file-a").await.ordered.unwrap().settled_events, 2);
    let mut again = kept.restart();
    // What is merged is up to date before what is settled is.
    again.follower.take_next(sites[0].state.region(|region| region.position()));
    let late = Instant::now() + Duration::from_millis(20);
    let error = again.aggregates().get("file-a", &Context::new(), late).await.unwrap_err();
    assert!(matches!(error, AggregateError::Behind { .. }), "{error}");
    again.follow();
    assert_eq!(shown(&again, "file-a").await.ordered.unwrap().settled_events, 2);
}

#[tokio::test]
async fn more_than_is_folded_for_one_answer_is_refused_and_said() {
    let sites = pair();
    sites[0].append(1, vec![vec![ledger(1), change("file-b", 1, 0, "ada")]]);
    settle(&sites, 2);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    let many = |count| vec![(0..count).map(|_| change("file-a", 1, 0, "ada")).collect::<Vec<_>>()];
    sites[0].append(10, many(300));
    kept.follow();
    let all = shown(&kept, "file-a").await;
    assert_eq!(all.ordered.unwrap().tentative_events, 300);
    // One more is gone on with; folded anew, it is one too many.
    sites[0].append(11, many(1));
    kept.follow();
    assert_eq!(shown(&kept, "file-a").await.ordered.unwrap().tentative_events, 301);
    let mut kept = kept.restart();
    kept.follow();
    let error = kept.aggregates().get("file-a", &Context::new(), soon()).await.unwrap_err();
    assert!(
        error.to_string().starts_with("301 events of stream \"file-a\" are not final"),
        "{error}"
    );
    assert_eq!(shown(&kept, "file-b").await.ordered.unwrap().settled_events, 1);
}

#[tokio::test]
async fn definitions_that_are_settled_to_different_places_take_each_event_once() {
    let (sites, _) = history(5);
    let json = json!({ "category": "other", "version": 1, "fields": { "turns": "ordered from 0" },
                       "on": { "Changed": ["turns += 1"] } });
    let other = json_event(&Definition::stream_of("other"), Definition::EVENT_TYPE, &json);
    sites[0].append(2_000, vec![vec![ledger(2), other]]);
    settle(&sites, 3_000);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.follower.flush().unwrap();
    let turns = |kept: &Kept| {
        let aggregates = kept.aggregates();
        async move {
            let shown = aggregates.get("other-a", &Context::new(), soon()).await.unwrap();
            shown.value["turns"]["settled"].as_u64().unwrap()
        }
    };
    let before = turns(&kept).await;
    let prefix = |kept: &Kept| {
        let kept = kept.states.scan(b"aggregates", None, 100).unwrap();
        let key = kept.into_iter().map(|(key, _)| key).find(|key| key.ends_with(b"\x02\x01file-a"));
        key.unwrap()[..29].to_vec()
    };
    let prefix = prefix(&kept);
    let old = kept.states.scan(&prefix, None, 100).unwrap();
    sites[0].append(4_000, vec![vec![change("file-a", 1, 0, "x"), change("other-a", 1, 0, "x")]]);
    settle(&sites, 5_000);
    kept.follow();
    kept.follower.flush().unwrap();
    // What is settled of files goes back to where it was, all of it; the others do not.
    let old: Vec<_> = old.into_iter().map(|(key, value)| (key, Some(value))).collect();
    kept.states.write(&old).unwrap();
    let mut kept = kept.restart();
    kept.follow();
    assert_eq!(turns(&kept).await, before + 1);
    for stream in &STREAMS[..3] {
        assert_eq!(check(&kept, stream).await.1, 0);
    }
}
