use super::*;
use crate::digest::Digest;
use crate::group::Group;
use crate::sample::*;

fn mergeable(group: &Group) -> Mergeable<()> {
    let (first, last, stamp) = (group.first(), group.last(), group.stamp());
    Mergeable { first, last, stamp, chain: group.chain(), item: () }
}

fn push(merge: &mut Merge<()>, groups: &[&Group]) {
    groups.iter().for_each(|group| merge.push(group.origin(), [mergeable(group)]));
}

/// What the merge delivers until it stops: region, first event, position.
fn drain(merge: &mut Merge<()>, finality: &Finality) -> Vec<(String, u64, u64)> {
    std::iter::from_fn(|| merge.next(finality))
        .map(|next| (next.origin.region.to_string(), next.first.0, next.position))
        .collect()
}

fn expected(order: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    order
        .iter()
        .map(|(region, first, position)| ((*region).to_owned(), *first, *position))
        .collect()
}

/// A region that holds `groups` of others and `digests`, seen as finality.
fn region_with(groups: &[&Group], digests: Vec<Digest>) -> Region {
    let mut region = born("eu");
    let revisions: Vec<Vec<u64>> = {
        let mut next = 0..;
        let of = |group: &&Group| next.by_ref().take(group.header().events as usize).collect();
        groups.iter().map(of).collect()
    };
    let placed = groups.iter().zip(&revisions).map(|(g, r)| ((*g).clone(), &r[..])).collect();
    accept(&mut region, &import(0, placed, digests));
    accept(&mut region, &crate::Command::Close { stamp: at(400) });
    region
}

#[test]
fn groups_come_by_stamp_and_ties_by_origin() {
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let groups = [us.one(at(1)), us.one(at(3)), asia.one(at(3)), us.one(at(4)), asia.one(at(5))];
    let refs: Vec<_> = groups.iter().collect();
    let words = |stamp| {
        let all = [("us", 3), ("asia", 2)];
        vec![digest("us", stamp, &all), digest("asia", stamp, &all)]
    };
    let finality = Finality::of(&region_with(&refs, words(at(9))));
    let mut merge = Merge::after(Context::new());
    push(&mut merge, &refs);
    let order = [("us", 1, 0), ("asia", 1, 1), ("us", 2, 2), ("us", 3, 3), ("asia", 2, 4)];
    assert_eq!(drain(&mut merge, &finality), expected(&order));
    assert_eq!((merge.position(), merge.cut()), (5, &cut(&[("us", 3), ("asia", 2)])));
}

#[test]
fn ties_go_by_origin_even_if_its_numbers_are_higher() {
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let groups = [asia.one(at(1)), asia.one(at(3)), us.one(at(3))];
    let words = vec![digest("us", at(9), &[("us", 1)]), digest("asia", at(9), &[("asia", 2)])];
    let finality = Finality::of(&region_with(&groups.each_ref(), words));
    let finality = Finality { majority: 1, ..finality };
    let mut merge = Merge::after(Context::new());
    push(&mut merge, &groups.each_ref());
    let order = [("asia", 1, 0), ("asia", 2, 1), ("us", 1, 2)];
    assert_eq!(drain(&mut merge, &finality), expected(&order));
}

#[test]
fn nothing_passes_the_watermark_and_it_says_who_blocks() {
    let mut us = Author::new(origin("us"));
    let groups = [us.one(at(1)), us.one(at(3))];
    let unknown = Finality::of(&region_with(&groups.each_ref(), vec![]));
    assert_eq!(unknown.watermark, Stamp::ZERO, "asia was never heard of");
    assert_eq!(unknown.blocked_by, [name("asia")]);
    let word = digest("asia", at(2), &[("us", 2)]);
    let finality = Finality::of(&region_with(&groups.each_ref(), vec![word]));
    assert_eq!((finality.watermark, &*finality.blocked_by), (at(2), &[name("asia")][..]));
    let mut merge = Merge::after(Context::new());
    push(&mut merge, &groups.each_ref());
    assert_eq!(drain(&mut merge, &unknown), []);
    assert_eq!(drain(&mut merge, &finality), expected(&[("us", 1, 0)]));
}

