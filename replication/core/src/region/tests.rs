use super::producers::{PRODUCERS, RECEIPTS, WINDOW};
use super::*;
use crate::event::{Event, EventId, ProducerTag, Request};
use crate::id::{ProducerId, ShardId};
use crate::sample::*;

/// eu with one event of its own, one of us, a digest of asia and a promise.
fn lived() -> Region {
    let mut region = born("eu");
    let mut eu = Author::new(origin("eu"));
    let requests = [tagged("cart-1", tag(1, 4)), with_ids("cart-2", &[8, 9])];
    accept(&mut region, &local(0, eu.write(at(1), cut(&[]), &requests), &[0, 0, 1]));
    let group = Author::new(origin("us")).write(at(5), cut(&[("eu", 3)]), &[request(&["cart-1"])]);
    let word = digest("asia", at(3), &[("eu", 3)]);
    accept(&mut region, &import(3, vec![(group, &[1])], vec![word]));
    accept(&mut region, &Command::Close { stamp: at(7) });
    region
}

fn done(known: Known) -> Receipt {
    match known {
        Known::Done(receipt) => (*receipt).clone(),
        other => panic!("{other:?}"),
    }
}

fn by_tag(region: &Region, tag: ProducerTag) -> Known {
    known(region, &tagged("cart-1", tag))
}

fn by_ids(region: &Region, ids: &[u8]) -> Known {
    known(region, &with_ids("cart-2", ids))
}

fn known(region: &Region, request: &Request) -> Known {
    let ids: Vec<_> = request.events.iter().filter_map(|event| event.id).collect();
    let (producer, content) = (request.producer, request.content_hash());
    region.known(&RequestKey { producer, ids: &ids, content })
}

#[test]
fn a_log_begins_with_one_genesis() {
    let mut region = Region::new();
    let group = Author::new(origin("eu")).one(at(1));
    for early in [local(0, group, &[0]), Command::Close { stamp: at(1) }, import(0, vec![], vec![])]
    {
        assert_eq!(refuse(&mut region, &early), Refused::NoGenesis);
    }
    let stranger = Command::Genesis { origin: origin("mars"), members: vec![name("eu")] };
    let refused = refuse(&mut region, &stranger);
    assert_eq!(refused, Refused::NotMember { origin: origin("mars") });
    accept(&mut region, &genesis("eu"));
    let refused = refuse(&mut region, &genesis("us"));
    assert_eq!(refused, Refused::SecondGenesis { origin: origin("eu") });
    assert_eq!(region.members(), ["asia", "eu", "us"].map(name));
}

#[test]
fn every_number_of_a_local_command_has_to_fit() {
    let mut region = lived();
    let context = cut(&[("us", 1)]);
    let author =
        Author { origin: origin("eu"), last: Seq(3), chain: region.head(&origin("eu")).chain };
    let write = |author: &Author| {
        author.clone().write(at(8), context.clone(), &[request(&["cart-1", "new"])])
    };
    let fits = local(4, write(&author), &[2, 0]);

    let gap = local(4, write(&Author { last: Seq(4), ..author.clone() }), &[2, 0]);
    let (eu, expected) = (origin("eu"), Seq(4));
    let refused = refuse(&mut region, &gap);
    assert_eq!(refused, Refused::Gap { origin: eu.clone(), first: Seq(5), expected });
    let again = local(4, write(&Author { last: Seq(0), ..author.clone() }), &[2, 0]);
    assert!(matches!(refuse(&mut region, &again), Refused::Gap { .. }));
    let fork = local(4, write(&Author { chain: Chain([9; 16]), ..author.clone() }), &[2, 0]);
    assert_eq!(refuse(&mut region, &fork), Refused::Fork { origin: eu.clone(), first: Seq(4) });
    let late = author.clone().write(at(7), context.clone(), &[request(&["cart-1"])]);
    let refused = refuse(&mut region, &local(4, late, &[2]));
    assert_eq!(refused, Refused::Stamp { stamp: at(7), last: at(7) }, "the promise counts");
    for seen in [cut(&[]), cut(&[("us", 2)]), cut(&[("us", 1), ("asia", 1)])] {
        let group = author.clone().write(at(8), seen, &[request(&["cart-1"])]);
        let refused = refuse(&mut region, &local(4, group, &[2]));
        assert_eq!(refused, Refused::Context { origin: eu.clone(), first: Seq(4) });
    }
    let refused = refuse(&mut region, &local(3, write(&author), &[2, 0]));
    assert_eq!(refused, Refused::Numbers { what: "position", found: 3, expected: 4 });
    // The first revision fits and was claimed when the second is refused.
    let refused = refuse(&mut region, &local(4, write(&author), &[2, 1]));
    assert_eq!(refused, Refused::Numbers { what: "revision", found: 1, expected: 0 });
    let foreign = Author { origin: origin("us"), ..author.clone() };
    let group = foreign.clone().write(at(8), cut(&[]), &[request(&["cart-1"])]);
    assert_eq!(
        refuse(&mut region, &local(4, group, &[2])),
        Refused::WrongOrigin { origin: origin("us") }
    );
    accept(&mut region, &fits);
    assert_eq!(region.stream("new").unwrap().next_revision, 1);
}

