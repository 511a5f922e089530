//! Refusals inside gRPC statuses: written here by the server, read here by the client.
//!
//! The form is gRPC's rich error model: `grpc-status-details-bin` holds a `google.rpc.Status` whose
//! details hold the [`v1::Refusal`] as an `Any`, so any language's status package can read it.

use prost::Message;
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::v1;
use crate::v1::refusal::Reason;

/// Type of the detail, as its `Any` names it.
pub const REFUSAL_TYPE_URL: &str = "type.googleapis.com/anabranch.v1.Refusal";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

impl From<Reason> for v1::Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason: Some(reason) }
    }
}

/// A status that carries the refusal as a detail.
pub fn refused(code: Code, message: impl Into<String>, refusal: impl Into<v1::Refusal>) -> Status {
    let message = message.into();
    let value = refusal.into().encode_to_vec();
    let detail = prost_types::Any { type_url: REFUSAL_TYPE_URL.to_owned(), value };
    let rich = RpcStatus { code: code as i32, message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// The refusal that a status carries, if it carries one.
///
/// Details that are not ours, or are damaged, count as none: what then remains is the code.
pub fn refusal_of(status: &Status) -> Option<v1::Refusal> {
    let rich = RpcStatus::decode(status.details()).ok()?;
    let ours = rich.details.iter().find(|detail| detail.type_url == REFUSAL_TYPE_URL)?;
    v1::Refusal::decode(&*ours.value).ok()
}

/// The refusal of a request whose `field` is wrong: INVALID_ARGUMENT.
pub fn invalid(field: &str, problem: &str, limit: u64, actual: u64) -> Status {
    invalid_as(Code::InvalidArgument, field, problem, limit, actual)
}

/// The same under another code: what is wrong now may be right at another time.
pub fn invalid_as(code: Code, field: &str, problem: &str, limit: u64, actual: u64) -> Status {
    let message = format!("{field}: {problem}");
    let (field, problem) = (field.to_owned(), problem.to_owned());
    let reason = Reason::Invalid(v1::refusal::Invalid { field, problem, limit, actual });
    refused(code, message, reason)
}

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        invalid(error.field, &error.problem.to_string(), 0, 0)
    }
}
