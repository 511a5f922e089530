//! What events that are read are concurrent with.

use std::time::Duration;

use anabranch_core::ReadOrder;
use anabranch_proto::v1;
use tokio::time::Instant;
use tonic::Status;

use super::refusal::of_conflict;
use crate::conflicts::{Asked, Concurrency};
use crate::read::Delivered;
use crate::shard::Shard;

/// A read that wants its events to say what they are concurrent with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Annotating {
    pub(super) order: ReadOrder,
    /// How long it may take to look for conflicts among events that were just read.
    pub(super) within: Duration,
}

impl Annotating {
    /// What each of the events is concurrent with, if it is with something.
    pub(super) async fn concurrency(
        self,
        shard: &Shard,
        events: &[Delivered],
    ) -> Result<Vec<Option<v1::Concurrency>>, Status> {
        let asked = events.iter().map(asked).collect();
        let deadline = Instant::now() + self.within;
        let found = shard.conflicts().concurrency(self.order, asked, deadline).await;
        let found = found.map_err(|error| of_conflict(error, self.within))?;
        Ok(found.into_iter().map(|found| found.map(wire)).collect())
    }
}

fn asked(delivered: &Delivered) -> Asked {
    let event = &delivered.event;
    let nth = event.seq().0 - event.source.group().first().0;
    let position = delivered.global_position.unwrap_or(event.position);
    Asked {
        stream: event.event.stream.to_string(),
        dot: event.dot(),
        stamp: event.stamp(),
        position,
        group_position: position.saturating_sub(nth),
    }
}

fn wire(found: Concurrency) -> v1::Concurrency {
    v1::Concurrency {
        with: found.with.iter().map(Into::into).collect(),
        standing: v1::ConflictStanding::from(found.standing) as i32,
        resolved_by: found.resolved_by.as_ref().map(Into::into),
        cut_short: found.cut_short,
    }
}