#[test]
fn an_import_is_taken_whole_or_not_at_all() {
    let mut region = born("eu");
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let first = us.one(at(1));
    let effect = asia.write(at(2), cut(&[("us", 1)]), &[request(&["s-1"])]);
    let second = us.write(at(3), cut(&[("asia", 1)]), &[request(&["s-2"])]);

    let refused = refuse(&mut region, &import(0, vec![(effect.clone(), &[0])], vec![]));
    assert_eq!(refused, Refused::Context { origin: origin("asia"), first: Seq(1) });
    let wrong_order =
        vec![(first.clone(), &[0][..]), (second.clone(), &[0]), (effect.clone(), &[1])];
    assert!(matches!(
        refuse(&mut region, &import(0, wrong_order, vec![])),
        Refused::Context { .. }
    ));
    let twice = vec![(first.clone(), &[0][..]), (first.clone(), &[1])];
    assert!(matches!(refuse(&mut region, &import(0, twice, vec![])), Refused::Gap { .. }));
    let ahead = vec![digest("us", at(9), &[("us", 3)])];
    let groups = vec![(first, &[0][..]), (effect, &[1]), (second, &[0])];
    let refused = refuse(&mut region, &import(0, groups.clone(), ahead));
    let (seq, held) = (Seq(3), Seq(2));
    assert_eq!(refused, Refused::DigestAhead { origin: origin("us"), seq, held });
    let covered = vec![digest("us", at(9), &[("us", 2)])];
    let last_off = vec![groups[0].clone(), groups[1].clone(), (groups[2].0.clone(), &[7][..])];
    let refused = refuse(&mut region, &import(0, last_off, covered.clone()));
    assert_eq!(refused, Refused::Numbers { what: "revision", found: 7, expected: 0 });
    accept(&mut region, &import(0, groups, covered));
    assert_eq!(*region.frontier(), cut(&[("us", 2), ("asia", 1)]));
    assert_eq!(region.last_stamp(), at(3), "an import raises the clock, a statement does not");
}

#[test]
fn only_other_members_in_one_life_may_be_imported() {
    let mut region = born("eu");
    let mut try_group = |origin: Origin| {
        let group = Author::new(origin).one(at(1));
        refuse(&mut region, &import(0, vec![(group, &[0])], vec![]))
    };
    let own = origin("eu");
    assert_eq!(try_group(own.clone()), Refused::WrongOrigin { origin: own });
    let shard = Origin { shard: ShardId(1), ..origin("us") };
    for stranger in [origin("mars"), life("eu", 2), shard] {
        assert_eq!(try_group(stranger.clone()), Refused::NotMember { origin: stranger });
    }
    let two = vec![
        (Author::new(life("us", 1)).one(at(1)), &[0][..]),
        (Author::new(life("us", 2)).one(at(1)), &[1]),
    ];
    let not_member = Refused::NotMember { origin: life("us", 2) };
    assert_eq!(refuse(&mut region, &import(0, two.clone(), vec![])), not_member, "both at once");
    accept(&mut region, &import(0, vec![two[0].clone()], vec![]));
    assert_eq!(refuse(&mut region, &import(1, vec![two[1].clone()], vec![])), not_member);
    assert!(region.admits(&life("us", 1)) && region.admits(&life("asia", 5)));
}

#[test]
fn a_statement_is_a_promise_that_later_groups_keep() {
    let mut region = born("eu");
    let mut us = Author::new(origin("us"));
    let word = digest("us", at(9), &[("us", 1)]);
    accept(&mut region, &import(0, vec![(us.one(at(1)), &[0])], vec![word]));
    let broken = import(1, vec![(us.clone().one(at(9)), &[1])], vec![]);
    assert_eq!(refuse(&mut region, &broken), Refused::Stamp { stamp: at(9), last: at(9) });
    accept(&mut region, &import(1, vec![(us.one(at(10)), &[1])], vec![]));
}

