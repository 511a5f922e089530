//! Requests that are carried from region to region, and what comes of them, as bytes.

use anabranch_core::Context;
use bytes::Bytes;
use prost::{DecodeError, Message};
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::internal::carried_request::Request;
use crate::internal::carried_response::{Failure, Response};
use crate::internal::{CarriedRequest, CarriedResponse};
use crate::v1;

/// Why bytes are no request, or no response, that this release knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarriedError {
    /// They are not of its form.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// A part of it is not what it must be.
    #[error(transparent)]
    Malformed(#[from] ConvertError),
    /// It is empty, or of a kind that came later.
    #[error("is of no kind that this release knows")]
    UnknownKind,
}

/// An append on its way to its home.
#[derive(Debug, Clone, PartialEq)]
pub struct CarriedAppend {
    /// Regions that it was carried to, the one that reads it included.
    pub hops: u32,
    /// What the region that asks holds. The home writes the append after all of it.
    pub after: Context,
    /// The append.
    pub request: v1::AppendRequest,
}

impl CarriedAppend {
    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let (hops, after) = (self.hops, Some((&self.after).into()));
        let request = Some(Request::Append(self.request));
        CarriedRequest { hops, after, request }.encode_to_vec().into()
    }

    /// Reads what [`encode`](Self::encode) made. Payloads are not copied.
    ///
    /// # Errors
    /// [`CarriedError`].
    pub fn decode(bytes: Bytes) -> Result<Self, CarriedError> {
        let CarriedRequest { hops, after, request } = CarriedRequest::decode(bytes)?;
        let Some(Request::Append(request)) = request else { return Err(CarriedError::UnknownKind) };
        let after = after.unwrap_or_default().try_into()?;
        Ok(Self { hops, after, request })
    }
}

/// What came of an append. Metadata of a status stays behind.
pub fn appended(result: Result<v1::AppendResponse, Status>) -> Bytes {
    let response = match result {
        Ok(response) => Response::Append(response),
        Err(status) => Response::Failure(Failure {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
        }),
    };
    CarriedResponse { response: Some(response) }.encode_to_vec().into()
}

/// Reads what [`appended`] made.
///
/// # Errors
/// [`CarriedError`], also for a failure that says all is well.
pub fn read_appended(bytes: Bytes) -> Result<Result<v1::AppendResponse, Status>, CarriedError> {
    match CarriedResponse::decode(bytes)?.response {
        Some(Response::Append(response)) => Ok(Ok(response)),
        Some(Response::Failure(Failure { code, message, details })) if code != 0 => {
            Ok(Err(Status::with_details(Code::from(code), message, details)))
        }
        _ => Err(CarriedError::UnknownKind),
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::{Incarnation, Origin, RegionName, Seq, ShardId};

    use super::*;
    use crate::convert::{invalid, refusal_of};

    #[test]
    fn an_append_and_what_comes_of_it_come_back() {
        let event =
            v1::NewEvent { stream: "a-1".into(), payload: "x".into(), ..Default::default() };
        let request = v1::AppendRequest { events: vec![event], regions: 2, ..Default::default() };
        let origin = Origin {
            region: RegionName::new("eu").unwrap(),
            incarnation: Incarnation(7),
            shard: ShardId(0),
        };
        let after = Context::from_iter([(origin, Seq(9))]);
        let carried = CarriedAppend { hops: 2, after, request };
        assert_eq!(CarriedAppend::decode(carried.clone().encode()), Ok(carried));

        let response = v1::AppendResponse { events: 3, leader: "a:1".into(), ..Default::default() };
        let read = read_appended(appended(Ok(response.clone()))).unwrap();
        assert_eq!(read.unwrap(), response);

        let status = invalid("events", "is empty", 7, 0);
        let read = read_appended(appended(Err(status.clone()))).unwrap().unwrap_err();
        assert_eq!((read.code(), read.message()), (status.code(), status.message()));
        assert_eq!(refusal_of(&read), refusal_of(&status));
        assert!(refusal_of(&read).is_some());
    }

    #[test]
    fn what_says_nothing_or_that_a_failure_is_none_is_neither_success_nor_failure() {
        let empty = Bytes::new;
        assert_eq!(CarriedAppend::decode(empty()).unwrap_err(), CarriedError::UnknownKind);
        assert_eq!(read_appended(empty()).unwrap_err(), CarriedError::UnknownKind);
        let fine = appended(Err(Status::ok("fine")));
        assert_eq!(read_appended(fine).unwrap_err(), CarriedError::UnknownKind);
        let garbage = || Bytes::from_static(&[0xff; 9]);
        assert!(matches!(CarriedAppend::decode(garbage()), Err(CarriedError::Unreadable(_))));
        assert!(matches!(read_appended(garbage()), Err(CarriedError::Unreadable(_))));
    }
}
