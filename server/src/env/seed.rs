//! Randomness: one source of seeds, from which every generator of a node is made.

use rand::TryRngCore;
use rand::rngs::OsRng;

/// Where a node draws its seeds and ids from.
pub trait Seeds: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
    /// 128 random bits: an incarnation, a producer id.
    fn next_u128(&self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsSeeds;

impl Seeds for OsSeeds {
    fn next_u64(&self) -> u64 {
        OsRng.try_next_u64().expect("the operating system hands out random bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_are_never_the_same() {
        assert_ne!(OsSeeds.next_u128(), OsSeeds.next_u128());
    }
}
