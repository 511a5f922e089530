//! Asking another region for rights to a bounded counter, when a spend is refused here for want of them.
//!
//! The region that is asked passes rights by an ordinary event of its own, if its sequencer lets it; the
//! one that asks waits for that event like for any other and tries the spend again. So nothing here is
//! trusted with the bound: the laws are in the sequencers, and a question or an answer that is lost leaves
//! rights where its event says they are.
//!
//! An append asks two regions at most, and none that could not help: what others hold is read off the
//! counter as this region knows it. The region that is asked gives half of what it holds, or what is
//! needed if that is more. Half, because a counter that is spent often would else ask for every spend, and
//! since the one that gave may have to spend, too: two regions that share what there is ask each other the
//! less often the more there is.

use std::fmt::Write;
use std::time::Duration;

use anabranch_core::aggregate::{Action, Definition, Operation, Operations};
use anabranch_core::event::category;
use anabranch_core::rights::{self, Counter};
use anabranch_core::{Context, RegionName, SessionToken};
use anabranch_gossip::Gossip;
use anabranch_proto::carried;
use anabranch_proto::convert::{invalid, refusal_of, refused};
use anabranch_proto::internal::{AskRights, RightsPassed};
use anabranch_proto::v1;
use anabranch_proto::v1::refusal::{self, Reason};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::Api;
use crate::shard::{AppendError, Shard};

/// Regions that one append asks at most.
const ASKED_MAX: usize = 2;
/// How long a region may take to answer: a round trip around the world, and a log that is busy. One that
/// was cut off just now does not answer at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often the region that is asked tries to pass: what it holds may be spent meanwhile.
const PASS_TRIES: u32 = 3;

/// Too few rights for a spend.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) counter: Counter,
    pub(super) wanted: u64,
    pub(super) held: u128,
}

/// Whom an append has asked for rights, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Asked(Vec<(RegionName, String)>);

impl Asked {
    fn knows(&self, region: &RegionName) -> bool {
        self.0.iter().any(|(asked, _)| asked == region)
    }

    /// The refusal, which says who was asked.
    pub(super) fn refusal(&self, short: Short) -> Status {
        let Short { counter, wanted, held } = short;
        let error = AppendError::RightsShort { counter: counter.clone(), wanted, held };
        let mut message = error.to_string();
        for (region, came) in &self.0 {
            let _ = write!(message, "; {region} was asked, {came}");
        }
        let reason = refusal::RightsShort {
            stream: counter.stream.into(),
            field: counter.field.into(),
            wanted,
            held: u64::try_from(held).unwrap_or(u64::MAX),
            asked: self.0.iter().map(|(region, _)| region.to_string()).collect(),
        };
        refused(Code::FailedPrecondition, message, Reason::RightsShort(reason))
    }
}

