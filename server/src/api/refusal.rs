//! Errors as gRPC statuses. `anabranch/v1/events.proto` says which code and detail stand for what.

use std::time::Duration;

use anabranch_core::class::Home;
use anabranch_core::sequencer::Conflict;
use anabranch_core::{Context, Limits, RegionName};
use anabranch_log::index::IndexError;
use anabranch_log::store::StoreError;
use anabranch_proto::convert::{self, refused};
use anabranch_proto::v1;
use anabranch_proto::v1::refusal::producer_fault::Kind;
use anabranch_proto::v1::refusal::{self, Reason};
use tonic::{Code, Status};

use crate::aggregates::AggregateError;
use crate::conflicts::ConflictError;
use crate::raft::{MembershipError, ProposeError};
use crate::read::ReadError;
use crate::shard::AppendError;

/// When to try again after the disk was full.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// A status travels in the headers that end a call. Many clients take 8 KiB of them: of more, they see a
/// broken call, and an append that was refused is in doubt.
const CONFLICT_BYTES: usize = 3 * 1024;
/// Tags, lengths and numbers of a conflict.
const CONFLICT_FRAMING: usize = 32;
const _: () = assert!(Limits::DEFAULT.name_bytes + CONFLICT_FRAMING <= CONFLICT_BYTES, "one fits");

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
fn short_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Refused: too much of something. Nothing was done.
pub(super) fn overload(what: &str, retry_after: Duration) -> Status {
    busy(format!("too many {what}; retry after {retry_after:?}"), what, retry_after)
}

fn busy(message: String, what: &str, retry_after: Duration) -> Status {
    let retry_after_ms = short_ms(retry_after);
    let overload = refusal::Overload { what: what.to_owned(), retry_after_ms };
    refused(Code::ResourceExhausted, message, Reason::Overload(overload))
}

/// Refused: this node does not lead. Nothing was done. `leader` is the address of the one that does.
pub(super) fn not_leader(message: impl Into<String>, leader: Option<&str>) -> Status {
    let leader = leader.unwrap_or_default().to_owned();
    refused(Code::Unavailable, message, Reason::NotLeader(refusal::NotLeader { leader }))
}

/// Refused: the home of a stream could not be asked from region `region`. Nothing was done.
pub(super) fn home_unreachable(
    message: impl Into<String>,
    stream: &str,
    home: &Home,
    region: &RegionName,
) -> Status {
    let unreachable = refusal::HomeUnreachable {
        stream: stream.to_owned(),
        home: home.region.to_string(),
        epoch: home.epoch,
        region: region.to_string(),
    };
    refused(Code::Unavailable, message, Reason::HomeUnreachable(unreachable))
}

/// Refused: `missing` is not held here after `waited`. Nothing was done.
pub(super) fn not_caught_up(
    message: impl Into<String>,
    missing: &Context,
    waited: Duration,
) -> Status {
    let behind =
        refusal::NotCaughtUp { missing: Some(missing.into()), waited_ms: short_ms(waited) };
    refused(Code::Unavailable, message, Reason::NotCaughtUp(behind))
}

/// It may have been done: there was no answer in time.
pub(super) fn unknown(message: impl Into<String>, waited: Duration) -> Status {
    let waited_ms = short_ms(waited);
    refused(Code::DeadlineExceeded, message, Reason::Unknown(refusal::Unknown { waited_ms }))
}

/// It may have been done: whoever was asked is gone.
pub(super) fn lost(message: impl Into<String>, waited: Duration) -> Status {
    let waited_ms = short_ms(waited);
    refused(Code::Unavailable, message, Reason::Unknown(refusal::Unknown { waited_ms }))
}

