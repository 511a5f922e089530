//! Appends against nodes that answer from a script.

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use anabranch_client::{AppendError, Client, Doubt, Expect, Regions, event};
use anabranch_proto::convert::refused;
use anabranch_proto::v1;
use anabranch_proto::v1::refusal::{self, Reason};
use support::{Answer, Node, SHORT, token};
use tonic::{Code, Status};

fn gone() -> Answer {
    Answer::Refuse(Status::unavailable("the leader is gone"))
}

fn client(nodes: &[&Node]) -> Client {
    let addresses = nodes.iter().map(|node| node.address.clone());
    Client::builder().region("us", addresses).seed(1).build().unwrap()
}

#[tokio::test]
async fn an_unanswered_append_is_retried_as_the_same_one_and_yields_the_first_result() {
    let node = Node::start().await;
    node.on_append(gone());
    let client = client(&[&node]);
    let appended = client.append("cart-1", event("Happened")).await.unwrap();
    assert!(appended.repeated);
    assert_eq!(appended.revision_of("cart-1"), Some(0));
    let sent = node.appended();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].producer, sent[1].producer, "the same triple");
    assert_eq!(client.session().token(), token(&[("us", 1)]), "the session has seen the write");

    client.append("cart-1", event("Happened")).await.unwrap();
    let sequence = |at: usize| node.appended()[at].producer.clone().unwrap().sequence;
    assert_eq!((sequence(0), sequence(2)), (1, 2), "another append is another sequence");
}

#[tokio::test]
async fn small_appends_share_a_call_and_an_old_node_gets_each_in_its_own() {
    let (node, old) = (Node::start().await, Node::start_old().await);
    for node in [&node, &old] {
        let client = client(&[node]);
        let append = |_| client.append("cart-1", event("Happened")).into_future();
        let all = futures_util::future::join_all((0..20).map(append)).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let large = event("Happened").payload(vec![0; 100_000]);
        client.append("cart-1", large).await.unwrap();
        assert_eq!(node.appended().len(), 21);
    }
    assert_eq!((node.script.lock().lanes, old.script.lock().lanes), (1, 0));
}

#[tokio::test]
async fn a_shared_call_that_ends_leaves_everything_in_it_in_doubt_and_is_made_anew() {
    let node = Node::start().await;
    node.on_append(Answer::Hang).on_append(Answer::Hang).on_append(Answer::EndCall);
    let client = client(&[&node]);
    let append = |_| client.append("cart-1", event("Happened")).into_future();
    let all = futures_util::future::join_all((0..3).map(append)).await;
    assert!(all.iter().all(|appended| appended.as_ref().is_ok_and(|a| a.repeated)), "{all:?}");
    assert_eq!((node.appended().len(), node.script.lock().lanes), (6, 2));
}

#[tokio::test]
async fn a_conflict_is_typed_and_not_retried() {
    let node = Node::start().await;
    let expectation = v1::Expectation {
        stream: "cart-1".into(),
        expected: Some(v1::expectation::Expected::Revision(3)),
    };
    let conflict = refusal::Conflict { expectation: Some(expectation), actual: Some(5) };
    let reason = Reason::Conflicts(refusal::Conflicts { conflicts: vec![conflict], more: 0 });
    node.on_append(Answer::Refuse(refused(Code::FailedPrecondition, "conflict", reason)));
    let append = client(&[&node]).append("cart-1", event("Happened"));
    let error = append.expect(Expect::Revision(3)).await.unwrap_err();
    let AppendError::Conflict { conflicts } = error else { panic!("{error}") };
    assert_eq!(conflicts[0].stream, "cart-1");
    assert_eq!((conflicts[0].expected, conflicts[0].actual), (Expect::Revision(3), Some(5)));
    assert_eq!(node.appended().len(), 1);
}

#[tokio::test]
async fn the_leader_that_is_named_is_followed_and_remembered() {
    let (follower, leader) = (Node::start().await, Node::start().await);
    // As nodes advertise it: without a scheme.
    let address = leader.address.trim_start_matches("http://").to_owned();
    let reason = Reason::NotLeader(refusal::NotLeader { leader: address });
    follower.on_append(Answer::Refuse(refused(Code::Unavailable, "not the leader", reason)));
    let client = client(&[&follower]);
    client.append("cart-1", event("Happened")).await.unwrap();
    client.append("cart-1", event("Happened")).await.unwrap();
    assert_eq!((follower.appended().len(), leader.appended().len()), (1, 2));
}

#[tokio::test]
async fn an_append_without_an_answer_until_the_deadline_is_unknown_and_can_be_retried() {
    let node = Node::start().await;
    node.on_append(Answer::Hang);
    let client = client(&[&node]);
    let append = client.append("cart-1", event("Happened")).timeout(SHORT);
    let error = append.await.unwrap_err();
    let AppendError::Unknown { ticket, waited, doubt: Doubt::NoAnswer { .. } } = error else {
        panic!("{error}");
    };
    assert!(waited >= SHORT, "{waited:?}");
    let retried = client.append("cart-1", event("Happened")).retry_of(ticket).await.unwrap();
    assert!(retried.repeated, "the same triple");
}

