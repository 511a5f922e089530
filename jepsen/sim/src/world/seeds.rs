//! Randomness from the run's seed: one stream a purpose, so that drawing more for one leaves the
//! others as they were.

use anabranch_server::env::Seeds;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// A generator for one purpose of a run.
pub fn rng(seed: u64, purpose: &str) -> SmallRng {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.to_le_bytes().into_iter().chain(purpose.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    SmallRng::seed_from_u64(hash)
}

/// Seeds of one life of one node.
#[derive(Debug)]
pub struct SimSeeds(Mutex<SmallRng>);

impl SimSeeds {
    /// Seeds of the `life`th start of `host`.
    pub fn new(seed: u64, host: &str, life: u32) -> Self {
        Self(Mutex::new(rng(seed, &format!("seeds of {host}, life {life}"))))
    }
}

impl Seeds for SimSeeds {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_depend_on_run_host_and_life_and_nothing_else() {
        let first = |seed, host, life| SimSeeds::new(seed, host, life).next_u128();
        assert_eq!(first(1, "r1n1", 1), first(1, "r1n1", 1));
        for other in [first(2, "r1n1", 1), first(1, "r1n2", 1), first(1, "r1n1", 2)] {
            assert_ne!(first(1, "r1n1", 1), other);
        }
    }
}