#[test]
fn promises_rise() {
    let mut region = lived();
    let refused = refuse(&mut region, &Command::Close { stamp: at(7) });
    assert_eq!(refused, Refused::Stamp { stamp: at(7), last: at(7) });
    accept(&mut region, &Command::Close { stamp: at(8) });
}

#[test]
fn the_watermark_is_the_least_of_all_members() {
    let mut region = lived();
    let of =
        |region: &Region| ["eu", "us", "asia"].map(|member| region.watermark_of(&name(member)));
    assert_eq!(of(&region), [at(7), at(5), at(3)]);
    assert_eq!(region.watermark(), at(3));
    assert_eq!(born("eu").watermark(), Stamp::ZERO, "unknown members hold it back");
    let older = digest("asia", at(2), &[("us", 1)]);
    accept(&mut region, &import(4, vec![], vec![older]));
    assert_eq!(region.watermark(), at(3), "late words take nothing back");
    let asia = region.peers().find(|digest| digest.origin == origin("asia")).unwrap();
    assert_eq!(asia.frontier, cut(&[("eu", 3), ("us", 1)]), "receipts add up");
}

#[test]
fn a_retry_gets_the_first_result() {
    let region = lived();
    let first = done(by_tag(&region, tag(1, 4)));
    assert_eq!((first.first, first.events, first.position, first.stamp), (Seq(1), 1, 0, at(1)));
    let second = done(by_ids(&region, &[8, 9]));
    assert_eq!((second.first, second.position, &*second.last_revisions), (Seq(2), 1, &[1][..]));
    assert_eq!(by_tag(&region, tag(1, 3)), Known::New, "refused sequences leave no gap");
    assert_eq!(by_tag(&region, tag(2, 4)), Known::New);
    assert_eq!(by_tag(&region, tag(0, 4)), Known::Fenced { epoch: 1 });
    for ids in [&[8][..], &[8, 9, 7], &[8, 7], &[7, 9], &[9, 8]] {
        let known = by_ids(&region, ids);
        assert!(matches!(known, Known::IdReused { .. }), "{ids:?}: {known:?}");
    }
    assert_eq!(by_ids(&region, &[7]), Known::New);
}

#[test]
fn what_asks_for_something_else_is_no_retry() {
    let region = lived();
    let asked = [tagged("cart-1", tag(1, 4)), with_ids("cart-2", &[8, 9])];
    let changes: [fn(&mut Event); 3] = [
        |event| event.stream = "cart-9".into(),
        |event| event.kind = "Unhappened".into(),
        |event| event.payload = "y".into(),
    ];
    for request in asked {
        for change in changes {
            let mut other = request.clone();
            change(&mut other.events[0]);
            let known = known(&region, &other);
            let refused = match request.producer {
                Some(tag) => known == Known::SequenceReused { sequence: tag.sequence },
                None => matches!(known, Known::IdReused { .. }),
            };
            assert!(refused, "{other:?}: {known:?}");
        }
        let mut traced = request.clone();
        traced.events[0].metadata.insert("traceparent".into(), "00-1".into());
        assert!(matches!(known(&region, &traced), Known::Done(_)), "attempts have other traces");
    }
    let mut longer = tagged("cart-1", tag(1, 4));
    longer.events.push(longer.events[0].clone());
    assert_eq!(known(&region, &longer), Known::SequenceReused { sequence: 4 });
}

#[test]
fn a_log_and_a_request_hash_alike_and_parts_do_not_run_into_each_other() {
    let request = with_ids("cart-2", &[8, 9]);
    let mut author = Author::new(origin("eu"));
    let group = author.write(at(1), cut(&[]), std::slice::from_ref(&request));
    assert_eq!(group.look()[0].content_hash(), request.content_hash());
    let of = |stream: &str, kind: &str, payload: &str| {
        let event = Event { kind: kind.into(), ..event(stream, payload) };
        Request { producer: None, events: vec![event] }.content_hash()
    };
    assert_ne!(of("ab", "c", "d"), of("a", "bc", "d"));
    assert_ne!(of("a", "b", "cd"), of("a", "bc", "d"));
}

