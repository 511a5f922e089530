//! Carrying appends to the region that is their streams' home, over gossip's sessions, and answering
//! those that other regions carry here.
//!
//! The leader of a shard has sessions with all regions, so it is the one that carries. Whichever node of
//! the home has the session takes the append as one of its own interface: checked against its own limits,
//! admitted, and sequenced by its region's leader. What comes of it goes back as it is, and what is known
//! of an append that was lost under way is what is known of one passed on within the region ([`forward`]).

use std::sync::{Arc, Weak};
use std::time::Duration;

use anabranch_core::{RegionName, ShardId};
use anabranch_gossip::{Answer, AskError, BoxFuture, NotReady, Refusal as NotTaken};
use anabranch_proto::convert::{invalid, refusal_of, refused};
use anabranch_proto::v1::refusal::Reason;
use anabranch_proto::{carried, v1};
use bytes::Bytes;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

#[cfg(doc)]
use super::forward;
use super::forward::set_hops;
use super::refusal::{lost, not_leader, overload, unknown};
use super::{Api, Inner};
use crate::shard::Shard;

/// Regions that an append is carried to at most: the home, and where that moved meanwhile. Two regions
/// that take each other for the home do not play ball with it.
pub(super) const HOPS_MAX: u32 = 2;

/// When to try again if too many appends are under way to the home.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl Api {
    /// Appends in region `home`, through the session that this node has with it because it leads
    /// `shard`. The append was carried to `hops` regions before.
    ///
    /// The response is the home's but for the leader it names: that is this region's, which is where this
    /// region's clients go next time.
    /// # Errors
    /// The home's own status; or one that says, as for an append that is passed on to a leader, whether
    /// it was never sent or is unknown.
    #[cfg_attr(not(test), expect(dead_code, reason = "streams have no homes yet"))]
    pub(super) async fn append_in_region(
        &self,
        shard: &Shard,
        home: RegionName,
        message: v1::AppendRequest,
        hops: u32,
        deadline: Instant,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        if hops >= HOPS_MAX {
            return Err(too_far(hops));
        }
        let Some(gossip) = self.inner.gossip.borrow().clone() else {
            return Err(not_leader("this node is starting", None));
        };
        let (began, question) = (Instant::now(), carried::append(hops + 1, message));
        let within = deadline.saturating_duration_since(began);
        let answer = gossip.ask(&home, shard.id(), question, within).await;
        let answer = answer.map_err(|error| of_ask(error, began.elapsed()))?;
        outcome(answer, &home, &self.own_address(shard), began.elapsed()).map(Response::new)
    }

    /// Answers what other regions carry here. Once the interface is gone, or ends, it says so.
    pub fn answerer(&self) -> Arc<dyn Answer> {
        Arc::new(Answerer { api: Arc::downgrade(&self.inner) })
    }

    /// What is carried here is an append like those of this region's own clients.
    async fn handle_carried(
        &self,
        from: &RegionName,
        question: Bytes,
        within: Duration,
    ) -> Result<v1::AppendResponse, Status> {
        let read = carried::read_append(question);
        let (hops, message) = read.map_err(|error| invalid("request", &error.to_string(), 0, 0))?;
        if hops > HOPS_MAX {
            return Err(too_far(hops));
        }
        tracing::trace!(%from, hops, events = message.events.len(), "carried here");
        let mut request = Request::new(message);
        request.set_timeout(within);
        set_hops(request.metadata_mut(), hops);
        self.handle_append(request).await.map(Response::into_inner)
    }
}

/// Answers for an interface without keeping it: gossip has this, and the interface has gossip.
struct Answerer {
    api: Weak<Inner>,
}

impl Answer for Answerer {
    fn answer<'a>(
        &'a self,
        from: &'a RegionName,
        _shard: ShardId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NotReady>> {
        Box::pin(async move {
            let api = Api { inner: self.api.upgrade().ok_or(NotReady)? };
            if api.inner.stopping.is_cancelled() {
                return Err(NotReady);
            }
            Ok(carried::appended(api.handle_carried(from, question, within).await))
        })
    }
}