/// The status of an append that failed after `waited`. `describe` makes the response of one that was
/// written.
pub(super) fn of_append(
    error: AppendError,
    waited: Duration,
    describe: impl FnOnce(crate::shard::Appended) -> v1::AppendResponse,
) -> Status {
    let message = error.to_string();
    match error {
        AppendError::Conflicts(conflicts) => {
            refused(Code::FailedPrecondition, message, Reason::Conflicts(with_room(conflicts)))
        }
        AppendError::Fenced { epoch } => producer_fault(message, Kind::Fenced, epoch, 0),
        AppendError::Forgotten { oldest } => producer_fault(message, Kind::Forgotten, 0, oldest),
        AppendError::IdReused { .. } => convert::invalid("events.id", &message, 0, 0),
        AppendError::SequenceReused { .. } => convert::invalid("producer.sequence", &message, 0, 0),
        AppendError::NotHome { stream, home } => {
            let (home, epoch) = (home.region.to_string(), home.epoch);
            let not_home = refusal::NotHome { stream, home, epoch };
            refused(Code::Unavailable, message, Reason::NotHome(not_home))
        }
        AppendError::HomesDiffer { .. } => convert::invalid("events.stream", &message, 0, 0),
        AppendError::HomeUnconfirmed { category, waits_for } => {
            let waits_for = waits_for.iter().map(ToString::to_string).collect();
            let unconfirmed = refusal::HomeUnconfirmed { category, waits_for };
            refused(Code::Unavailable, message, Reason::HomeUnconfirmed(unconfirmed))
        }
        AppendError::Class(_) => {
            convert::invalid_as(Code::FailedPrecondition, "class", &message, 0, 0)
        }
        AppendError::RightsShort { counter, wanted, held } => {
            let (stream, field) = (counter.stream.into(), counter.field.into());
            let held = u64::try_from(held).unwrap_or(u64::MAX);
            let short = refusal::RightsShort { stream, field, wanted, held, asked: Vec::new() };
            refused(Code::FailedPrecondition, message, Reason::RightsShort(short))
        }
        AppendError::BadRights(_) => convert::invalid("events.payload", &message, 0, 0),
        AppendError::Overload { what, retry_after } => overload(what, retry_after),
        AppendError::ClockBehind(clock) => {
            let (ahead_ms, allowed_ms) = (ms(clock.ahead), ms(clock.drift_max));
            let fault = refusal::ClockFault { ahead_ms, allowed_ms };
            refused(Code::Unavailable, message, Reason::Clock(fault))
        }
        AppendError::ClockDoubted(doubted) => {
            let (off, allowed) = doubted.off_and_allowed();
            let fault = refusal::ClockFault { ahead_ms: ms(off), allowed_ms: ms(allowed) };
            refused(Code::Unavailable, message, Reason::Clock(fault))
        }
        AppendError::Forgetful(forgetful) => {
            let (theirs, ours) = (forgetful.theirs.0, forgetful.ours.0);
            let region = forgetful.knows.to_string();
            let forgetful = refusal::Forgetful { region, theirs, ours };
            refused(Code::FailedPrecondition, message, Reason::Forgetful(forgetful))
        }
        AppendError::NotLeader { leader } => {
            let address = leader.map(|(_, node)| node.api_address);
            not_leader(message, address.as_deref())
        }
        AppendError::NoQuorum | AppendError::Stopped { .. } => not_leader(message, None),
        AppendError::DiskFull => busy(message, "space on the disk", FULL_RETRY),
        AppendError::RegionsShort { wanted, reached, appended } => {
            let appended = Some(describe(*appended));
            let short = refusal::RegionsShort { wanted, reached, appended };
            refused(Code::DeadlineExceeded, message, Reason::RegionsShort(short))
        }
        AppendError::Unknown { .. } => unknown(message, waited),
    }
}

fn producer_fault(message: String, kind: Kind, epoch: u32, sequence: u64) -> Status {
    let fault = refusal::ProducerFault { kind: kind.into(), epoch, sequence };
    refused(Code::FailedPrecondition, message, Reason::Producer(fault))
}

