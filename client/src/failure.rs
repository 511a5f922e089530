//! What a failed attempt says: whether it was refused, by whom, and whether it may have been written.

use std::io;
use std::time::Duration;

use anabranch_core::Context;
use anabranch_core::planted::{self, Bug};
use anabranch_proto::convert::{Expectation, Expected, never_sent, refusal_of, sources};
use anabranch_proto::v1::refusal::producer_fault::Kind;
use anabranch_proto::v1::refusal::{
    Conflict as WireConflict, HomeUnconfirmed, HomeUnreachable, Invalid, NotHome, ProducerFault,
    Reason, RightsShort,
};
use tonic::{Code, ConnectError, Status};

use crate::append::{Appended, Ticket};
use crate::error::{AppendError, Conflict, ReadError};
use crate::plain::SPEAKS_TLS;

/// What one attempt to append met, other than success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Asking again, or asking somebody else, gives the same answer.
    Final(AppendError),
    /// Nothing was written by this attempt; the same may succeed later.
    Later { error: AppendError, after: Duration },
    /// Nothing was written by this attempt: the home of the stream moves, or cannot be asked from this
    /// region.
    Homeless { error: AppendError },
    /// Nothing was written by this attempt: the node does not lead.
    NotLeader { leader: Option<String> },
    /// The attempt never left: no connection.
    NotSent(Status),
    /// Nothing was written, and asking this node again gives the same: it and we are not set up for
    /// each other.
    Misfit(Status),
    /// It may have been written.
    NoAnswer(Status),
}

/// What one attempt to read met.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// Asking again gives the same answer.
    Final(ReadError),
    /// The node does not hold what the session holds.
    NotCaughtUp { missing: Context },
    /// The node asks for some time.
    Later { status: Status, after: Duration },
    /// The attempt never left: no connection.
    NotSent(Status),
    /// Asking this node again gives the same: it and we are not set up for each other.
    Misfit(Status),
    /// Asking this node again gives the same: what it holds of this is damaged.
    Damaged(Status),
    /// The node went away.
    Broken(Status),
}

/// Alerts by which a node says that it does not like our certificate, or that it wants one. It says
/// so before it reads anything else.
const CERTIFICATE_ALERTS: [&str; 8] = [
    "AccessDenied",
    "BadCertificate",
    "CertificateExpired",
    "CertificateRequired",
    "CertificateRevoked",
    "CertificateUnknown",
    "UnknownCA",
    "UnsupportedCertificate",
];

/// True if the node and we do not speak the same, or do not trust each other: nothing was read by it,
/// and a second attempt ends the same way.
///
/// TLS reports what it does not understand or believe as invalid data; so does our own look at the
/// first bytes of a connection without TLS. Words that are not known here count as doubt.
fn is_misfit(status: &Status) -> bool {
    let connecting = sources(status).any(|error| error.is::<ConnectError>());
    sources(status).filter_map(|error| error.downcast_ref::<io::Error>()).any(|error| {
        let text = error.to_string();
        let refused = text.strip_prefix("received fatal alert: ");
        error.kind() == io::ErrorKind::InvalidData
            && (connecting
                || text == SPEAKS_TLS
                || refused.is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert)))
    })
}

/// Codes that the transport and proxies also make, also after the server has acted.
///
/// RESOURCE_EXHAUSTED is among them: without a detail it may be HTTP/2's "enhance your calm".
fn from_transport(code: Code) -> bool {
    use Code::{
        Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, Ok, OutOfRange,
        ResourceExhausted, Unavailable, Unknown,
    };
    matches!(
        code,
        Ok | Cancelled
            | Unknown
            | DeadlineExceeded
            | ResourceExhausted
            | Aborted
            | OutOfRange
            | Internal
            | Unavailable
            | DataLoss
    )
}

/// Whether what was asked for may have been done all the same.
pub(crate) fn is_in_doubt(status: &Status) -> bool {
    match refusal_of(status).and_then(|refusal| refusal.reason) {
        Some(reason) => matches!(reason, Reason::Unknown(_) | Reason::RegionsShort(_)),
        None => from_transport(status.code()) && !is_misfit(status) && !never_sent(status),
    }
}

