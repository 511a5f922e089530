use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::event::category;
use anabranch_core::{Context, Cursor, Dot, Origin, ReadOrder, Seq};
use tokio::time::timeout;

use super::testing::{Known, REGIONS, Rng, Site, event, global, origin, world};
use super::{
    Content, Delivered, Direction, Filter, Frame, From, ReadError, Reader, Run, Spec, Target,
    Tuning,
};

/// Frames of at most this many events.
fn frames_of(events: usize) -> Tuning {
    Tuning { batch_events: events, ..Tuning::DEFAULT }
}

async fn frames(site: &Arc<Site>, spec: &Spec, tuning: &Tuning) -> Vec<Frame> {
    let mut reader = Reader::open(site.clone(), spec.clone(), tuning.clone()).await.unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().await.unwrap() {
        frames.push(frame);
    }
    frames
}

/// What of an event a read must get right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    known: Known,
    global_position: Option<u64>,
}

/// The events of a frame, whichever way it has them.
fn delivered(frame: &Frame) -> Vec<Delivered> {
    match &frame.content {
        Content::Batch(events) => events.clone(),
        Content::Runs(runs) => {
            let order = frame.cursor.as_ref().expect("runs go forwards").order;
            let place = |at| (order == ReadOrder::Global).then_some(at);
            let of = |run: &Run| -> Vec<Delivered> {
                let regional = run.slice.positions().start == run.position;
                assert!(regional || order == ReadOrder::Global);
                let events = run.slice.events().zip(run.position..);
                events.map(|(event, at)| Delivered { event, global_position: place(at) }).collect()
            };
            runs.iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

fn got(frames: &[Frame]) -> Vec<Got> {
    let mut all = Vec::new();
    for frame in frames {
        all.extend(delivered(frame).into_iter().map(|delivered| {
            let event = &delivered.event;
            let known = Known {
                dot: event.dot(),
                stream: event.event.stream.to_string(),
                kind: event.event.kind.to_string(),
                stamp: event.stamp(),
                position: event.position,
                revision: event.revision,
            };
            Got { known, global_position: delivered.global_position }
        }));
    }
    all
}

async fn read(site: &Arc<Site>, spec: &Spec, tuning: &Tuning) -> Vec<Got> {
    got(&frames(site, spec, tuning).await)
}

/// Everything in an order, oldest first, from the lists that were written down.
fn model(site: &Site, order: ReadOrder) -> Vec<Got> {
    match order {
        ReadOrder::Regional => {
            site.known().into_iter().map(|known| Got { known, global_position: None }).collect()
        }
        ReadOrder::Global => (global(site).into_iter().zip(0..))
            .map(|(known, at)| Got { known, global_position: Some(at) })
            .collect(),
    }
}

fn matches(spec: &Spec, known: &Known) -> bool {
    let targeted = match &spec.target {
        Target::Stream(stream) => known.stream == *stream,
        Target::Category(name) => category(&known.stream) == name,
        Target::All => true,
    };
    let Filter { types, stream_prefixes } = &spec.filter;
    let typed = types.is_empty() || types.contains(&known.kind);
    let named = stream_prefixes.is_empty()
        || stream_prefixes.iter().any(|prefix| known.stream.starts_with(prefix.as_str()));
    targeted && typed && named
}

/// Targets and filters in both orders, forwards from the start.
fn specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for order in [ReadOrder::Regional, ReadOrder::Global] {
        let of = |target| Spec { order, ..Spec::of(target) };
        let removed = Filter { types: vec!["Removed".into()], ..Filter::default() };
        let prefixed =
            Filter { stream_prefixes: vec!["cart".into(), "pl".into()], ..Filter::default() };
        let rare = Filter { types: vec!["Absent".into()], ..Filter::default() };
        specs.push(of(Target::All));
        specs.push(Spec { runs: true, ..of(Target::All) });
        specs.push(of(Target::Category("order".into())));
        specs.push(of(Target::Category("absent".into())));
        specs.push(of(Target::Stream("cart-1".into())));
        specs.push(of(Target::Stream("absent-1".into())));
        specs.push(Spec { filter: removed.clone(), ..of(Target::All) });
        specs.push(Spec { filter: rare, ..of(Target::All) });
        specs.push(Spec { filter: prefixed, ..of(Target::All) });
        specs.push(Spec { filter: removed, ..of(Target::Stream("cart-2".into())) });
    }
    specs
}

/// The cursors after each event of a batch as a client makes them from the one at its end: of every
/// origin, what lies before its first event still to come in the batch, else what the end has.
fn client_cursors(end: &Cursor, dots: &[Dot]) -> Vec<Cursor> {
    let mut later: BTreeMap<Origin, Seq> = BTreeMap::new();
    let mut cursors = Vec::new();
    for dot in dots.iter().rev() {
        let at = |(origin, seq): (&Origin, Seq)| {
            (origin.clone(), later.get(origin).map_or(seq, |first| Seq(first.0 - 1)))
        };
        let context = end.context.iter().map(at).collect();
        cursors.push(Cursor { order: end.order, context });
        later.insert(dot.origin.clone(), dot.seq);
    }
    cursors.reverse();
    cursors
}

/// Of each cursor met while reading, how many events were delivered before it.
fn cursors_met(frames: &[Frame]) -> Vec<(usize, Cursor)> {
    let (mut met, mut count) = (Vec::new(), 0);
    for frame in frames {
        let events = delivered(frame);
        if events.is_empty() && !matches!(frame.content, Content::Batch(_)) {
            continue;
        }
        let dots: Vec<Dot> = events.iter().map(|delivered| delivered.event.dot()).collect();
        let end = frame.cursor.as_ref().unwrap();
        for (nth, cursor) in client_cursors(end, &dots).into_iter().enumerate() {
            met.push((count + nth + 1, cursor));
        }
        count += events.len();
        met.push((count, end.clone()));
    }
    met
}

#[tokio::test]
async fn a_cursor_taken_at_any_event_resumes_in_any_region_without_a_gap_or_a_repeat() {
    for seed in 0..4 {
        let sites = world(seed, 40);
        let mut rng = Rng(seed);
        for spec in specs() {
            let tuning = frames_of(1 + rng.below(7) as usize);
            let from = rng.pick(&sites);
            let read_there = frames(from, &spec, &tuning).await;
            let delivered = got(&read_there);
            for (count, cursor) in cursors_met(&read_there) {
                let to = rng.pick(&sites);
                let resumed = Spec { from: From::Cursor(cursor.clone()), ..spec.clone() };
                let rest = read(to, &resumed, &frames_of(1 + rng.below(9) as usize)).await;
                let before: Vec<&Dot> =
                    delivered[..count].iter().map(|got| &got.known.dot).collect();
                let expected: Vec<Got> = model(to, spec.order)
                    .into_iter()
                    .filter(|got| matches(&spec, &got.known) && !before.contains(&&got.known.dot))
                    .collect();
                assert_eq!(rest, expected, "seed {seed}, {spec:?}, after {count}: {cursor:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_last_cursor_covers_everything_also_what_the_filter_dropped() {
    let sites = world(3, 60);
    for spec in specs() {
        let frames = frames(&sites[0], &spec, &frames_of(5)).await;
        let last = frames.last().unwrap_or_else(|| panic!("{spec:?} sends where it ended"));
        assert_eq!(last.cursor.as_ref().unwrap().context, sites[0].frontier(), "{spec:?}");
    }
}

/// Every way to begin, at every place, both ways, against the model.
#[tokio::test]
async fn reads_begin_where_they_are_told_and_go_the_way_they_are_told() {
    for seed in 20..23 {
        let sites = world(seed, 40);
        let mut rng = Rng(seed);
        for spec in specs() {
            let site = rng.pick(&sites);
            let all = model(site, spec.order);
            let at = |got: &Got| got.global_position.unwrap_or(got.known.position);
            let mut ways = vec![From::Start, From::End];
            let places = 0..all.len() as u64 + 2;
            ways.extend(places.filter(|_| rng.below(5) == 0).map(From::Position));
            let times = all.iter().map(|got| got.known.stamp.unix_ms());
            let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
            let times = (first - 2..last + 2).filter(|_| rng.below(3) == 0);
            ways.extend(times.map(From::UnixMs));
            let of_stream = matches!(spec.target, Target::Stream(_));
            if of_stream && spec.order == ReadOrder::Regional {
                ways.extend((0..30).map(From::Revision));
            }
            for from in ways {
                // Places in the whole order, before the target is looked at.
                let place = match &from {
                    From::Start => (0, 0),
                    From::End => (all.len(), all.len()),
                    From::Position(p) => {
                        let split = |end| all.iter().take_while(|got| at(got) < end).count();
                        (split(*p), split(*p + 1))
                    }
                    From::UnixMs(ms) => {
                        let split = |end| {
                            all.iter().take_while(|got| got.known.stamp.unix_ms() < end).count()
                        };
                        (split(*ms), split(*ms + 1))
                    }
                    From::Revision(r) => {
                        let of_target = |got: &&Got| matches!(&spec.target, Target::Stream(s) if *s == got.known.stream);
                        let split = |end| {
                            let of = all.iter().filter(of_target);
                            let found = of.clone().find(|got| got.known.revision >= end);
                            found.map_or(all.len(), |got| got.known.position as usize)
                        };
                        (split(*r), split(*r + 1))
                    }
                    From::Cursor(_) => unreachable!("another test's"),
                };
                let wanted = |got: &&Got| matches(&spec, &got.known);
                let tuning = frames_of(1 + rng.below(8) as usize);
                let forwards = Spec { from: from.clone(), ..spec.clone() };
                let expected: Vec<Got> = all[place.0..].iter().filter(wanted).cloned().collect();
                assert_eq!(read(site, &forwards, &tuning).await, expected, "{forwards:?}");
                let direction = Direction::Backwards;
                let backwards = Spec { direction, ..forwards.clone() };
                let older = all[..place.1].iter().rev();
                let mut expected: Vec<Got> = older.filter(wanted).cloned().collect();
                assert_eq!(read(site, &backwards, &tuning).await, expected, "{backwards:?}");
                let limited = Spec { max_events: Some(3), ..backwards };
                expected.truncate(3);
                assert_eq!(read(site, &limited, &tuning).await, expected, "{limited:?}");
                let limited = Spec { max_events: Some(3), ..forwards.clone() };
                let all = read(site, &forwards, &tuning).await;
                assert_eq!(
                    read(site, &limited, &tuning).await,
                    all[..all.len().min(3)],
                    "{limited:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_cursor_of_a_read_that_began_in_the_middle_does_not_go_back_before_its_beginning() {
    for seed in 40..43 {
        let sites = world(seed, 40);
        let mut rng = Rng(seed);
        for spec in specs() {
            let site = &sites[0];
            let events = model(site, spec.order).len() as u64;
            let from = From::Position(rng.below(events));
            let whole = frames(site, &Spec { from, ..spec.clone() }, &frames_of(4)).await;
            let delivered = got(&whole);
            for (count, cursor) in cursors_met(&whole) {
                let resumed = Spec { from: From::Cursor(cursor), ..spec.clone() };
                let rest = read(site, &resumed, &frames_of(3)).await;
                assert_eq!(rest, delivered[count..], "seed {seed}, {spec:?}, after {count}");
            }
        }
    }
}

#[tokio::test]
async fn the_global_order_is_dense_and_the_same_in_every_region() {
    let sites = world(7, 200);
    let spec = Spec { order: ReadOrder::Global, ..Spec::of(Target::All) };
    let mut seen: Option<Vec<(Dot, u64)>> = None;
    for site in &sites {
        let got = read(site, &spec, &Tuning::DEFAULT).await;
        let order: Vec<_> =
            got.into_iter().map(|got| (got.known.dot, got.global_position.unwrap())).collect();
        assert!(order.iter().map(|(_, at)| *at).eq(0..order.len() as u64), "dense from 0");
        assert_eq!(*seen.get_or_insert_with(|| order.clone()), order);
    }
    assert!(seen.unwrap().len() > 100);
}

const HEARTBEAT: Duration = Duration::from_millis(600);

fn follow(target: Target, order: ReadOrder) -> Spec {
    Spec { order, follow: true, heartbeat: HEARTBEAT, ..Spec::of(target) }
}

async fn next(reader: &mut Reader<Site>) -> Frame {
    let soon = timeout(Duration::from_secs(60), reader.next()).await;
    soon.expect("a frame comes").unwrap().expect("a followed read has no end")
}

#[tokio::test]
async fn a_follower_catches_up_then_gets_what_is_new_and_heartbeats_between() {
    let site = Site::new("eu", &["eu"], 4);
    site.append(1, vec![vec![event("cart-1", "Added", 1)]]);
    for order in [ReadOrder::Regional, ReadOrder::Global] {
        for target in [Target::All, Target::Stream("cart-1".into())] {
            let spec = follow(target, order);
            let mut reader = Reader::open(site.clone(), spec, Tuning::DEFAULT).await.unwrap();
            let mut events = 0;
            loop {
                let frame = next(&mut reader).await;
                match frame.content {
                    Content::Batch(batch) => events += batch.len() as u64,
                    other => break assert_eq!(other, Content::CaughtUp),
                }
            }
            assert_eq!(events, site.frontier().events());
            let began = tokio::time::Instant::now();
            let beat = next(&mut reader).await;
            assert_eq!(beat.content, Content::Heartbeat { blocked_by: Vec::new() });
            assert!(began.elapsed() >= HEARTBEAT);
            let writer = site.clone();
            tokio::spawn(async move {
                writer.append(10, vec![vec![event("cart-1", "Added", 1)]]);
            });
            // Woken, not polled: else a heartbeat would come first.
            let new = next(&mut reader).await;
            assert!(matches!(&new.content, Content::Batch(batch) if batch.len() == 1), "{new:?}");
            assert_eq!(new.cursor.unwrap().context, site.frontier());
            assert_eq!(new.token.context, site.frontier());
        }
    }
}

#[tokio::test]
async fn a_follower_whose_filter_drops_everything_still_moves_its_cursor() {
    let site = Site::new("eu", &["eu"], 4);
    for target in [Target::All, Target::Category("order".into()), Target::Stream("order-1".into())]
    {
        let filter = Filter { types: vec!["Absent".into()], ..Filter::default() };
        let spec = Spec { filter, ..follow(target, ReadOrder::Regional) };
        let mut reader = Reader::open(site.clone(), spec, Tuning::DEFAULT).await.unwrap();
        assert_eq!(next(&mut reader).await.content, Content::CaughtUp);
        site.append(1, vec![vec![event("cart-1", "Added", 1)]]);
        let beat = next(&mut reader).await;
        assert!(matches!(beat.content, Content::Heartbeat { .. }));
        assert_eq!(beat.cursor.unwrap().context, site.frontier());
    }
}

#[tokio::test]
async fn a_follower_that_lags_is_told_once_and_told_again_when_it_caught_up() {
    let site = Site::new("eu", &["eu"], 4);
    for order in [ReadOrder::Regional, ReadOrder::Global] {
        for target in [Target::All, Target::Stream("cart-1".into())] {
            let tuning = Tuning { behind_events: 5, batch_events: 4, ..Tuning::DEFAULT };
            let spec = Spec { from: From::End, ..follow(target, order) };
            let mut reader = Reader::open(site.clone(), spec, tuning).await.unwrap();
            assert_eq!(next(&mut reader).await.content, Content::CaughtUp);
            for ms in 0..6 {
                site.append(ms, vec![vec![event("cart-1", "Added", 1)]]);
            }
            let mut contents = Vec::new();
            for _ in 0..4 {
                contents.push(match next(&mut reader).await.content {
                    Content::Batch(batch) => batch.len().to_string(),
                    other => format!("{other:?}"),
                });
            }
            assert_eq!(contents, ["FellBehind", "4", "2", "CaughtUp"]);
        }
    }
}

#[tokio::test]
async fn the_global_order_waits_for_a_silent_region_and_names_it() {
    let sites: Vec<_> = REGIONS.iter().map(|region| Site::new(region, &REGIONS, 4)).collect();
    sites[1].append(5, vec![vec![event("cart-1", "Added", 1)]]);
    sites[0].close(10);
    sites[1].import(&sites[0], 9);
    let spec = follow(Target::All, ReadOrder::Global);
    let mut reader = Reader::open(sites[1].clone(), spec, Tuning::DEFAULT).await.unwrap();
    assert_eq!(next(&mut reader).await.content, Content::CaughtUp);
    let beat = next(&mut reader).await;
    assert_eq!(beat.content, Content::Heartbeat { blocked_by: vec!["us".into()] });
    sites[2].import(&sites[1], 9);
    sites[2].close(12);
    sites[1].import(&sites[2], 9);
    let event = next(&mut reader).await;
    assert!(matches!(&event.content, Content::Batch(batch) if batch[0].global_position == Some(0)));
}

#[tokio::test]
async fn what_is_not_here_yet_is_waited_for_and_then_named() {
    let (eu, us) = (Site::new("eu", &["eu", "us"], 4), Site::new("us", &["eu", "us"], 4));
    us.append(1, vec![vec![event("cart-1", "Added", 1), event("cart-1", "Added", 1)]]);
    let context: Context = [(origin("us"), Seq(2))].into_iter().collect();
    let order = ReadOrder::Regional;
    let session_wait = Duration::from_millis(300);
    let patient = Duration::from_secs(60);
    let token = Spec { session: context.clone(), session_wait, ..Spec::of(Target::All) };
    let cursor = From::Cursor(Cursor { order, context: context.clone() });
    let cursor = Spec { from: cursor, session_wait, ..Spec::of(Target::All) };
    for spec in [&token, &cursor] {
        let refused = Reader::open(eu.clone(), spec.clone(), Tuning::DEFAULT).await.err().unwrap();
        let ReadError::NotCaughtUp { missing, waited } = refused else { panic!("{refused}") };
        assert_eq!(missing, context);
        assert!(waited >= session_wait);
    }
    let importing = (eu.clone(), us.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        importing.0.import(&importing.1, 9);
    });
    let patiently = |spec| Spec { session_wait: patient, ..spec };
    let (token, cursor) = (patiently(token), patiently(cursor));
    assert_eq!(read(&eu, &token, &Tuning::DEFAULT).await.len(), 2);
    assert_eq!(read(&eu, &cursor, &Tuning::DEFAULT).await.len(), 0);
}

#[tokio::test]
async fn frames_are_bounded_in_bytes_but_one_event_always_fits() {
    let site = Site::new("eu", &["eu"], 4);
    site.append(1, vec![vec![event("a-1", "Big", 900), event("a-1", "Small", 10)]]);
    site.append(2, vec![vec![event("a-1", "Small", 10), event("a-1", "Big", 900)]]);
    for order in [ReadOrder::Regional, ReadOrder::Global] {
        for (direction, from) in
            [(Direction::Forwards, From::Start), (Direction::Backwards, From::End)]
        {
            for target in [Target::All, Target::Stream("a-1".into())] {
                let spec = Spec { order, direction, from: from.clone(), ..Spec::of(target) };
                let tuning = Tuning { batch_bytes: 100, ..Tuning::DEFAULT };
                let sizes: Vec<usize> = (frames(&site, &spec, &tuning).await.iter())
                    .filter_map(|frame| match &frame.content {
                        Content::Batch(batch) if !batch.is_empty() => Some(batch.len()),
                        _ => None,
                    })
                    .collect();
                assert!(sizes.iter().sum::<usize>() == 4 && *sizes.iter().max().unwrap() <= 2);
                assert!(sizes.len() >= 3, "{sizes:?} of {spec:?}");
            }
        }
    }
}

#[test]
fn requests_that_contradict_themselves_are_refused_by_field() {
    let stream = || Target::Stream("a-1".into());
    let cursor = |order| From::Cursor(Cursor::start(order));
    let backwards = Direction::Backwards;
    let global = ReadOrder::Global;
    let cases = [
        (Spec { follow: true, direction: backwards, ..Spec::of(stream()) }, "follow"),
        (
            Spec { from: cursor(ReadOrder::Regional), direction: backwards, ..Spec::of(stream()) },
            "cursor",
        ),
        (Spec { from: cursor(global), ..Spec::of(stream()) }, "cursor"),
        (Spec { from: From::Revision(1), ..Spec::of(Target::All) }, "revision"),
        (Spec { from: From::Revision(1), order: global, ..Spec::of(stream()) }, "revision"),
    ];
    for (spec, expected) in cases {
        let refused = spec.check().unwrap_err();
        assert!(
            matches!(refused, ReadError::Invalid { field, .. } if field == expected),
            "{refused}"
        );
    }
}
