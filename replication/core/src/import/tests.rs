use super::*;
use crate::sample::*;

const DRIFT_MAX: Duration = Duration::from_millis(500);
const MUCH: usize = 1 << 20;

fn importer() -> Importer {
    Importer::new(DRIFT_MAX)
}

fn take(importer: &mut Importer, region: &Region) -> Batch {
    importer.take(NOW, region.frontier(), MUCH, true)
}

fn whose(batch: &Batch) -> Vec<(String, u64)> {
    let name = |group: &Group| (group.origin().region.to_string(), group.first().0);
    batch.groups.iter().map(name).collect()
}

#[test]
fn groups_queue_in_order_and_gaps_say_where_to_pull_from() {
    let (region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let groups = [us.one(at(1)), us.one(at(2)), us.one(at(3))];
    let mut offer = |nth: usize| importer.offer(&region, groups[nth].clone());
    assert_eq!(offer(1), Offered::Gap { from: Seq(1) });
    assert_eq!(offer(0), Offered::Queued);
    assert_eq!(offer(0), Offered::Repeated);
    assert_eq!(offer(2), Offered::Gap { from: Seq(2) });
    assert_eq!(offer(1), Offered::Queued);
    assert_eq!(importer.next_wanted(&region, &origin("us")), Seq(3));
    let bytes: usize = groups[..2].iter().map(|group| group.encoded().len()).sum();
    assert_eq!((importer.bytes(), importer.bytes_of(&origin("us"))), (bytes, bytes));
    let batch = take(&mut importer, &region);
    assert_eq!(batch.groups, groups[..2]);
    assert_eq!(importer.bytes(), 0);
    // Taken, but not applied yet: it counts as held.
    assert_eq!(importer.offer(&region, groups[1].clone()), Offered::Repeated);
    assert_eq!(importer.next_wanted(&region, &origin("us")), Seq(3));
}

#[test]
fn what_the_log_holds_is_repeated() {
    let (mut region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let (first, second) = (us.one(at(1)), us.one(at(2)));
    accept(&mut region, &import(0, vec![(first.clone(), &[0])], vec![]));
    assert_eq!(importer.next_wanted(&region, &origin("us")), Seq(2));
    assert_eq!(importer.offer(&region, first), Offered::Repeated);
    assert_eq!(importer.offer(&region, second), Offered::Queued);
}

#[test]
fn a_fork_holds_its_origin_back_for_good() {
    let us = Author::new(origin("us"));
    let other = |stream: &str| us.clone().write(at(1), cut(&[]), &[request(&[stream])]);
    let mut grown = us.clone();
    let first = grown.one(at(1));
    let continued = grown.one(at(2));
    let longer = us.clone().write(at(2), cut(&[]), &[request(&["s-1", "s-1"])]);
    let mut of_another = Author { chain: other("s-2").chain(), ..grown.clone() };
    of_another.last = Seq(1);
    let late = Author { last: Seq(1), chain: first.chain(), ..us.clone() }.one(at(1));
    for fork in [other("s-2"), longer, of_another.one(at(2)), late] {
        let (region, mut importer) = (born("eu"), importer());
        assert_eq!(importer.offer(&region, first.clone()), Offered::Queued);
        let held = Held::Fork { origin: origin("us"), at: fork.first() };
        assert_eq!(importer.offer(&region, fork), Offered::Held(held.clone()));
        let after = importer.offer(&region, continued.clone());
        assert_eq!(
            after,
            Offered::Held(held.clone()),
            "nobody knows which history is the right one"
        );
        assert_eq!(importer.held().collect::<Vec<_>>(), [(&origin("us"), &held)]);
    }
}

#[test]
fn a_fork_is_not_forgotten_while_the_clock_holds_too() {
    let (region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let forked = us.clone().one(at(900));
    importer.offer(&region, us.one(at(800)));
    let held = importer.offer(&region, forked);
    assert!(matches!(held, Offered::Held(Held::Fork { .. })), "{held:?}");
    assert!(take(&mut importer, &region).is_empty());
    let held: Vec<_> = importer.held().map(|(_, held)| held.clone()).collect();
    assert!(matches!(held[..], [Held::Fork { .. }]), "{held:?}");
}

#[test]
fn a_group_that_breaks_its_origins_promise_is_held() {
    let (mut region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let word = digest("us", at(9), &[("us", 1)]);
    accept(&mut region, &import(0, vec![(us.one(at(1)), &[0])], vec![word]));
    let offered = importer.offer(&region, us.clone().one(at(9)));
    assert!(matches!(offered, Offered::Held(Held::Fork { .. })), "{offered:?}");
    let mut importer = self::importer();
    assert_eq!(importer.offer(&region, us.one(at(10))), Offered::Queued);
}

#[test]
fn strangers_and_second_lives_are_refused() {
    let (mut region, mut importer) = (born("eu"), importer());
    let mut offer =
        |region: &Region, origin: Origin| importer.offer(region, Author::new(origin).one(at(1)));
    for stranger in [origin("mars"), origin("eu"), life("eu", 2)] {
        let held = Held::NotMember { origin: stranger.clone() };
        assert_eq!(offer(&region, stranger), Offered::Held(held));
    }
    let other = Held::NotMember { origin: life("us", 2) };
    assert_eq!(offer(&region, life("us", 1)), Offered::Queued);
    assert_eq!(offer(&region, life("us", 2)), Offered::Held(other.clone()), "one waits here");
    importer = self::importer();
    importer.offer_digest(&region, digest("us", at(1), &[]));
    let second = Author::new(life("us", 2)).one(at(1));
    assert_eq!(importer.offer(&region, second.clone()), Offered::Held(other.clone()), "one spoke");
    accept(&mut region, &import(0, vec![], vec![digest("us", at(1), &[])]));
    importer = self::importer();
    assert_eq!(importer.offer(&region, second), Offered::Held(other), "the log knows one");
    importer.offer_digest(&region, Digest { origin: life("us", 2), ..digest("us", at(9), &[]) });
    assert_eq!(importer.heard().count(), 0);
}

#[test]
fn a_clock_that_is_ahead_holds_its_own_origin_only_and_only_until_then() {
    let (region, mut importer) = (born("eu"), importer());
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    importer.offer(&region, us.one(at(501)));
    importer.offer(&region, us.one(at(502)));
    importer.offer(&region, asia.one(at(500)));
    assert_eq!(whose(&take(&mut importer, &region)), [("asia".to_owned(), 1)]);
    let ahead = Duration::from_millis(501);
    let held = Held::Clock { region: name("us"), ahead, drift_max: DRIFT_MAX };
    assert_eq!(importer.held().collect::<Vec<_>>(), [(&origin("us"), &held)]);
    let batch = importer.take(NOW + 1, region.frontier(), MUCH, false);
    assert_eq!(whose(&batch), [("us".to_owned(), 1)], "in time, one by one");
    let batch = importer.take(NOW + 2, region.frontier(), MUCH, false);
    assert_eq!(whose(&batch), [("us".to_owned(), 2)]);
    assert_eq!(importer.held().count(), 0);
}

#[test]
fn groups_wait_for_their_context_also_across_queues() {
    let (region, mut importer) = (born("eu"), importer());
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let cause = us.one(at(1));
    let effect = asia.write(at(2), cut(&[("us", 1)]), &[request(&["s-1"])]);
    let third = us.write(at(3), cut(&[("asia", 1)]), &[request(&["s-1"])]);
    importer.offer(&region, effect);
    assert!(take(&mut importer, &region).is_empty(), "its cause is not here");
    importer.offer(&region, cause);
    importer.offer(&region, third);
    let order = [("us", 1), ("asia", 1), ("us", 2)].map(|(o, seq)| (o.to_owned(), seq));
    assert_eq!(whose(&take(&mut importer, &region)), order);
}

#[test]
fn a_long_queue_does_not_starve_the_others() {
    let (region, mut importer) = (born("eu"), importer());
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    for ms in 1..=3 {
        importer.offer(&region, asia.one(at(ms)));
        importer.offer(&region, us.one(at(ms)));
    }
    // A batch this small holds one group.
    let mut next = || whose(&importer.take(NOW, region.frontier(), 1, false)).remove(0).0;
    assert_eq!([next(), next(), next(), next()], ["asia", "us", "asia", "us"]);
}

#[test]
fn digests_go_in_once_and_only_when_their_events_are_held() {
    let (region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let word = digest("us", at(5), &[("us", 1)]);
    importer.offer_digest(&region, word.clone());
    assert_eq!(importer.heard().collect::<Vec<_>>(), [&word], "heard at once");
    assert!(take(&mut importer, &region).is_empty(), "its events are not held");
    importer.offer(&region, us.one(at(1)));
    assert_eq!(take(&mut importer, &region).digests, std::slice::from_ref(&word), "with its group");
    let held = cut(&[("us", 1)]);
    importer.offer_digest(&region, word);
    assert!(importer.take(NOW, &held, MUCH, true).is_empty(), "nothing new");
    importer.offer_digest(&region, digest("us", at(6), &[("us", 1)]));
    assert!(importer.take(NOW, &held, MUCH, false).is_empty(), "nobody asked for statements");
    assert_eq!(importer.take(NOW, &held, MUCH, true).digests.len(), 1);
}

#[test]
fn late_and_repeated_digests_say_nothing_new() {
    let (region, mut importer) = (born("eu"), importer());
    let older = digest("us", at(5), &[("asia", 1)]);
    // The same stamp with more held: an import does not always raise the stamp.
    let newer = digest("us", at(5), &[("asia", 2)]);
    importer.offer_digest(&region, newer.clone());
    assert_eq!(take(&mut importer, &region).digests, std::slice::from_ref(&newer));
    importer.offer_digest(&region, older);
    importer.offer_digest(&region, digest("us", at(4), &[]));
    assert_eq!(importer.heard().collect::<Vec<_>>(), [&newer]);
    assert!(take(&mut importer, &region).is_empty());
}

#[test]
fn the_word_of_a_region_that_was_set_back_is_not_taken() {
    let (mut region, mut importer) = (born("eu"), importer());
    let mut us = Author::new(origin("us"));
    let (first, second) = (us.one(at(1)), us.one(at(2)));
    accept(&mut region, &import(0, vec![(first, &[0]), (second, &[1])], vec![]));
    // Late: true when it was said.
    importer.offer_digest(&region, digest("us", at(1), &[("us", 1)]));
    assert_eq!(importer.held().count(), 0);
    // Set back to its first event, it says that there was no second one up to now.
    importer.offer_digest(&region, digest("us", at(5), &[("us", 1)]));
    let held = Held::Forgetful { origin: origin("us"), says: Seq(1), held: Seq(2) };
    assert_eq!(importer.held().collect::<Vec<_>>(), [(&origin("us"), &held)]);
    let batch = take(&mut importer, &region);
    assert!(batch.digests.iter().all(|digest| digest.stamp < at(5)), "no such promise: {batch:?}");
    // What it writes then does not follow what is held.
    let other =
        Author { chain: us.clone().write(at(6), cut(&[]), &[request(&["s-9"])]).chain(), ..us };
    let fork = other.clone().one(at(7));
    let forked = Held::Fork { origin: origin("us"), at: fork.first() };
    assert_eq!(importer.offer(&region, fork), Offered::Held(forked));
}

#[test]
fn a_word_is_disproved_by_what_is_on_its_way_too() {
    let mut us = Author::new(origin("us"));
    let groups = [us.one(at(1)), us.one(at(2)), us.one(at(3))];
    let lie = digest("us", at(5), &[("us", 1)]);
    let held = Held::Forgetful { origin: origin("us"), says: Seq(1), held: Seq(2) };
    // The lie comes before the groups, or after, and these are queued, or taken, but not applied.
    for (early, taken) in [(false, false), (false, true), (true, false)] {
        let (mut region, mut importer) = (born("eu"), importer());
        accept(&mut region, &import(0, vec![(groups[0].clone(), &[0])], vec![]));
        if early {
            importer.offer_digest(&region, lie.clone());
        }
        assert_eq!(importer.offer(&region, groups[1].clone()), Offered::Queued);
        if taken {
            assert_eq!(take(&mut importer, &region).groups.len(), 1);
        }
        if !early {
            importer.offer_digest(&region, lie.clone());
            assert_eq!(importer.heard().count(), 0, "nothing is made of it and what comes next");
        }
        let batch = take(&mut importer, &region);
        assert_eq!(batch.digests, [], "no such promise: early {early}, taken {taken}");
        assert_eq!(importer.held().collect::<Vec<_>>(), [(&origin("us"), &held)]);
        // What others still hold of its first life goes on.
        assert_eq!(importer.offer(&region, groups[2].clone()), Offered::Queued);
        assert_eq!(whose(&take(&mut importer, &region)), [("us".to_owned(), 3)]);
        // A word that is true of all of it is taken.
        importer.offer_digest(&region, digest("us", at(6), &[("us", 3)]));
        let all = importer.take(NOW, &cut(&[("us", 3)]), MUCH, true);
        assert_eq!(all.digests.len(), 1);
    }
}

#[test]
fn two_words_that_no_one_log_could_say_are_not_made_one() {
    let truth = digest("us", at(3), &[("us", 2)]);
    let lie = digest("us", at(5), &[("us", 1)]);
    let held = Held::Forgetful { origin: origin("us"), says: Seq(1), held: Seq(2) };
    for words in [[&truth, &lie], [&lie, &truth]] {
        let (region, mut importer) = (born("eu"), importer());
        words.into_iter().for_each(|word| importer.offer_digest(&region, word.clone()));
        assert_eq!(importer.heard().collect::<Vec<_>>(), [&truth]);
        assert_eq!(importer.held().collect::<Vec<_>>(), [(&origin("us"), &held)]);
    }
    // What one log says late is merged.
    let (region, mut importer) = (born("eu"), importer());
    for word in [truth.clone(), digest("us", at(2), &[("us", 1)])] {
        importer.offer_digest(&region, word);
    }
    assert_eq!(importer.heard().collect::<Vec<_>>(), [&truth]);
    assert_eq!(importer.held().count(), 0);
}

#[test]
fn holders_counts_regions_once_whatever_vouches_for_them() {
    let (mut region, mut importer) = (born("eu"), importer());
    let group = Author::new(origin("eu")).one(at(1));
    accept(&mut region, &local(0, group, &[0]));
    let holders =
        |importer: &Importer, region: &Region| importer.holders(region, &origin("eu"), Seq(1));
    assert_eq!(holders(&importer, &region), 1);
    let word = digest("us", at(5), &[("eu", 1)]);
    importer.offer_digest(&region, word.clone());
    assert_eq!(holders(&importer, &region), 2, "a word that is not in the log yet");
    accept(&mut region, &import(1, vec![], vec![word]));
    assert_eq!(holders(&importer, &region), 2, "the same word, in the log");
    importer.offer_digest(&region, digest("asia", at(5), &[("eu", 1)]));
    assert_eq!(holders(&importer, &region), 3);
    assert_eq!(importer.holders(&region, &origin("eu"), Seq(2)), 0);
}
