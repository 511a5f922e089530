mod carried;
mod classes;
mod cluster;
mod homed;
mod rights;
mod served;

use std::io::Error;
use std::time::Duration;

use anabranch_core::Limits;
use anabranch_core::ProducerId;
use anabranch_core::event::ProducerTag;
use anabranch_log::ReadError as LogReadError;
use anabranch_log::store::StoreError;
use anabranch_proto::convert::refusal_of;
use anabranch_proto::v1::refusal::{Invalid, Reason};
use anabranch_proto::v1::{self, expectation};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::append::{keep_trace, with_margin, within};
use super::refusal::of_read;
use super::validate::check;
use crate::read::ReadError;

fn event(stream: &str) -> v1::NewEvent {
    let (stream, r#type) = (stream.to_owned(), "Happened".to_owned());
    v1::NewEvent { stream, r#type, ..Default::default() }
}
fn append_of(events: Vec<v1::NewEvent>) -> v1::AppendRequest {
    v1::AppendRequest { events, ..Default::default() }
}
fn expect(stream: &str, expected: Option<expectation::Expected>) -> v1::Expectation {
    v1::Expectation { stream: stream.to_owned(), expected }
}
fn reason(status: &Status) -> Reason {
    refusal_of(status).unwrap_or_else(|| panic!("{status:?} has a detail")).reason.unwrap()
}

#[test]
fn every_limit_is_refused_with_its_field_its_number_and_what_was_found() {
    let limits = Limits {
        payload_bytes: 10,
        name_bytes: 8,
        metadata_bytes: 12,
        metadata_entries: 2,
        append_events: 3,
        append_bytes: 60,
        append_streams: 2,
    };
    let any = Some(expectation::Expected::Any(expectation::Any {}));
    let with = |change: fn(&mut v1::NewEvent)| {
        let mut changed = event("a-2");
        change(&mut changed);
        append_of(vec![event("a-1"), changed])
    };
    let expecting =
        |expectations| v1::AppendRequest { expectations, ..append_of(vec![event("a-1")]) };
    let producing =
        |producer| v1::AppendRequest { producer: Some(producer), ..append_of(vec![event("a-1")]) };
    let tag = |sequence| v1::Producer {
        sequence,
        ..ProducerTag { id: ProducerId([1; 16]), epoch: 0, sequence: 1 }.into()
    };
    let cases: Vec<(v1::AppendRequest, &str, u64, u64)> = vec![
        (append_of(vec![]), "events", 0, 0),
        (append_of(vec![event("a"); 4]), "events", 3, 4),
        (append_of(vec![event("a-1"), event("a-2"), event("a-3")]), "events", 2, 3),
        (
            append_of(vec![v1::NewEvent { payload: vec![0; 9].into(), ..event("abcdefgh") }; 3]),
            "events",
            60,
            75,
        ),
        (with(|e| e.stream.clear()), "events[1].stream", 0, 0),
        (with(|e| e.stream = "123456789".into()), "events[1].stream", 8, 9),
        (with(|e| e.stream = "a\nb".into()), "events[1].stream", 0, 0),
        (with(|e| e.r#type.clear()), "events[1].type", 0, 0),
        (with(|e| e.r#type = "123456789".into()), "events[1].type", 8, 9),
        (with(|e| e.r#type = "a\u{7f}".into()), "events[1].type", 0, 0),
        (with(|e| e.id = vec![1; 15].into()), "events[1].id", 16, 15),
        (
            append_of(
                ["a-1", "a-2"].map(|s| v1::NewEvent { id: vec![1; 16].into(), ..event(s) }).into(),
            ),
            "events[1].id",
            0,
            0,
        ),
        (with(|e| e.payload = vec![0; 11].into()), "events[1].payload", 10, 11),
        (
            with(|e| e.metadata = [("key".into(), "0123456789".into())].into()),
            "events[1].metadata",
            12,
            13,
        ),
        (
            with(|e| e.metadata = ["a", "b", "c"].map(|key| (key.into(), String::new())).into()),
            "events[1].metadata",
            2,
            3,
        ),
        (with(|e| e.metadata = [(String::new(), "v".into())].into()), "events[1].metadata", 0, 0),
        (expecting(vec![expect("a", any); 3]), "expectations", 2, 3),
        (expecting(vec![expect("a", any), expect("a", any)]), "expectations[1].stream", 0, 0),
        (expecting(vec![expect("", any)]), "expectations[0].stream", 0, 0),
        (expecting(vec![expect("a", None)]), "expectations[0].expected", 0, 0),
        (producing(v1::Producer { id: vec![1; 4].into(), ..tag(1) }), "producer.id", 16, 4),
        (producing(tag(0)), "producer.sequence", 0, 0),
    ];
    for (request, field, limit, actual) in cases {
        let status = check(&request, &limits, 1).expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let Reason::Invalid(Invalid { field: named, limit: of, actual: found, .. }) =
            reason(&status)
        else {
            panic!("{status:?}")
        };
        assert_eq!((&*named, of, found), (field, limit, actual), "{}", status.message());
    }
    let limit = v1::NewEvent {
        id: vec![1; 16].into(),
        payload: vec![0; 10].into(),
        metadata: [("key".into(), "012345678".into())].into(),
        ..event("12345678")
    };
    let checked =
        check(&append_of(vec![limit]), &limits, 1).expect("the limits themselves are allowed");
    assert_eq!(checked.bytes, 8 + 8 + 12 + 10);
    assert!(checked.weight > checked.bytes, "memory is more than texts");
}

#[test]
fn streams_of_one_append_must_share_a_shard() {
    let streams: Vec<_> = (0..20).map(|n| event(&format!("s-{n}"))).collect();
    let limits = Limits::DEFAULT;
    assert!(check(&append_of(streams.clone()), &limits, 1).is_ok());
    let refused = check(&append_of(streams), &limits, 7).unwrap_err();
    assert!(matches!(reason(&refused), Reason::Invalid(invalid) if invalid.field == "events"));
}

#[test]
fn deadlines_are_read_as_grpc_writes_them_and_answered_a_little_before() {
    let parse = |text: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        within(&metadata)
    };
    assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
    assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
    assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
    assert_eq!(parse("5000000u"), Some(Duration::from_secs(5)));
    for wrong in ["", "S", "12", "-1S", "123456789S", "1x"] {
        assert_eq!(parse(wrong), None, "{wrong:?}");
    }
    assert_eq!(with_margin(Duration::from_millis(100)), Duration::from_millis(90));
    assert_eq!(with_margin(Duration::from_secs(10)), Duration::from_millis(9_950));
}

#[test]
fn over_its_bound_work_is_refused_with_a_hint_and_admitted_again_when_some_is_done() {
    let admission = super::Admission::new("bytes", 10);
    let held = admission.admit(8).unwrap();
    let refused = admission.admit(3).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(matches!(reason(&refused), Reason::Overload(hint) if hint.retry_after_ms > 0));
    drop(held);
    let _all = admission.admit(1_000).expect("one that is too large goes alone");
    assert!(admission.admit(1).is_err());
}
#[test]
fn a_callers_trace_is_kept_with_its_events_where_there_is_room() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut metadata = MetadataMap::new();
    metadata.insert("traceparent", trace.parse().unwrap());
    let full = Limits { metadata_entries: 1, ..Limits::DEFAULT };
    for (held, limits, kept) in [(0, &Limits::DEFAULT, true), (0, &full, true), (1, &full, false)] {
        let pairs = (0..held).map(|nth| (format!("{nth}"), String::new())).collect();
        let mut message = append_of(vec![v1::NewEvent { metadata: pairs, ..event("a-1") }]);
        keep_trace(&metadata, &mut message, limits);
        let told = message.events[0].metadata.get("traceparent").map(String::as_str);
        assert_eq!(told, kept.then_some(trace), "{held}");
    }
}

#[test]
fn only_what_is_damaged_is_said_to_be_lost() {
    let corrupt = LogReadError::Corrupt { segment: 1, offset: 634, index: 12 };
    let unreadable = LogReadError::Io { segment: 1, source: Error::other("a cable").into() };
    for (error, code, says) in [
        (corrupt, Code::DataLoss, "record 12 is damaged, at byte 634 of segment 1"),
        (unreadable, Code::Unavailable, "a cable"),
    ] {
        let status = of_read(ReadError::Store(StoreError::Log(error)));
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
}
