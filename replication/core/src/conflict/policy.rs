//! Policies: which of several concurrent events counts.

use std::fmt;

use serde_json::{Value as Json, json};

use super::Conflict;
use super::run::Run;
use crate::declared::Declare;
use crate::id::{Dot, RegionName};
use crate::stamp::Stamp;

/// Regions that a policy may name.
pub const REGIONS_MAX: usize = 64;

/// Which of several concurrent events counts. All stay in the stream, whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// All count.
    #[default]
    KeepAll,
    /// The one with the highest (stamp, origin).
    LastWriterWins,
    /// The one with the lowest (stamp, origin).
    FirstWriterWins,
    /// The one of the region that comes first here; regions that are not named come after all that
    /// are. Within a region, or among those not named, as with [`LastWriterWins`](Self::LastWriterWins).
    RegionPriority(Vec<RegionName>),
    /// The one that a later event of type [`RESOLVED`](super::RESOLVED) names.
    Resolver,
}

/// What became of an event that others are concurrent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It counts, and so may the others.
    Kept,
    /// It counts, and nothing that is concurrent with it does.
    Won,
    /// Something that is concurrent with it counts in its place.
    Lost,
    /// Nobody has decided yet.
    Open,
}

impl Policy {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KeepAll => "keep-all",
            Self::LastWriterWins => "last-writer-wins",
            Self::FirstWriterWins => "first-writer-wins",
            Self::RegionPriority(_) => "region-priority",
            Self::Resolver => "resolver",
        }
    }

    /// What became of the event `dot`, stamped `stamp`, if all of `against` are concurrent with it.
    /// `winner` is the event that a resolution which covers them names; only a resolver asks for it.
    ///
    /// It has lost if and only if one of them ranks higher.
    pub fn standing(
        &self,
        dot: &Dot,
        stamp: Stamp,
        against: &[Run],
        winner: Option<&Dot>,
    ) -> Standing {
        let event = Run::of(dot, stamp);
        let lost = |beaten: bool| if beaten { Standing::Lost } else { Standing::Won };
        match (self, winner) {
            (Self::KeepAll, _) => Standing::Kept,
            (Self::Resolver, None) => Standing::Open,
            (Self::Resolver, Some(winner)) if winner == dot => Standing::Won,
            (Self::Resolver, Some(winner)) => {
                let beaten = against.iter().any(|run| run.holds(&winner.origin, winner.seq));
                if beaten { Standing::Lost } else { Standing::Kept }
            }
            _ => lost(against.iter().any(|run| self.prefers(run, &event))),
        }
    }

    /// The event of a conflict that counts; none if all do, or nobody has decided.
    pub fn winner(&self, conflict: &Conflict, resolved: Option<&Dot>) -> Option<Dot> {
        if *self == Self::KeepAll {
            return None;
        }
        if *self == Self::Resolver {
            return resolved.cloned();
        }
        let first = &conflict.events;
        let best = conflict
            .against
            .iter()
            .fold(first, |best, run| if self.prefers(run, best) { run } else { best });
        Some(match self {
            Self::FirstWriterWins => best.oldest(),
            _ => best.newest(),
        })
    }

    /// Whether the best event of one run ranks above the best of another.
    fn prefers(&self, one: &Run, other: &Run) -> bool {
        let late = |run: &Run| (run.last_stamp, run.origin.clone());
        let early = |run: &Run| (run.first_stamp, run.origin.clone());
        match self {
            Self::KeepAll | Self::Resolver => false,
            Self::LastWriterWins => late(one) > late(other),
            Self::FirstWriterWins => early(one) < early(other),
            Self::RegionPriority(regions) => {
                let place = |run: &Run| {
                    let named = regions.iter().position(|region| *region == run.origin.region);
                    named.unwrap_or(regions.len())
                };
                let (one_place, other_place) = (place(one), place(other));
                one_place < other_place || (one_place == other_place && late(one) > late(other))
            }
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::RegionPriority(regions) = self {
            let names: Vec<_> = regions.iter().map(RegionName::as_str).collect();
            write!(f, " {}", names.join(","))?;
        }
        Ok(())
    }
}

