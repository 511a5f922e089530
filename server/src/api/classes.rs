//! The service `anabranch.v1.Classes`.
//!
//! What regions are known to hold is known to the leader, so a node that does not lead passes questions
//! on to it, as it does with appends.

use anabranch_core::class::{Change, Declared, Home, stream_of};
use anabranch_core::event::category;
use anabranch_core::{Context, Digest, RegionName};
use anabranch_proto::convert::{Problem, invalid};
use anabranch_proto::v1;
use anabranch_proto::v1::classes_client::ClassesClient;
use anabranch_proto::v1::classes_server::Classes as Service;
use anabranch_proto::v1::hand_over_request::What;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::append::within;
use super::forward::{answer, no_answer, passed_on, was_forwarded};
use super::page::page_size;
use super::read::session_token;
use super::refusal::not_caught_up;
use super::{Api, of_shard};
use crate::shard::Shard;

#[tonic::async_trait]
impl Service for Api {
    async fn declare(
        &self,
        request: Request<v1::DeclareHomeRequest>,
    ) -> Result<Response<v1::ChangeHomeResponse>, Status> {
        let message = request.get_ref();
        let category = self.name("category", message.category.clone())?;
        let home = region("home", &message.home)?;
        let (known, epoch) = self.class_shard(&category)?.state().region(|region| {
            let homes = region.homes();
            let known = homes.of_category(&category).map(|declared| declared.home.clone());
            (known, homes.next_epoch(&category))
        });
        match known {
            Some(known) if known.region == home => Ok(repeated(Some(&known))),
            _ => {
                let to = Home { region: home.clone(), epoch };
                self.change(request, &Change::Declared { category, home, epoch }, Some(&to)).await
            }
        }
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::ChangeHomeResponse>, Status> {
        let message = request.get_ref();
        let (of, stream) = match message.what.clone() {
            Some(What::Category(name)) => (self.name("category", name)?, None),
            Some(What::Stream(name)) => {
                let stream = self.name("stream", name)?;
                (category(&stream).to_owned(), Some(stream))
            }
            None => return Err(Problem::Missing.of("what").into()),
        };
        let (to, asked) = (region("to", &message.to)?, message.epoch);
        let known = self.class_shard(&of)?.state().region(|region| {
            let homes = region.homes();
            match &stream {
                Some(stream) => homes.of(stream).cloned(),
                None => homes.of_category(&of).map(|declared| declared.home.clone()),
            }
        });
        if let Some(known) = &known
            && known.region == to
            && (asked == 0 || asked == known.epoch)
        {
            return Ok(repeated(Some(known)));
        }
        // Without a home the sequencer says so, whatever the epoch.
        let next = known.map_or(1, |known| known.epoch.saturating_add(1));
        let epoch = if asked == 0 { next } else { asked };
        let home = Home { region: to.clone(), epoch };
        let change = Change::Released { category: of, stream, to, epoch };
        self.change(request, &change, Some(&home)).await
    }

    async fn end(
        &self,
        request: Request<v1::EndHomeRequest>,
    ) -> Result<Response<v1::ChangeHomeResponse>, Status> {
        let asked = request.get_ref().epoch;
        let category = self.name("category", request.get_ref().category.clone())?;
        let (is_homed, next) = self.class_shard(&category)?.state().region(|region| {
            let homes = region.homes();
            (homes.of_category(&category).is_some(), homes.next_epoch(&category))
        });
        // A category that never had a home here may have one that this region has not heard of.
        let last = next - 1;
        if !is_homed && last > 0 && (asked == 0 || asked == last) {
            return Ok(repeated(None));
        }
        let epoch = if asked == 0 { next } else { asked };
        self.change(request, &Change::Ended { category, epoch }, None).await
    }

    async fn list(
        &self,
        request: Request<v1::ListClassesRequest>,
    ) -> Result<Response<v1::ListClassesResponse>, Status> {
        let _admitted = self.inner.reads.admit(1)?;
        let limit = page_size(request.get_ref().limit)?;
        // A category's changes are in one shard, and the categories of all are listed.
        let shard = self.only_shard()?;
        if let Some(address) = self.leader_elsewhere(shard, &request) {
            let list = async |mut leader: ClassesClient<_>, request| leader.list(request).await;
            return self.ask_leader(&address, request, list).await;
        }
        let message = request.into_inner();
        let (token, ms) = (message.session_token, message.deadline_ms);
        self.await_session(shard, token, ms).await?;
        let heard = shard.heard();
        let mut response = v1::ListClassesResponse::default();
        shard.state().region(|region| {
            let after = |(name, _): &(&str, &Declared)| *name > message.after.as_str();
            let mut categories = region.homes().categories().filter(after);
            let wire = |(name, declared)| homed(region, &heard, name, declared);
            response.categories = categories.by_ref().take(limit).map(wire).collect();
            if categories.next().is_some() {
                let last = response.categories.last();
                response.next = last.map(|last| last.category.clone()).unwrap_or_default();
            }
        });
        Ok(Response::new(response))
    }

    async fn get(
        &self,
        request: Request<v1::GetClassRequest>,
    ) -> Result<Response<v1::GetClassResponse>, Status> {
        let _admitted = self.inner.reads.admit(1)?;
        let limit = page_size(request.get_ref().limit)?;
        let category = self.name("category", request.get_ref().category.clone())?;
        let shard = self.class_shard(&category)?;
        if let Some(address) = self.leader_elsewhere(shard, &request) {
            let get = async |mut leader: ClassesClient<_>, request| leader.get(request).await;
            return self.ask_leader(&address, request, get).await;
        }
        let message = request.into_inner();
        let (token, ms) = (message.session_token, message.deadline_ms);
        let seen = self.await_session(shard, token, ms).await?;
        let heard = shard.heard();
        let response = shard.state().region(|region| {
            let homes = region.homes();
            let declared = homes.of_category(&category);
            let mut moved = homes.moved_of(&category, &message.after);
            let wire = |(stream, home): (&str, &Home)| v1::HomedStream {
                stream: stream.to_owned(),
                home: Some(wire(home)),
            };
            let streams: Vec<_> = moved.by_ref().take(limit).map(wire).collect();
            let last = streams.last().filter(|_| moved.next().is_some());
            let own = region.origin().map(|origin| &origin.region);
            let behind = region.members().iter().filter(|member| {
                Some(*member) != own && !has_said(&heard, member, |frontier| frontier.covers(&seen))
            });
            v1::GetClassResponse {
                class: declared.map(|declared| homed(region, &heard, &category, declared)),
                next: last.map(|last| last.stream.clone()).unwrap_or_default(),
                behind: behind.map(ToString::to_string).collect(),
                streams,
            }
        });
        Ok(Response::new(response))
    }
}

impl Api {
    /// The shard that holds the changes of a category.
    fn class_shard(&self, category: &str) -> Result<&Shard, Status> {
        let stream = stream_of(category);
        self.shard_for(&stream).ok_or_else(|| invalid("category", "is of no shard here", 0, 0))
    }