fn ms(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn refused(status: &Status) -> AppendError {
    AppendError::Refused { code: status.code(), message: status.message().to_owned() }
}

impl Failure {
    /// Reads what the server answered. `ticket` names the append, for results that carry one.
    pub(crate) fn of(status: Status, ticket: &Ticket) -> Self {
        let Some(reason) = refusal_of(&status).and_then(|refusal| refusal.reason) else {
            return Self::without_detail(status);
        };
        match reason {
            Reason::Invalid(wrong) => Self::Final(invalid(wrong)),
            Reason::Conflicts(found) => {
                let conflicts = found.conflicts.into_iter().map(conflict).collect();
                Self::Final(AppendError::Conflict { conflicts })
            }
            Reason::Producer(fault) => Self::Final(producer_fault(fault, &status)),
            Reason::Overload(overload) => {
                let after = ms(overload.retry_after_ms);
                let what = status.message().to_owned();
                let error = AppendError::Overloaded { what, retry_after: after };
                Self::Later { error, after }
            }
            Reason::Unknown(_) => Self::NoAnswer(status),
            Reason::NotLeader(known) => {
                Self::NotLeader { leader: Some(known.leader).filter(|leader| !leader.is_empty()) }
            }
            Reason::RegionsShort(short) => {
                let appended = short.appended.ok_or(()).and_then(|wire| {
                    Appended::from_wire(wire, ticket.clone()).map(Box::new).map_err(|_| ())
                });
                let (wanted, reached) = (short.wanted, short.reached);
                match appended {
                    Ok(appended) => {
                        Self::Final(AppendError::RegionsShort { wanted, reached, appended })
                    }
                    // It was written, but where is not told: the retry's answer tells.
                    Err(()) => Self::NoAnswer(status),
                }
            }
            // A leader whose clock is off does not propose; another one may be elected.
            Reason::Clock(_) => Self::Later { error: refused(&status), after: Duration::ZERO },
            Reason::NotCaughtUp(_) | Reason::Forgetful(_) => Self::Final(refused(&status)),
            Reason::NotHome(NotHome { stream, home, epoch }) => {
                Self::Homeless { error: AppendError::NotHome { stream, home, epoch } }
            }
            Reason::HomeUnreachable(HomeUnreachable { stream, home, epoch, region }) => {
                Self::Homeless {
                    error: AppendError::HomeUnreachable { stream, home, epoch, region },
                }
            }
            Reason::HomeUnconfirmed(HomeUnconfirmed { category, waits_for }) => {
                let error = AppendError::HomeUnconfirmed { category, waits_for };
                Self::Later { error, after: Duration::ZERO }
            }
            Reason::RightsShort(RightsShort { stream, field, wanted, held, asked }) => {
                Self::Final(AppendError::RightsShort { stream, field, wanted, held, asked })
            }
        }
    }

    fn without_detail(status: Status) -> Self {
        if is_misfit(&status) {
            Self::Misfit(status)
        } else if never_sent(&status) {
            Self::NotSent(status)
        } else if from_transport(status.code()) && !planted::is(Bug::SilenceIsRefusal) {
            Self::NoAnswer(status)
        } else {
            Self::Final(refused(&status))
        }
    }
}

impl ReadFailure {
    /// Reads what the server answered.
    pub(crate) fn of(status: Status) -> Self {
        match refusal_of(&status).and_then(|refusal| refusal.reason) {
            Some(Reason::Invalid(Invalid { field, problem, .. })) => {
                Self::Final(ReadError::Invalid { field, problem })
            }
            Some(Reason::NotCaughtUp(behind)) => {
                let missing = Context::try_from(behind.missing.unwrap_or_default());
                Self::NotCaughtUp { missing: missing.unwrap_or_default() }
            }
            Some(Reason::Overload(overload)) => {
                Self::Later { status, after: ms(overload.retry_after_ms) }
            }
            // Another node of the region says the same, and the region will for a while.
            Some(Reason::HomeUnreachable(_)) => {
                let (code, message) = (status.code(), status.message().to_owned());
                Self::Final(ReadError::Refused { code, message })
            }
            Some(_) => Self::Broken(status),
            None if is_misfit(&status) => Self::Misfit(status),
            None if status.code() == Code::DataLoss => Self::Damaged(status),
            None if never_sent(&status) => Self::NotSent(status),
            // What the transport says of a message that is too large does not change by asking again.
            None if from_transport(status.code()) && status.code() != Code::OutOfRange => {
                Self::Broken(status)
            }
            None => {
                let (code, message) = (status.code(), status.message().to_owned());
                Self::Final(ReadError::Refused { code, message })
            }
        }
    }
}

fn invalid(wrong: Invalid) -> AppendError {
    // No limit is 0: then no number is involved.
    let numbers = (wrong.limit > 0).then_some((wrong.limit, wrong.actual));
    AppendError::Invalid {
        field: wrong.field,
        problem: wrong.problem,
        limit: numbers.map(|(limit, _)| limit),
        actual: numbers.map(|(_, actual)| actual),
    }
}

fn conflict(wire: WireConflict) -> Conflict {
    let wire_expectation = wire.expectation.unwrap_or_default();
    let stream = wire_expectation.stream.clone();
    // An expectation this release cannot name is one it did not send; what counts is `actual`.
    let expected = Expectation::try_from(wire_expectation).map_or(Expected::Any, |e| e.expected);
    Conflict { stream, expected, actual: wire.actual }
}

fn producer_fault(fault: ProducerFault, status: &Status) -> AppendError {
    match fault.kind() {
        Kind::Fenced => AppendError::Fenced { epoch: fault.epoch },
        Kind::Forgotten => AppendError::Forgotten { oldest: fault.sequence },
        Kind::Unspecified => refused(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::ProducerId;
    use anabranch_core::event::ProducerTag;
    use anabranch_proto::convert;
    use anabranch_proto::v1::refusal;

    fn read(status: Status) -> Failure {
        let tag = ProducerTag { id: ProducerId([1; 16]), epoch: 1, sequence: 5 };
        Failure::of(status, &Ticket { region: "us".into(), tag })
    }

    #[test]
    fn a_status_without_a_detail_is_a_refusal_only_if_no_transport_makes_it() {
        for code in 1..=16 {
            let code = Code::from_i32(code);
            let refused = matches!(read(Status::new(code, "")), Failure::Final(_));
            let certain = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::AlreadyExists,
                Code::PermissionDenied,
                Code::FailedPrecondition,
                Code::Unimplemented,
                Code::Unauthenticated,
            ];
            assert_eq!(refused, certain.contains(&code), "{code:?}");
        }
    }

    #[test]
    fn details_decide_whatever_the_code() {
        let with = |reason| read(convert::refused(Code::Unavailable, "", reason));
        let led = |leader: &str| Reason::NotLeader(refusal::NotLeader { leader: leader.into() });
        assert!(matches!(with(led("")), Failure::NotLeader { leader: None }));
        assert!(matches!(with(led("b:1")), Failure::NotLeader { leader: Some(_) }));
        let unknown = Reason::Unknown(refusal::Unknown { waited_ms: 5 });
        assert!(matches!(with(unknown), Failure::NoAnswer(_)));
        let busy = refusal::Overload { what: "log".into(), retry_after_ms: 40 };
        let after = Duration::from_millis(40);
        assert!(
            matches!(with(Reason::Overload(busy)), Failure::Later { after: a, .. } if a == after)
        );
        let forgotten = ProducerFault { kind: Kind::Forgotten as i32, epoch: 0, sequence: 7 };
        let forgotten = with(Reason::Producer(forgotten));
        assert!(matches!(forgotten, Failure::Final(AppendError::Forgotten { oldest: 7 })));
        let fenced = ProducerFault { kind: Kind::Fenced as i32, epoch: 3, sequence: 0 };
        let fenced = with(Reason::Producer(fenced));
        assert!(matches!(fenced, Failure::Final(AppendError::Fenced { epoch: 3 })));
        let clock = Reason::Clock(refusal::ClockFault { ahead_ms: 900, allowed_ms: 500 });
        assert!(matches!(with(clock), Failure::Later { .. }));
        let (stream, home, region) = ("bed-1".into(), "us".into(), "eu".into());
        let away = refusal::HomeUnreachable { stream, home, epoch: 1, region };
        let away = with(Reason::HomeUnreachable(away));
        let Failure::Homeless { error: AppendError::HomeUnreachable { home, region, .. } } = away
        else {
            panic!("{away:?}");
        };
        assert_eq!((home.as_str(), region.as_str()), ("us", "eu"));
        // Durable but not described: not an error to believe, and never a refusal.
        let short = refusal::RegionsShort { wanted: 2, reached: 1, appended: None };
        assert!(matches!(with(Reason::RegionsShort(short)), Failure::NoAnswer(_)));
    }
}
