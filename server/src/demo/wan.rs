//! Distances: which regions a demonstration has, and how far apart they are.

use std::time::Duration;

use anabranch_core::RegionName;

/// A few real places with the one-way delays between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// What `--wan` calls it.
    pub name: &'static str,
    cities: &'static [&'static str],
    /// One-way milliseconds between pairs of cities, each pair once: (0,1), (0,2), (1,2).
    delays_ms: &'static [(usize, usize, u64)],
}

/// Every profile. One way, about half of the round trips that public clouds publish.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "transatlantic",
        cities: &["virginia", "frankfurt", "singapore"],
        delays_ms: &[(0, 1, 45), (0, 2, 110), (1, 2, 80)],
    },
    Profile {
        name: "europe",
        cities: &["dublin", "frankfurt", "stockholm"],
        delays_ms: &[(0, 1, 13), (0, 2, 20), (1, 2, 11)],
    },
    Profile {
        name: "worldwide",
        cities: &["oregon", "frankfurt", "tokyo"],
        delays_ms: &[(0, 1, 73), (0, 2, 49), (1, 2, 115)],
    },
];

/// The regions when nothing else names them: no distance between them.
pub const DEFAULT_REGIONS: [&str; 3] = ["americas", "europe", "asia"];

/// What `--wan` accepts.
pub fn parse_profile(name: &str) -> Result<Profile, String> {
    let known = || PROFILES.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    let found = PROFILES.iter().find(|profile| profile.name == name);
    found.copied().ok_or_else(|| format!("known profiles are {}", known()))
}

/// The table for `--help`.
pub fn help() -> String {
    let mut text = String::from("WAN profiles (one way):\n");
    for profile in PROFILES {
        let pair = |(a, b, ms): &(usize, usize, u64)| {
            format!("{}-{} {ms} ms", profile.cities[*a], profile.cities[*b])
        };
        let pairs: Vec<String> = profile.delays_ms.iter().map(pair).collect();
        text.push_str(&format!("  {:<14} {}\n", profile.name, pairs.join(", ")));
    }
    text
}

/// Regions and the delays between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Their names, in the order in which they are shown.
    pub regions: Vec<RegionName>,
    profile: Option<Profile>,
}

/// Why there is no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// More or fewer regions than a demonstration takes.
    #[error("{given} regions were given, 1 to {most} are possible")]
    Regions {
        /// How many were given.
        given: usize,
        /// How many there may be.
        most: usize,
    },
}

/// Regions a demonstration takes: each is a cluster of its own on this machine.
const REGIONS_MAX: usize = 5;

impl Map {
    /// The regions of the profile, or the default ones.
    pub fn of_profile(profile: Option<Profile>) -> Self {
        let names = profile.map_or(&DEFAULT_REGIONS[..], |profile| profile.cities);
        let region = |name: &&str| RegionName::new(name).expect("the tables hold region names");
        Self { regions: names.iter().map(region).collect(), profile }
    }

    /// Given regions, as far apart as the profile's cities, in the same order.
    ///
    /// # Errors
    /// [`MapError`] if there are none or too many.
    pub fn of_regions(
        regions: Vec<RegionName>,
        profile: Option<Profile>,
    ) -> Result<Self, MapError> {
        let most = profile.map_or(REGIONS_MAX, |profile| profile.cities.len());
        let given = regions.len();
        if !(1..=most).contains(&given) {
            return Err(MapError::Regions { given, most });
        }
        Ok(Self { regions, profile })
    }

    /// One-way delay between two regions, by their places in the list; the same both ways.
    pub fn one_way(&self, a: usize, b: usize) -> Duration {
        let (low, high) = (a.min(b), a.max(b));
        let delays = self.profile.map_or(&[][..], |profile| profile.delays_ms);
        let of_pair = |(x, y, ms): &(usize, usize, u64)| (*x, *y) == (low, high) && *ms > 0;
        let found = delays.iter().find(|entry| of_pair(entry));
        found.map_or(Duration::ZERO, |(_, _, ms)| Duration::from_millis(*ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_says_how_far_every_pair_of_its_cities_is_apart() {
        for profile in PROFILES {
            let map = Map::of_profile(Some(*profile));
            for a in 0..map.regions.len() {
                for b in 0..map.regions.len() {
                    let delay = map.one_way(a, b);
                    assert_eq!(delay > Duration::ZERO, a != b, "{} {a} {b}", profile.name);
                    assert_eq!(delay, map.one_way(b, a), "{} {a} {b}", profile.name);
                }
            }
            assert!(help().contains(profile.name));
        }
    }

    #[test]
    fn regions_of_a_file_take_the_distances_of_the_profile_if_there_are_enough_cities() {
        let names = |count: usize| {
            (0..count).map(|n| RegionName::new(&format!("r{n}")).unwrap()).collect::<Vec<_>>()
        };
        let europe = parse_profile("europe").unwrap();
        let map = Map::of_regions(names(2), Some(europe)).unwrap();
        assert_eq!(map.one_way(1, 0), Duration::from_millis(13));
        let refused = Map::of_regions(names(4), Some(europe)).unwrap_err();
        assert_eq!(refused, MapError::Regions { given: 4, most: 3 });
        assert!(Map::of_regions(names(5), None).is_ok());
        assert!(Map::of_regions(names(6), None).is_err());
        assert!(Map::of_regions(Vec::new(), None).is_err());
        assert!(parse_profile("mars").unwrap_err().contains("worldwide"));
    }
}
