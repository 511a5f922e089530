//! Which node a read asks, and questions to the cluster.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anabranch_proto::v1;
use anabranch_proto::v1::cluster_client::ClusterClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::error::ReadError;
use crate::failure::ReadFailure;
use crate::nodes::Node;
use crate::retry::{Policy, ReadRetry, Step, Whom};

/// Where a read stands among regions and nodes.
pub(crate) struct Route {
    began: usize,
    region: usize,
    at: usize,
    retry: ReadRetry,
}

impl Route {
    /// Begins in the client's own region, or where it had to move to if that is as good.
    pub(crate) fn new(client: &Client, patience: Option<Duration>, portable: bool) -> Self {
        let now = Instant::now();
        let region = if portable { client.base().region(now) } else { client.base().home() };
        let chosen = &client.regions()[region];
        let retry = ReadRetry::new(now, chosen.size(), policy(client, now, patience, portable));
        Self { began: region, region, at: chosen.turn(), retry }
    }
    /// Forgets past failures.
    pub(crate) fn fresh(&mut self, client: &Client, patience: Option<Duration>, portable: bool) {
        let (now, nodes) = (Instant::now(), client.regions()[self.region].size());
        self.began = self.region;
        self.retry = ReadRetry::new(now, nodes, policy(client, now, patience, portable));
    }
    /// The node to ask.
    pub(crate) fn node(&self, client: &Client) -> Arc<Node> {
        client.regions()[self.region].node(self.at)
    }
    /// The node answered: others may begin there.
    pub(crate) fn settled(&self, client: &Client) {
        client.regions()[self.region].answered(self.at);
        client.base().settled(self.began, self.region, Instant::now());
    }
    /// Takes a failure, moves on, and says how long to wait first.
    pub(crate) fn after(
        &mut self,
        client: &Client,
        failure: ReadFailure,
    ) -> Result<Duration, ReadError> {
        let now = Instant::now();
        match self.retry.handle(now, client.jitter(), failure) {
            Step::Stop(error) => Err(error),
            Step::Try { whom, after } => {
                match whom {
                    Whom::Same => {}
                    Whom::Next | Whom::Leader(_) => self.at += 1,
                    Whom::NextRegion => {
                        self.region = (self.region + 1) % client.regions().len();
                        let region = &client.regions()[self.region];
                        self.at = region.turn();
                        self.retry.entered_region(now, region.size());
                    }
                }
                Ok(after)
            }
        }
    }
}

fn policy(client: &Client, now: Instant, patience: Option<Duration>, portable: bool) -> Policy {
    Policy {
        deadline: patience.map(|patience| now + patience),
        region_patience: client.options().region_patience,
        may_move: portable && client.regions().len() > 1,
        move_in_doubt: true,
    }
}

impl Client {
    /// How the client's own region is, as one of its nodes sees it.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn status(&self) -> Result<v1::StatusResponse, ReadError> {
        let ask = |mut cluster: ClusterClient<Channel>| async move {
            cluster.status(v1::StatusRequest { shard: 0 }).await
        };
        self.ask_home(ask).await
    }

    /// How things are, as the node at `address` sees them; no other node is asked.
    ///
    /// # Errors
    /// [`ReadError`] if it does not answer.
    pub async fn status_at(&self, address: &str) -> Result<v1::StatusResponse, ReadError> {
        let broken = |error: tonic::transport::Error| ReadError::Invalid {
            field: "address".into(),
            problem: error.to_string(),
        };
        let node = Node::new(address, self.dialer()).map_err(broken)?;
        let limit = self.options().attempt_timeout;
        let mut cluster = ClusterClient::new(node.channel());
        let asked = Instant::now();
        let answer = match timeout(limit, cluster.status(v1::StatusRequest { shard: 0 })).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!("no answer in {limit:?}"))),
        };
        let unavailable =
            |last| ReadError::Unavailable { waited: asked.elapsed(), last: Box::new(last) };
        answer.map(Response::into_inner).map_err(unavailable)
    }

    /// What a node of the client's own region holds, as hashes that are comparable between regions.
    ///
    /// The streams of `buckets` are named one by one.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn fingerprint(&self, buckets: &[u32]) -> Result<v1::FingerprintResponse, ReadError> {
        let request = v1::FingerprintRequest { shard: 0, buckets: buckets.to_vec() };
        let ask = |mut cluster: ClusterClient<Channel>| {
            let request = request.clone();
            async move { cluster.fingerprint(request).await }
        };
        self.ask_home(ask).await
    }

    /// Asks the nodes of the own region until one answers. Another region's answer is another thing.
    async fn ask_home<T, F>(
        &self,
        ask: impl Fn(ClusterClient<Channel>) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let options = self.options();
        let asking = Asking {
            portable: false,
            patience: options.timeout,
            answer_within: options.attempt_timeout,
        };
        let ask =
            |channel| ask(ClusterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX));
        self.ask(asking, ask).await
    }

    /// Asks nodes until one answers. Asks the same in every region.
    pub(crate) async fn ask<T, F>(
        &self,
        asking: Asking,
        ask: impl Fn(Channel) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut route = Route::new(self, Some(asking.patience), asking.portable);
        loop {
            let node = route.node(self);
            let limit = asking.answer_within;
            let failure = match timeout(limit, ask(node.channel())).await {
                Ok(Ok(answer)) => {
                    route.settled(self);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => ReadFailure::of(status),
                Err(_) => {
                    node.renew(self.dialer());
                    ReadFailure::Broken(Status::deadline_exceeded(format!(
                        "no answer in {limit:?}"
                    )))
                }
            };
            sleep(route.after(self, failure)?).await;
        }
    }
}

/// How a question is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    /// Whether another region's answer is as good.
    pub(crate) portable: bool,
    /// How long to try.
    pub(crate) patience: Duration,
    /// How long one node may take.
    pub(crate) answer_within: Duration,
}
