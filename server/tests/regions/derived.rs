//! What is derived may be deleted while a region is down: every answer is the same afterwards.

use anabranch_core::event::ProducerTag;
use anabranch_core::sequencer::Submission;
use anabranch_core::{Dot, ProducerId, Request};
use anabranch_log::index::Direction;
use anabranch_server::shard::{Shard, ShardState};

use super::SOON;
use super::world::{Derived, World, event};

/// Events a submission; enough of them pass marks of the global order.
const EVENTS: u64 = 20;

fn tagged(region: usize, sequence: u64) -> Submission {
    let producer = Some(ProducerTag { id: ProducerId([region as u8; 16]), epoch: 1, sequence });
    let named = |n: u64| event(&format!("cart-{}", (sequence + n) % 7), &format!("{region}/{n}"));
    let events = (0..EVENTS).map(named).collect();
    Submission { request: Request { producer, events }, expectations: Vec::new() }
}

/// What a reader can learn of a region.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    regional: Vec<(u64, u64, Dot)>,
    streams: Vec<Vec<(u64, u64)>>,
    order: anabranch_server::shard::order::OrderView,
    mark: Option<anabranch_core::order::Mark>,
    peers: Vec<anabranch_core::RegionName>,
}

fn answers(state: &ShardState) -> Answers {
    let store = state.store();
    let mut regional = Vec::new();
    loop {
        let from = regional.len() as u64;
        let slices = store.read_positions(from, Direction::Forward, 512, 1 << 20).unwrap();
        if slices.is_empty() {
            break;
        }
        let events = slices.iter().flat_map(|slice| slice.events());
        regional.extend(events.map(|e| (e.position, e.revision, e.dot())));
    }
    let stream = |n: u64| {
        let name = format!("cart-{n}");
        let mut found = Vec::new();
        loop {
            let from = found.len() as u64;
            let page = store.read_stream(&name, from, Direction::Forward, 512, 1 << 20).unwrap();
            if page.is_empty() {
                return found;
            }
            found.extend(page.iter().map(|e| (e.revision, e.position)));
        }
    };
    let peers = state.region(|region| region.peers().map(|d| d.origin.region.clone()).collect());
    let mark = state.seek_global(u64::MAX);
    Answers { regional, streams: (0..7).map(stream).collect(), order: state.order(), mark, peers }
}

async fn first_result_again(shard: &Shard, region: usize, sequence: u64) -> u64 {
    let appended = shard.append(tagged(region, sequence), 1, SOON).await.expect("it leads");
    assert!(appended.repeated, "the retry is recognised");
    appended.receipt.position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_without_its_derived_files_gives_the_same_answers() {
    let mut world = World::start(&["asia", "europe"]).await;
    let (mut receipts, mut events) = (Vec::new(), 0);
    for sequence in 1..=60 {
        for region in [0, 1] {
            let shard = world.shard(region);
            let appended = shard.append(tagged(region, sequence), 1, SOON).await.unwrap();
            assert!(!appended.repeated);
            events += EVENTS;
            if region == 0 {
                receipts.push(appended.receipt.position);
            }
        }
    }
    world.converged(events, SOON).await;
    let before = answers(world.shard(0).state());
    assert_eq!(before.regional.len() as u64, events);
    assert!(before.mark.as_ref().is_some_and(|mark| mark.position >= 1024), "marks were passed");
    for deleted in [Derived::Nothing, Derived::Checkpoints, Derived::Index, Derived::Everything] {
        world.restart_without(0, deleted).await;
        world.converged(events, SOON).await;
        assert_eq!(answers(world.shard(0).state()), before, "{deleted:?}");
        for (sequence, position) in (1..).zip(&receipts) {
            let shard = world.shard(0);
            assert_eq!(first_result_again(&shard, 0, sequence).await, *position, "{deleted:?}");
        }
    }
    // It still takes part.
    for region in [0, 1] {
        world.append(region, "cart-0", "after").await;
    }
    world.converged(events + 2, SOON).await;
    world.stop().await;
}
