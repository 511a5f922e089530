//! Who a node is, and whom it listens to.

use std::sync::OnceLock;

use anabranch_core::{Incarnation, NodeId, RegionName, ShardId};
use anabranch_proto::internal::Frame;
use bytes::Bytes;

/// Name of this node and of the region's life it belongs to. Shared by its shards.
#[derive(Debug)]
pub struct Identity {
    region: RegionName,
    node: NodeId,
    incarnation: OnceLock<Incarnation>,
}

impl Identity {
    /// A node whose log may still be empty: it then belongs to no incarnation yet.
    pub fn new(region: RegionName, node: NodeId) -> Self {
        Self { region, node, incarnation: OnceLock::new() }
    }
    /// Name of the region.
    pub fn region(&self) -> &RegionName {
        &self.region
    }
    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// The life of the region, once the log says which.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.get().copied()
    }
    /// Learns the incarnation from the log. Idempotent.
    ///
    /// # Panics
    /// If another one was learnt before: a log has one.
    pub fn learn(&self, incarnation: Incarnation) {
        let known = *self.incarnation.get_or_init(|| incarnation);
        assert_eq!(known, incarnation, "a log belongs to one incarnation");
    }

    /// Wraps a body for another node of the region.
    pub(super) fn frame(&self, shard: ShardId, to: u64, body: Bytes) -> Frame {
        let incarnation = self.incarnation().map(|known| known.0.to_be_bytes().to_vec());
        Frame {
            region: self.region.as_str().to_owned(),
            incarnation: incarnation.unwrap_or_default().into(),
            shard: shard.0.into(),
            from: self.node.0,
            to,
            body,
            ..Frame::default()
        }
    }

    /// Checks that a frame comes from a node of this region's present life, and means this node.
    ///
    /// # Errors
    /// The first thing that does not fit. Such a frame must not reach Raft: a node of another
    /// region, or of an earlier life, would vote and replicate a different history.
    pub(super) fn admit(&self, frame: &Frame) -> Result<ShardId, Misdirected> {
        if frame.region != self.region.as_str() {
            let (theirs, ours) = (frame.region.clone(), self.region.clone());
            return Err(Misdirected::Region { theirs, ours });
        }
        if frame.to != self.node.0 {
            return Err(Misdirected::Node { meant: frame.to, ours: self.node });
        }
        self.admit_incarnation(&frame.incarnation)?;
        let shard = u16::try_from(frame.shard);
        shard.map(ShardId).map_err(|_| Misdirected::Shard { shard: frame.shard })
    }

    fn admit_incarnation(&self, bytes: &[u8]) -> Result<(), Misdirected> {
        if bytes.is_empty() {
            return Ok(());
        }
        let theirs = <[u8; 16]>::try_from(bytes)
            .map_err(|_| Misdirected::IncarnationLength { bytes: bytes.len() })?;
        let theirs = Incarnation(u128::from_be_bytes(theirs));
        match self.incarnation() {
            Some(ours) if ours != theirs => Err(Misdirected::Incarnation { theirs, ours }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a frame was not for this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misdirected {
    /// The sender belongs to another region.
    #[error("sender is of region {theirs}, this node is of {ours}")]
    Region {
        /// The sender's region.
        theirs: String,
        /// This node's.
        ours: RegionName,
    },
    /// The sender belongs to another life of the region.
    #[error("sender is of incarnation {theirs}, this node is of {ours}")]
    Incarnation {
        /// The sender's incarnation.
        theirs: Incarnation,
        /// This node's.
        ours: Incarnation,
    },
    /// The incarnation is not 16 bytes.
    #[error("incarnation of the sender has {bytes} bytes, not 16")]
    IncarnationLength {
        /// Bytes it has.
        bytes: usize,
    },
    /// The frame was meant for another node: addresses are mixed up.
    #[error("message for node {meant} arrived at node {ours}")]
    Node {
        /// Node it was meant for.
        meant: u64,
        /// This node.
        ours: NodeId,
    },
    /// No shard can have this number, or it is not open on this node.
    #[error("shard {shard} is not open here")]
    Shard {
        /// The number.
        shard: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(region: &str, node: u64) -> Identity {
        Identity::new(RegionName::new(region).unwrap(), NodeId(node))
    }

    #[test]
    fn frames_of_the_same_region_and_life_are_admitted() {
        let (sender, receiver) = (node("eu", 1), node("eu", 2));
        let frame = |sender: &Identity| sender.frame(ShardId(3), 2, Bytes::new());
        assert_eq!(receiver.admit(&frame(&sender)), Ok(ShardId(3)), "both empty");
        receiver.learn(Incarnation(7));
        assert_eq!(receiver.admit(&frame(&sender)), Ok(ShardId(3)), "an empty node votes, too");
        sender.learn(Incarnation(7));
        assert_eq!(receiver.admit(&frame(&sender)), Ok(ShardId(3)));
    }

    #[test]
    fn strangers_are_refused_by_the_first_thing_that_does_not_fit() {
        let receiver = node("eu", 2);
        receiver.learn(Incarnation(7));
        let elsewhere = node("us", 1).frame(ShardId(0), 2, Bytes::new());
        assert!(matches!(receiver.admit(&elsewhere), Err(Misdirected::Region { .. })));
        let earlier = node("eu", 1);
        earlier.learn(Incarnation(6));
        let earlier = earlier.frame(ShardId(0), 2, Bytes::new());
        let refused = Misdirected::Incarnation { theirs: Incarnation(6), ours: Incarnation(7) };
        assert_eq!(receiver.admit(&earlier), Err(refused));
        let misrouted = node("eu", 1).frame(ShardId(0), 3, Bytes::new());
        assert!(matches!(receiver.admit(&misrouted), Err(Misdirected::Node { meant: 3, .. })));
        let mut absurd = node("eu", 1).frame(ShardId(0), 2, Bytes::new());
        absurd.shard = 1 << 20;
        assert!(matches!(receiver.admit(&absurd), Err(Misdirected::Shard { .. })));
    }
}
