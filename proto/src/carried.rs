//! Requests that are carried from region to region, and what comes of them, as bytes.

use anabranch_core::Context;
use bytes::Bytes;
use prost::{DecodeError, Message};
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::internal::carried_request::Request;
use crate::internal::carried_response::{Failure, Response};
use crate::internal::{AskRights, CarriedRequest, CarriedResponse, RightsPassed};
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
}

/// What one region asks of another.
#[derive(Debug, Clone, PartialEq)]
pub enum Carried {
    /// To append.
    Append(CarriedAppend),
    /// To pass rights to it.
    Rights(AskRights),
}

impl Carried {
    /// Reads what [`CarriedAppend::encode`] or [`ask_rights`] made. Payloads are not copied.
    ///
    /// # Errors
    /// [`CarriedError`].
    pub fn decode(bytes: Bytes) -> Result<Self, CarriedError> {
        let CarriedRequest { hops, after, request } = CarriedRequest::decode(bytes)?;
        match request.ok_or(CarriedError::UnknownKind)? {
            Request::Append(request) => {
                let after = after.unwrap_or_default().try_into()?;
                Ok(Self::Append(CarriedAppend { hops, after, request }))
            }
            Request::Rights(asked) => Ok(Self::Rights(asked)),
        }
    }
}

/// A question for rights.
pub fn ask_rights(asked: AskRights) -> Bytes {
    let request = Some(Request::Rights(asked));
    CarriedRequest { request, ..CarriedRequest::default() }.encode_to_vec().into()
}

/// What came of an append. Metadata of a status stays behind.
pub fn appended(result: Result<v1::AppendResponse, Status>) -> Bytes {
    response(result.map(Response::Append))
}

/// What came of a question for rights.
pub fn rights_passed(result: Result<RightsPassed, Status>) -> Bytes {
    response(result.map(Response::Rights))
}

fn response(result: Result<Response, Status>) -> Bytes {
    let response = result.unwrap_or_else(|status| {
        Response::Failure(Failure {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
        })
    });
    CarriedResponse { response: Some(response) }.encode_to_vec().into()
}

/// Reads what [`appended`] made.
///
/// # Errors
/// [`CarriedError`], also for a failure that says all is well.
pub fn read_appended(bytes: Bytes) -> Result<Result<v1::AppendResponse, Status>, CarriedError> {
    read(bytes, |response| match response {
        Response::Append(response) => Some(response),
        _ => None,
    })
}

/// Reads what [`rights_passed`] made.
///
/// # Errors
/// As [`read_appended`].
pub fn read_rights_passed(bytes: Bytes) -> Result<Result<RightsPassed, Status>, CarriedError> {
    read(bytes, |response| match response {
        Response::Rights(passed) => Some(passed),
        _ => None,
    })
}

fn read<T>(
    bytes: Bytes,
    of: impl FnOnce(Response) -> Option<T>,
) -> Result<Result<T, Status>, CarriedError> {
    match CarriedResponse::decode(bytes)?.response {
        Some(Response::Failure(Failure { code, message, details })) if code != 0 => {
            Ok(Err(Status::with_details(Code::from(code), message, details)))
        }
        response => response.and_then(of).map(Ok).ok_or(CarriedError::UnknownKind),
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
        assert_eq!(Carried::decode(carried.clone().encode()), Ok(Carried::Append(carried)));

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
    fn a_question_for_rights_and_its_answer_come_back_and_are_no_append() {
        let asked = AskRights { stream: "s-1".into(), field: "left".into(), wanted: 3 };
        assert_eq!(Carried::decode(ask_rights(asked.clone())), Ok(Carried::Rights(asked)));
        let passed = RightsPassed { amount: 5, session_token: "t".into() };
        let answer = rights_passed(Ok(passed.clone()));
        assert_eq!(read_rights_passed(answer.clone()).unwrap().unwrap(), passed);
        assert_eq!(read_appended(answer).unwrap_err(), CarriedError::UnknownKind);
        let status = read_rights_passed(rights_passed(Err(Status::internal("no")))).unwrap();
        assert_eq!(status.unwrap_err().message(), "no");
    }

    #[test]
    fn what_says_nothing_or_that_a_failure_is_none_is_neither_success_nor_failure() {
        let empty = Bytes::new;
        assert_eq!(Carried::decode(empty()).unwrap_err(), CarriedError::UnknownKind);
        assert_eq!(read_appended(empty()).unwrap_err(), CarriedError::UnknownKind);
        let fine = appended(Err(Status::ok("fine")));
        assert_eq!(read_appended(fine).unwrap_err(), CarriedError::UnknownKind);
        let garbage = || Bytes::from_static(&[0xff; 9]);
        assert!(matches!(Carried::decode(garbage()), Err(CarriedError::Unreadable(_))));
        assert!(matches!(read_appended(garbage()), Err(CarriedError::Unreadable(_))));
    }
}
