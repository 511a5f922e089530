//! Randomness: one stream a purpose, so that a change to one kind of client shifts no other.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A generator for one purpose of one client of a run.
///
/// `home` and `nth` say which client: number of its region, number within it.
pub(crate) fn rng(seed: u64, purpose: &str, home: usize, nth: u32) -> SmallRng {
    let client = (home as u64).to_le_bytes().into_iter().chain(nth.to_le_bytes());
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.to_le_bytes().into_iter().chain(client).chain(purpose.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    SmallRng::seed_from_u64(hash)
}

/// A seed for one purpose of one client of a run; see [`rng`].
pub(crate) fn seed(seed: u64, purpose: &str, home: usize, nth: u32) -> u64 {
    rng(seed, purpose, home, nth).random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_purpose_and_client_has_a_stream_of_its_own() {
        let first = |of: u64, purpose, home, nth| seed(of, purpose, home, nth);
        assert_eq!(first(1, "bank", 0, 0), first(1, "bank", 0, 0));
        let others = [
            first(2, "bank", 0, 0),
            first(1, "set", 0, 0),
            first(1, "bank", 1, 0),
            first(1, "bank", 0, 1),
        ];
        assert!(others.iter().all(|other| *other != first(1, "bank", 0, 0)));
    }
}
