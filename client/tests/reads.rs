//! Reads and subscriptions against nodes that answer from a script.

mod support;

use anabranch_client::{Client, From, Message, ReadError, event};
use anabranch_proto::convert::refused;
use anabranch_proto::v1::read_request::From as WireFrom;
use anabranch_proto::v1::refusal::{self, Reason};
use support::{End, Node, SHORT, batch, caught_up, cursor, dot, token};
use tonic::{Code, Status};

fn client(node: &Node) -> Client {
    Client::builder().region("us", [node.address.clone()]).seed(1).build().unwrap()
}
fn broken() -> End {
    End::Broken(Status::unavailable("the node is gone"))
}

#[tokio::test]
async fn a_subscription_goes_on_from_its_exact_cursor_when_the_stream_breaks() {
    let node = Node::start().await;
    let first = batch(&[("us", 1), ("eu", 3)], &[("us", 2), ("eu", 3)]);
    node.on_read(vec![first], broken());
    let second = batch(&[("us", 4)], &[("us", 4), ("eu", 3)]);
    node.on_read(vec![second, caught_up(&[("us", 4), ("eu", 5)])], End::Open);
    let mut subscription = client(&node).subscribe_category("cart").start();
    let mut seen = Vec::new();
    loop {
        match subscription.next().await.unwrap().unwrap() {
            Message::Event(event) => {
                seen.push((event.dot, subscription.cursor().unwrap()));
            }
            Message::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (dot("us", 1), cursor(&[("us", 2), ("eu", 2)])),
        (dot("eu", 3), cursor(&[("us", 2), ("eu", 3)])),
        (dot("us", 4), cursor(&[("us", 4), ("eu", 3)])),
    ];
    assert_eq!(seen, expected);
    assert_eq!(subscription.cursor(), Some(cursor(&[("us", 4), ("eu", 5)])));
    let asked = node.asked();
    assert_eq!(asked[1].from, Some(WireFrom::Cursor(cursor(&[("us", 2), ("eu", 3)]).encode())));
    assert!(asked[1].session_token.is_empty(), "the cursor is enough to never go back");
}

#[tokio::test]
async fn a_subscription_moves_to_another_region_with_its_cursor() {
    let (home, other) = (Node::start().await, Node::start().await);
    home.on_read(vec![batch(&[("us", 1)], &[("us", 1)])], broken());
    for _ in 0..50 {
        home.on_read(vec![], broken());
    }
    other.on_read(vec![batch(&[("eu", 1)], &[("us", 1), ("eu", 1)])], End::Open);
    let client = Client::builder()
        .region("us", [home.address.clone()])
        .fallback_region("eu", [other.address.clone()])
        .region_patience(SHORT)
        .build()
        .unwrap();
    let mut subscription = client.subscribe_all().start();
    for expected in [dot("us", 1), dot("eu", 1)] {
        assert_eq!(subscription.next_event().await.unwrap().unwrap().dot, expected);
    }
    assert_eq!(other.asked()[0].from, Some(WireFrom::Cursor(cursor(&[("us", 1)]).encode())));
}

#[tokio::test]
async fn a_bounded_read_that_breaks_asks_for_the_rest_only() {
    let node = Node::start().await;
    node.on_read(vec![batch(&[("us", 1), ("us", 2)], &[("us", 2)])], broken());
    node.on_read(vec![batch(&[("us", 3)], &[("us", 3)])], End::Clean);
    let events = client(&node).read_all().limit(3).collect().await.unwrap();
    let seqs: Vec<_> = events.iter().map(|event| event.dot.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let asked = node.asked();
    assert_eq!((asked[0].max_events, asked[1].max_events), (3, 1));
    assert_eq!(asked[1].from, Some(WireFrom::Cursor(cursor(&[("us", 2)]).encode())));
}

#[tokio::test]
async fn a_backward_read_that_breaks_goes_on_before_the_last_event() {
    let node = Node::start().await;
    node.on_read(vec![batch(&[("us", 9), ("us", 8)], &[])], broken());
    node.on_read(vec![batch(&[("us", 7)], &[])], End::Clean);
    let events = client(&node).read_stream("cart-1").backwards().collect().await.unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(node.asked()[1].from, Some(WireFrom::Revision(7)));
}

#[tokio::test]
async fn reads_carry_what_the_session_has_written_and_seen() {
    let node = Node::start().await;
    let client = client(&node);
    client.append("cart-1", event("Happened")).await.unwrap();
    node.on_read(vec![batch(&[("eu", 4)], &[("eu", 4)])], End::Clean);
    client.read_all().collect().await.unwrap();
    assert_eq!(node.asked()[0].session_token, token(&[("us", 1)]));
    assert_eq!(client.session().token(), token(&[("us", 1), ("eu", 4)]), "and what it has read");
}

#[tokio::test]
async fn a_read_that_nobody_can_serve_to_this_session_says_what_is_missing() {
    let node = Node::start().await;
    let missing = Some((&support::cut(&[("us", 9)])).into());
    for _ in 0..100 {
        let behind =
            Reason::NotCaughtUp(refusal::NotCaughtUp { missing: missing.clone(), waited_ms: 1 });
        let status = refused(Code::DeadlineExceeded, "behind", behind);
        node.on_read(vec![], End::Broken(status));
    }
    let error = client(&node).read_all().timeout(SHORT).collect().await.unwrap_err();
    let ReadError::NotCaughtUp { missing, .. } = error else { panic!("{error}") };
    assert_eq!(missing, support::cut(&[("us", 9)]));
}

#[tokio::test]
async fn a_cursor_does_not_resume_the_other_order() {
    let node = Node::start().await;
    let from = From::Cursor(cursor(&[("us", 2)]));
    let read = client(&node).read_all().from(from).order(anabranch_client::Order::Global);
    let error = read.collect().await.unwrap_err();
    assert!(matches!(error, ReadError::Invalid { .. }), "{error}");
    assert!(node.asked().is_empty());
}

#[tokio::test]
async fn a_reader_that_looks_often_and_briefly_loses_nothing() {
    let node = Node::start().await;
    node.on_read(vec![batch(&[("us", 1), ("us", 2)], &[("us", 2)])], broken());
    node.on_read(vec![batch(&[("us", 3)], &[("us", 3)])], End::Open);
    let mut subscription = client(&node).subscribe_all().start();
    let mut seqs = Vec::new();
    while seqs.len() < 3 {
        // Dropped at whatever it waits for: connecting, reading, or waiting to reconnect.
        let brief = std::time::Duration::from_micros(200);
        if let Ok(next) = tokio::time::timeout(brief, subscription.next_event()).await {
            seqs.push(next.unwrap().unwrap().dot.seq.0);
        }
    }
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(node.asked().len(), 2, "no connection was begun twice");
}

#[tokio::test]
async fn connections_are_made_by_the_connector_that_was_given() {
    let node = Node::start().await;
    node.on_read(vec![batch(&[("us", 1)], &[("us", 1)])], End::Clean);
    let real = node.address.trim_start_matches("http://").to_owned();
    let client = Client::builder()
        .region("us", ["http://node-a.simulated:7101"])
        .connector(move |uri| {
            assert_eq!(uri.host(), Some("node-a.simulated"));
            tokio::net::TcpStream::connect(real.clone())
        })
        .build()
        .unwrap();
    assert_eq!(client.read_all().collect().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_node_is_left_for_another_and_is_an_answer_if_there_is_none() {
    let damaged = || End::Broken(Status::data_loss("record 3 is damaged"));
    let (bad, good) = (Node::start().await, Node::start().await);
    bad.on_read(vec![batch(&[("us", 1)], &[("us", 1)])], damaged());
    let error = client(&bad).read_all().collect().await.unwrap_err();
    let ReadError::Refused { code: Code::DataLoss, message } = &error else { panic!("{error}") };
    assert_eq!(message, "record 3 is damaged");

    bad.on_read(vec![batch(&[("us", 1)], &[("us", 1)])], damaged());
    for node in [&bad, &good] {
        node.on_read(vec![batch(&[("us", 2)], &[("us", 2)])], End::Clean);
    }
    let both = [bad.address.clone(), good.address.clone()];
    let both = Client::builder().region("us", both).seed(1).build().unwrap();
    let events = both.read_all().collect().await.unwrap();
    assert!(!events.is_empty());
    assert_eq!(events.last().unwrap().dot, dot("us", 2));
}