/// What the home answered after `waited`, for clients of this region, whose leader is at `leader`.
fn outcome(
    answer: Bytes,
    home: &RegionName,
    leader: &str,
    waited: Duration,
) -> Result<v1::AppendResponse, Status> {
    match carried::read_appended(answer) {
        Ok(Ok(response)) => Ok(v1::AppendResponse { leader: leader.to_owned(), ..response }),
        Ok(Err(status)) => Err(from_home(status, home, leader)),
        // It may have been written all the same.
        Err(error) => Err(lost(format!("the answer of home region {home} {error}"), waited)),
    }
}

/// The home's status, without the addresses of its nodes: they are no use to another region's clients.
fn from_home(status: Status, home: &RegionName, leader: &str) -> Status {
    let (code, message) = (status.code(), status.message());
    match refusal_of(&status).and_then(|refusal| refusal.reason) {
        Some(Reason::NotLeader(_)) => not_leader(format!("home region {home}: {message}"), None),
        Some(Reason::RegionsShort(mut short)) => {
            if let Some(appended) = &mut short.appended {
                leader.clone_into(&mut appended.leader);
            }
            refused(code, message, Reason::RegionsShort(short))
        }
        _ => status,
    }
}

/// Refused: the regions do not agree yet who is the home.
fn too_far(hops: u32) -> Status {
    let message = format!(
        "the home of the stream moves: the append was carried to {hops} regions, at most {HOPS_MAX} \
         are allowed"
    );
    not_leader(message, None)
}

/// What a caller is told if the home could not be asked, or was lost, after `waited`.
fn of_ask(error: AskError, waited: Duration) -> Status {
    let message = format!("the append was not carried to its home: {error}");
    match &error {
        AskError::TooLong { bytes, limit } => too_long(&error, *limit, *bytes),
        AskError::Refused { reason: NotTaken::TooLong { limit }, .. } => {
            too_long(&error, *limit as usize, 0)
        }
        AskError::TooMany { region, .. } | AskError::Refused { region, reason: NotTaken::Busy } => {
            overload(&format!("appends under way to home region {region}"), RETRY_AFTER)
        }
        AskError::NoSession { .. }
        | AskError::OutOfTime { .. }
        | AskError::NotSent { .. }
        | AskError::Refused { reason: NotTaken::NotReady | NotTaken::Late, .. } => {
            not_leader(message, None)
        }
        AskError::NoAnswer { .. } => unknown(format!("the home: {error}"), waited),
        AskError::Lost { .. } | AskError::Answer { .. } => {
            lost(format!("the home: {error}"), waited)
        }
    }
}

fn too_long(error: &AskError, limit: usize, actual: usize) -> Status {
    invalid("events", &error.to_string(), limit as u64, actual as u64)
}

#[cfg(test)]
mod tests {
    use anabranch_proto::convert;
    use tonic::Code;

    use super::*;

    fn us() -> RegionName {
        RegionName::new("us").unwrap()
    }

    fn reason(status: &Status) -> Reason {
        convert::refusal_of(status).and_then(|refusal| refusal.reason).expect("it says why")
    }

