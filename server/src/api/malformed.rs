//! Requests that cannot be read, refused in the words of the contract.
//!
//! tonic says INTERNAL of bytes that are no message of ours, and OUT_OF_RANGE of a message that is too
//! long. INTERNAL is a fault of ours to whoever watches codes. No service of ours ends a call with
//! either, so both mean one thing here: it is the caller's request, and nobody has acted on it.

use anabranch_proto::convert::invalid;
use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::util::MapResponseLayer;

/// What the field of such a refusal is called: it is none of the message's own.
const FIELD: &str = "request";

/// Says what is wrong with requests of which `bytes_max` may be taken.
pub(super) fn in_our_words(
    bytes_max: usize,
) -> MapResponseLayer<impl Fn(Response<Body>) -> Response<Body> + Clone> {
    MapResponseLayer::new(move |response: Response<Body>| {
        // A call that ends before it has an answer; those that end later end in trailers.
        match response.extensions().get::<Status>().and_then(|status| refusal(status, bytes_max)) {
            Some(refusal) => refusal.into_http(),
            None => response,
        }
    })
}

/// The same for what is found in the middle of a call.
pub(super) fn in_words_of_ours(status: Status, bytes_max: usize) -> Status {
    refusal(&status, bytes_max).unwrap_or(status)
}

fn refusal(status: &Status, bytes_max: usize) -> Option<Status> {
    match status.code() {
        Code::Internal => {
            let problem = format!("cannot be read: {}", status.message());
            Some(invalid(FIELD, &problem, 0, 0))
        }
        Code::OutOfRange => {
            let found = found_bytes(status.message());
            let has = found.map_or_else(|| "too many".to_owned(), |found| found.to_string());
            let problem = format!("has {has} bytes, at most {bytes_max} are allowed");
            Some(invalid(FIELD, &problem, bytes_max as u64, found.unwrap_or_default()))
        }
        _ => None,
    }
}

/// The number in tonic's `found 123 bytes`.
fn found_bytes(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("found ")?;
    after.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tonic_says_of_a_request_is_said_anew() {
        let said =
            |status: Status| refusal(&status, 100).map(|refusal| refusal.message().to_owned());
        let long =
            "Error, decoded message length too large: found 123 bytes, the limit is: 100 bytes";
        let long = said(Status::out_of_range(long));
        assert_eq!(long.as_deref(), Some("request: has 123 bytes, at most 100 are allowed"));
        let unread = said(Status::internal("invalid wire type"));
        assert_eq!(unread.as_deref(), Some("request: cannot be read: invalid wire type"));
        assert_eq!(said(Status::unavailable("stopping")), None);
    }
}