#[tokio::test]
async fn a_refusal_after_an_unanswered_attempt_stays_unknown() {
    let node = Node::start().await;
    let reason = Reason::Conflicts(refusal::Conflicts::default());
    node.on_append(gone());
    node.on_append(Answer::Refuse(refused(Code::FailedPrecondition, "conflict", reason)));
    let error = client(&[&node]).append("cart-1", event("Happened")).await.unwrap_err();
    let AppendError::Unknown { doubt: Doubt::RefusedLater { .. }, .. } = error else {
        panic!("{error}");
    };
}

#[tokio::test]
async fn an_overloaded_region_is_asked_again_when_it_said() {
    let node = Node::start().await;
    let busy = refusal::Overload { what: "log".into(), retry_after_ms: 150 };
    let status = refused(Code::ResourceExhausted, "busy", Reason::Overload(busy));
    node.on_append(Answer::Refuse(status));
    let asked = tokio::time::Instant::now();
    let appended = client(&[&node]).append("cart-1", event("Happened")).await;
    assert!(appended.is_ok() && asked.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn an_unanswered_append_is_not_sent_to_another_region_unless_that_is_allowed() {
    let (home, other) = (Node::start().await, Node::start().await);
    let client = Client::builder()
        .region("us", [home.address.clone()])
        .fallback_region("eu", [other.address.clone()])
        .region_patience(Duration::ZERO)
        .build()
        .unwrap();
    for _ in 0..100 {
        home.on_append(gone());
    }
    let append = || client.append("cart-1", event("Happened")).timeout(SHORT);
    assert!(append().await.unwrap_err().is_unknown());
    assert!(other.appended().is_empty());
    append().retry_elsewhere(true).await.unwrap();
    assert_eq!(other.appended().len(), 1);
}

#[tokio::test]
async fn an_append_goes_to_a_fallback_region_if_it_never_left_and_expects_nothing() {
    let other = Node::start().await;
    // Bound and closed again: nobody listens there.
    let vacant = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = vacant.local_addr().unwrap().to_string();
    drop(vacant);
    let client = Client::builder()
        .region("us", [address])
        .fallback_region("eu", [other.address.clone()])
        .build()
        .unwrap();
    let append = || client.append("cart-1", event("Happened")).timeout(SHORT);
    let error = append().expect(Expect::NoStream).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error}: refused, not unknown");
    let appended = append().await.unwrap();
    assert_eq!(appended.ticket.region, "eu");
}

#[tokio::test]
async fn durable_in_too_few_regions_is_neither_refused_nor_unknown() {
    let node = Node::start().await;
    let appended = v1::AppendResponse {
        first: Some((&support::dot("us", 7)).into()),
        events: 1,
        session_token: token(&[("us", 7)]),
        ..Default::default()
    };
    let short = refusal::RegionsShort { wanted: 2, reached: 1, appended: Some(appended) };
    let status = refused(Code::DeadlineExceeded, "short", Reason::RegionsShort(short));
    node.on_append(Answer::Refuse(status));
    let client = client(&[&node]);
    let append = client.append("cart-1", event("Happened")).acknowledge(Regions(2), SHORT);
    let error = append.await.unwrap_err();
    assert!(!error.is_refused() && !error.is_unknown());
    let AppendError::RegionsShort { appended, .. } = error else { panic!("{error}") };
    assert_eq!(appended.first, support::dot("us", 7));
    assert_eq!(client.session().token(), token(&[("us", 7)]));
    assert_eq!(node.appended()[0].regions, 2);
}

#[tokio::test]
async fn other_regions_are_waited_for_as_long_as_was_asked_and_only_if_there_are_any() {
    let node = Node::start().await;
    let client = client(&[&node]);
    const FAR: Duration = Duration::from_secs(60);
    let append = |regions, within| {
        client.append("cart-1", event("Happened")).acknowledge(Regions(regions), within)
    };
    append(2, Duration::ZERO).await.unwrap();
    append(2, Duration::from_millis(700)).await.unwrap();
    append(1, FAR).await.unwrap();
    let asked: Vec<_> =
        node.appended().iter().map(|a| (a.regions, a.regions_deadline_ms)).collect();
    assert_eq!(asked, [(2, 1), (2, 700), (1, 0)], "0 would be as long as the call may take");

    node.on_append(Answer::Hang);
    let own = append(1, FAR).timeout(SHORT).into_future();
    let own = tokio::time::timeout(FAR / 2, own).await.expect("nobody else is waited for");
    assert!(own.unwrap_err().is_unknown());
}
