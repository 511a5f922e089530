//! Policies: set, and looked at.

use std::sync::atomic::{AtomicU32, Ordering};

use anabranch_core::conflict::Policy;
use anabranch_core::{Dot, ReadOrder, RegionName};
use anabranch_proto::v1;

use super::service;
use crate::client::Client;
use crate::error::{Malformed, ReadError};
use crate::failure::is_in_doubt;

/// A policy that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet {
    /// The category.
    pub category: String,
    /// Its version.
    pub version: u32,
    /// True if it counted already, and nothing was written.
    pub repeated: bool,
    /// The event that declares it, if it was written now.
    pub dot: Option<Dot>,
}

/// Why a policy was not set as asked.
#[derive(Debug, thiserror::Error)]
pub enum SetPolicyError {
    /// Nothing was written.
    #[error(transparent)]
    Refused(ReadError),
    /// It may be set: an attempt went unanswered. Setting the same again counts once.
    #[error("no acknowledgement: {0}")]
    Unknown(#[source] ReadError),
}

/// A policy that was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredPolicy {
    /// The category.
    pub category: String,
    /// The version.
    pub version: u32,
    /// The policy.
    pub policy: Policy,
    /// The event that declares it.
    pub dot: Option<Dot>,
    /// When that was, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// How many conflicts a category has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The category; empty for all beyond the first 4,096 together.
    pub category: String,
    /// Conflicts, as they are listed.
    pub conflicts: u64,
    /// Pairs of concurrent events.
    pub pairs: u64,
}

/// Policies and counts, as a node knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoliciesKnown {
    /// By category. All events of the others are kept.
    pub policies: Vec<DeclaredPolicy>,
    /// By category.
    pub counts: Vec<Counted>,
    /// Events that were looked at.
    pub position: u64,
}

impl Client {
    /// Sets which of several concurrent events of a category counts, for all regions, from now on and for
    /// what is there. The version of the one before is raised, unless one is given.
    ///
    /// It is tried again until there is an answer or the deadline has come: the same counts once.
    ///
    /// # Errors
    /// [`SetPolicyError::Refused`] if a part is wrong, or another policy of this or a higher version is
    /// there; [`SetPolicyError::Unknown`] if an attempt went unanswered.
    pub async fn set_policy(
        &self,
        category: impl Into<String>,
        policy: &Policy,
        version: Option<u32>,
    ) -> Result<PolicySet, SetPolicyError> {
        let regions = match policy {
            Policy::RegionPriority(regions) => regions.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let (category, version) = (category.into(), version.unwrap_or_default());
        let policy = policy.name().to_owned();
        let request = v1::SetPolicyRequest { category, policy, regions, version };
        let unanswered = AtomicU32::new(0);
        let ask = |channel| {
            let (request, unanswered) = (request.clone(), &unanswered);
            async move {
                // Cut off by the time limit, it stays counted.
                unanswered.fetch_add(1, Ordering::Relaxed);
                let answer = service(channel).set_policy(request).await;
                if answer.as_ref().err().is_some_and(|status| !is_in_doubt(status)) {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                }
                answer
            }
        };
        let answer = self.ask(self.asking_for_conflicts(false), ask).await;
        let wire = answer.map_err(|error| match unanswered.load(Ordering::Relaxed) {
            0 => SetPolicyError::Refused(error),
            _ => SetPolicyError::Unknown(error),
        })?;
        let unreadable = SetPolicyError::Unknown;
        let merged = self.session().merge_answer(&wire.session_token);
        merged.map_err(|error| unreadable(error.into()))?;
        let dot = wire.dot.map(Dot::try_from).transpose();
        let dot = dot.map_err(|error| unreadable(error.into()))?;
        let v1::SetPolicyResponse { category, version, repeated, .. } = wire;
        Ok(PolicySet { category, version, repeated, dot })
    }

    /// The policies, and how many conflicts there are, as a node of the own region knows them: of one
    /// category, or of all if it is empty.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers in time.
    pub async fn policies(
        &self,
        category: impl Into<String>,
        order: ReadOrder,
    ) -> Result<PoliciesKnown, ReadError> {
        let request = v1::PoliciesRequest {
            category: category.into(),
            order: v1::Order::from(order) as i32,
            deadline_ms: self.session_wait_ms(),
        };
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).policies(request).await }
        };
        let wire = self.ask(self.asking_for_conflicts(false), ask).await?;
        let count = |count: v1::ConflictCount| {
            let v1::ConflictCount { category, conflicts, pairs } = count;
            Counted { category, conflicts, pairs }
        };
        Ok(PoliciesKnown {
            policies: wire.policies.into_iter().map(declared).collect::<Result<_, _>>()?,
            counts: wire.counts.into_iter().map(count).collect(),
            position: wire.position,
        })
    }
}

fn declared(wire: v1::DeclaredPolicy) -> Result<DeclaredPolicy, ReadError> {
    let wrong = |problem: String| ReadError::Malformed {
        problem: Malformed::Json { field: "policy", problem },
    };
    let regions = wire.regions.iter().map(|name| RegionName::new(name));
    let regions = regions.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    let policy = Policy::named(&wire.policy, regions).map_err(|error| wrong(error.to_string()))?;
    let dot = wire.dot.map(Dot::try_from).transpose()?;
    let v1::DeclaredPolicy { category, version, unix_ms, .. } = wire;
    Ok(DeclaredPolicy { category, version, policy, dot, unix_ms })
}