#[test]
fn what_is_stable_waits_for_a_majority_and_so_does_all_behind_it() {
    let mut region = born("eu");
    let ours = Author::new(origin("eu")).one(at(1));
    let theirs = Author::new(origin("us")).one(at(2));
    accept(&mut region, &local(0, ours.clone(), &[0]));
    let deaf = vec![digest("us", at(9), &[("us", 1)]), digest("asia", at(9), &[])];
    accept(&mut region, &import(1, vec![(theirs.clone(), &[1])], deaf));
    accept(&mut region, &crate::Command::Close { stamp: at(9) });
    let finality = Finality::of(&region);
    assert!(finality.covers(&origin("us"), Seq(1), at(2)));
    assert!(!finality.covers(&origin("eu"), Seq(1), at(1)), "only eu is known to hold it");
    let mut merge = Merge::after(Context::new());
    push(&mut merge, &[&ours, &theirs]);
    assert_eq!(drain(&mut merge, &finality), [], "nothing overtakes");
    let word = digest("asia", at(9), &[("eu", 1)]);
    accept(&mut region, &import(2, vec![], vec![word]));
    let order = [("eu", 1, 0), ("us", 1, 1)];
    assert_eq!(drain(&mut merge, &Finality::of(&region)), expected(&order));
}

#[test]
fn the_merge_waits_for_what_the_region_holds_and_the_reader_did_not_bring() {
    let (mut us, mut asia) = (Author::new(origin("us")), Author::new(origin("asia")));
    let groups = [us.one(at(2)), asia.one(at(1))];
    let all = [("us", 1), ("asia", 1)];
    let words = vec![digest("us", at(9), &all), digest("asia", at(9), &all)];
    let finality = Finality::of(&region_with(&groups.each_ref(), words));
    let mut merge = Merge::after(Context::new());
    assert_eq!(merge.needs(&finality), [(origin("asia"), Seq(1)), (origin("us"), Seq(1))]);
    push(&mut merge, &[&groups[0]]);
    assert_eq!(merge.needs(&finality), [(origin("asia"), Seq(1))]);
    assert_eq!(drain(&mut merge, &finality), [], "asia's is earlier");
    push(&mut merge, &[&groups[1]]);
    assert_eq!(drain(&mut merge, &finality), expected(&[("asia", 1, 0), ("us", 1, 1)]));
    assert_eq!(merge.needs(&finality), []);
}

#[test]
fn a_cursor_inside_a_group_goes_on_inside_it() {
    let mut us = Author::new(origin("us"));
    let group = us.write(at(1), cut(&[]), &[request(&["s-1", "s-1", "s-1"])]);
    let word = digest("asia", at(9), &[("us", 3)]);
    let finality = Finality::of(&region_with(&[&group], vec![word]));
    let mut merge = Merge::after(cut(&[("us", 2)]));
    assert_eq!(merge.needs(&finality), [(origin("us"), Seq(3))]);
    push(&mut merge, &[&group]);
    assert_eq!(drain(&mut merge, &finality), expected(&[("us", 3, 2)]));
    assert_eq!(merge.position(), 3);
}

#[test]
#[should_panic(expected = "does not continue at 1")]
fn a_gap_in_what_the_reader_brings_is_a_bug() {
    let mut us = Author::new(origin("us"));
    us.one(at(1));
    push(&mut Merge::after(Context::new()), &[&us.one(at(2))]);
}

#[test]
fn marks_come_at_the_same_groups_for_every_reader() {
    let step = 300;
    let next = |nth: u64| Next {
        origin: origin("us"),
        position: nth * step,
        first: Seq(nth * step + 1),
        group: Mergeable {
            first: Seq(nth * step + 1),
            last: Seq((nth + 1) * step),
            stamp: at(nth),
            chain: Chain([nth as u8; 16]),
            item: (),
        },
    };
    let cut_after = |nth: u64| cut(&[("us", (nth + 1) * step)]);
    let mut hash = OrderHash::default();
    let marks: Vec<_> = (0..8).filter_map(|n| hash.add(&next(n), &cut_after(n))).collect();
    assert_eq!(marks.iter().map(|mark| mark.position).collect::<Vec<_>>(), [1200, 2100]);
    let mut resumed = OrderHash::after(&marks[0]);
    let later: Vec<_> = (4..8).filter_map(|n| resumed.add(&next(n), &cut_after(n))).collect();
    assert_eq!(later, marks[1..]);
    assert_eq!(resumed, hash);
    let mut other = OrderHash::default();
    let mut changed = next(0);
    changed.group.chain = Chain([77; 16]);
    other.add(&changed, &cut_after(0));
    (1..8).for_each(|n| drop(other.add(&next(n), &cut_after(n))));
    assert_ne!(other.chain(), hash.chain(), "one other group anywhere, another hash");
}
