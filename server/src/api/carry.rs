//! Carrying appends to the region that is their streams' home, over gossip's sessions, and answering
//! those that other regions carry here.
//!
//! The leader of a shard has sessions with all regions, so it is the one that carries. Whichever node of
//! the home has the session takes the append as one of its own interface: checked against its own limits,
//! admitted, and sequenced by its region's leader. What comes of it goes back as it is, and what is known
//! of an append that was lost under way is what is known of one passed on within the region ([`forward`]).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anabranch_core::class::Home;
use anabranch_core::{Context, RegionName, ShardId};
use anabranch_gossip::{Answer, AskError, BoxFuture, NotReady, Refusal as NotTaken};
use anabranch_proto::carried::{self, Carried, CarriedAppend, CarriedError};
use anabranch_proto::convert::{invalid, refusal_of, refused};
use anabranch_proto::v1;
use anabranch_proto::v1::refusal::{HomeUnreachable, Reason};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

#[cfg(doc)]
use super::forward;
use super::forward::set_hops;
use super::refusal::{
    home_unreachable, lost, not_caught_up, not_leader, of_append, overload, unknown,
};
use super::{Api, Inner};
use crate::shard::{AppendError, Shard};

/// Regions that an append is carried to at most: the home, and where that moved meanwhile. Two regions
/// that take each other for the home do not play ball with it.
pub(super) const HOPS_MAX: u32 = 2;

/// Characters of a stream's name in a message.
const NAME_TOLD: usize = 80;

/// When to try again if too many appends are under way to the home.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A stream whose home is another region.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) stream: String,
    pub(super) home: Home,
}

impl Away {
    /// Refused: append there.
    pub(super) fn refusal(self) -> Status {
        let Self { stream, home } = self;
        of_append(AppendError::NotHome { stream, home }, Duration::ZERO, |_| {
            unreachable!("nothing was written")
        })
    }

    /// Refused: `why` the home cannot be asked from region `own`. Nothing was written.
    fn unreachable(&self, own: &RegionName, why: impl Display) -> Status {
        let (stream, home) = (&self.stream, &self.home);
        let message = format!(
            "{stream:.NAME_TOLD$} is homed in {}, epoch {}, which cannot be asked from {own}: {why}; ask a \
             region that sees {}, or here when this one does",
            home.region, home.epoch, home.region
        );
        home_unreachable(message, stream, home, own)
    }
}

impl Api {
    /// Appends in the home of a stream, through the session that this node has with it because it leads
    /// `shard`. The append was carried to `hops` regions before. It is written after everything that this
    /// region holds, as it would be here.
    ///
    /// The response is the home's but for the leader it names: that is this region's, which is where this
    /// region's clients go next time.
    /// # Errors
    /// The home's own status; or one that says that it was never sent, or is unknown.
    pub(super) async fn append_in_region(
        &self,
        shard: &Shard,
        away: &Away,
        message: v1::AppendRequest,
        hops: u32,
        deadline: Instant,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let result = self.carry(shard, away, message, hops, deadline).await;
        self.inner.carried.count_to(&away.home.region, result.is_ok());
        if let Err(status) = &result {
            let (home, code) = (&away.home.region, status.code());
            tracing::debug!(%home, ?code, reason = status.message(), "not appended at home");
        }
        result.map(Response::new)
    }

    async fn carry(
        &self,
        shard: &Shard,
        away: &Away,
        request: v1::AppendRequest,
        hops: u32,
        deadline: Instant,
    ) -> Result<v1::AppendResponse, Status> {
        let own = self.inner.identity.region();
        let Some(gossip) = self.inner.gossip.borrow().clone() else {
            return Err(not_leader("this node is starting", None));
        };
        let after = shard.state().region(|region| region.frontier().clone());
        let question = CarriedAppend { hops: hops + 1, after, request }.encode();
        let (home, began) = (&away.home.region, Instant::now());
        let within = deadline.saturating_duration_since(began);
        let answer = gossip.ask(home, shard.id(), question, within).await;
        let answer = answer.map_err(|error| of_ask(error, away, own, began.elapsed()))?;
        outcome(answer, away, own, &self.own_address(shard), began.elapsed())
    }

    /// Answers what other regions carry here. Once the interface is gone, or ends, it says so.
    pub fn answerer(&self) -> Arc<dyn Answer> {
        Arc::new(Answerer { api: Arc::downgrade(&self.inner) })
    }

