//! Questions between regions, over loopback.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_core::ShardId;
use anabranch_gossip::{AskError, Refusal, Tuning};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use support::{Mood, Region, SHARD, eventually, origin, region, regions, regions_with, tuning};

const SOON: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

/// Waits until `asker` has a session with `other`.
async fn connected(asker: &Region, other: &str) {
    eventually(SOON, "connected", || asker.link(other).connected).await;
}

/// Two regions, of which the first has a session with the second.
async fn asking_pair(of: impl Fn(&str) -> Tuning) -> Vec<Region> {
    let all = regions_with(&["eu", "us"], of);
    all[0].lead();
    connected(&all[0], "us").await;
    all
}

async fn ask(asker: &Region, other: &str, question: Bytes) -> Result<Bytes, AskError> {
    asker.gossip.ask(&region(other), SHARD, question, SOON).await
}

/// Asks in the background.
fn asking(
    asker: &Region,
    other: &'static str,
    question: Bytes,
    within: Duration,
) -> tokio::task::JoinHandle<Result<Bytes, AskError>> {
    let gossip = asker.gossip.clone();
    tokio::spawn(async move { gossip.ask(&region(other), SHARD, question, within).await })
}

fn noise(bytes: usize) -> Bytes {
    let mut noise = vec![0; bytes];
    SmallRng::seed_from_u64(bytes as u64).fill_bytes(&mut noise);
    noise.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_and_the_other_side_knows_who_asked() {
    let all = regions(&["asia", "eu", "us"]);
    let [asia, eu, us] = &all[..] else { unreachable!() };
    eu.lead();
    asia.lead();
    connected(eu, "us").await;
    connected(asia, "us").await;
    let answer = ask(eu, "us", Bytes::from_static(b"may I?")).await.unwrap();
    assert_eq!(answer, "may I?");
    ask(asia, "us", Bytes::new()).await.unwrap();
    let asked = us.log.oracle.asked();
    let heard: Vec<_> = asked.iter().map(|a| (a.from.as_str(), a.shard, &a.question[..])).collect();
    assert_eq!(heard, [("eu", SHARD, &b"may I?"[..]), ("asia", SHARD, b"")]);
    assert!(asked.iter().all(|asked| asked.within <= SOON), "{asked:?}");

    // The longest there are, and many at once, while history goes the other way.
    us.log.append(5_000, 2);
    let long = noise(Tuning::DEFAULT.question_bytes);
    let long = asking(eu, "us", long.clone(), SOON);
    let many: Vec<_> = (0..200).map(|n| asking(eu, "us", noise(n), SOON)).collect();
    for (n, answer) in many.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap(), noise(n));
    }
    assert_eq!(long.await.unwrap().unwrap(), noise(Tuning::DEFAULT.question_bytes));
    eventually(SOON, "history", || eu.log.seq(&origin("us")) == 10_000).await;
    assert_eq!(eu.link("us").sessions, 1, "no session broke on the way");
    assert_eq!(us.log.oracle.at_work(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_though_the_sink_takes_nothing() {
    // Blocks so large that those under way fill every window they have.
    let large = |_: &str| Tuning { block_bytes: 8 * MIB, ..tuning() };
    let all = regions_with(&["eu", "us"], large);
    let [eu, us] = &all[..] else { unreachable!() };
    eu.log.stalled.send_replace(true);
    us.log.append_groups(support::noise::noise("us", 2_000, 64 * 1024));
    eu.lead();
    connected(eu, "us").await;
    // What is read is held in the puller or on the way. Settled: nothing moves for a while.
    let read = || us.log.bytes_read.load(Ordering::Relaxed);
    eventually(SOON, "sending", || read() > 4 * MIB).await;
    let mut before = 0;
    while read() != before {
        before = read();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    for _ in 0..3 {
        let question = noise(9 * MIB);
        assert_eq!(ask(eu, "us", question.clone()).await.unwrap(), question);
    }
    assert_eq!(eu.log.seq(&origin("us")), 0, "it took nothing");
    eu.log.stalled.send_replace(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_session_nothing_is_sent() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    let none = |result: Result<Bytes, AskError>, name: &str| {
        let error = result.unwrap_err();
        assert!(!error.may_have_been_begun(), "{error}");
        assert!(
            matches!(&error, AskError::NoSession { region } if region.as_str() == name),
            "{error}"
        );
    };
    none(ask(eu, "us", Bytes::new()).await, "us");
    eu.lead();
    connected(eu, "us").await;
    none(ask(eu, "mars", Bytes::new()).await, "mars");
    none(ask(us, "eu", Bytes::new()).await, "eu");
    assert!(ask(eu, "us", Bytes::new()).await.is_ok());
    eu.gossip.pull(SHARD, None);
    eventually(SOON, "it stops", || !eu.link("us").connected).await;
    none(ask(eu, "us", Bytes::new()).await, "us");
    eu.lead();
    connected(eu, "us").await;
    us.gossip.shutdown().await;
    eventually(SOON, "it is gone", || !eu.link("us").connected).await;
    none(ask(eu, "us", Bytes::new()).await, "us");
    assert_eq!(us.log.oracle.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_is_refused_on_either_side() {
    let of = |name: &str| {
        let question_bytes = if name == "eu" { 200 } else { 100 };
        Tuning { question_bytes, ..tuning() }
    };
    let all = asking_pair(of).await;
    let [eu, us] = &all[..] else { unreachable!() };
    assert_eq!(ask(eu, "us", noise(100)).await.unwrap().len(), 100);
    let here = ask(eu, "us", noise(201)).await.unwrap_err();
    assert!(matches!(here, AskError::TooLong { bytes: 201, limit: 200 }), "{here}");
    let there = ask(eu, "us", noise(101)).await.unwrap_err();
    let reason = Refusal::TooLong { limit: 100 };
    assert!(matches!(&there, AskError::Refused { reason: r, .. } if *r == reason), "{there}");
    assert!(!here.may_have_been_begun() && !there.may_have_been_begun());
    assert_eq!(us.log.oracle.asked().len(), 1, "only the one that fits");
    // The answer that is too long for the one who gives it is never sent: what was done is unknown.
    us.log.oracle.mood.send_replace(Mood::Long(101));
    let unknown = ask(eu, "us", Bytes::new()).await.unwrap_err();
    assert!(matches!(unknown, AskError::Lost { .. }), "{unknown}");
    assert!(unknown.may_have_been_begun());
    us.log.oracle.mood.send_replace(Mood::Echo);
    assert!(ask(eu, "us", noise(1)).await.is_ok(), "the session goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_longer_than_the_asker_takes_leaves_it_unknown() {
    let of = |name: &str| {
        let question_bytes = if name == "eu" { 100 } else { 200 };
        Tuning { question_bytes, ..tuning() }
    };
    let all = asking_pair(of).await;
    let [eu, us] = &all[..] else { unreachable!() };
    us.log.oracle.mood.send_replace(Mood::Long(200));
    let unknown = ask(eu, "us", Bytes::new()).await.unwrap_err();
    assert!(matches!(unknown, AskError::Lost { .. }), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_questions_than_allowed_are_refused_and_allowed_again_when_some_are_answered() {
    // us answers three at a time, by their bytes; eu asks four at a time.
    let tuning = |_: &str| Tuning { questions_max: 4, questions_bytes_max: 3 * MIB, ..tuning() };
    let all = asking_pair(tuning).await;
    let [eu, us] = &all[..] else { unreachable!() };
    let oracle = &us.log.oracle;
    oracle.mood.send_replace(Mood::Hold);
    let question = || noise(MIB - 2_048);
    let mut held: Vec<_> = (0..3).map(|_| asking(eu, "us", question(), SOON)).collect();
    eventually(SOON, "three are begun", || oracle.at_work() == 3).await;
    let there = ask(eu, "us", question()).await.unwrap_err();
    let busy = matches!(&there, AskError::Refused { reason: Refusal::Busy, .. });
    assert!(busy && !there.may_have_been_begun(), "{there}");
    held.push(asking(eu, "us", Bytes::new(), SOON));
    eventually(SOON, "a small one fits", || oracle.at_work() == 4).await;
    let here = ask(eu, "us", Bytes::new()).await.unwrap_err();
    assert!(matches!(&here, AskError::TooMany { limit: 4, .. }), "{here}");
    assert!(!here.may_have_been_begun());
    oracle.mood.send_replace(Mood::Echo);
    for held in held {
        held.await.unwrap().unwrap();
    }
    assert_eq!(oracle.asked().len(), 4);
    // One that is larger than all there is goes alone.
    assert_eq!(ask(eu, "us", noise(4 * MIB)).await.unwrap().len(), 4 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_ready_did_not_begin() {
    let all = asking_pair(|_| tuning()).await;
    let [eu, us] = &all[..] else { unreachable!() };
    us.log.oracle.mood.send_replace(Mood::NotReady);
    let refused = ask(eu, "us", noise(9 * MIB)).await.unwrap_err();
    let not_ready = matches!(&refused, AskError::Refused { reason: Refusal::NotReady, .. });
    assert!(not_ready && !refused.may_have_been_begun(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_under_way_leaves_the_question_unknown() {
    let all = asking_pair(|_| tuning()).await;
    let [eu, us] = &all[..] else { unreachable!() };
    let oracle = &us.log.oracle;
    oracle.mood.send_replace(Mood::Hold);
    let first = asking(eu, "us", noise(10), SOON);
    eventually(SOON, "it is begun", || oracle.at_work() == 1).await;
    eu.cut(us);
    let unknown = first.await.unwrap().unwrap_err();
    assert!(matches!(unknown, AskError::Lost { .. }), "{unknown}");
    assert!(unknown.may_have_been_begun());
    eventually(SOON, "nobody works for it any more", || oracle.at_work() == 0).await;
    eu.heal(us);
    eventually(SOON, "connected anew", || eu.link("us").sessions == 2).await;
    // As when the asker stops to lead.
    let second = asking(eu, "us", noise(10), SOON);
    eventually(SOON, "it is begun", || oracle.at_work() == 1).await;
    eu.gossip.pull(SHARD, None);
    let unknown = second.await.unwrap().unwrap_err();
    assert!(unknown.may_have_been_begun(), "{unknown}");
    eventually(SOON, "nobody works for it any more", || oracle.at_work() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_when_the_answering_node_stops_is_still_answered() {
    let all = asking_pair(|_| tuning()).await;
    let [eu, us] = &all[..] else { unreachable!() };
    let oracle = &us.log.oracle;
    oracle.mood.send_replace(Mood::Hold);
    let held = asking(eu, "us", noise(10), SOON);
    eventually(SOON, "it is begun", || oracle.at_work() == 1).await;
    let gossip = us.gossip.clone();
    let stopping = tokio::spawn(async move { gossip.shutdown().await });
    let refused = loop {
        // It stops at a moment of its own; until then it begins with this one, too.
        let within = Duration::from_millis(100);
        match eu.gossip.ask(&region("us"), SHARD, noise(10), within).await.unwrap_err() {
            AskError::NoAnswer { .. } => {}
            other => break other,
        }
    };
    assert!(matches!(refused, AskError::Refused { reason: Refusal::Busy, .. }), "{refused}");
    oracle.mood.send_replace(Mood::Echo);
    assert_eq!(held.await.unwrap().unwrap(), noise(10));
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_a_question_has_travels_with_it() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    let one_way = Duration::from_millis(50);
    eu.rules.delay(us.address, one_way);
    us.rules.delay(eu.address, one_way);
    eu.lead();
    connected(eu, "us").await;
    let oracle = &us.log.oracle;
    oracle.mood.send_replace(Mood::Hold);
    let within = Duration::from_millis(500);
    let late = eu.gossip.ask(&region("us"), SHARD, noise(10), within).await.unwrap_err();
    assert!(matches!(late, AskError::NoAnswer { .. }) && late.may_have_been_begun(), "{late}");
    let asked = oracle.asked();
    assert!(asked[0].within <= within - 2 * one_way, "the way there and back: {asked:?}");
    eventually(SOON, "it is given up", || oracle.at_work() == 0).await;
    // Less than a round trip: it would only come to be unknown.
    let early = eu.gossip.ask(&region("us"), SHARD, noise(10), one_way).await.unwrap_err();
    assert!(matches!(early, AskError::OutOfTime { .. }), "{early}");
    assert!(!early.may_have_been_begun());
    assert_eq!(oracle.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_was_not_sent_whole_is_surely_not_answered() {
    let all = asking_pair(|_| tuning()).await;
    let [eu, us] = &all[..] else { unreachable!() };
    eu.cut(us);
    // More than the transport takes before the other side reads.
    let question = noise(9 * MIB);
    let within = Duration::from_millis(300);
    let late = asking(eu, "us", question.clone(), within).await.unwrap().unwrap_err();
    assert!(matches!(late, AskError::OutOfTime { .. }), "{late}");
    let lost = asking(eu, "us", question, SOON).await.unwrap().unwrap_err();
    assert!(matches!(lost, AskError::NotSent { .. }), "{lost}");
    assert!(!late.may_have_been_begun() && !lost.may_have_been_begun());
    eu.heal(us);
    eventually(SOON, "connected anew", || eu.link("us").sessions == 2).await;
    assert!(ask(eu, "us", noise(1)).await.is_ok());
    assert_eq!(us.log.oracle.asked().len(), 1, "only the last one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic(expected = "shard 7 is not gossiped")]
async fn asking_about_a_shard_that_there_is_not_is_a_bug() {
    let all = regions(&["eu", "us"]);
    let _ = all[0].gossip.ask(&region("us"), ShardId(7), Bytes::new(), SOON).await;
}
