//! Classes of streams: which categories have a home, and which region that is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anabranch_core::Dot;
use anabranch_proto::convert::required;
use anabranch_proto::v1;
use anabranch_proto::v1::classes_client::ClassesClient;
use anabranch_proto::v1::hand_over_request::What;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::call::Asking;
use crate::client::Client;
use crate::error::ReadError;
use crate::failure::is_in_doubt;

/// How often is asked whether all regions have confirmed.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The region that writes a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Which region.
    pub region: String,
    /// Which of the stream's homes, from 1.
    pub epoch: u32,
}

/// A category whose streams have a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomedCategory {
    /// The category.
    pub category: String,
    /// Home of those of its streams that were not handed over by themselves.
    pub home: Home,
    /// Regions that are not known to hold the declaration. While there are any, the home says yes to no
    /// expectation.
    pub waits_for: Vec<String>,
}

/// A page of the streams of a category that were handed over by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// Name and home, by name.
    pub streams: Vec<(String, Home)>,
    /// Where the next page begins, if there is more.
    pub next: Option<String>,
}

/// What a change of a home came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeChanged {
    /// The home from now on.
    pub home: Home,
    /// True if it was so already, and nothing was written.
    pub repeated: bool,
    /// The event that says it, if it was written now.
    pub dot: Option<Dot>,
}

/// What ending a home came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeEnded {
    /// True if it had ended already, and nothing was written.
    pub repeated: bool,
    /// The event that says it, if it was written now.
    pub dot: Option<Dot>,
}

/// Why a home was not changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Nothing was changed.
    #[error(transparent)]
    Refused(ReadError),
    /// It may have been changed: an attempt went unanswered. Ask for it again, or look.
    #[error("no acknowledgement: {0}")]
    Unknown(#[source] ReadError),
}

/// A stream, or a category, to be handed over to another region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    what: What,
    to: String,
    epoch: u32,
}

impl HandOver {
    /// One stream.
    pub fn stream(stream: impl Into<String>, to: impl Into<String>) -> Self {
        Self { what: What::Stream(stream.into()), to: to.into(), epoch: 0 }
    }
    /// All streams of a category that were not handed over by themselves.
    pub fn category(category: impl Into<String>, to: impl Into<String>) -> Self {
        Self { what: What::Category(category.into()), to: to.into(), epoch: 0 }
    }
    /// Only as this home, from 2: one more than the present one. Whoever decides on the strength of what
    /// was read should say so; without it, it is the one that comes next.
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = epoch;
        self
    }
}

/// Homes: declared, looked at, handed over. `docs/classes.md` says what they are for.
#[derive(Clone)]
pub struct Classes {
    client: Client,
}

impl Client {
    /// Which categories have a home.
    pub fn classes(&self) -> Classes {
        Classes { client: self.clone() }
    }
}

impl Classes {
    /// Makes the streams of a category homed: from now on `home` alone writes them, for all regions.
    ///
    /// The home says yes to expectations once [`HomedCategory::waits_for`] is empty. It is tried again
    /// until there is an answer or the deadline has come: the same counts once.
    ///
    /// # Errors
    /// [`HomeError::Refused`] with [`ReadError::Invalid`] if the category has another home, or a name is
    /// wrong.
    pub async fn declare(
        &self,
        category: impl Into<String>,
        home: impl Into<String>,
    ) -> Result<HomeChanged, HomeError> {
        let request = v1::DeclareHomeRequest { category: category.into(), home: home.into() };
        let ask = |mut classes: ClassesClient<Channel>| {
            let request = request.clone();
            async move { classes.declare(request).await }
        };
        HomeChanged::from_wire(self.change(ask).await?).map_err(HomeError::Unknown)
    }

    /// Has the home give up a stream, or a category, for another region. May be asked for in any region.
    ///
    /// # Errors
    /// [`HomeError::Refused`] with [`ReadError::Invalid`] if there is no home, or the epoch is another;
    /// with [`ReadError::Refused`] if the home is out of reach.
    pub async fn hand_over(&self, hand_over: HandOver) -> Result<HomeChanged, HomeError> {
        let HandOver { what, to, epoch } = hand_over;
        let request = v1::HandOverRequest { what: Some(what), to, epoch };
        let ask = |mut classes: ClassesClient<Channel>| {
            let request = request.clone();
            async move { classes.hand_over(request).await }
        };
        HomeChanged::from_wire(self.change(ask).await?).map_err(HomeError::Unknown)
    }

    /// Has the home of a category give its streams up to all regions: they are multi-writer again, in each
    /// region once it has heard of it. May be asked for in any region. With an `epoch`, one more than the
    /// newest in the category, only if nobody else has changed a home of it meanwhile.
    ///
    /// # Errors
    /// [`HomeError::Refused`] with [`ReadError::Invalid`] if there is no home, a stream has another one than
    /// the category, or the epoch is another; with [`ReadError::Refused`] if the home is out of reach.
    pub async fn end(
        &self,
        category: impl Into<String>,
        epoch: Option<u32>,
    ) -> Result<HomeEnded, HomeError> {
        let (category, epoch) = (category.into(), epoch.unwrap_or_default());
        let request = v1::EndHomeRequest { category, epoch };
        let ask = |mut classes: ClassesClient<Channel>| {
            let request = request.clone();
            async move { classes.end(request).await }
        };
        let wire = self.change(ask).await?;
        let dot = wire.dot.map(Dot::try_from).transpose();
        let dot = dot.map_err(|error| HomeError::Unknown(error.into()))?;
        Ok(HomeEnded { repeated: wire.repeated, dot })
    }