#[test]
fn the_lower_stamp_is_the_event_when_one_request_landed_in_two_regions() {
    for (stamp, wins) in [(at(1), "us"), (at(9), "eu")] {
        let mut region = born("eu");
        let requests = [tagged("cart-1", tag(1, 1))];
        let ours = Author::new(origin("eu")).write(at(5), cut(&[]), &requests);
        let theirs = Author::new(origin("us")).write(stamp, cut(&[]), &requests);
        accept(&mut region, &local(0, ours, &[0]));
        accept(&mut region, &import(1, vec![(theirs, &[1])], vec![]));
        assert_eq!(done(by_tag(&region, tag(1, 1))).origin, origin(wins));
        assert_eq!(region.duplicate_requests(), 1);
    }
}

#[test]
fn a_zombie_that_another_region_took_changes_nothing_here() {
    let mut region = born("eu");
    let ours = [tagged("cart-1", tag(2, 1))];
    accept(&mut region, &local(0, Author::new(origin("eu")).write(at(5), cut(&[]), &ours), &[0]));
    let zombie = [tagged("cart-9", tag(1, 1))];
    let group = Author::new(origin("us")).write(at(1), cut(&[]), &zombie);
    accept(&mut region, &import(1, vec![(group, &[0])], vec![]));
    assert_eq!(done(by_tag(&region, tag(2, 1))).origin, origin("eu"));
    assert_eq!(by_tag(&region, tag(1, 1)), Known::Fenced { epoch: 2 });
}

#[test]
fn the_window_slides_whatever_order_the_sequences_come_in() {
    let mut producers = Producers::default();
    let record = |producers: &mut Producers, sequence: u64, position: u64| {
        let mut receipt = done(by_tag(&lived(), tag(1, 4)));
        receipt.position = position;
        producers.record(Some(tag(1, sequence)), std::iter::empty(), receipt);
    };
    let window = WINDOW as u64;
    record(&mut producers, 5, 0);
    record(&mut producers, 2, 1);
    (10..10 + window - 2).for_each(|sequence| record(&mut producers, sequence, sequence));
    let known = |producers: &Producers, sequence| {
        let content = tagged("cart-1", tag(1, 4)).content_hash();
        producers.known(&RequestKey { producer: Some(tag(1, sequence)), ids: &[], content })
    };
    assert_eq!(done(known(&producers, 2)).position, 1, "the window is just full");
    assert_eq!(known(&producers, 3), Known::New);
    record(&mut producers, 5000, 5000);
    assert_eq!(known(&producers, 2), Known::Forgotten { oldest: 3 });
    assert_eq!(known(&producers, 3), Known::New, "above the floor and never used");
    record(&mut producers, 5001, 5001);
    assert_eq!(known(&producers, 4), Known::Forgotten { oldest: 6 });
    assert_eq!(producers.by_id[&tag(1, 0).id].window.len(), WINDOW);
    assert!(producers.order.len() <= RECEIPTS);
}

/// The `nth` of many producers.
fn one_of(nth: usize, sequence: u64) -> ProducerTag {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(nth as u64).to_be_bytes());
    ProducerTag { id: ProducerId(id), epoch: 1, sequence }
}

fn receipt_at(position: u64) -> Receipt {
    Receipt { position, ..done(by_tag(&lived(), tag(1, 4))) }
}

#[test]
fn of_many_requests_the_oldest_are_forgotten_and_never_taken_for_new() {
    let mut producers = Producers::default();
    let few = RECEIPTS / 1000;
    let first = receipt_at(0);
    for position in 0..=RECEIPTS as u64 {
        let (nth, sequence) = (position as usize % few, position / few as u64 + 1);
        let receipt = Receipt { position, ..first.clone() };
        producers.record(Some(one_of(nth, sequence)), std::iter::empty(), receipt);
    }
    assert_eq!(producers.order.len(), RECEIPTS);
    let known = |nth, sequence| {
        let (producer, content) = (Some(one_of(nth, sequence)), first.content);
        producers.known(&RequestKey { producer, ids: &[], content })
    };
    assert_eq!(known(0, 1), Known::Forgotten { oldest: 2 }, "one more than can be remembered");
    assert!(matches!(known(1, 1), Known::Done(_)), "the next is still known");
}

