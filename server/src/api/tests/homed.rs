//! Appends to streams with a home, asked for in every region: three regions over real QUIC.

use anabranch_core::class::Change;
use anabranch_core::event::ProducerTag;
use anabranch_core::{Context, Incarnation, Origin, ProducerId, Seq, SessionToken};
use anabranch_proto::carried::{CarriedAppend, read_appended};
use anabranch_proto::v1;
use anabranch_proto::v1::expectation::{Expected, NoStream};
use anabranch_proto::v1::refusal::Reason;
use tokio::time::{Duration, Instant, sleep};
use tonic::{Code, Request, Status};

use super::carried::{ASIA, EU, NAMES, US, World, region};
use super::cluster::{SHARD, SOON};
use super::{append_of, event, expect, reason};
use crate::api::carry::{Counts, HOPS_MAX};
use crate::api::forward::set_hops;

const REGIONS: [usize; 3] = [ASIA, EU, US];

impl World {
    /// Appends as a client of a region does.
    async fn append(
        &self,
        nth: usize,
        message: v1::AppendRequest,
    ) -> Result<v1::AppendResponse, Status> {
        let request = Request::new(message);
        self.regions[nth].apis[0].handle_append(request).await.map(tonic::Response::into_inner)
    }

    /// Makes the streams `bed-…` homed, and waits until the home knows that everybody knows.
    async fn declare(&self, home: usize) {
        let declared =
            Change::Declared { category: "bed".into(), home: region(NAMES[home]), epoch: 1 };
        self.append(EU, append_of(vec![change(&declared)])).await.expect("any region may declare");
        let home = &self.regions[home].shards[0];
        self.until("all have confirmed", || {
            home.state().region(|region| {
                let declared = region.homes().of_category("bed");
                declared.is_some_and(|declared| region.unconfirmed(declared).is_empty())
            })
        })
        .await;
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + SOON;
        while !is() {
            assert!(Instant::now() < until, "{what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all regions hold `events` of a stream, the same ones.
    async fn all_hold(&self, stream: &str, events: u64) {
        let head = |nth: usize| {
            let shard = &self.regions[nth].shards[0];
            let head = shard.state().region(|region| region.stream(stream));
            head.map(|head| (head.next_revision, head.fingerprint))
        };
        self.until("all hold the stream", || {
            REGIONS.iter().all(|nth| head(*nth).is_some_and(|(held, _)| held >= events))
        })
        .await;
        for nth in REGIONS {
            assert_eq!(head(nth), head(US), "{}", NAMES[nth]);
            assert_eq!(head(nth).unwrap().0, events, "{}", NAMES[nth]);
        }
    }

    /// Hands `bed-1` over.
    async fn hand_over(&self, asked: usize, to: usize, epoch: u32) -> v1::AppendResponse {
        let (category, stream) = ("bed".into(), Some("bed-1".into()));
        let released = Change::Released { category, stream, to: region(NAMES[to]), epoch };
        let released = append_of(vec![change(&released)]);
        let until = Instant::now() + SOON;
        loop {
            match self.append(asked, released.clone()).await {
                Ok(appended) => return appended,
                Err(status) if is_on_its_way(&status) && Instant::now() < until => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    fn carried(&self, nth: usize, other: usize) -> Counts {
        let cluster = &self.regions[nth];
        let status = cluster.apis[cluster.leader()].status_of(&cluster.shards[cluster.leader()]);
        let status = status.regions.into_iter().find(|status| status.region == NAMES[other]);
        let status = status.expect("it is a member");
        let (to, failed, from) = (status.carried_to, status.carried_failed, status.carried_from);
        Counts { to, failed, from }
    }
}

fn change(change: &Change) -> v1::NewEvent {
    let event = change.event();
    v1::NewEvent { r#type: event.kind, payload: event.payload, ..super::event(&event.stream) }
}

/// Whether the home moves, or a region has not heard yet where it is.
fn is_on_its_way(status: &Status) -> bool {
    matches!(reason(status), Reason::NotHome(_) | Reason::NotLeader(_))
}

fn strict(stream: &str, expected: Expected) -> v1::AppendRequest {
    v1::AppendRequest {
        expectations: vec![expect(stream, Some(expected))],
        ..append_of(vec![event(stream)])
    }
}

fn tagged(id: u8, sequence: u64) -> v1::AppendRequest {
    let producer = ProducerTag { id: ProducerId([id; 16]), epoch: 1, sequence };
    v1::AppendRequest { producer: Some(producer.into()), ..append_of(vec![event("bed-1")]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_from_all_regions_get_one_revision_each() {
    const EACH: usize = 8;
    let world = World::start().await;
    world.declare(US).await;
    let append_some = async |nth: usize| {
        let (mut expected, mut won) = (Expected::NoStream(NoStream {}), Vec::new());
        while won.len() < EACH {
            match world.append(nth, strict("bed-1", expected)).await {
                Ok(appended) => {
                    let revision = appended.revisions[0].last_revision;
                    // Reads of the region that was asked see it, once they have the token.
                    let token = SessionToken::decode(appended.session_token).unwrap();
                    let shard = &world.regions[nth].shards[0];
                    shard.await_context(&token.context, Instant::now() + SOON).await.unwrap();
                    let head = shard.state().region(|region| region.stream("bed-1").unwrap());
                    assert!(head.next_revision > revision);
                    won.push(revision);
                    expected = Expected::Revision(revision);
                }
                Err(status) => {
                    let Reason::Conflicts(conflicts) = reason(&status) else {
                        panic!("{status:?}");
                    };
                    let actual = conflicts.conflicts[0].actual.expect("somebody was first");
                    expected = Expected::Revision(actual);
                }
            }
        }
        won
    };
    let (asia, eu, us) = tokio::join!(append_some(ASIA), append_some(EU), append_some(US));
    let mut won = [asia, eu, us].concat();
    won.sort_unstable();
    assert!(won.iter().copied().eq(0..3 * EACH as u64), "each revision once: {won:?}");
    world.all_hold("bed-1", 3 * EACH as u64).await;
    for nth in [ASIA, EU] {
        let carried = world.carried(nth, US);
        assert_eq!(carried.to - carried.failed, EACH as u64, "{carried:?}");
    }
    // It is not worth a word in other regions, nor for other streams.
    assert_eq!(world.carried(ASIA, EU), Counts::default());
    let appended = world.append(ASIA, append_of(vec![event("chair-1")])).await.unwrap();
    assert_eq!(appended.first.unwrap().origin.unwrap().region, "asia");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_says_that_the_home_is_out_of_reach_and_the_home_goes_on() {
    let world = World::start().await;
    world.declare(EU).await;
    world.append(ASIA, strict("bed-1", Expected::NoStream(NoStream {}))).await.unwrap();
    world.cut(ASIA, EU);
    world.cut(ASIA, US);
    world.until("asia is alone", || world.is_alone(ASIA)).await;
    let refused = world.append(ASIA, append_of(vec![event("bed-1")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let Reason::HomeUnreachable(of) = reason(&refused) else { panic!("{refused:?}") };
    let told = (of.stream.as_str(), of.home.as_str(), of.epoch, of.region.as_str());
    assert_eq!(told, ("bed-1", "eu", 1, "asia"));
    world.append(ASIA, append_of(vec![event("chair-1")])).await.expect("its own goes on");
    world.append(EU, strict("bed-1", Expected::Revision(0))).await.expect("the home goes on");
    world.append(US, strict("bed-1", Expected::Revision(1))).await.expect("whoever sees it, too");
    let carried = world.carried(ASIA, EU);
    assert_eq!((carried.to, carried.failed), (2, 1));
    assert_eq!(world.carried(EU, US).from, 1);

    world.heal(ASIA, EU);
    world.heal(ASIA, US);
    world.until("asia is back", || world.is_connected(ASIA)).await;
    world.append(ASIA, strict("bed-1", Expected::Revision(2))).await.expect("as before");
    world.all_hold("bed-1", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_while_other_regions_append_loses_nothing_and_repeats_nothing() {
    const EACH: u64 = 25;
    let world = World::start().await;
    world.declare(US).await;
    let append_some = async |nth: usize| {
        let mut revisions = Vec::new();
        for sequence in 1..=EACH {
            let until = Instant::now() + SOON;
            loop {
                match world.append(nth, tagged(nth as u8 + 1, sequence)).await {
                    Ok(appended) => break revisions.push(appended.revisions[0].last_revision),
                    Err(status) if is_on_its_way(&status) && Instant::now() < until => {
                        sleep(Duration::from_millis(5)).await;
                    }
                    Err(status) => panic!("{status:?}"),
                }
            }
        }
        revisions
    };
    let hand_over = async {
        let next = |nth: usize, events: u64| {
            let shard = &world.regions[nth].shards[0];
            let head = shard.state().region(|region| region.stream("bed-1"));
            head.is_some_and(|head| head.next_revision >= events)
        };
        world.until("some are there", || next(US, 10)).await;
        // Asked for elsewhere: the home does it.
        let released = world.hand_over(EU, ASIA, 2).await;
        assert_eq!(released.first.unwrap().origin.unwrap().region, "us");
        world.until("some more are there", || next(ASIA, 30)).await;
        let released = world.hand_over(ASIA, EU, 3).await;
        assert_eq!(released.first.unwrap().origin.unwrap().region, "asia");
    };
    let (asia, eu, us, ()) =
        tokio::join!(append_some(ASIA), append_some(EU), append_some(US), hand_over);
    let mut revisions = [asia, eu, us].concat();
    revisions.sort_unstable();
    assert!(revisions.iter().copied().eq(0..3 * EACH), "each once: {revisions:?}");
    world.all_hold("bed-1", 3 * EACH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_region_is_recognised() {
    let world = World::start().await;
    world.declare(US).await;
    for sequence in 1..=5 {
        let (one, other) = tokio::join!(
            world.append(ASIA, tagged(9, sequence)),
            world.append(EU, tagged(9, sequence))
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((&one.first, &one.revisions), (&other.first, &other.revisions));
        assert!(one.repeated != other.repeated, "{one:?}, {other:?}");
        let again = world.append(US, tagged(9, sequence)).await.unwrap();
        assert_eq!((again.repeated, &again.first), (true, &one.first));
    }
    world.all_hold("bed-1", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_wrote_before_it_heard_of_the_home_is_recognised_there() {
    let world = World::start().await;
    let first = world.append(ASIA, tagged(9, 1)).await.unwrap();
    world.declare(US).await;
    let asia = &world.regions[ASIA].shards[0];
    world
        .until("asia knows", || asia.state().region(|region| region.homes().of("bed-1").is_some()))
        .await;
    let again = world.append(ASIA, tagged(9, 1)).await.unwrap();
    assert_eq!((again.repeated, again.first), (true, first.first));
    assert_eq!(world.carried(ASIA, US), Counts::default(), "asked nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_writes_after_everything_that_the_region_held() {
    let world = World::start().await;
    world.declare(US).await;
    let us = &world.regions[US].shards[0];
    for _ in 0..5 {
        let before = world.append(EU, append_of(vec![event("chair-1")])).await.unwrap();
        let token = SessionToken::decode(before.session_token).unwrap();
        world.append(EU, append_of(vec![event("bed-1")])).await.unwrap();
        // The node that took it is the one that others know.
        let follower = &world.regions[US].shards[1 - world.regions[US].leader()];
        assert!(follower.state().covers(&token.context), "not before its cause");
    }
    let gossip = world.regions[EU].gossip[0].borrow().clone().unwrap();
    let (region_of, incarnation) = (region("asia"), Incarnation(1));
    let origin = Origin { region: region_of, incarnation, shard: SHARD };
    let after = Context::from_iter([(origin, Seq(7))]);
    let held = us.state().region(|region| region.position());
    let question = CarriedAppend { hops: 1, after, request: append_of(vec![event("bed-1")]) };
    let within = Duration::from_millis(200);
    let answer = gossip.ask(&region("us"), SHARD, question.encode(), within).await.unwrap();
    let refused = read_appended(answer).unwrap().unwrap_err();
    let Reason::NotCaughtUp(behind) = reason(&refused) else { panic!("{refused:?}") };
    assert_eq!(behind.missing.unwrap().dots[0].seq, 7);
    assert!(refused.message().starts_with("7 events that region eu holds"), "{refused:?}");
    assert_eq!(us.state().region(|region| region.position()), held, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_sent_to_two_regions_is_told_who_is_home_and_sent_no_further() {
    let world = World::start().await;
    world.declare(US).await;
    let mut far = Request::new(append_of(vec![event("bed-1")]));
    set_hops(far.metadata_mut(), HOPS_MAX);
    let refused = world.regions[EU].apis[0].handle_append(far).await.unwrap_err();
    let Reason::NotHome(home) = reason(&refused) else { panic!("{refused:?}") };
    assert_eq!((home.home.as_str(), home.epoch), ("us", 1));
    assert_eq!(world.carried(EU, US), Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_homes_in_one_append_are_refused_wherever_it_is_asked_for() {
    let world = World::start().await;
    world.declare(US).await;
    world.hand_over(US, ASIA, 2).await;
    world.all_hold("$class-bed", 2).await;
    let both = append_of(vec![event("bed-1"), event("bed-2")]);
    for nth in REGIONS {
        let refused = world.append(nth, both.clone()).await.unwrap_err();
        assert!(matches!(reason(&refused), Reason::Invalid(_)), "{refused:?}");
        assert!(refused.message().contains("append to them one by one"), "{refused:?}");
    }
}