    /// The homed categories that the own region knows, by name.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn list(&self) -> Result<Vec<HomedCategory>, ReadError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let (limit, session_token) = (0, self.client.session().to_send());
            let deadline_ms = self.client.session_wait_ms();
            let request = v1::ListClassesRequest { after, limit, session_token, deadline_ms };
            let ask = |mut classes: ClassesClient<Channel>| {
                let request = request.clone();
                async move { classes.list(request).await }
            };
            let page = self.ask(ask).await?;
            for category in page.categories {
                all.push(HomedCategory::from_wire(category)?);
            }
            after = page.next;
            if after.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A category, if it is homed.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn get(&self, category: &str) -> Result<Option<HomedCategory>, ReadError> {
        let answer = self.page(category, String::new(), 1).await?;
        answer.class.map(HomedCategory::from_wire).transpose()
    }

    /// A page of at most 100 streams of a category that were handed over by themselves: those whose names
    /// come after `after`.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn handed_over(
        &self,
        category: &str,
        after: impl Into<String>,
    ) -> Result<HandedOver, ReadError> {
        let answer = self.page(category, after.into(), 0).await?;
        let stream = |wire: v1::HomedStream| {
            Ok((wire.stream, Home::from_wire(required("home", wire.home)?)))
        };
        let streams = answer.streams.into_iter().map(stream).collect::<Result<_, ReadError>>()?;
        Ok(HandedOver { streams, next: Some(answer.next).filter(|next| !next.is_empty()) })
    }

    /// Waits until every region holds what this client has written, and has confirmed the home of a
    /// category; at most `within`. Those that have not by then; none: all have.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn await_all(
        &self,
        category: &str,
        within: Duration,
    ) -> Result<Vec<String>, ReadError> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.page(category, String::new(), 1).await?;
            let mut missing = answer.class.map(|class| class.waits_for).unwrap_or_default();
            missing.extend(answer.behind);
            missing.sort_unstable();
            missing.dedup();
            if missing.is_empty() || Instant::now() + ASK_AGAIN >= deadline {
                return Ok(missing);
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn page(
        &self,
        category: &str,
        after: String,
        limit: u32,
    ) -> Result<v1::GetClassResponse, ReadError> {
        let (category, session_token) = (category.to_owned(), self.client.session().to_send());
        let deadline_ms = self.client.session_wait_ms();
        let request = v1::GetClassRequest { category, after, limit, session_token, deadline_ms };
        let ask = |mut classes: ClassesClient<Channel>| {
            let request = request.clone();
            async move { classes.get(request).await }
        };
        self.ask(ask).await
    }

    async fn change<F>(
        &self,
        ask: impl Fn(ClassesClient<Channel>) -> F,
    ) -> Result<v1::ChangeHomeResponse, HomeError>
    where
        F: Future<Output = Result<Response<v1::ChangeHomeResponse>, Status>>,
    {
        let unanswered = AtomicU32::new(0);
        let counted = |classes| {
            let (asked, unanswered) = (ask(classes), &unanswered);
            async move {
                // Cut off by the time limit, it stays counted.
                unanswered.fetch_add(1, Ordering::Relaxed);
                let answer = asked.await;
                if answer.as_ref().err().is_some_and(|status| !is_in_doubt(status)) {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                }
                answer
            }
        };
        let answer = self.ask(counted).await;
        let wire = answer.map_err(|error| match unanswered.load(Ordering::Relaxed) {
            0 => HomeError::Refused(error),
            _ => HomeError::Unknown(error),
        })?;
        let merged = self.client.session().merge_answer(&wire.session_token);
        merged.map_err(|error| HomeError::Unknown(error.into()))?;
        Ok(wire)
    }

    async fn ask<T, F>(&self, ask: impl Fn(ClassesClient<Channel>) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let options = self.client.options();
        let answer_within = options.attempt_timeout + options.session_wait;
        let asking = Asking { portable: false, patience: options.timeout, answer_within };
        self.client.ask(asking, |channel| ask(ClassesClient::new(channel))).await
    }
}

impl Home {
    fn from_wire(wire: v1::Home) -> Self {
        Self { region: wire.region, epoch: wire.epoch }
    }
}

impl HomedCategory {
    fn from_wire(wire: v1::HomedCategory) -> Result<Self, ReadError> {
        let home = Home::from_wire(required("home", wire.home)?);
        Ok(Self { category: wire.category, home, waits_for: wire.waits_for })
    }
}

impl HomeChanged {
    fn from_wire(wire: v1::ChangeHomeResponse) -> Result<Self, ReadError> {
        let home = Home::from_wire(required("home", wire.home)?);
        let dot = wire.dot.map(Dot::try_from).transpose()?;
        Ok(Self { home, repeated: wire.repeated, dot })
    }
}