#[test]
fn of_many_producers_the_idlest_is_forgotten_and_of_many_ids_the_oldest() {
    let mut producers = Producers::default();
    let first = receipt_at(0);
    let mut position = 0;
    let mut record = |producers: &mut Producers, nth: usize, sequence| {
        let id = EventId((position as u128).to_be_bytes());
        let receipt = Receipt { position, ..first.clone() };
        producers.record(Some(one_of(nth, sequence)), [id].into_iter(), receipt);
        position += 1;
    };
    (0..PRODUCERS).for_each(|nth| record(&mut producers, nth, 1));
    // The first comes again, so the second is the one that was idle longest.
    record(&mut producers, 0, 2);
    record(&mut producers, PRODUCERS, 1);
    assert_eq!(producers.by_id.len(), PRODUCERS);
    assert!(producers.by_id.contains_key(&one_of(0, 1).id));
    assert!(!producers.by_id.contains_key(&one_of(1, 1).id));
    assert!(producers.receipt_of_id(&EventId(1_u128.to_be_bytes())).is_none());
    assert!(producers.receipt_of_id(&EventId(2_u128.to_be_bytes())).is_some());
}

#[test]
fn streams_are_equal_when_their_events_are_whatever_the_order() {
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let (one, two) = (us.one(at(1)), asia.one(at(2)));
    let (mut here, mut there) = (born("eu"), born("eu"));
    accept(&mut here, &import(0, vec![(one.clone(), &[0]), (two.clone(), &[1])], vec![]));
    accept(&mut there, &import(0, vec![(two, &[0])], vec![]));
    assert_ne!(here.buckets(), there.buckets());
    accept(&mut there, &import(1, vec![(one, &[1])], vec![]));
    assert_eq!(here.buckets(), there.buckets());
    assert_eq!(here.stream("s-1").unwrap().fingerprint, there.stream("s-1").unwrap().fingerprint);
    let listed: Vec<_> = here.streams_of_bucket(bucket_of("s-1"));
    assert_eq!(listed, vec![("s-1", here.stream("s-1").unwrap())]);
}

#[test]
fn checkpoints_give_the_state_back() {
    for region in [Region::new(), born("eu"), lived()] {
        let bytes = region.encode_checkpoint();
        let mut back = Region::decode_checkpoint(bytes.clone()).unwrap();
        assert!(back == region);
        assert_eq!(back.encode_checkpoint(), bytes, "equal states, equal bytes");
        assert_eq!(back.frontier(), region.frontier());
        assert_eq!(back.buckets(), region.buckets());
        if back.origin().is_some() {
            let refused = refuse(&mut back, &Command::Close { stamp: Stamp::ZERO });
            assert!(matches!(refused, Refused::Stamp { .. }));
        }
    }
}

#[test]
fn a_snapshot_is_of_the_moment_at_which_it_was_taken() {
    let mut region = lived();
    let (then, snapshot) = (region.clone(), region.snapshot());
    // One stream goes on, another begins.
    let requests = [request(&["cart-1", "cart-3"])];
    let group = Author::new(origin("asia")).write(at(8), cut(&[]), &requests);
    accept(&mut region, &import(4, vec![(group, &[2, 0])], vec![]));
    assert!(region != then);
    let back = Region::decode_checkpoint(snapshot.encode().concat().into());
    assert!(back.unwrap() == then);
}

#[test]
fn the_smallest_names_fit_in_a_checkpoint() {
    let mut region = Region::new();
    let members = vec![name("a")];
    accept(&mut region, &Command::Genesis { origin: origin("a"), members });
    let group = Author::new(origin("a")).write(at(1), cut(&[]), &[with_ids("s", &[1])]);
    accept(&mut region, &local(0, group, &[0]));
    let back = Region::decode_checkpoint(region.encode_checkpoint());
    assert!(back.unwrap() == region);
}

#[test]
fn a_checkpoint_has_no_stream_without_events() {
    let mut bytes = lived().encode_checkpoint().to_vec();
    let name = b"cart-2";
    let at = bytes.windows(name.len()).position(|part| part == name).unwrap() + name.len();
    assert_eq!(bytes[at], 2, "its next revision");
    bytes[at] = 0;
    let refused = Region::decode_checkpoint(bytes.into()).unwrap_err();
    assert!(refused.to_string().contains("next revision"), "{refused}");
}

#[test]
fn damaged_checkpoints_are_refused_or_read_but_never_panic() {
    let good = lived().encode_checkpoint();
    for len in 0..good.len() {
        assert!(Region::decode_checkpoint(good.slice(..len)).is_err(), "cut at {len}");
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(Region::decode_checkpoint(longer.into()).is_err());
    for byte in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.to_vec();
            bad[byte] = value;
            // Most are noticed only by the checksum of whoever stores it; reading them is safe.
            let _ = Region::decode_checkpoint(bad.into());
        }
    }
}
