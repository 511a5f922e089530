//! Declaring something for a category, in the region that is asked.

use anabranch_core::declared::Declare;
use anabranch_proto::v1;
use anabranch_proto::v1::expectation::{Expected, NoStream};

use crate::shard::Shard;

/// Whoever declares the same in this region at the same time is refused.
pub(super) fn declaring<T: Declare>(shard: &Shard, declaration: &T) -> v1::AppendRequest {
    let stream = T::stream_of(declaration.category());
    let head = shard.state().region(|region| region.stream(&stream));
    let expected = match head {
        Some(head) => Expected::Revision(head.next_revision - 1),
        None => Expected::NoStream(NoStream {}),
    };
    v1::AppendRequest {
        expectations: vec![v1::Expectation { stream: stream.clone(), expected: Some(expected) }],
        events: vec![v1::NewEvent {
            stream,
            r#type: T::EVENT_TYPE.to_owned(),
            payload: declaration.to_json().to_string().into(),
            ..v1::NewEvent::default()
        }],
        ..v1::AppendRequest::default()
    }
}