    /// What is carried here is an append like those of this region's own clients, once all is here that
    /// the other region held.
    async fn handle_carried(
        &self,
        from: &RegionName,
        shard: &Shard,
        carried: CarriedAppend,
        within: Duration,
    ) -> Result<v1::AppendResponse, Status> {
        let began = Instant::now();
        let CarriedAppend { hops, after, request } = carried;
        if hops > HOPS_MAX {
            return Err(too_far(hops));
        }
        self.inner.carried.count_from(from);
        tracing::trace!(%from, hops, events = request.events.len(), "carried here");
        // The other half is for the append.
        let caught_up = shard.await_context(&after, began + within / 2).await;
        caught_up.map_err(|missing| behind(from, &missing, began.elapsed()))?;
        let mut request = Request::new(request);
        request.set_timeout(within.saturating_sub(began.elapsed()));
        set_hops(request.metadata_mut(), hops);
        self.handle_append(request).await.map(Response::into_inner)
    }
}

/// What was carried since this node started, by region.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<String, Counts>>);

/// Appends that were carried to and from a region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Carried there, because it is home.
    pub(super) to: u64,
    /// Those of them that were not acknowledged.
    pub(super) failed: u64,
    /// Carried here from there.
    pub(super) from: u64,
}

impl Tally {
    pub(super) fn of(&self, region: &str) -> Counts {
        self.0.lock().get(region).copied().unwrap_or_default()
    }

