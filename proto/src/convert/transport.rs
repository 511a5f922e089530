//! What the transport says of a call that the other side did not answer.

use std::error::Error;

use tonic::{Code, ConnectError, Status};

/// True if nothing of the call can have been sent: no connection was made, or the call was still
/// waiting for one when it broke.
///
/// Source: hyper calls only those calls cancelled that it had not taken up yet
/// (`client/dispatch.rs`); tonic passes its words on.
pub fn never_sent(status: &Status) -> bool {
    let not_taken_up =
        status.code() == Code::Cancelled && status.message() == "operation was canceled";
    sources(status).any(|error| error.is::<ConnectError>() || not_taken_up)
}

/// Why the call failed, in one line: the innermost cause, or what the other side said.
pub fn cause(status: &Status) -> String {
    match sources(status).last() {
        Some(innermost) => innermost.to_string(),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

/// What lies below a status that was made on this side; nothing if the other side made it.
pub fn sources(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn Error + 'static)| (*error).source())
}
