//! Conflicts over real logs and stores, in several regions, compared with what the definition says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::conflict::{Declaration, Policy, RESOLVED, Resolution, Run, Standing};
use anabranch_core::declared::Declare;
use anabranch_core::event::{Event, category};
use anabranch_core::{Context, Cursor, Dot, ReadOrder, Seq, ShardId, Stamp};
use anabranch_log::derived::states::{MemoryStates, StateError, States};
use anabranch_log::index::Direction;
use tokio::time::Instant;

use super::board::Board;
use super::follow::{Follower, Pass};
use super::*;
use crate::read::testing::{REGIONS, Rng, STREAMS, Site, event, origin, settle, world};
use crate::states::testing::Broken;

const BOTH: [ReadOrder; 2] = [ReadOrder::Regional, ReadOrder::Global];

/// A region whose conflicts are kept, over any number of starts.
struct Kept {
    site: Arc<Site>,
    states: MemoryStates,
    shared: Arc<SharedStates>,
    followers: Vec<Follower<Site>>,
    conflicts: Conflicts<Site>,
}

impl Kept {
    fn new(site: &Arc<Site>) -> Self {
        Self::open(site, MemoryStates::new())
    }
    fn open(site: &Arc<Site>, states: MemoryStates) -> Self {
        let shared = SharedStates::over(Arc::new(states.clone()));
        Self::over(site, states, Arc::new(shared))
    }
    fn over(site: &Arc<Site>, states: MemoryStates, shared: Arc<SharedStates>) -> Self {
        let side = |order| Side {
            order,
            board: Arc::new(Board::new()),
            states: Arc::clone(&shared),
            keys: Keys::new(ShardId(0), order),
        };
        let (regional, global) = (side(ReadOrder::Regional), side(ReadOrder::Global));
        let follower = |side: &Side| {
            let (shared, board) = (Arc::clone(&shared), Arc::clone(&side.board));
            Follower::open(Arc::clone(site), ShardId(0), side.order, shared, board)
        };
        let followers = vec![follower(&regional), follower(&global)];
        let conflicts = Conflicts { view: Arc::clone(site), regional, global };
        Self { site: Arc::clone(site), states, shared, followers, conflicts }
    }
    /// What is not written is forgotten, as when the process dies.
    fn restart(self) -> Self {
        Self::open(&self.site, self.states)
    }
    fn follow(&mut self) {
        for follower in &mut self.followers {
            while follower.pass().unwrap() == Pass::More {}
        }
    }
    fn flush(&mut self) {
        self.followers.iter_mut().for_each(|follower| follower.flush().unwrap());
    }
    /// As the task does: an error of what is kept makes it begin anew.
    fn insist(&mut self) {
        for follower in &mut self.followers {
            for _ in 0..10 {
                match follower.pass() {
                    Ok(Pass::Done) => break,
                    Ok(Pass::More) => {}
                    Err(super::follow::PassError::States(error)) => follower.give_up(&error),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    async fn all(&self, order: ReadOrder) -> Vec<Shown> {
        self.pages(&Query { limit: 1000, ..query(order) }).await.0
    }
    /// All pages from the query's cursor on, and the cursor after them.
    async fn pages(&self, query: &Query) -> (Vec<Shown>, Cursor) {
        let (mut query, mut all) = (query.clone(), Vec::new());
        loop {
            let page = self.conflicts.page(&query, soon()).await.unwrap();
            all.extend(page.shown);
            query.after = Some(page.cursor.clone());
            query.from = query.of_any_region.then_some(page.next);
            if !page.more {
                return (all, page.cursor);
            }
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn query(order: ReadOrder) -> Query {
    Query {
        target: Target::All,
        order,
        after: None,
        from: None,
        of_any_region: false,
        open_only: false,
        limit: 3,
        session: Context::new(),
    }
}

/// An event, with what its region held.
struct Known {
    stream: String,
    dot: Dot,
    stamp: Stamp,
    held: Context,
    position: u64,
    group_position: u64,
}

fn known(site: &Site) -> Vec<Known> {
    let mut next = 0;
    let mut known = Vec::new();
    loop {
        let store = site.state.store();
        let slices = store.read_positions(next, Direction::Forward, 64, 1 << 20).unwrap();
        let Some(last) = slices.last() else { return known };
        next = last.positions().end;
        for event in slices.iter().flat_map(|slice| slice.events().collect::<Vec<_>>()) {
            let mut held = event.source.group().header().context.clone();
            held.advance(event.origin(), Seq(event.seq().0 - 1));
            known.push(Known {
                stream: event.event.stream.to_string(),
                dot: event.dot(),
                stamp: event.stamp(),
                held,
                position: event.position,
                group_position: event.source.position,
            });
        }
    }
}

type Pair = (String, Dot, Dot);

fn pair(stream: &str, one: &Dot, other: &Dot) -> Pair {
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    (stream.to_owned(), low.clone(), high.clone())
}

fn concurrent(one: &Known, other: &Known) -> bool {
    one.stream == other.stream
        && !one.held.covers_dot(&other.dot)
        && !other.held.covers_dot(&one.dot)
        && one.dot != other.dot
}

fn by_definition(known: &[Known]) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for (at, one) in known.iter().enumerate() {
        let others = known[..at].iter().filter(|other| concurrent(one, other));
        pairs.extend(others.map(|other| pair(&one.stream, &one.dot, &other.dot)));
    }
    pairs
}

fn dots(known: &[Known], stream: &str, run: &Run) -> Vec<Dot> {
    let of = known.iter().filter(|known| known.stream == stream);
    let dots: Vec<_> = of.map(|known| &known.dot).filter(|d| run.holds(&d.origin, d.seq)).collect();
    assert_eq!(dots.len() as u64, run.events, "{run:?}");
    dots.into_iter().cloned().collect()
}

/// The pairs that a list holds. Each is in it once, unless `again`.
fn told(known: &[Known], list: &[Shown], again: bool) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for Shown { conflict, .. } in list {
        let events = dots(known, &conflict.stream, &conflict.events);
        for other in conflict.against.iter().flat_map(|run| dots(known, &conflict.stream, run)) {
            for one in &events {
                let new = pairs.insert(pair(&conflict.stream, one, &other));
                assert!(new || again, "told twice: {one} {other}");
            }
        }
    }
    pairs
}

#[tokio::test]
async fn every_region_finds_the_same_pairs_and_in_global_order_the_same_list() {
    for seed in 0..12 {
        let sites = world(seed, 120);
        let known_here = known(&sites[0]);
        let wanted = by_definition(&known_here);
        assert!(wanted.len() > 50, "seed {seed}: only {} pairs", wanted.len());
        let mut lists = Vec::new();
        for site in &sites {
            let mut kept = Kept::new(site);
            kept.follow();
            for order in BOTH {
                let list = kept.all(order).await;
                assert_eq!(told(&known_here, &list, false), wanted, "seed {seed}, {order:?}");
                let counts = kept.conflicts.overview(order).counts;
                for category in ["cart", "order", "plain"] {
                    let of = |stream: &str| anabranch_core::event::category(stream) == category;
                    let pairs = wanted.iter().filter(|(stream, ..)| of(stream)).count() as u64;
                    let listed = list.iter().filter(|shown| of(&shown.conflict.stream)).count();
                    let count = counts.get(category).copied().unwrap_or_default();
                    assert_eq!((count.pairs, count.conflicts), (pairs, listed as u64));
                }
            }
            lists.push(kept.all(ReadOrder::Global).await);
        }
        assert_eq!(lists[0], lists[1], "seed {seed}");
        assert_eq!(lists[0], lists[2], "seed {seed}");
    }
}

/// Regions that write and hear of each other, followed on the way, with deaths at any time.
async fn followed(seed: u64, mut restart: impl FnMut(&mut Rng, Kept) -> Kept) {
    let mut rng = Rng(seed);
    let sites: Vec<_> = REGIONS.iter().map(|region| Site::new(region, &REGIONS, 8)).collect();
    let mut kept: Vec<Kept> = sites.iter().map(Kept::new).collect();
    let mut ms = 1_000;
    for _ in 0..150 {
        ms += rng.below(3);
        let at = rng.below(3) as usize;
        match rng.below(10) {
            0 => sites[at].close(ms),
            1..5 => sites[at].import(&sites[(at + 1) % 3], 1 + rng.below(6) as usize),
            5 => {
                kept[at].insist();
                if rng.below(2) == 0 {
                    kept[at].flush();
                }
                let one = kept.remove(at);
                kept.insert(at, restart(&mut rng, one));
            }
            _ => {
                let stream = *rng.pick(&STREAMS);
                sites[at].append(ms, vec![vec![event(stream, "E", 1), event(stream, "E", 1)]]);
            }
        }
    }
    settle(&sites, ms + 10);
    let wanted = by_definition(&known(&sites[0]));
    assert!(wanted.len() > 20, "seed {seed}: only {} pairs", wanted.len());
    for one in &mut kept {
        one.insist();
        let mut fresh = Kept::new(&one.site);
        fresh.follow();
        for order in BOTH {
            let list = one.all(order).await;
            assert_eq!(list, fresh.all(order).await, "seed {seed}, {order:?}");
            assert_eq!(told(&known(&one.site), &list, false), wanted, "seed {seed}, {order:?}");
            let counts = |kept: &Kept| kept.conflicts.overview(order).counts;
            assert_eq!(counts(one), counts(&fresh), "seed {seed}, {order:?}");
        }
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_time_goes_on_as_if_it_had_not() {
    for seed in 100..110 {
        followed(seed, |_, kept| kept.restart()).await;
    }
}

#[tokio::test]
async fn what_is_damaged_or_taken_away_is_found_again() {
    for seed in 200..206 {
        followed(seed, |rng, mut kept| {
            let all = kept.states.scan(b"conflicts", None, 10_000).unwrap();
            match rng.below(3) {
                0 if !all.is_empty() => {
                    let (key, _) = rng.pick(&all);
                    kept.states.write(&[(key.clone(), Some(vec![9; 3].into()))]).unwrap();
                    // Found by whoever reads it, or at the next start.
                    for side in [&kept.conflicts.regional, &kept.conflicts.global] {
                        if let Err(error) = side.rows(None, 0, 10_000) {
                            side.board.report(error);
                        }
                        for stream in STREAMS {
                            if let Err(error) = side.rows(Some(stream), 0, 10_000) {
                                side.board.report(error);
                            }
                        }
                    }
                    kept.insist();
                    kept
                }
                1 => {
                    kept.shared.remove_all(&[]).unwrap();
                    kept
                }
                _ => kept.restart(),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_somebody_has_removed_is_not_taken_for_nothing() {
    let sites = world(250, 100);
    let mut kept = Kept::new(&sites[0]);
    kept.follow();
    kept.flush();
    for order in BOTH {
        let wanted = kept.all(order).await;
        assert!(!wanted.is_empty());
        kept.shared.remove_all(&[]).unwrap();
        // Nobody has noticed yet, and nobody does before the deadline.
        let deadline = Instant::now() + Duration::from_millis(20);
        let found = kept.conflicts.page(&query(order), deadline).await;
        assert!(matches!(found, Err(ConflictError::Behind { .. })), "{order:?}: {found:?}");
        kept.insist();
        kept.flush();
        assert_eq!(kept.all(order).await, wanted, "{order:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_use_is_done_without() {
    let sites = world(260, 100);
    let mut whole = Kept::new(&sites[0]);
    whole.follow();
    let shared = Arc::new(SharedStates::over(Arc::new(Broken)));
    let mut kept = Kept::over(&sites[0], MemoryStates::new(), shared);
    kept.insist();
    let found = kept.conflicts.page(&query(ReadOrder::Regional), Instant::now()).await;
    assert!(matches!(found, Err(ConflictError::Behind { .. })), "{found:?}");
    // As aggregates do, which meet the same.
    kept.shared.remove_all(&[]).unwrap();
    kept.insist();
    kept.flush();
    for order in BOTH {
        assert_eq!(kept.all(order).await, whole.all(order).await, "{order:?}");
    }
}

#[tokio::test]
async fn cursors_go_on_after_what_was_told() {
    for seed in 300..306 {
        let sites = world(seed, 100);
        let mut kept: Vec<Kept> = sites.iter().map(Kept::new).collect();
        kept.iter_mut().for_each(Kept::follow);
        let everything = known(&sites[0]);
        let wanted = by_definition(&everything);
        for order in BOTH {
            // Page by page is the same as at once, also for one category, or one stream.
            let all = kept[0].all(order).await;
            assert_eq!(kept[0].pages(&query(order)).await.0, all, "seed {seed}, {order:?}");
            let carts = Query { target: Target::Category("cart".into()), ..query(order) };
            let wanted_carts: Vec<_> =
                all.iter().filter(|s| category(&s.conflict.stream) == "cart").cloned().collect();
            assert_eq!(kept[0].pages(&carts).await.0, wanted_carts);
            let stream = Query { target: Target::Stream("cart-1".into()), ..query(order) };
            let wanted_stream: Vec<_> =
                all.iter().filter(|s| &*s.conflict.stream == "cart-1").cloned().collect();
            assert_eq!(kept[0].pages(&stream).await.0, wanted_stream);
            // From any conflict on, in any region, nothing is missing.
            for (at, shown) in all.iter().enumerate().step_by(5) {
                for other in &kept {
                    let after = Some(shown.cursor.clone());
                    let query = Query { after, of_any_region: true, ..query(order) };
                    let (rest, cursor) = other.pages(&query).await;
                    let again = order == ReadOrder::Regional;
                    let mut pairs = told(&everything, &all[..=at], false);
                    pairs.extend(told(&everything, &rest, again));
                    assert_eq!(pairs, wanted, "seed {seed}, {order:?}, after {at}");
                    if order == ReadOrder::Global || Arc::ptr_eq(&other.site, &kept[0].site) {
                        assert_eq!(rest, all[at + 1..], "seed {seed}, {order:?}, after {at}");
                    }
                    assert_eq!(cursor.context, other.site.frontier());
                }
            }
        }
        let foreign = kept[0].all(ReadOrder::Regional).await[10].cursor.clone();
        let ask = Query { after: Some(foreign), ..query(ReadOrder::Regional) };
        let refused = kept[1].conflicts.page(&ask, soon()).await;
        assert!(matches!(refused, Err(ConflictError::OfAnotherRegion)), "{refused:?}");
    }
}

#[tokio::test]
async fn events_that_are_read_carry_what_they_are_concurrent_with() {
    for seed in 400..406 {
        let mut rng = Rng(seed);
        let sites = world(seed, 60);
        for site in &sites {
            let mut kept = Kept::new(site);
            kept.follow();
            if rng.below(2) == 0 {
                kept.flush();
            }
            let everything = known(site);
            for page in everything.chunks(1 + rng.below(20) as usize) {
                let asked = page.iter().map(|known| Asked {
                    stream: known.stream.clone(),
                    dot: known.dot.clone(),
                    stamp: known.stamp,
                    position: known.position,
                    group_position: known.group_position,
                });
                let regional = ReadOrder::Regional;
                let found = kept.conflicts.concurrency(regional, asked.collect(), soon()).await;
                for (event, found) in page.iter().zip(found.unwrap()) {
                    let others = everything.iter().filter(|other| concurrent(event, other));
                    let wanted: BTreeSet<_> = others.map(|other| other.dot.clone()).collect();
                    let Some(found) = found else {
                        assert_eq!(wanted, BTreeSet::new(), "seed {seed}: {}", event.dot);
                        continue;
                    };
                    let with =
                        found.with.iter().flat_map(|run| dots(&everything, &event.stream, run));
                    let with: BTreeSet<_> = with.collect();
                    if found.cut_short {
                        assert!(with.is_subset(&wanted), "seed {seed}: {}", event.dot);
                    } else {
                        assert_eq!(with, wanted, "seed {seed}: {}", event.dot);
                    }
                    assert_eq!(found.standing, Standing::Kept);
                }
            }
        }
    }
}

fn policy(policy: &Policy, version: u32) -> Event {
    let category = "cart".to_owned();
    let declared = Declaration { category, version, policy: policy.clone() };
    let payload = declared.to_json().to_string().into();
    let mut event = event(&Declaration::stream_of("cart"), Declaration::EVENT_TYPE, 0);
    event.payload = payload;
    event
}

fn resolution(winner: &Dot, observed: Option<Context>) -> Event {
    let mut event = event("cart-1", RESOLVED, 0);
    event.payload = Resolution { winner: winner.clone(), observed }.to_json().into();
    event
}

fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}

/// What became of every event, by the region asked.
async fn standings(kept: &mut Kept, order: ReadOrder) -> BTreeMap<Dot, Standing> {
    kept.follow();
    let mut events = known(&kept.site);
    if order == ReadOrder::Global {
        events.sort_by_key(|known| (known.stamp, known.dot.clone()));
    }
    let asked = events.iter().zip(0..).map(|(known, at)| Asked {
        stream: known.stream.clone(),
        dot: known.dot.clone(),
        stamp: known.stamp,
        position: at,
        // Every group here has one event.
        group_position: at,
    });
    let found = kept.conflicts.concurrency(order, asked.collect(), soon()).await.unwrap();
    let found = events.iter().zip(found);
    found.filter_map(|(known, of)| Some((known.dot.clone(), of?.standing))).collect()
}

#[tokio::test]
async fn policies_and_resolutions_decide_alike_in_all_regions_and_orders() {
    use Standing::{Kept as All, Lost, Open, Won};
    let (eu, us) = (Site::new("eu", &["eu", "us"], 8), Site::new("us", &["eu", "us"], 8));
    let sites = [Arc::clone(&eu), Arc::clone(&us)];
    eu.append(10, vec![vec![event("cart-1", "E", 1)]]);
    us.append(20, vec![vec![event("cart-1", "E", 1)]]);
    settle(&sites, 30);
    let mut kept = [Kept::new(&eu), Kept::new(&us)];
    let (of_eu, of_us) = (dot("eu", 1), dot("us", 1));
    let priority = Policy::RegionPriority(vec![origin("eu").region]);
    let steps = [
        (None, [All, All]),
        (Some(policy(&Policy::LastWriterWins, 1)), [Lost, Won]),
        (Some(policy(&Policy::FirstWriterWins, 2)), [Won, Lost]),
        (Some(policy(&priority, 3)), [Won, Lost]),
        (Some(policy(&Policy::Resolver, 4)), [Open, Open]),
        // Whoever says this has not seen both.
        (
            Some(resolution(&of_eu, Some([(origin("eu"), Seq(9))].into_iter().collect()))),
            [Open, Open],
        ),
        (Some(resolution(&of_us, None)), [Lost, Won]),
        // The first counts.
        (Some(resolution(&of_eu, None)), [Lost, Won]),
        (Some(policy(&Policy::KeepAll, 3)), [Lost, Won]),
        (Some(policy(&Policy::KeepAll, 5)), [All, All]),
    ];
    for (nth, (event, wanted)) in steps.into_iter().enumerate() {
        if let Some(event) = event {
            eu.append(100 + nth as u64 * 10, vec![vec![event]]);
            settle(&sites, 105 + nth as u64 * 10);
        }
        for kept in &mut kept {
            if nth % 3 == 1 {
                kept.flush();
            }
            for order in BOTH {
                let found = standings(kept, order).await;
                let wanted: BTreeMap<_, _> =
                    [of_eu.clone(), of_us.clone()].into_iter().zip(wanted).collect();
                assert_eq!(found, wanted, "step {nth}, {order:?}");
                let [shown] = kept.all(order).await.try_into().unwrap();
                let won = wanted.iter().find(|(_, standing)| **standing == Won);
                assert_eq!(shown.winner.as_ref(), won.map(|(dot, _)| dot), "step {nth}, {order:?}");
                assert_eq!(shown.standing, wanted[&shown.conflict.events.oldest()]);
                let open = Query { open_only: true, ..query(order) };
                let open = kept.pages(&open).await.0.len();
                assert_eq!(open == 1, shown.standing == Open, "step {nth}, {order:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_region_alone_has_no_conflicts_and_does_not_look_for_any() {
    let alone = Site::new("eu", &["eu"], 8);
    alone.append(10, vec![vec![event("cart-1", "E", 1)]]);
    let mut kept = Kept::new(&alone);
    kept.follow();
    kept.flush();
    assert_eq!(kept.all(ReadOrder::Regional).await, []);
    assert_eq!(kept.states.scan(&[], None, 10).unwrap(), []);
}

#[tokio::test]
async fn what_is_behind_or_damaged_is_said() {
    let sites = world(500, 60);
    let mut kept = Kept::new(&sites[0]);
    let behind = kept.conflicts.page(&query(ReadOrder::Regional), Instant::now()).await;
    assert!(matches!(behind, Err(ConflictError::Behind { done: 0, .. })), "{behind:?}");
    kept.follow();
    kept.flush();
    let keys = Keys::new(ShardId(0), ReadOrder::Regional);
    let rows = rows::read(&kept.states, &keys, None, 0, 1).unwrap();
    kept.states.write(&[(keys.row(rows[0].position), Some(vec![1].into()))]).unwrap();
    let damaged = kept.conflicts.page(&query(ReadOrder::Regional), soon()).await;
    let is_damage = matches!(damaged, Err(ConflictError::States(StateError::Damaged { .. })));
    assert!(is_damage, "{damaged:?}");
    kept.insist();
    let wanted = by_definition(&known(&sites[0]));
    let list = kept.all(ReadOrder::Regional).await;
    assert_eq!(told(&known(&sites[0]), &list, false), wanted, "found again");
}