    fn count_to(&self, region: &RegionName, acknowledged: bool) {
        self.count(region, |carried| {
            carried.to += 1;
            carried.failed += u64::from(!acknowledged);
        });
    }
    fn count_from(&self, region: &RegionName) {
        self.count(region, |carried| carried.from += 1);
    }
    // Homes are members, and who asks has a certificate: so there are few.
    fn count(&self, region: &RegionName, change: impl FnOnce(&mut Counts)) {
        change(self.0.lock().entry(region.to_string()).or_default());
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
        shard: ShardId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NotReady>> {
        Box::pin(async move {
            let api = Api { inner: self.api.upgrade().ok_or(NotReady)? };
            if api.inner.stopping.is_cancelled() {
                return Err(NotReady);
            }
            let unreadable = |error: CarriedError| invalid("request", &error.to_string(), 0, 0);
            Ok(match (Carried::decode(question), api.inner.shards.get(&shard)) {
                (Err(error), _) => carried::appended(Err(unreadable(error))),
                (Ok(_), None) => return Err(NotReady),
                (Ok(Carried::Append(append)), Some(shard)) => {
                    carried::appended(api.handle_carried(from, shard, append, within).await)
                }
                (Ok(Carried::Rights(asked)), Some(shard)) => {
                    carried::rights_passed(api.handle_asked(from, shard, asked, within).await)
                }
            })
        })
    }
}

/// What the home answered after `waited`, for clients of region `own`, whose leader is at `leader`.
fn outcome(
    answer: Bytes,
    away: &Away,
    own: &RegionName,
    leader: &str,
    waited: Duration,
) -> Result<v1::AppendResponse, Status> {
    match carried::read_appended(answer) {
        Ok(Ok(response)) => Ok(v1::AppendResponse { leader: leader.to_owned(), ..response }),
        Ok(Err(status)) => Err(from_home(status, away, own, leader)),
        // It may have been written all the same.
        Err(error) => {
            let home = &away.home.region;
            Err(lost(format!("the answer of home region {home} {error}"), waited))
        }
    }
}

/// The home's status, without the addresses of its nodes: they are no use to another region's clients.
fn from_home(status: Status, away: &Away, own: &RegionName, leader: &str) -> Status {
    let (code, message, home) = (status.code(), status.message(), &away.home.region);
    match refusal_of(&status).and_then(|refusal| refusal.reason) {
        Some(Reason::NotLeader(_)) => not_leader(format!("home region {home}: {message}"), None),
        Some(Reason::NotCaughtUp(_)) => away.unreachable(own, message),
        // From here, that region is as far as the one that it could not reach.
        Some(Reason::HomeUnreachable(of)) => {
            let of = HomeUnreachable { region: own.to_string(), ..of };
            refused(code, message, Reason::HomeUnreachable(of))
        }
        Some(Reason::RegionsShort(mut short)) => {
            if let Some(appended) = &mut short.appended {
                leader.clone_into(&mut appended.leader);
            }
            refused(code, message, Reason::RegionsShort(short))
        }
        _ => status,
    }
}

/// Refused: no region passes on what has come this far.
fn too_far(hops: u32) -> Status {
    let message = format!(
        "the home of the stream moves: the append was carried to {hops} regions, at most {HOPS_MAX} \
         are allowed"
    );
    not_leader(message, None)
}

/// Refused: the region that asks has seen what is not here yet.
fn behind(from: &RegionName, missing: &Context, waited: Duration) -> Status {
    let message = format!(
        "{} events that region {from} holds have not come here in {waited:?}",
        missing.events()
    );
    not_caught_up(message, missing, waited)
}

/// What a caller in region `own` is told if the home could not be asked, or was lost, after `waited`.
fn of_ask(error: AskError, away: &Away, own: &RegionName, waited: Duration) -> Status {
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
            away.unreachable(own, error)
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

    fn eu() -> RegionName {
        RegionName::new("eu").unwrap()
    }

    fn away() -> Away {
        Away { stream: "bed-1".into(), home: Home { region: us(), epoch: 3 } }
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
        let away = away();
        let not_sent = |reason: &Reason| {
            let of = HomeUnreachable {
                stream: "bed-1".into(),
                home: "us".into(),
                epoch: 3,
                region: "eu".into(),
            };
            *reason == Reason::HomeUnreachable(of)
        };
        let busy = |reason: &Reason| matches!(reason, Reason::Overload(o) if o.retry_after_ms > 0);
        let invalid = |reason: &Reason| matches!(reason, Reason::Invalid(i) if i.limit == 5);
        let unknown = |reason: &Reason| matches!(reason, Reason::Unknown(u) if u.waited_ms == 7);
        type Says<'a> = &'a dyn Fn(&Reason) -> bool;
        let cases: Vec<(AskError, Code, Says<'_>)> = vec![
            (AskError::NoSession { region: region() }, Code::Unavailable, &not_sent),
            (AskError::OutOfTime { region: region(), within }, Code::Unavailable, &not_sent),
            (
                AskError::NotSent { region: region(), source: broken() },
                Code::Unavailable,
                &not_sent,
            ),
            (refused(NotTaken::NotReady), Code::Unavailable, &not_sent),
            (refused(NotTaken::Late), Code::Unavailable, &not_sent),
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
            let status = of_ask(error, &away, &eu(), Duration::from_millis(7));
            assert_eq!(status.code(), code, "{told}: {status:?}");
            assert!(says(&reason(&status)), "{told}: {status:?}");
            assert_eq!(matches!(reason(&status), Reason::Unknown(_)), begun, "{told}");
        }
    }

    #[test]
    fn a_homes_answer_names_no_node_of_the_home() {
        let (away, eu) = (away(), eu());
        let told = |answer| outcome(answer, &away, &eu, "eu-1:1", Duration::from_millis(7));
        let response =
            v1::AppendResponse { events: 2, leader: "us-1:1".into(), ..Default::default() };
        let expected = v1::AppendResponse { leader: "eu-1:1".into(), ..response.clone() };
        assert_eq!(told(carried::appended(Ok(response.clone()))).unwrap(), expected);

        let elsewhere = not_leader("this node does not lead", Some("us-2:1"));
        let status = told(carried::appended(Err(elsewhere))).unwrap_err();
        assert!(matches!(reason(&status), Reason::NotLeader(known) if known.leader.is_empty()));
        assert_eq!(status.message(), "home region us: this node does not lead");

        let far = {
            let home = Home { region: RegionName::new("asia").unwrap(), epoch: 4 };
            Away { stream: "bed-1".into(), home }.unreachable(&us(), "there is no session")
        };
        let status = told(carried::appended(Err(far))).unwrap_err();
        let Reason::HomeUnreachable(of) = reason(&status) else { panic!("{status:?}") };
        assert_eq!((of.home.as_str(), of.region.as_str()), ("asia", "eu"));

        let status =
            told(carried::appended(Err(behind(&eu, &Context::new(), RETRY_AFTER)))).unwrap_err();
        let Reason::HomeUnreachable(of) = reason(&status) else { panic!("{status:?}") };
        assert_eq!((of.home.as_str(), of.region.as_str()), ("us", "eu"));

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
        // Of each of many regions, some incarnations.
        let origins = (0..1000u16).map(|nth| {
            let region = RegionName::new(&format!("r{nth:031}")).unwrap();
            let incarnation = anabranch_core::Incarnation(u128::MAX - u128::from(nth));
            let origin = anabranch_core::Origin { region, incarnation, shard: ShardId(u16::MAX) };
            (origin, anabranch_core::Seq(u64::MAX))
        });
        let (after, request) = (origins.collect(), v1::AppendRequest::default());
        let head = CarriedAppend { hops: u32::MAX, after, request }.encode().len();
        // The length of what is inside takes up to four bytes more.
        assert!(longest + head + 4 <= anabranch_gossip::Tuning::DEFAULT.question_bytes);
    }
}
