//! Writers that race through changes of the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch_core::event::ProducerTag;
use anabranch_core::sequencer::{Expectation, Expected, Submission};
use anabranch_core::{Event, ProducerId, Request, ShardId};
use anabranch_log::index::Direction;
use anabranch_server::node::Node;
use anabranch_server::shard::{AppendError, Appended, Shard};
use tokio::time::{sleep, timeout};

use super::{SOON, leader, region, start, start_all};

const STREAM: &str = "race-1";

fn submission(
    producer: Option<ProducerTag>,
    payload: &str,
    expected: Option<Expected>,
) -> Submission {
    let event = Event {
        stream: STREAM.into(),
        id: None,
        kind: "Happened".into(),
        metadata: BTreeMap::new(),
        payload: payload.as_bytes().to_vec().into(),
    };
    let expectation = |expected| Expectation { stream: STREAM.into(), expected };
    let request = Request { producer, events: vec![event] };
    Submission { request, expectations: expected.map(expectation).into_iter().collect() }
}

fn shards(nodes: &[Option<Node>]) -> Vec<Shard> {
    nodes.iter().flatten().map(|node| node.shards()[&ShardId(0)].clone()).collect()
}

async fn leading(shards: &[Shard]) -> Shard {
    let found = async {
        loop {
            let ready = |shard: &&Shard| shard.raft().leadership().borrow().ready;
            if let Some(shard) = shards.iter().find(ready) {
                return shard.clone();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, found).await.expect("a leader soon")
}

/// Moves the lead to another node, `times` times.
async fn move_the_lead(shards: &[Shard], times: usize) {
    for _ in 0..times {
        sleep(Duration::from_millis(300)).await;
        let moved = leading(shards).await.raft().transfer_leadership(None, SOON).await;
        moved.expect("everybody is up");
    }
}

/// What one writer knows: revisions it was told, and payloads of which it was told nothing.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<u64, String>,
    unknown: BTreeSet<String>,
}

async fn race(writer: usize, shards: Vec<Shard>, over: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for attempt in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let shard = leading(&shards).await;
        let head = shard.state().region(|region| region.stream(STREAM).map(|h| h.next_revision));
        let expected = head.map_or(Expected::NoStream, |next| Expected::Revision(next - 1));
        let payload = format!("{writer}/{attempt}");
        match shard.append(submission(None, &payload, Some(expected)), 1, SOON).await {
            Ok(appended) => {
                let revision = appended.receipt.last_revisions[0];
                assert_eq!(revision, head.unwrap_or(0), "what was expected was so");
                told.acknowledged.insert(revision, payload);
            }
            Err(AppendError::Unknown { .. }) => {
                told.unknown.insert(payload);
            }
            // Refused: nothing was written, which the end of the test holds against it.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expected_revisions_hold_through_changes_of_the_leader() {
    let (_dir, configs) = region(3);
    let nodes = start_all(&configs).await;
    leader(&nodes).await;
    let (shards, over) = (shards(&nodes), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|writer| tokio::spawn(race(writer, shards.clone(), Arc::clone(&over))))
        .collect();
    move_the_lead(&shards, 4).await;
    over.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for writer in writers {
        let told = writer.await.unwrap();
        for (revision, payload) in told.acknowledged {
            let other = acknowledged.insert(revision, payload);
            assert_eq!(other, None, "revision {revision} was given away twice");
        }
        unknown.extend(told.unknown);
    }
    assert!(acknowledged.len() > 20, "the race went on: {}", acknowledged.len());
    let shard = leading(&shards).await;
    let mut found = 0;
    loop {
        let store = shard.state().store();
        let page = store.read_stream(STREAM, found, Direction::Forward, 512, 1 << 20).unwrap();
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(event.revision, found, "revisions are dense");
            let payload = String::from_utf8(event.event.payload.to_vec()).unwrap();
            match acknowledged.remove(&found) {
                Some(told) => assert_eq!(told, payload),
                None => assert!(unknown.remove(&payload), "{payload} was refused, or is twice"),
            }
            found += 1;
        }
    }
    assert!(acknowledged.is_empty(), "acknowledged and lost: {acknowledged:?}");
    for node in nodes.iter().flatten() {
        node.drain().await;
    }
}

/// Appends until it is answered, as a client does, through whoever leads.
async fn insist(shards: &[Shard], tag: ProducerTag) -> Appended {
    loop {
        let payload = tag.sequence.to_string();
        match leading(shards).await.append(submission(Some(tag), &payload, None), 1, SOON).await {
            Ok(appended) => return appended,
            Err(AppendError::Fenced { .. } | AppendError::Forgotten { .. }) => panic!("not so"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_a_change_of_the_leader_and_after_a_restart_gets_the_first_result() {
    let (_dir, configs) = region(3);
    let mut nodes = start_all(&configs).await;
    leader(&nodes).await;
    let group = shards(&nodes);
    let tag = |sequence| ProducerTag { id: ProducerId([9; 16]), epoch: 1, sequence };
    let mover = {
        let group = group.clone();
        tokio::spawn(async move { move_the_lead(&group, 2).await })
    };
    let mut first = Vec::new();
    let mut sequence = 0;
    while !mover.is_finished() || sequence < 50 {
        sequence += 1;
        first.push(insist(&group, tag(sequence)).await.receipt);
    }
    mover.await.unwrap();
    let check = async |shards: &[Shard]| {
        for receipt in &first {
            let sequence = receipt.first.0;
            let again = insist(shards, tag(sequence)).await;
            assert!(again.repeated);
            assert_eq!(again.receipt, *receipt);
        }
        let events = leading(shards).await.state().region(|region| region.position());
        assert_eq!(events, first.len() as u64, "nothing was written twice");
    };
    check(&group).await;
    drop(group);
    for node in nodes.iter_mut() {
        node.take().unwrap().drain().await;
    }
    for (node, config) in nodes.iter_mut().zip(&configs) {
        *node = Some(start(config).await);
    }
    leader(&nodes).await;
    check(&shards(&nodes)).await;
    for node in nodes.iter().flatten() {
        node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_quorum_does_not_report_conflicts_it_cannot_be_sure_of() {
    let (_dir, configs) = region(3);
    let nodes = start_all(&configs).await;
    leader(&nodes).await;
    let shards = shards(&nodes);
    let shard = leading(&shards).await;
    let failing = || submission(None, "second", Some(Expected::NoStream));
    shard.append(submission(None, "first", None), 1, SOON).await.expect("it leads");
    // With a quorum the refusal is certain, and says why.
    let refused = shard.append(failing(), 1, SOON).await;
    assert!(matches!(refused, Err(AppendError::Conflicts(_))), "{refused:?}");
    let me = shard.raft().identity().node();
    for other in shards.iter().filter(|other| other.raft().identity().node() != me) {
        other.raft().shutdown().await;
    }
    // Another leader could have changed the stream by now, as far as this one knows.
    let refused = shard.append(failing(), 1, SOON).await;
    let honest = matches!(refused, Err(AppendError::NoQuorum | AppendError::NotLeader { .. }));
    assert!(honest, "{refused:?}");
    for node in nodes.into_iter().flatten() {
        node.drain().await;
    }
}
