//! Anabranch itself, through its own client. A batch is one append to one stream, with no expectation
//! and no event ids. Replay and subscription are in regional order.

use std::path::Path;

use anabranch_client::{Client, From, Message, Order, Subscription};
use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;

use super::peer::{LAG_STREAM, Pair, Peer, Running, Subscriber};
use crate::catch_up::{Regions, Sites};
use crate::replay;
use crate::target::Target;
use crate::writers::Writer;

/// API, Raft and gossip, 100 ports apart.
const FIRST_PORT: u16 = 19_100;

/// One region of so many nodes.
pub struct Anabranch {
    /// Nodes.
    pub nodes: u16,
}

#[async_trait]
impl Peer for Anabranch {
    fn name(&self) -> &'static str {
        if self.nodes == 1 { "Anabranch" } else { "Anabranch ×3" }
    }
    fn nodes(&self) -> u16 {
        self.nodes
    }
    fn missing(&self) -> Option<String> {
        None
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Region(Target::start_at(1, self.nodes, folder, FIRST_PORT)?)))
    }
    fn pairs(&self) -> Vec<Box<dyn Pair>> {
        if self.nodes == 1 { vec![Box::new(TwoRegions)] } else { Vec::new() }
    }
}

/// Two regions of one node.
struct TwoRegions;

impl Pair for TwoRegions {
    fn name(&self) -> &'static str {
        "Anabranch"
    }
    fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Sites>> {
        Ok(Box::new(Regions::start(2, folder, FIRST_PORT)?))
    }
}

struct Region(Target);

#[async_trait]
impl Running for Region {
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.0.pids()
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        Ok(Box::new(self.0.client(0)?))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        replay::read(&self.0, Order::Regional).await
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let client: Client = self.0.client(0)?;
        let category = LAG_STREAM.split('-').next().unwrap_or_default();
        let subscribe = client.subscribe_category(category).order(Order::Regional).from(From::End);
        let mut subscription = subscribe.start();
        loop {
            let message = subscription.next().await.context("the subscription ended")??;
            if matches!(message, Message::CaughtUp) {
                return Ok(Box::new(Subscribed(subscription)));
            }
        }
    }
    async fn leader(&self) -> anyhow::Result<usize> {
        let status = self.0.client(0)?.status().await?;
        let leader = usize::try_from(status.leader)?;
        leader.checked_sub(1).context("no node leads")
    }
}

struct Subscribed(Subscription);

#[async_trait]
impl Subscriber for Subscribed {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            let message = self.0.next().await.context("the subscription ended")??;
            if let Message::Event(event) = message {
                return Ok(event.payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::append::writers;
    use super::super::peer::ready;
    use super::*;
    use crate::target::scratch;
    use crate::writers::{Load, write_by};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_appended_is_seen_and_replayed() -> anyhow::Result<()> {
        let folder = scratch(None)?;
        let target = Target::here_at(1, 1, folder.path().join("nodes"), TEST_PORT).await?;
        let region = Region(target);
        ready(&region).await?;
        let before = region.replay().await?;
        let mut subscriber = region.subscriber().await?;
        let mut writer = region.writer().await?;
        let payloads = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        writer.append("other-1", payloads.clone()).await?;
        writer.append(LAG_STREAM, payloads).await?;
        assert_eq!([subscriber.next().await?, subscriber.next().await?], ["a", "b"]);
        assert_eq!(region.replay().await?, before + 4);
        assert_eq!(region.leader().await?, 0);

        let within = Duration::from_secs(60);
        let load = Load { batch: 10, clients: 2, payload: 16, within, at_most: 6 };
        let written = write_by(writers(&region, "load", 2).await?, load).await?;
        assert_eq!(written.events, 6 * 10);
        assert_eq!(region.replay().await?, before + 4 + written.events);
        region.0.end().await;
        Ok(())
    }

    /// Others of this package take the usual one.
    const TEST_PORT: u16 = 19_800;
}