    /// Appends a change, by which `home` is next, if one is.
    async fn change<T>(
        &self,
        request: Request<T>,
        change: &Change,
        home: Option<&Home>,
    ) -> Result<Response<v1::ChangeHomeResponse>, Status> {
        let event = change.event();
        Change::read(&event.stream, &event.kind, &event.payload)
            .map_err(|bad| invalid("category", &bad.to_string(), 0, 0))?;
        let append = v1::AppendRequest {
            events: vec![v1::NewEvent {
                stream: event.stream,
                r#type: event.kind,
                payload: event.payload,
                ..v1::NewEvent::default()
            }],
            ..v1::AppendRequest::default()
        };
        let (metadata, extensions, _) = request.into_parts();
        let appended =
            self.handle_append(Request::from_parts(metadata, extensions, append)).await?;
        let v1::AppendResponse { first: dot, session_token, .. } = appended.into_inner();
        let home = home.map(wire);
        let response = v1::ChangeHomeResponse { home, repeated: false, dot, session_token };
        Ok(Response::new(response))
    }

    /// Waits until what the caller has seen of the shard is here.
    async fn await_session(
        &self,
        shard: &Shard,
        token: bytes::Bytes,
        deadline_ms: u32,
    ) -> Result<Context, Status> {
        let seen = of_shard(&session_token(token)?.context, shard.id());
        let wait = self.session_wait(deadline_ms);
        let caught_up = shard.await_context(&seen, Instant::now() + wait).await;
        caught_up.map_err(|missing| {
            not_caught_up(format!("not caught up with the session in {wait:?}"), &missing, wait)
        })?;
        Ok(seen)
    }

    /// Where to pass a question on to.
    fn leader_elsewhere<T>(&self, shard: &Shard, request: &Request<T>) -> Option<String> {
        let leadership = shard.raft().leadership().borrow().clone();
        let elsewhere = !leadership.mine && !was_forwarded(request.metadata());
        leadership.leader.filter(|_| elsewhere).map(|(_, node)| node.api_address)
    }

    async fn ask_leader<T, R>(
        &self,
        address: &str,
        request: Request<T>,
        ask: impl AsyncFnOnce(
            ClassesClient<tonic::transport::Channel>,
            Request<T>,
        ) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        let began = Instant::now();
        let left = within(request.metadata()).unwrap_or(self.inner.settings.append_within);
        let leader = ClassesClient::new(self.inner.leaders.channel(address)?);
        match timeout_at(began + left, ask(leader, passed_on(request.into_inner(), left))).await {
            Ok(answered) => answered.map_err(|status| answer(status, address, began.elapsed())),
            Err(_) => {
                self.inner.leaders.forget(address);
                Err(no_answer(address, left))
            }
        }
    }
}

fn region(field: &str, name: &str) -> Result<RegionName, Status> {
    RegionName::new(name).map_err(|error| invalid(field, &error.to_string(), 0, 0))
}

fn wire(home: &Home) -> v1::Home {
    v1::Home { region: home.region.to_string(), epoch: home.epoch }
}

fn repeated(home: Option<&Home>) -> Response<v1::ChangeHomeResponse> {
    let home = home.map(wire);
    Response::new(v1::ChangeHomeResponse { home, repeated: true, ..Default::default() })
}

/// Whether a region's newest word is of a frontier that is `enough`.
fn has_said(heard: &[Digest], member: &RegionName, enough: impl Fn(&Context) -> bool) -> bool {
    let mut words = heard.iter().filter(|digest| digest.origin.region == *member);
    words.any(|digest| enough(&digest.frontier))
}

/// Who is awaited. The home goes by its log, as its sequencer does; others by what they have heard, since
/// they do not keep it. Only a home that nobody was awaited for hands over.
fn homed(
    region: &anabranch_core::region::Region,
    heard: &[Digest],
    category: &str,
    declared: &Declared,
) -> v1::HomedCategory {
    let is_home = region.origin().is_some_and(|own| own.region == declared.home.region);
    let mut waits_for = match declared.home.epoch == declared.since {
        true => region.unconfirmed(declared),
        false => Vec::new(),
    };
    if !is_home {
        let knows = |frontier: &Context| frontier.covers_dot(&declared.by);
        waits_for.retain(|member| !has_said(heard, member, knows));
    }
    v1::HomedCategory {
        category: category.to_owned(),
        home: Some(wire(&declared.home)),
        waits_for: waits_for.iter().map(ToString::to_string).collect(),
    }
}