/// Whether an append may come to ask for rights.
pub(super) fn may_ask(message: &v1::AppendRequest) -> bool {
    let mut types = message.events.iter().map(|event| event.r#type.as_str());
    !message.own_rights_only && types.any(|kind| kind == rights::EVENT_TYPE)
}

/// Whether the append spends of the counter. What is to be passed on is not asked for.
fn is_spend(message: &v1::AppendRequest, counter: &Counter) -> bool {
    let is_about = |event: &&v1::NewEvent| {
        event.r#type == rights::EVENT_TYPE && *event.stream == *counter.stream
    };
    message.events.iter().filter(is_about).all(|event| {
        let operations = Operations::from_json(&event.payload).map(|read| read.operations);
        let mut operations = operations.unwrap_or_default().into_iter();
        operations.all(|operation| {
            *operation.field != *counter.field || !matches!(operation.action, Action::Pass { .. })
        })
    })
}

impl Api {
    /// Asks for what is missing. Whether some has come, so that the append is worth another try.
    pub(super) async fn ask_for_rights(
        &self,
        shard: &Shard,
        message: &v1::AppendRequest,
        short: &Short,
        asked: &mut Asked,
        deadline: Instant,
    ) -> bool {
        let Some(gossip) = self.inner.gossip.borrow().clone() else { return false };
        let counter = &short.counter;
        if !is_spend(message, counter) || has_home(shard, &counter.stream) {
            return false;
        }
        if !may_move(shard, counter, deadline).await {
            return false;
        }
        let missing = u128::from(short.wanted).saturating_sub(short.held);
        let mut others = self.others(shard, &gossip, &short.counter, deadline).await;
        others.retain(|(region, _)| !asked.knows(region));
        others.truncate(ASKED_MAX - asked.0.len());
        if others.iter().fold(0, |sum: u128, (_, held)| sum.saturating_add(*held)) < missing {
            return false;
        }
        for (region, _) in others {
            let came = ask_one(&gossip, shard, &region, short, deadline).await;
            let has_come = came.is_ok();
            let came = came.unwrap_or_else(|why| why);
            tracing::debug!(%region, counter = ?short.counter, came, "asked for rights");
            asked.0.push((region, came));
            if has_come {
                return true;
            }
        }
        false
    }

    /// The regions that hold rights to a counter and can be asked, as far as this one knows, the richest
    /// first.
    async fn others(
        &self,
        shard: &Shard,
        gossip: &Gossip,
        counter: &Counter,
        deadline: Instant,
    ) -> Vec<(RegionName, u128)> {
        let shown = shard.aggregates().get(&counter.stream, &Context::new(), deadline).await;
        let Ok(shown) = shown else { return Vec::new() };
        let rights = shown.value.get(&*counter.field).and_then(|value| value.get("rights"));
        let held = |region: &RegionName| {
            let held = rights.and_then(|rights| rights.get(region.as_str()))?;
            held.as_u64().map(u128::from).or_else(|| held.as_str()?.parse().ok())
        };
        let links = gossip.links(shard.id()).into_iter().filter(|link| link.connected);
        let held = links.filter_map(|link| held(&link.region).map(|held| (link.region, held)));
        let mut others: Vec<_> = held.filter(|(_, held)| *held > 0).collect();
        others.sort_by(|(a, held_a), (b, held_b)| held_b.cmp(held_a).then_with(|| a.cmp(b)));
        others
    }

    /// Passes rights to the region that asks, if there are any here.
    pub(super) async fn handle_asked(
        &self,
        from: &RegionName,
        shard: &Shard,
        asked: AskRights,
        within: Duration,
    ) -> Result<RightsPassed, Status> {
        let deadline = Instant::now() + within;
        let stream = self.name("stream", asked.stream)?;
        let field = self.name("field", asked.field)?;
        if asked.wanted == 0 {
            return Err(invalid("wanted", "is 0", 0, 0));
        }
        if has_home(shard, &stream) {
            return Ok(RightsPassed::default());
        }
        let counter = Counter { stream: stream.as_str().into(), field: field.as_str().into() };
        if !may_move(shard, &counter, deadline).await {
            return Ok(RightsPassed::default());
        }
        let mut held = shard.state().region(|region| region.rights().of(&counter));
        for _ in 0..PASS_TRIES {
            let amount = share(held, asked.wanted);
            if amount == 0 {
                break;
            }
            let mut request = Request::new(pass(&counter, amount, from));
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            match self.handle_append(request).await {
                Ok(appended) => {
                    let session_token = appended.into_inner().session_token;
                    return Ok(RightsPassed { amount, session_token });
                }
                Err(status) => match refusal_of(&status).and_then(|refusal| refusal.reason) {
                    Some(Reason::RightsShort(short)) => held = short.held.into(),
                    _ => return Err(status),
                },
            }
        }
        Ok(RightsPassed::default())
    }
}

/// What a region that holds so much gives to one that lacks `wanted`.
fn share(held: u128, wanted: u64) -> u64 {
    let amount = (held / 2).max(wanted.into()).min(held);
    u64::try_from(amount).unwrap_or(u64::MAX)
}

/// Passing is of this region's own rights: it does not ask others in turn.
fn pass(counter: &Counter, amount: u64, to: &RegionName) -> v1::AppendRequest {
    let action = Action::Pass { amount, to: to.clone() };
    let operations = vec![Operation { field: counter.field.to_string(), key: None, action }];
    let payload = Operations { operations, observed: None }.to_json();
    let event = v1::NewEvent {
        stream: counter.stream.to_string(),
        r#type: rights::EVENT_TYPE.to_owned(),
        payload: payload.into(),
        ..v1::NewEvent::default()
    };
    v1::AppendRequest { events: vec![event], own_rights_only: true, ..Default::default() }
}

/// Whether only one region writes the stream: others can pass nothing on.
fn has_home(shard: &Shard, stream: &str) -> bool {
    shard.state().region(|region| region.homes().of(stream).is_some())
}

/// Whether rights to a counter move because somebody asks: by the newest definition that is held here.
async fn may_move(shard: &Shard, counter: &Counter, deadline: Instant) -> bool {
    let newest = shard.aggregates().newest(category(&counter.stream), deadline).await;
    let keeps = |definition: &Definition| definition.own_rights.contains(&*counter.field);
    newest.is_ok_and(|newest| !newest.is_some_and(|newest| keeps(&newest)))
}

/// Asks one region, and waits for what it passes. What came; or, as an error, why that is nothing.
async fn ask_one(
    gossip: &Gossip,
    shard: &Shard,
    region: &RegionName,
    short: &Short,
    deadline: Instant,
) -> Result<String, String> {
    let Short { counter, wanted, held } = short;
    let missing = u128::from(*wanted).saturating_sub(*held);
    let asks = AskRights {
        stream: counter.stream.to_string(),
        field: counter.field.to_string(),
        wanted: u64::try_from(missing).unwrap_or(u64::MAX),
    };
    // The caller is told in time, whatever becomes of it.
    let left = || deadline.saturating_duration_since(Instant::now());
    let within = ANSWER_WITHIN.min(left() / 2);
    let answer = gossip.ask(region, shard.id(), carried::ask_rights(asks), within).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let passed =
        carried::read_rights_passed(answer).map_err(|error| format!("its answer {error}"))?;
    let RightsPassed { amount, session_token } =
        passed.map_err(|status| format!("which says: {}", status.message()))?;
    if amount == 0 {
        return Err("which has none to pass on".to_owned());
    }
    let token = SessionToken::decode(session_token).map_err(|error| error.to_string())?;
    let until = Instant::now() + left() / 2;
    match shard.await_context(&token.context, until).await {
        Ok(()) => Ok(format!("which has passed {amount} on")),
        Err(_) => Err(format!("which has passed {amount} on, but they have not arrived yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_given_or_what_is_needed_and_never_more_than_there_is() {
        for (held, wanted, given) in [
            (0, 1, 0),
            (1, 1, 1),
            (10, 1, 5),
            (11, 1, 5),
            (10, 7, 7),
            (10, 12, 10),
            (u128::MAX, 1, u64::MAX),
        ] {
            assert_eq!(share(held, wanted), given, "{held}, {wanted}");
        }
    }

    #[test]
    fn only_spending_is_worth_asking_for() {
        let counter = Counter { stream: "s-1".into(), field: "left".into() };
        let of = |field: &str, action| {
            let operations = vec![Operation { field: field.into(), key: None, action }];
            let payload = Operations { operations, observed: None }.to_json();
            let (stream, r#type) = ("s-1".to_owned(), rights::EVENT_TYPE.to_owned());
            let event =
                v1::NewEvent { stream, r#type, payload: payload.into(), ..Default::default() };
            v1::AppendRequest { events: vec![event], ..Default::default() }
        };
        let us = RegionName::new("us").unwrap();
        let passing = || Action::Pass { amount: 1, to: us.clone() };
        assert!(is_spend(&of("left", Action::Spend(1)), &counter));
        assert!(is_spend(&of("right", passing()), &counter), "another counter");
        assert!(!is_spend(&of("left", passing()), &counter));
        let alone = of("left", Action::Spend(1));
        assert!(may_ask(&alone));
        assert!(!may_ask(&v1::AppendRequest { own_rights_only: true, ..alone }));
        assert!(!may_ask(&v1::AppendRequest::default()));
        assert!(!may_ask(&pass(&counter, 1, &us)), "no chain of questions");
    }

    #[test]
    fn the_refusal_says_who_was_asked_and_what_came_of_it() {
        let region = |name: &str| RegionName::new(name).unwrap();
        let asked = Asked(vec![
            (region("us"), "which has passed 3 on".into()),
            (region("asia"), "which has none to pass on".into()),
        ]);
        let counter = Counter { stream: "s-1".into(), field: "left".into() };
        let status = asked.refusal(Short { counter, wanted: 9, held: 5 });
        let told =
            "; us was asked, which has passed 3 on; asia was asked, which has none to pass on";
        assert!(status.message().ends_with(told), "{status:?}");
        let reason = refusal_of(&status).unwrap().reason.unwrap();
        let Reason::RightsShort(short) = reason else { panic!("{status:?}") };
        assert_eq!(
            (short.wanted, short.held, short.asked),
            (9, 5, vec!["us".into(), "asia".into()])
        );
    }
}
