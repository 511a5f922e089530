//! Raft groups over loopback, real logs, and disks that lose power.

mod cluster;
mod cuttable;
mod full;
mod machine;
mod memory;
#[path = "../support/ports.rs"]
mod ports;
mod secure;
mod shards;

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_core::{Incarnation, RegionName};
use anabranch_proto::internal::{Frame, raft_client::RaftClient};
use anabranch_server::raft::{MembershipError, ProposeError, Role};
use bytes::Bytes;
use cluster::{Cluster, SOON, TIMINGS, TestNode, eventually};
use machine::{POISON, REFUSED};
use tokio::time::{sleep, timeout};

fn text(n: usize) -> Bytes {
    Bytes::from(format!("command {n}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_applied_everywhere_in_the_order_of_the_calls() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let group = cluster.nodes[&leader].group();
    // All are submitted before the first is awaited, and they are awaited backwards.
    let proposals: Vec<_> = (0..2000).map(|n| group.propose(text(n))).collect();
    let mut indexes = Vec::new();
    for proposal in proposals.into_iter().rev() {
        indexes.push(proposal.await.unwrap().index);
    }
    indexes.reverse();
    assert!(indexes.is_sorted_by(|a, b| a < b));
    cluster.converge().await;
    let expected: Vec<_> = (0..2000).map(text).chain([Bytes::from("marker")]).collect();
    assert_eq!(cluster.nodes[&1].tally.lock().payloads(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_command_is_committed_and_answered_as_refused() {
    let cluster = Cluster::start(1).await;
    let refused = cluster.write(REFUSED).await.unwrap();
    assert_ne!(refused.outcome, anabranch_core::region::Outcome::Accepted);
    let accepted = cluster.write("fine").await.unwrap();
    assert_eq!(accepted.outcome, anabranch_core::region::Outcome::Accepted);
    assert_eq!(accepted.index, refused.index + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_leaders_lose_power() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        let group = cluster.nodes[&leader].group().clone();
        let proposals: Vec<_> = (0..200).map(|n| group.propose(text(round * 1000 + n))).collect();
        let writing = tokio::spawn(async move {
            let mut done = Vec::new();
            for (n, proposal) in proposals.into_iter().enumerate() {
                if proposal.await.is_ok() {
                    done.push(text(round * 1000 + n));
                }
            }
            done
        });
        sleep(Duration::from_millis(3 * (round as u64 + 1))).await;
        cluster.node(leader).crash().await;
        acknowledged.extend(timeout(SOON, writing).await.unwrap().unwrap());
        acknowledged.push(text(round * 1000 + 999));
        cluster.write(text(round * 1000 + 999)).await.unwrap();
        cluster.node(leader).start().await;
    }
    cluster.converge().await;
    let held = cluster.nodes[&1].tally.lock().payloads();
    for payload in &acknowledged {
        let copies = held.iter().filter(|other| *other == payload).count();
        assert_eq!(copies, 1, "{payload:?} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_every_node_loses_power() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let group = cluster.nodes[&leader].group().clone();
    let proposals: Vec<_> = (0..300).map(|n| group.propose(text(n))).collect();
    let mut acknowledged = Vec::new();
    for (n, proposal) in proposals.into_iter().enumerate().take(200) {
        acknowledged.push((proposal.await.unwrap().index, text(n)));
    }
    for node in cluster.nodes.values() {
        node.disk.crash();
    }
    for node in cluster.nodes.values_mut() {
        node.crash().await;
        node.start().await;
    }
    cluster.converge().await;
    let tally = cluster.nodes[&1].tally.lock();
    assert_eq!(tally.applied[..200], acknowledged[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let away = cluster.follower().await;
    cluster.node(away).stop().await;
    let leader = cluster.leader().await;
    let group = cluster.nodes[&leader].group();
    // More than one message to a follower, and more than one segment of the log.
    let proposals: Vec<_> =
        (0..300).map(|n| group.propose(Bytes::from(vec![n as u8; 32 * 1024]))).collect();
    for proposal in proposals {
        proposal.await.unwrap();
    }
    cluster.node(away).start().await;
    cluster.converge().await;
    let status = cluster.nodes[&cluster.leader().await].group().status();
    assert_eq!(status.followers.len(), 2, "{status:?}");
    assert_eq!(status.voters.len(), 3, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_nodes_join_while_writes_go_on() {
    let mut cluster = Cluster::start(1).await;
    for n in 0..500 {
        cluster.write(text(n)).await.unwrap();
    }
    let group = cluster.nodes[&1].group().clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut n = 500;
        while stopped.try_recv().is_err() {
            group.propose(text(n)).await.unwrap();
            n += 1;
        }
        n
    });
    for id in [2, 3] {
        let mut node = TestNode::new(id);
        node.start().await;
        cluster.nodes.insert(id, node);
    }
    let members = cluster.members();
    let group = cluster.nodes[&1].group();
    group.change_membership(members.clone(), SOON).await.unwrap();
    stop.send(()).unwrap();
    let written = writing.await.unwrap();
    assert!(written > 500, "writes went on");
    cluster.converge().await;
    assert_eq!(cluster.nodes[&3].tally.lock().applied.len(), written + 1);
    assert_eq!(cluster.nodes[&1].group().status().voters, members);
    // The newcomers carry the group without the first node.
    cluster.node(1).crash().await;
    cluster.write("without the first").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_be_reached_does_not_get_a_vote() {
    let cluster = Cluster::start(1).await;
    let absent = TestNode::new(2);
    let mut members = cluster.members();
    members.insert(2, absent.node());
    let group = cluster.nodes[&1].group();
    let deadline = Duration::from_secs(1);
    // Nor does it if it is asked for again, now that it is known.
    for _ in 0..2 {
        let refused = group.change_membership(members.clone(), deadline).await.unwrap_err();
        assert_eq!(refused, MembershipError::Behind { nodes: vec![2], deadline });
    }
    let status = group.status();
    assert_eq!(status.voters.len(), 1);
    assert_eq!(status.learners.len(), 1);
    cluster.write("goes on").await.unwrap();
    // Whoever asks for the members that there are takes it back.
    group.change_membership(cluster.members(), SOON).await.unwrap();
    assert_eq!(group.status().learners, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_can_be_corrected_as_long_as_the_node_has_no_vote() {
    let mut cluster = Cluster::start(1).await;
    let mut node = TestNode::new(2);
    node.start().await;
    let mut wrong = cluster.members();
    wrong.insert(2, TestNode::new(2).node());
    let group = cluster.nodes[&1].group().clone();
    let deadline = Duration::from_millis(500);
    let refused = group.change_membership(wrong.clone(), deadline).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Behind { .. }), "{refused:?}");
    cluster.nodes.insert(2, node);
    group.change_membership(cluster.members(), SOON).await.unwrap();
    cluster.converge().await;
    assert_eq!(group.status().voters, cluster.members());
    let refused = group.change_membership(wrong, SOON).await.unwrap_err();
    assert!(matches!(refused, MembershipError::AddressChanged { node: 2, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_is_shown_until_it_is_done_and_can_be_asked_for_again() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let stays = cluster.follower().await;
    let mut members = cluster.members();
    members.retain(|id, _| [leader, stays].contains(id));
    assert!(!cluster.nodes[&leader].group().status().changing);
    // The new members need both, so the change cannot finish; the old ones need any two.
    cluster.node(stays).crash().await;
    let group = cluster.nodes[&leader].group();
    let given_up = group.change_membership(members.clone(), Duration::from_secs(1)).await;
    assert!(matches!(given_up, Err(MembershipError::Unknown { .. })), "{given_up:?}");
    let status = group.status();
    assert!(status.changing && status.voters.len() == 3, "{status:?}");
    cluster.node(stays).start().await;
    let group = cluster.nodes[&cluster.leader().await].group();
    let again = tokio::time::timeout(SOON, async {
        while group.change_membership(members.clone(), SOON).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.unwrap();
    let status = group.status();
    assert!(!status.changing && status.voters == members, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_who_is_asked() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    cluster.write("before").await.unwrap();
    let group = cluster.nodes[&leader].group();
    let term = group.leadership().borrow().term;
    assert_eq!(group.transfer_leadership(Some(follower), SOON).await, Ok(follower));
    cluster.nodes[&follower].wait_leadership(|seen| seen.ready).await;
    // The old leader's term is over: what was computed in it is refused everywhere.
    let late = cluster.nodes[&follower].group().propose_in(term, text(1)).await;
    assert!(matches!(late, Err(ProposeError::NotLeader { .. })), "{late:?}");
    cluster.write("after").await.unwrap();
    cluster.converge().await;
    assert!(!cluster.nodes[&1].tally.lock().payloads().contains(&text(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_refuse_and_name_the_leader() {
    let cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let group = cluster.nodes[&follower].group();
    cluster.nodes[&follower].wait_leadership(|seen| seen.leader.is_some()).await;
    let node = cluster.nodes[&leader].node();
    let refused = group.propose(text(1)).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: Some((leader, node)) });
    assert!(group.read_index(SOON).await.is_err());
    cluster.converge().await;
    assert!(!cluster.nodes[&leader].tally.lock().payloads().contains(&text(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_quorum_leaves_what_it_wrote_unknown_then_refuses() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    for other in others {
        cluster.node(other).crash().await;
    }
    let group = cluster.nodes[&leader].group().clone();
    let written = group.propose(text(1));
    // The lease runs out: later proposals are refused before they are written.
    sleep(TIMINGS.election_max * 2).await;
    let refused = group.propose(text(2)).await.unwrap_err();
    assert!(refused.refused(), "{refused:?}");
    let unsure = group.read_index(Duration::from_millis(500)).await;
    assert!(unsure.is_err(), "{unsure:?}");
    group.shutdown().await;
    let unknown = timeout(SOON, written).await.unwrap().unwrap_err();
    assert!(matches!(unknown, ProposeError::Unknown { .. }), "{unknown:?}");
    let stopped = group.propose(text(3)).await.unwrap_err();
    assert!(matches!(stopped, ProposeError::Stopped { .. }), "{stopped:?}");
    assert!(!group.leadership().borrow().mine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_replays_from_its_checkpoint_only() {
    let mut cluster = Cluster::start(1).await;
    for n in 0..50 {
        cluster.write(text(n)).await.unwrap();
    }
    let node = cluster.node(1);
    node.tally.lock().checkpoint();
    let checkpointed = node.tally.lock().index;
    for n in 50..80 {
        cluster.write(text(n)).await.unwrap();
    }
    cluster.node(1).crash().await;
    cluster.node(1).start().await;
    let last = cluster.write("after").await.unwrap().index;
    let tally = cluster.nodes[&1].tally.lock();
    let expected: Vec<_> = (0..80).map(text).chain([Bytes::from("after")]).collect();
    assert_eq!(tally.payloads(), expected);
    assert!(tally.applied_now.iter().all(|index| *index > checkpointed), "{tally:?}");
    assert_eq!(tally.applied_now.len(), 31);
    assert_eq!(tally.index, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_confirmed_by_a_quorum_at_the_last_write() {
    let cluster = Cluster::start(3).await;
    let written = cluster.write(text(1)).await.unwrap();
    let leader = cluster.leader().await;
    let index = cluster.nodes[&leader].group().read_index(SOON).await.unwrap();
    assert!(index >= written.index, "{index} is before {}", written.index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_machine_stops_the_shard_and_says_why() {
    let cluster = Cluster::start(1).await;
    let group = cluster.nodes[&1].group();
    let mut fatal = group.fatal();
    assert_eq!(*fatal.borrow(), None);
    let poisoned = group.propose(Bytes::from_static(POISON)).await.unwrap_err();
    assert!(matches!(poisoned, ProposeError::Unknown { .. }), "{poisoned:?}");
    let reason = timeout(SOON, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(reason.as_ref().unwrap().contains("poisoned"), "{reason:?}");
    eventually("the group is stopped", || group.status().role == Role::Stopped).await;
    let refused = group.propose(text(1)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Stopped { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_shard_and_the_others_go_on() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].disk.fail_sync(1);
    let group = cluster.nodes[&leader].group();
    let mut fatal = group.fatal();
    drop(group.propose(text(1)));
    let reason = timeout(SOON, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(reason.as_ref().unwrap().contains("log"), "{reason:?}");
    eventually("another leads", || {
        let mut others = cluster.nodes.values().filter(|node| node.id != leader);
        others.any(|node| node.group().leadership().borrow().ready)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_region_life_or_node_are_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[&1];
    node.group().identity().learn(Incarnation(7));
    let before = node.group().status();
    let mut client = RaftClient::connect(format!("http://{}", node.address)).await.unwrap();
    // A vote in a far later term, which Raft would have to believe.
    let vote = Bytes::from_static(&[0xff, 0x7f, 9, 0, 0, 0]);
    let frame = Frame {
        region: "eu".to_owned(),
        incarnation: Bytes::new(),
        shard: 0,
        from: 9,
        to: 1,
        body: vote,
        ..Frame::default()
    };
    let us = Frame { region: "us".to_owned(), ..frame.clone() };
    let earlier = 6u128.to_be_bytes().to_vec();
    let life = Frame { incarnation: earlier.into(), ..frame.clone() };
    let other = Frame { to: 2, ..frame.clone() };
    for (stranger, word) in [(us, "region"), (life, "incarnation"), (other, "node 2")] {
        let refused = client.vote(stranger.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains(word), "{refused}");
        let stream = futures_util::stream::iter([stranger]);
        let mut replies = client.append(stream).await.unwrap().into_inner();
        let refused = replies.message().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }
    assert_eq!(node.group().status().term, before.term);
    let elsewhere = client.vote(Frame { shard: 5, ..frame.clone() }).await.unwrap_err();
    assert_eq!(elsewhere.code(), tonic::Code::NotFound);
    // The same frame from a node of the region reaches Raft, which answers.
    client.vote(frame).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_region_never_joins() {
    let mut cluster = Cluster::start(1).await;
    let mut stranger = TestNode::new(2);
    stranger.region = RegionName::new("us").unwrap();
    stranger.start().await;
    cluster.keeps_out(stranger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cut_off_silently_comes_back_without_deposing_the_leader() {
    let cluster = Cluster::start(3).await;
    cluster.converge().await;
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let term = cluster.nodes[&leader].group().status().term;
    cluster.nodes[&away].net.cut();
    for n in 0..50 {
        cluster.write(text(n)).await.unwrap();
    }
    // Long enough for it to ask for votes several times, were it to ask without a pre-vote.
    sleep(TIMINGS.election_max * 3).await;
    let lag = cluster.nodes[&leader].group().status().followers[&away].lag;
    assert!(lag >= 50, "it was cut off: {lag}");
    cluster.nodes[&away].net.heal();
    cluster.converge().await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.nodes[&leader].group().status().term, term, "no election was needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_silently_is_replaced_and_rejoins() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    cluster.nodes[&old].net.cut();
    let lost = cluster.nodes[&old].group().propose(text(1));
    let replaced = || {
        let mut others = cluster.nodes.values().filter(|node| node.id != old);
        others.any(|node| node.group().leadership().borrow().ready)
    };
    eventually("another leads", replaced).await;
    let new = cluster
        .nodes
        .values()
        .find(|node| node.id != old && node.group().leadership().borrow().mine);
    let written = new.unwrap().group().propose(text(2)).await.unwrap();
    cluster.nodes[&old].net.heal();
    // The old leader's entry was overwritten; it cannot know whether the others had it.
    let unknown = timeout(SOON, lost).await.unwrap().unwrap_err();
    assert!(!unknown.refused(), "{unknown:?}");
    cluster.nodes[&old].wait_applied(written.index).await;
    cluster.nodes[&old].wait_leadership(|seen| !seen.mine).await;
    cluster.converge().await;
    let held = cluster.nodes[&old].tally.lock().payloads();
    assert!(held.contains(&text(2)) && !held.contains(&text(1)));
}
