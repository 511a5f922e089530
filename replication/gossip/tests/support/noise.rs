//! History that is as long on the wire as it is.

use anabranch_core::event::{Event, Request};
use anabranch_core::group::GroupHeader;
use anabranch_core::{Chain, Context, Group, Seq, Stamp};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::origin;

/// The first groups of a region's own, of bytes that do not compress.
pub fn noise(name: &str, groups: u64, bytes: usize) -> Vec<Group> {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut prev = Chain::START;
    let mut build = |nth: u64| {
        let mut payload = vec![0; bytes];
        rng.fill_bytes(&mut payload);
        let header = GroupHeader {
            origin: origin(name),
            first: Seq(nth + 1),
            events: 1,
            stamp: Stamp(nth + 1),
            context: Context::new(),
            prev,
        };
        let event = Event {
            stream: "noise-1".into(),
            id: None,
            kind: "Noise".into(),
            metadata: Default::default(),
            payload: payload.into(),
        };
        let group = Group::build(header, &[Request { producer: None, events: vec![event] }]);
        prev = group.chain();
        group
    };
    (0..groups).map(&mut build).collect()
}
