//! The services as callers meet them: over gRPC, at the nodes of a small region.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::event::ProducerTag;
use anabranch_core::{Context, Limits, ProducerId, SessionToken};
use anabranch_proto::v1::aggregates_client::AggregatesClient;
use anabranch_proto::v1::cluster_client::ClusterClient;
use anabranch_proto::v1::events_client::EventsClient;
use anabranch_proto::v1::read_request::{All, Target};
use anabranch_proto::v1::read_response::Frame;
use anabranch_proto::v1::refusal::Reason;
use anabranch_proto::v1::{self, expectation};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::cluster::{Cluster, SOON};
use super::{append_of, event, expect, reason};
use crate::api::ApiSettings;
use crate::api::forward::{Leaders, answer};
use crate::api::refusal::of_append;
use crate::env::TokioNet;
use crate::raft::Node;
use crate::shard::AppendError;

fn read_all() -> v1::ReadRequest {
    v1::ReadRequest { target: Some(Target::All(All {})), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_over_grpc_is_read_back_and_retries_are_recognised() {
    let cluster = Cluster::start(1).await;
    let mut events = cluster.events(0).await;
    let producer = ProducerTag { id: ProducerId([9; 16]), epoch: 1, sequence: 1 };
    let with_payload =
        |text: &'static str| v1::NewEvent { payload: text.as_bytes().into(), ..event("cart-1") };
    let message = v1::AppendRequest {
        producer: Some(producer.into()),
        ..append_of(vec![with_payload("a"), event("order-1"), with_payload("b")])
    };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut request = Request::new(message.clone());
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    let response = timeout(SOON, events.append(request)).await.unwrap().unwrap();
    assert_eq!(response.metadata().get("anabranch-leader").unwrap(), &*cluster.addresses[0]);
    let first = response.into_inner();
    assert_eq!((first.events, first.position, first.repeated), (3, 0, false));
    assert_eq!(first.leader, cluster.addresses[0]);
    let revisions: Vec<_> = first.revisions.iter().map(|r| (&*r.stream, r.last_revision)).collect();
    assert_eq!(revisions, [("cart-1", 1), ("order-1", 0)]);

    let again = events.append(message).await.unwrap().into_inner();
    assert!(again.repeated);
    assert_eq!((&again.first, again.position), (&first.first, first.position));
    let other =
        v1::AppendRequest { producer: Some(producer.into()), ..append_of(vec![event("order-2")]) };
    let refused = events.append(other).await.unwrap_err();
    let Reason::Invalid(invalid) = reason(&refused) else { panic!("{refused:?}") };
    assert_eq!(invalid.field, "producer.sequence", "{}", refused.message());

    let request = v1::ReadRequest { session_token: first.session_token, ..read_all() };
    let mut frames = events.read(request).await.unwrap().into_inner();
    let Some(Frame::Batch(batch)) = frames.message().await.unwrap().unwrap().frame else {
        panic!("events come first")
    };
    let payloads: Vec<_> = batch.events.iter().map(|e| (&*e.stream, &e.payload[..])).collect();
    assert_eq!(payloads, [("cart-1", &b"a"[..]), ("order-1", b""), ("cart-1", b"b")]);
    assert!(batch.events.iter().all(|event| event.metadata["traceparent"] == trace));

    let stale = Some(expectation::Expected::Revision(0));
    let conflicting = v1::AppendRequest {
        expectations: vec![expect("cart-1", stale)],
        ..append_of(vec![event("cart-1")])
    };
    let refused = events.append(conflicting).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let Reason::Conflicts(conflicts) = reason(&refused) else { panic!("{refused:?}") };
    assert_eq!(conflicts.conflicts[0].actual, Some(1));

    let far = v1::AppendRequest { regions: 2, ..append_of(vec![event("cart-1")]) };
    let refused = events.append(far).await.unwrap_err();
    assert!(matches!(reason(&refused), Reason::Invalid(i) if (i.limit, i.actual) == (1, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_passes_appends_on_once_and_a_subscriber_there_sees_them() {
    let cluster = Cluster::start(2).await;
    let follower = (0..2).find(|node| !cluster.leads(*node)).expect("one of two leads at most");
    let leader = &cluster.addresses[1 - follower];
    let mut events = cluster.events(follower).await;
    let mut frames = {
        let request = v1::ReadRequest { follow: true, heartbeat_ms: 200, ..read_all() };
        events.read(request).await.unwrap().into_inner()
    };
    let response = timeout(SOON, events.append(append_of(vec![event("cart-1")]))).await;
    let response = response.unwrap().unwrap();
    assert_eq!(response.metadata().get("anabranch-leader").unwrap(), &**leader);
    assert_eq!(response.get_ref().leader, *leader);
    let seen = timeout(SOON, async {
        loop {
            let frame = frames.message().await.unwrap().unwrap();
            if let Some(Frame::Batch(batch)) = frame.frame {
                return batch.events;
            }
        }
    });
    assert_eq!(seen.await.unwrap()[0].dot, response.get_ref().first);

    let mut passed_on = Request::new(append_of(vec![event("cart-1")]));
    passed_on.metadata_mut().insert("anabranch-forwarded", "1".parse().unwrap());
    let refused = events.append(passed_on).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(matches!(reason(&refused), Reason::NotLeader(known) if known.leader == *leader));

    let mut cluster_client = ClusterClient::new(cluster.channel(follower).await);
    let status = cluster_client.status(v1::StatusRequest { shard: 0 }).await.unwrap().into_inner();
    assert_eq!((&*status.region, status.position, status.nodes.len()), ("eu", 1, 2));
    assert_eq!(status.leader_address, *leader);
    assert_eq!(status.regions[0].link, "own");
    let print = v1::FingerprintRequest { shard: 0, buckets: (0..256).collect() };
    let print = cluster_client.fingerprint(print).await.unwrap().into_inner();
    assert_eq!((print.events, print.streams, print.buckets.len()), (1, 1, 256));
    assert_eq!(print.named[0].stream, "cart-1");
    assert_eq!(print.chains[0].seq, 1);
}
#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_that_is_served() {
    let cluster = Cluster::start(1).await;
    let mut client = ServerReflectionClient::new(cluster.channel(0).await);
    let list = MessageRequest::ListServices(String::new());
    let ask = ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    let asked = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap();
    let answer = asked.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let listed: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    let classes = "anabranch.v1.Classes";
    for name in ["anabranch.v1.Events", classes, "anabranch.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(listed.iter().any(|listed| listed == name), "{name} of {listed:?}");
    }
}

/// Sends what belongs to one method to another.
#[derive(Clone)]
struct Redirected {
    channel: Channel,
    path: &'static str,
}

impl tower::Service<http::Request<tonic::body::Body>> for Redirected {
    type Response = http::Response<tonic::body::Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as tower::Service<http::Request<tonic::body::Body>>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.channel, cx)
    }
    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        *request.uri_mut() = self.path.parse().unwrap();
        tower::Service::call(&mut self.channel, request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_read_is_the_callers_fault_and_says_what_is_wrong() {
    let cluster = Cluster::start(1).await;
    let invalid = |status: &Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        match reason(status) {
            Reason::Invalid(invalid) => invalid,
            other => panic!("{other:?}"),
        }
    };
    // Field 1 is a number here, and a message there.
    let path = "http://cluster/anabranch.v1.Events/Append";
    let mut misdirected =
        ClusterClient::new(Redirected { channel: cluster.channel(0).await, path });
    let refused = misdirected.status(v1::StatusRequest { shard: 7 }).await.unwrap_err();
    let said = invalid(&refused);
    assert_eq!(said.field, "request");
    assert!(said.problem.starts_with("cannot be read: "), "{}", said.problem);

    let limit = Limits::DEFAULT.message_bytes();
    let payload = vec![0; limit + 1].into();
    let long = append_of(vec![v1::NewEvent { payload, ..event("a-1") }]);
    let said = invalid(&cluster.events(0).await.append(long).await.unwrap_err());
    assert_eq!(said.limit, limit as u64);
    assert!(said.actual > said.limit, "{said:?}");
    let health = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(cluster.channel(0).await);
    for service in ["", "anabranch.v1.Events", "anabranch.v1.Cluster"] {
        let answer = client.check(health(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn a_leader_that_dies_with_an_append_leaves_it_unknown_and_what_it_said_is_passed_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            // It has read the append, maybe, when it dies.
            let (mut leader, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            for _ in 0..2 {
                let _ = tokio::io::AsyncReadExt::read(&mut leader, &mut bytes).await;
            }
        }
    });
    let leaders = Leaders::new(Arc::new(TokioNet), None, SOON);
    let append = |address: String| {
        let channel = leaders.channel(&address).unwrap();
        async move {
            let appending = EventsClient::new(channel).append(append_of(vec![event("a-1")])).await;
            answer(appending.unwrap_err(), &address, Duration::from_millis(7))
        }
    };
    let told = append(address).await;
    assert_eq!(told.code(), Code::Unavailable, "{told:?}");
    assert!(matches!(reason(&told), Reason::Unknown(unknown) if unknown.waited_ms == 7));
    let told = append("127.0.0.1:1".to_owned()).await;
    assert!(matches!(reason(&told), Reason::NotLeader(_)), "nothing was sent: {told:?}");

    let full = of_append(AppendError::DiskFull, Duration::ZERO, |_| unreachable!());
    let passed = answer(full, "a:1", Duration::ZERO);
    assert_eq!(passed.code(), Code::ResourceExhausted);
    let says = "the disk is full; appends are refused until there is space again";
    assert_eq!(passed.message(), says);
    assert!(matches!(reason(&passed), Reason::Overload(hint) if hint.retry_after_ms > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_for_its_session_for_a_second_unless_it_says_otherwise() {
    let cluster = Cluster::start(1).await;
    let mut events = cluster.events(0).await;
    let appended = events.append(append_of(vec![event("a-1")])).await.unwrap().into_inner();
    let token = SessionToken::decode(appended.session_token).unwrap();
    let beyond = token.context.iter().map(|(origin, seq)| (origin.clone(), seq.plus(1)));
    let session_token = SessionToken { context: beyond.collect() }.encode();
    for (asked_ms, waits_ms) in [(0, 1_000..60_000), (1, 1..1_000)] {
        let session_token = session_token.clone();
        let request =
            v1::ReadRequest { session_token, session_deadline_ms: asked_ms, ..read_all() };
        let refused = events.read(request).await.unwrap_err();
        let Reason::NotCaughtUp(behind) = reason(&refused) else { panic!("{refused:?}") };
        assert!(waits_ms.contains(&behind.waited_ms), "{behind:?}");
    }
    let cut = v1::ReadRequest { session_token: session_token.slice(1..), ..read_all() };
    let refused = events.read(cut).await.unwrap_err();
    assert!(
        refused.message().contains("the checksum of session token does not fit"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_are_not_changed_at_the_api_unless_that_is_allowed() {
    let change = |cluster: &Cluster| {
        let leadership = cluster.shards[0].raft().leadership().borrow().clone();
        let (node, Node { raft_address, api_address }) = leadership.leader.expect("it leads");
        let voters = vec![v1::Member { node, raft_address, api_address }];
        v1::ChangeMembershipRequest { shard: 0, voters }
    };
    let closed = Cluster::start(1).await;
    let mut client = ClusterClient::new(closed.channel(0).await);
    let refused = client.change_membership(change(&closed)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("membership-on-api"), "{refused:?}");
    assert!(client.status(v1::StatusRequest { shard: 0 }).await.is_ok());

    let settings = ApiSettings { membership_on_api: true, ..ApiSettings::default() };
    let open = Cluster::start_with(1, settings).await;
    let mut client = ClusterClient::new(open.channel(0).await);
    let changed = client.change_membership(change(&open)).await.unwrap().into_inner();
    assert_eq!(changed.voters, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_conflict_of_an_append_is_told_however_many_there_are() {
    let cluster = Cluster::start(1).await;
    let most = Limits::DEFAULT.append_streams - 1;
    for (conflicts, bytes) in [(20, 20), (100, 20), (most, 20), (most, 500)] {
        let exists = || Some(expectation::Expected::Exists(expectation::Exists {}));
        let name = |nth: usize| format!("{nth:04}-{}", "x".repeat(bytes - 5));
        let expectations = (0..conflicts).map(|nth| expect(&name(nth), exists())).collect();
        let message = v1::AppendRequest { expectations, ..append_of(vec![event("a-1")]) };
        let refused = cluster.events(0).await.append(message).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let Reason::Conflicts(told) = reason(&refused) else { panic!("{refused:?}") };
        assert_eq!(told.conflicts.len() + told.more as usize, conflicts);
        assert!(told.conflicts.len() >= conflicts.min(20).min(2_000 / bytes), "{}", told.more);
        assert!(refused.message().starts_with("0000-x"), "{}", refused.message());
        assert!(refused.message().len() < 500, "{}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_prepared_when_the_node_holds_what_their_client_has_written_and_seen() {
    let cluster = Cluster::start(1).await;
    let mut aggregates = AggregatesClient::new(cluster.channel(0).await);
    let definition = r#"{"category": "s", "version": 1, "fields": {"todo": "list"}}"#;
    let definition = definition.as_bytes().into();
    aggregates.define(v1::DefineRequest { definition }).await.unwrap();
    let insert = |at: u64| v1::PrepareRequest {
        stream: "s-1".into(),
        operations: vec![format!(r#"{{"field":"todo","do":"insert","value":{at},"at":{at}}}"#)],
        ..Default::default()
    };
    let operate = |at: u64| {
        let mut aggregates = aggregates.clone();
        let operations = Some(insert(at));
        let request = v1::OperateRequest { operations, ..Default::default() };
        async move { aggregates.operate(request).await.unwrap().into_inner().session_token }
    };
    let beyond = |token| {
        let token = SessionToken::decode(token).unwrap();
        let next = token.context.iter().map(|(origin, seq)| (origin.clone(), seq.plus(1)));
        SessionToken { context: next.collect() }.encode()
    };
    let mut token = operate(0).await;
    type Carry = fn(&mut v1::PrepareRequest, bytes::Bytes);
    let carries: [Carry; 2] =
        [|request, token| request.session_token = token, |request, token| request.observed = token];
    for (at, carry) in (1..).zip(carries) {
        // It is sent before what it has seen is there: the list lacks an element for this place, too.
        let mut request = v1::PrepareRequest { deadline_ms: 30_000, ..insert(at + 1) };
        carry(&mut request, beyond(token));
        let short = v1::PrepareRequest { deadline_ms: 1, ..request.clone() };
        let refused = aggregates.clone().prepare(short).await.unwrap_err();
        assert!(matches!(reason(&refused), Reason::NotCaughtUp(_)), "{refused:?}");
        let waiting = tokio::spawn({
            let mut aggregates = aggregates.clone();
            async move { aggregates.prepare(request).await }
        });
        sleep(Duration::from_millis(50)).await;
        token = operate(at).await;
        timeout(SOON, waiting).await.unwrap().unwrap().expect("it waits");
    }

    let get = v1::GetAggregateRequest { stream: "s-1".into(), ..Default::default() };
    let now = aggregates.get(get.clone()).await.unwrap().into_inner();
    assert_eq!((now.events, &now.session_token), (3, &token), "exactly what is shown");
    let seen = aggregates.get(v1::GetAggregateRequest { r#final: true, ..get }).await.unwrap();
    let cut = Context::try_from(seen.get_ref().cut.clone().unwrap()).unwrap();
    assert_eq!(seen.get_ref().session_token, SessionToken { context: cut }.encode());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_counter_is_counted_up_and_down_like_others_but_never_below_what_is_there() {
    let cluster = Cluster::start(1).await;
    let mut aggregates = AggregatesClient::new(cluster.channel(0).await);
    let fields = r#"{"left": "bounded-counter", "tags": "or-set"}"#;
    let definition = format!(r#"{{"category": "s", "version": 1, "fields": {fields}}}"#);
    aggregates.define(v1::DefineRequest { definition: definition.into() }).await.unwrap();
    let operate = |operations: &[&str]| {
        let mut aggregates = aggregates.clone();
        let operations = operations.iter().map(|text| (*text).to_owned()).collect();
        let operations =
            Some(v1::PrepareRequest { stream: "s-1".into(), operations, ..Default::default() });
        let request = v1::OperateRequest { operations, ..Default::default() };
        async move { aggregates.operate(request).await }
    };
    let by = |by: i64| format!(r#"{{"field":"left","do":"increment","by":{by}}}"#);
    operate(&[&by(5), &by(-2)]).await.unwrap();
    let short = operate(&[&by(-2), &by(-2)]).await.unwrap_err();
    match reason(&short) {
        Reason::RightsShort(short) => {
            let (stream, field) = (short.stream.as_str(), short.field.as_str());
            assert_eq!((stream, field, short.wanted, short.held), ("s-1", "left", 2, 1));
        }
        other => panic!("{other:?}"),
    }
    let mixed = operate(&[&by(1), r#"{"field":"tags","do":"add","value":1}"#]).await.unwrap_err();
    assert!(mixed.message().contains("send these by themselves"), "{mixed:?}");
    let cleared = operate(&[r#"{"field":"left","do":"clear"}"#]).await.unwrap_err();
    assert!(cleared.message().contains("it has earn, spend, pass"), "{cleared:?}");
    let least = operate(&[&by(i64::MIN)]).await.unwrap_err();
    assert!(least.message().contains("operations[0]: by is out of range"), "{least:?}");

    let get = v1::GetAggregateRequest { stream: "s-1".into(), ..Default::default() };
    let shown = aggregates.clone().get(get).await.unwrap().into_inner();
    let value: serde_json::Value = serde_json::from_slice(&shown.value).unwrap();
    assert_eq!((&value["left"]["value"], shown.events), (&3.into(), 1), "nothing refused is in");
}
