use anabranch_core::codec::SliceReader;
use anabranch_core::{Limits, RequestRef};
use prost::Message;
use tonic::{Code, Status};

use super::*;
use crate::v1::refusal::Reason;

fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(0x0102 << 112), shard: ShardId(3) }
}

#[test]
fn names_of_things_survive_the_wire() {
    let dot = Dot { origin: origin("eu"), seq: Seq(7) };
    let wire = v1::Dot::from(&dot);
    assert_eq!(wire.origin.as_ref().unwrap().incarnation[..2], [1, 2], "big-endian, as printed");
    assert_eq!(Dot::try_from(wire), Ok(dot.clone()));
    let context: Context = [(origin("eu"), Seq(7)), (origin("us"), Seq(1))].into_iter().collect();
    assert_eq!(Context::try_from(v1::Context::from(&context)), Ok(context));
    let tag = ProducerTag { id: ProducerId([5; 16]), epoch: 2, sequence: 9 };
    assert_eq!(ProducerTag::try_from(v1::Producer::from(tag)), Ok(tag));
    for expected in
        [Expected::Any, Expected::NoStream, Expected::Exists, Expected::Revision(u64::MAX)]
    {
        let expectation = Expectation { stream: "cart-1".into(), expected };
        assert_eq!(
            Expectation::try_from(v1::Expectation::from(expectation.clone())),
            Ok(expectation)
        );
    }
    for order in [ReadOrder::Regional, ReadOrder::Global] {
        assert_eq!(read_order("order", v1::Order::from(order) as i32), Ok(order));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let good = v1::Origin::from(&origin("eu"));
    let dot = |origin, seq| Dot::try_from(v1::Dot { origin, seq }).unwrap_err();
    assert_eq!(dot(None, 1), Problem::Missing.of("dot.origin"));
    assert_eq!(dot(Some(good.clone()), 0).field, "dot.seq");
    let short = v1::Origin { incarnation: Bytes::from_static(b"xyz"), ..good.clone() };
    assert_eq!(
        Origin::try_from(short).unwrap_err(),
        Problem::Length { expected: 16, actual: 3 }.of("origin.incarnation")
    );
    let shouting = v1::Origin { region: "EU".into(), ..good.clone() };
    assert_eq!(Origin::try_from(shouting).unwrap_err().field, "origin.region");
    let far = v1::Origin { shard: 70_000, ..good };
    assert_eq!(Origin::try_from(far).unwrap_err().field, "origin.shard");
    assert_eq!(request(vec![], None).unwrap_err(), Problem::Missing.of("events"));
    let odd_id = v1::NewEvent { id: Bytes::from_static(b"short"), ..Default::default() };
    assert_eq!(request(vec![odd_id], None).unwrap_err().field, "events.id");
    let silent = v1::Expectation { stream: "a".into(), expected: None };
    assert_eq!(Expectation::try_from(silent).unwrap_err().field, "expectations.expected");
    assert_eq!(read_order("order", 9), Err(Problem::UnknownValue { value: 9 }.of("order")));
    let unnumbered = v1::Producer { id: vec![0; 16].into(), epoch: 0, sequence: 0 };
    assert_eq!(ProducerTag::try_from(unnumbered).unwrap_err().field, "producer.sequence");
}

#[test]
fn an_event_read_is_the_event_appended() {
    let appended = v1::NewEvent {
        stream: "cart-1".into(),
        id: Bytes::new(),
        r#type: "Happened".into(),
        metadata: [("trace".to_owned(), "t-1".to_owned())].into(),
        payload: Bytes::from_static(b"{}"),
    };
    let mut encoded = Vec::new();
    request(vec![appended.clone()], None).unwrap().encode(&mut encoded);
    let encoded = Bytes::from(encoded);
    let mut reader = SliceReader::new(&encoded);
    let view = RequestRef::decode(&mut reader, Seq(4)).unwrap().events[0].view(&encoded);
    let stamp = Stamp::from_unix_ms(1_800_000_000_000);
    let wire = recorded_event(&origin("eu"), stamp, &view, 6, Place::Global(8));
    let back = (wire.stream, wire.r#type, wire.metadata, wire.payload);
    assert_eq!(back, (appended.stream, appended.r#type, appended.metadata, appended.payload));
    let dot = Dot { origin: origin("eu"), seq: Seq(4) };
    assert_eq!(wire.id[..], EventId::of_dot(&dot).0, "an id derived from the dot");
    assert_eq!((wire.unix_ms, wire.revision), (1_800_000_000_000, 6));
    assert_eq!((wire.position, wire.global_position), (0, Some(8)));
}

#[test]
fn refusals_ride_in_the_standard_rich_status() {
    let reason = Reason::Overload(v1::refusal::Overload { what: "log".into(), retry_after_ms: 40 });
    let status = refused(Code::ResourceExhausted, "too busy", reason.clone());
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "too busy"));
    assert_eq!(refusal_of(&status), Some(v1::Refusal { reason: Some(reason) }));
    // google.rpc.Status, byte for byte: code 8 in field 1, the text in field 2, an Any in field 3.
    let details = status.details();
    assert_eq!(details[..12], [&[0x08, 8, 0x12, 8][..], b"too busy"].concat());
    assert_eq!(details[12], 0x1a);
    assert_eq!(details[14..16], [0x0a, REFUSAL_TYPE_URL.len() as u8]);
}

#[test]
fn other_peoples_details_are_no_refusal() {
    assert_eq!(refusal_of(&Status::unavailable("gone")), None);
    let damaged = Status::with_details(Code::Aborted, "", Bytes::from_static(b"\xff\xff\xff"));
    assert_eq!(refusal_of(&damaged), None);
    let any = prost_types::Any { type_url: "type.googleapis.com/other".into(), value: vec![1] };
    let foreign = Status::with_details(Code::Aborted, "", any.encode_to_vec().into());
    assert_eq!(refusal_of(&foreign), None);
}

#[test]
fn a_field_that_is_wrong_is_an_invalid_argument() {
    let status = Status::from(Problem::Missing.of("dot.origin"));
    assert_eq!(status.code(), Code::InvalidArgument);
    let Some(Reason::Invalid(invalid)) = refusal_of(&status).unwrap().reason else {
        panic!("{status:?} must carry the field");
    };
    assert_eq!((invalid.field.as_str(), invalid.problem.as_str()), ("dot.origin", "is missing"));
}

#[tokio::test]
async fn the_innermost_cause_is_said_and_what_never_left_is_known() {
    let vacant = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", vacant.local_addr().unwrap());
    drop(vacant);
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy();
    let mut events = v1::events_client::EventsClient::new(channel);
    let refused = events.append(v1::AppendRequest::default()).await.unwrap_err();
    assert!(never_sent(&refused), "{refused:?}");
    assert_eq!(cause(&refused), "Connection refused (os error 111)");

    let of_server = Status::unavailable("stopping");
    assert!(!never_sent(&of_server));
    assert!(!never_sent(&Status::cancelled("operation was canceled")), "the server may say so too");
    assert_eq!(cause(&of_server), "stopping");
    assert_eq!(cause(&Status::new(Code::Internal, "")), Code::Internal.description());
}

#[test]
fn an_append_within_the_limits_is_never_too_long_a_message() {
    let limits = Limits::DEFAULT;
    let event = |payload: usize, entries: usize, value: usize| v1::NewEvent {
        stream: "a".into(),
        id: vec![1; 16].into(),
        r#type: "b".into(),
        metadata: (0..entries).map(|nth| (format!("{nth:02}"), "v".repeat(value))).collect(),
        payload: vec![0; payload].into(),
    };
    let expectation = |nth: usize| {
        let stream = format!("{nth:04}") + &"x".repeat(limits.name_bytes - 4);
        Expectation { stream, expected: Expected::Revision(u64::MAX) }.into()
    };
    let mut closest = 0;
    for (events, payload, entries, value) in [
        (limits.append_events, 200, limits.metadata_entries, 1),
        (limits.append_events, 0, limits.metadata_entries, 4),
        (limits.append_events, 0, 3, 130),
        (limits.append_events, 400, 0, 0),
        (limits.append_bytes / limits.payload_bytes, limits.payload_bytes - 2, 0, 0),
    ] {
        let counted = events * (2 + payload + entries * (2 + value));
        assert!(counted <= limits.append_bytes, "{counted}");
        let tag = ProducerTag { id: ProducerId([9; 16]), epoch: u32::MAX, sequence: u64::MAX };
        let message = v1::AppendRequest {
            events: vec![event(payload, entries, value); events],
            expectations: (0..limits.append_streams).map(expectation).collect(),
            producer: Some(tag.into()),
            regions: u32::MAX,
            regions_deadline_ms: u32::MAX,
            own_rights_only: true,
        };
        let bytes = message.encoded_len();
        assert!(bytes <= limits.message_bytes(), "{bytes} of {}", limits.message_bytes());
        closest = closest.max(bytes);
    }
    assert!(closest > limits.message_bytes() * 9 / 10, "the bound is no guess: {closest}");
}