/// A category's policy, as an event of its stream says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The category.
    pub category: String,
    /// The higher one counts.
    pub version: u32,
    /// The policy.
    pub policy: Policy,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDeclaration {
    /// A part is missing, or is something else.
    #[error("{part} {problem}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// It names too few or too many regions.
    #[error("regions names {actual} regions instead of 1 to {}", REGIONS_MAX)]
    Regions {
        /// How many.
        actual: usize,
    },
}

impl Declaration {
    /// As JSON: the payload of the event.
    pub fn to_json(&self) -> Json {
        let mut json = json!({
            "category": self.category,
            "version": self.version,
            "policy": self.policy.name(),
        });
        if let Policy::RegionPriority(regions) = &self.policy {
            json["regions"] = regions.iter().map(|region| Json::from(region.as_str())).collect();
        }
        json
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// [`BadDeclaration`] names the part that is wrong.
    pub fn from_json(json: &Json) -> Result<Self, BadDeclaration> {
        let wrong = |part, problem: &str| BadDeclaration::Part { part, problem: problem.into() };
        let category = json.get("category").and_then(Json::as_str).filter(|name| !name.is_empty());
        let version = json.get("version").and_then(Json::as_u64);
        let version = version.and_then(|version| u32::try_from(version).ok()).filter(|v| *v > 0);
        let name = json.get("policy").and_then(Json::as_str).unwrap_or_default();
        let regions = match json.get("regions") {
            None => Vec::new(),
            Some(list) => {
                let names = list.as_array().map(Vec::as_slice).unwrap_or_default();
                let region = |name: &Json| name.as_str().and_then(|n| RegionName::new(n).ok());
                let regions: Option<Vec<_>> = names.iter().map(region).collect();
                regions.ok_or_else(|| wrong("regions", "is no list of names of regions"))?
            }
        };
        Ok(Self {
            category: category.ok_or_else(|| wrong("category", "is missing"))?.to_owned(),
            version: version.ok_or_else(|| wrong("version", "is not a number from 1"))?,
            policy: Policy::named(name, regions)?,
        })
    }
}

impl Declare for Declaration {
    const CATEGORY: &'static str = "$conflicts";
    const EVENT_TYPE: &'static str = "ConflictPolicyDeclared";
    const WHAT: &'static str = "policy";
    type Bad = BadDeclaration;

    fn from_json(json: &Json) -> Result<Self, BadDeclaration> {
        Self::from_json(json)
    }
    fn to_json(&self) -> Json {
        self.to_json()
    }
    fn category(&self) -> &str {
        &self.category
    }
    fn version(&self) -> u32 {
        self.version
    }
}

impl Policy {
    /// The policy of that name; only `region-priority` has regions.
    ///
    /// # Errors
    /// [`BadDeclaration`] if there is none, or the regions do not fit it.
    pub fn named(name: &str, regions: Vec<RegionName>) -> Result<Self, BadDeclaration> {
        let wrong = |part, problem: String| BadDeclaration::Part { part, problem };
        let policy = match name {
            "keep-all" => Self::KeepAll,
            "last-writer-wins" => Self::LastWriterWins,
            "first-writer-wins" => Self::FirstWriterWins,
            "resolver" => Self::Resolver,
            "region-priority" => {
                let actual = regions.len();
                if !(1..=REGIONS_MAX).contains(&actual) {
                    return Err(BadDeclaration::Regions { actual });
                }
                let twice = (1..actual).find(|at| regions[..*at].contains(&regions[*at]));
                if let Some(at) = twice {
                    return Err(wrong("regions", format!("names {} twice", regions[at])));
                }
                return Ok(Self::RegionPriority(regions));
            }
            other => {
                let problem = format!(
                    "is {other:?}, not one of keep-all, last-writer-wins, first-writer-wins, \
                     region-priority, resolver"
                );
                return Err(wrong("policy", problem));
            }
        };
        match regions.is_empty() {
            true => Ok(policy),
            false => Err(wrong("regions", format!("is given, but {name} asks for none"))),
        }
    }
}