/// As many conflicts as fit beside the rest of a status.
fn with_room(conflicts: Vec<Conflict>) -> refusal::Conflicts {
    let (count, mut room) = (conflicts.len(), CONFLICT_BYTES);
    let fits = |conflict: &Conflict| {
        let bytes = conflict.expectation.stream.len() + CONFLICT_FRAMING;
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    };
    let told: Vec<_> = conflicts.into_iter().take_while(fits).map(conflict).collect();
    let more = u32::try_from(count - told.len()).unwrap_or(u32::MAX);
    refusal::Conflicts { conflicts: told, more }
}

fn conflict(conflict: Conflict) -> refusal::Conflict {
    let expectation = conflict.expectation;
    refusal::Conflict { expectation: Some(expectation.into()), actual: conflict.actual }
}

/// The status that ends a read.
pub(super) fn of_read(error: ReadError) -> Status {
    let message = error.to_string();
    match error {
        ReadError::Invalid { field, problem } => convert::invalid(field, problem, 0, 0),
        ReadError::NotCaughtUp { missing, waited } => not_caught_up(message, &missing, waited),
        ReadError::Store(error) => of_store(message, &error),
        ReadError::Closed => Status::unavailable(message),
    }
}

fn of_store(message: String, error: &StoreError) -> Status {
    let mut text = message;
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    tracing::error!(error = %text, "events cannot be read; see docs/runbooks/damaged-record.md");
    match is_damage(error) {
        true => Status::data_loss(text),
        false => Status::unavailable(text),
    }
}

/// The status of a question about aggregates that has no answer, after `waited`.
pub(super) fn of_aggregate(error: AggregateError, waited: Duration) -> Status {
    let message = error.to_string();
    match error {
        AggregateError::NoDefinition { category } => Status::not_found(format!(
            "{message}; declare one: anabranch aggregate define ({category})"
        )),
        AggregateError::NotCaughtUp { missing } => not_caught_up(message, &missing, waited),
        AggregateError::Building { .. }
        | AggregateError::Behind { .. }
        | AggregateError::Closed => Status::unavailable(message),
        AggregateError::States { source, .. } => {
            Status::unavailable(format!("{message}: {source}"))
        }
        AggregateError::TooLong { .. } | AggregateError::Unsettled { .. } => {
            Status::failed_precondition(message)
        }
        AggregateError::Store(error) => of_store(message, &error),
    }
}

/// The status of a question about conflicts that has no answer, after `waited`.
pub(super) fn of_conflict(error: ConflictError, waited: Duration) -> Status {
    let message = error.to_string();
    match error {
        ConflictError::NotCaughtUp { missing } => {
            let (missing, waited_ms) = (Some((&missing).into()), short_ms(waited));
            let behind = refusal::NotCaughtUp { missing, waited_ms };
            refused(Code::Unavailable, message, Reason::NotCaughtUp(behind))
        }
        ConflictError::OfAnotherRegion => convert::invalid("after", &message, 0, 0),
        ConflictError::Behind { .. } | ConflictError::Closed => Status::unavailable(message),
        ConflictError::States(source) => Status::unavailable(format!("{message}: {source}")),
        ConflictError::Store(error) => of_store(message, &error),
    }
}

/// Whether what is stored is not what was written. Else the disk, or the process, could not read it
/// now: another try may.
fn is_damage(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Log(anabranch_log::ReadError::Io { .. })
            | StoreError::Index(IndexError::Io { .. })
            | StoreError::Folder { .. }
    )
}

/// The status of a change of the members that failed.
pub(super) fn of_membership(error: MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::Refused(ProposeError::NotLeader { leader }) => {
            let address = leader.map(|(_, node)| node.api_address);
            not_leader(message, address.as_deref())
        }
        MembershipError::Refused(_) => not_leader(message, None),
        MembershipError::Empty => convert::invalid("voters", "is empty", 0, 0),
        MembershipError::AddressChanged { .. } => convert::invalid("voters", &message, 0, 0),
        MembershipError::NotNow { .. } | MembershipError::Behind { .. } => {
            Status::failed_precondition(message)
        }
        MembershipError::Unknown { .. } => unknown(message, Duration::ZERO),
    }
}
