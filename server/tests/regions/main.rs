//! Three regions of one node each, in one process: real QUIC on loopback, logs on memory disks.

mod clocks;
mod derived;
mod homes;
#[path = "../support/ports.rs"]
mod ports;
mod relay;
mod set_back;
mod world;

use std::time::Duration;

use anabranch_core::sequencer::{Expectation, Expected, Submission};
use anabranch_server::shard::AppendError;
use world::{World, event, submission};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_regions_write_at_once_and_end_with_the_same_history() {
    let world = World::start(&["asia", "europe", "us"]).await;
    let mut writers = Vec::new();
    for region in 0..3 {
        let shard = world.shard(region);
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                // Ten streams, written by everybody.
                let stream = format!("cart-{}", n % 10);
                let payload = format!("{region}/{n}");
                shard.append(submission(&stream, &payload), 1, SOON).await.expect("it leads");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no writer fails");
    }
    world.converged(150, SOON).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_was_cut_off_catches_up_and_nothing_is_repeated() {
    let world = World::start(&["asia", "europe", "us"]).await;
    world.append(0, "a-1", "before").await;
    world.converged(1, SOON).await;
    world.cut_off(2);
    for n in 0..40 {
        world.append(n % 3, "a-1", &n.to_string()).await;
    }
    // The two that see each other go on; the global order waits for the third.
    world.holds(0, 1 + 27, SOON).await;
    let waits = world.shard(0).state().order().position;
    world.heal(2);
    world.converged(41, SOON).await;
    assert!(waits < 41, "the global order waited for the region that was cut off");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_order_waits_for_a_region_and_nobody_writes_the_logs_rest() {
    let world = World::start(&["asia", "europe", "us"]).await;
    world.append(0, "a-1", "before").await;
    world.converged(1, SOON).await;
    world.cut_off(2);
    world.append(0, "a-1", "while cut").await;
    world.holds(1, 2, SOON).await;
    let index = |region: usize| world.shard(region).state().applied().borrow().index;
    // Promises go on for a second after the last event, then they would help nobody.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rested = [index(0), index(1)];
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!([index(0), index(1)], rested, "entries written while nothing happens");
    assert_eq!(world.shard(0).state().order().position, 1, "the order waits");
    world.heal(2);
    world.converged(2, SOON).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_region_goes_on_with_the_same_history() {
    let mut world = World::start(&["asia", "europe", "us"]).await;
    for n in 0..30 {
        world.append(n % 3, "a-1", &n.to_string()).await;
    }
    world.converged(30, SOON).await;
    world.restart(1).await;
    for n in 0..30 {
        world.append(n % 3, "a-1", &n.to_string()).await;
    }
    world.converged(60, SOON).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgement_by_two_regions_waits_for_a_second_one() {
    let world = World::start(&["asia", "europe", "us"]).await;
    let appended = world.shard(0).append(submission("a-1", "x"), 2, SOON).await.expect("both up");
    assert!(appended.regions >= 2);
    for region in [1, 2] {
        world.cut_off(region);
    }
    let short = Duration::from_millis(300);
    match world.shard(0).append(submission("a-1", "y"), 3, short).await {
        Err(AppendError::RegionsShort { wanted: 3, reached: 1, .. }) => {}
        other => panic!("nobody can hold it: {other:?}"),
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_that_expect_no_stream_one_succeeds() {
    let world = World::start(&["solo"]).await;
    let attempts = (0..32).map(|n| {
        let shard = world.shard(0);
        let expectation = Expectation { stream: "name-x".into(), expected: Expected::NoStream };
        let submission = Submission {
            expectations: vec![expectation],
            request: anabranch_core::Request {
                producer: None,
                events: vec![event("name-x", &n.to_string())],
            },
        };
        tokio::spawn(async move { shard.append(submission, 1, SOON).await })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.expect("no writer fails") {
            Ok(_) => won += 1,
            Err(AppendError::Conflicts(conflicts)) => assert_eq!(conflicts[0].actual, Some(0)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    world.stop().await;
}