    #[test]
    fn only_what_may_have_been_begun_is_unknown_and_the_rest_may_be_tried_again() {
        let region = us;
        let within = Duration::from_secs(1);
        let broken = || Box::new(std::io::Error::other("broken"));
        let refused = |reason| AskError::Refused { region: region(), reason };
        let undecodable = anabranch_core::DecodeError::Invalid { what: "kind of reply", value: 9 };
        let not_led = |reason: &Reason| matches!(reason, Reason::NotLeader(_));
        let busy = |reason: &Reason| matches!(reason, Reason::Overload(o) if o.retry_after_ms > 0);
        let invalid = |reason: &Reason| matches!(reason, Reason::Invalid(i) if i.limit == 5);
        let unknown = |reason: &Reason| matches!(reason, Reason::Unknown(u) if u.waited_ms == 7);
        type Says<'a> = &'a dyn Fn(&Reason) -> bool;
        let cases: Vec<(AskError, Code, Says<'_>)> = vec![
            (AskError::NoSession { region: region() }, Code::Unavailable, &not_led),
            (AskError::OutOfTime { region: region(), within }, Code::Unavailable, &not_led),
            (AskError::NotSent { region: region(), source: broken() }, Code::Unavailable, &not_led),
            (refused(NotTaken::NotReady), Code::Unavailable, &not_led),
            (refused(NotTaken::Late), Code::Unavailable, &not_led),
            (AskError::TooMany { region: region(), limit: 5 }, Code::ResourceExhausted, &busy),
            (refused(NotTaken::Busy), Code::ResourceExhausted, &busy),
            (AskError::TooLong { bytes: 6, limit: 5 }, Code::InvalidArgument, &invalid),
            (refused(NotTaken::TooLong { limit: 5 }), Code::InvalidArgument, &invalid),
            (AskError::NoAnswer { region: region(), within }, Code::DeadlineExceeded, &unknown),
            (AskError::Lost { region: region(), source: broken() }, Code::Unavailable, &unknown),
            (
                AskError::Answer { region: region(), source: undecodable },
                Code::Unavailable,
                &unknown,
            ),
        ];
        for (error, code, says) in cases {
            let (begun, told) = (error.may_have_been_begun(), error.to_string());
            let status = of_ask(error, Duration::from_millis(7));
            assert_eq!(status.code(), code, "{told}: {status:?}");
            assert!(says(&reason(&status)), "{told}: {status:?}");
            assert_eq!(matches!(reason(&status), Reason::Unknown(_)), begun, "{told}");
        }
    }

    #[test]
    fn a_homes_answer_names_no_node_of_the_home() {
        let told = |answer| outcome(answer, &us(), "eu-1:1", Duration::from_millis(7));
        let response =
            v1::AppendResponse { events: 2, leader: "us-1:1".into(), ..Default::default() };
        let expected = v1::AppendResponse { leader: "eu-1:1".into(), ..response.clone() };
        assert_eq!(told(carried::appended(Ok(response.clone()))).unwrap(), expected);

        let elsewhere = not_leader("this node does not lead", Some("us-2:1"));
        let status = told(carried::appended(Err(elsewhere))).unwrap_err();
        assert!(matches!(reason(&status), Reason::NotLeader(known) if known.leader.is_empty()));
        assert_eq!(status.message(), "home region us: this node does not lead");

        let appended = Some(response);
        let short = v1::refusal::RegionsShort { wanted: 3, reached: 2, appended };
        let short = refused(Code::DeadlineExceeded, "short", Reason::RegionsShort(short));
        let status = told(carried::appended(Err(short))).unwrap_err();
        let Reason::RegionsShort(short) = reason(&status) else { panic!("{status:?}") };
        assert_eq!((status.code(), short.appended), (Code::DeadlineExceeded, Some(expected)));

        let full = overload("bytes", RETRY_AFTER);
        let status = told(carried::appended(Err(full.clone()))).unwrap_err();
        assert_eq!((status.message(), status.details()), (full.message(), full.details()));

        let status = told(Bytes::new()).unwrap_err();
        assert!(matches!(reason(&status), Reason::Unknown(unknown) if unknown.waited_ms == 7));
    }

    #[test]
    fn the_longest_append_there_is_can_be_carried() {
        let longest = anabranch_core::Limits::DEFAULT.message_bytes();
        let head = carried::append(u32::MAX, v1::AppendRequest::default()).len();
        // The length of what is inside takes up to four bytes more.
        assert!(longest + head + 4 <= anabranch_gossip::Tuning::DEFAULT.question_bytes);
    }
}
