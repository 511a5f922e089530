//! Known bugs that can be put back: the consistency suite must find every one of them.
//!
//! Only with the feature `planted-bugs`, which nothing but the suite's own proof turns on. Without it
//! [`is`] is a constant `false`, and the compiler removes every place that asks.

use std::str::FromStr;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal,)+) => {
        /// A bug that can be put back.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// As an argument.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What it is, and which rule protects against it.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($doc, " ",)+),)+
                }
            }
        }
    };
}

bugs! {
    /// A region imports an event before what is in its context (law 3).
    ContextIgnored = "context-ignored",
    /// Imports do not raise the clock: an effect is stamped before its cause (law 10).
    ImportDoesNotRaiseClock = "import-does-not-raise-clock",
    /// A new leader begins from its wall clock, not after the log's last stamp (law 10).
    NewLeaderForgetsStamps = "new-leader-forgets-stamps",
    /// Events from far ahead of the clock are imported, and drag it along (law 10).
    DriftUnchecked = "drift-unchecked",
    /// A statement is believed before the events that it speaks of are held (law 6).
    StatementWithoutSeq = "statement-without-seq",
    /// An event is stable when a majority of the regions promised, not all of them (law 6).
    StableByMajority = "stable-by-majority",
    /// Expectations are checked against what is applied, not against what is on its way (law 7).
    ExpectationsOnAppliedOnly = "expectations-on-applied-only",
    /// A conflict is answered from a prediction that nobody confirmed (law 7).
    ConflictUnconfirmed = "conflict-unconfirmed",
    /// An expectation on a stream that is only checked, not written, is ignored (law 7).
    CheckOnlyIgnored = "check-only-ignored",
    /// The first home of a category believes expectations before every region has stopped appending
    /// (law 7).
    HomeBeforeAllKnow = "home-before-all-know",
    /// A home that others may not have heard of ends, while they still append without knowing it (law 7).
    HomeEndsBeforeAllKnow = "home-ends-before-all-know",
    /// Rights are checked against what is applied, not against what is on its way (law 7).
    RightsOfAppliedOnly = "rights-of-applied-only",
    /// Checkpoints leave out what producers sent: a retry after a restart is written again (law 2).
    ProducersNotInCheckpoint = "producers-not-in-checkpoint",
    /// Event ids are not remembered: a retry under a new sequence is written again (law 2).
    EventIdsForgotten = "event-ids-forgotten",
    /// A retry does not see the first attempt while that is on its way (law 2).
    RetryMissesOnItsWay = "retry-misses-on-its-way",
    /// What other regions took from a producer is not remembered here (law 2).
    ImportsNotRemembered = "imports-not-remembered",
    /// A producer's old life is not fenced by the new one (law 2).
    EpochNotFenced = "epoch-not-fenced",
    /// The client takes a new sequence for every attempt (law 2).
    NewSequencePerAttempt = "new-sequence-per-attempt",
    /// The client takes an attempt that was not answered for one that was refused (law 11).
    SilenceIsRefusal = "silence-is-refusal",
    /// The client believes a refusal although an earlier attempt went unanswered (law 11).
    RefusalBelievedInDoubt = "refusal-believed-in-doubt",
    /// An append is acknowledged when it is proposed, not when it is committed (laws 1, 11).
    AcknowledgedWhenProposed = "acknowledged-when-proposed",
    /// The log says that records are durable before it has synced them (law 1).
    AcknowledgedBeforeSync = "acknowledged-before-sync",
    /// A vote is answered before it is synced: it can be cast twice (law 1).
    VoteNotSynced = "vote-not-synced",
    /// A failed sync is tried again, and believed when it succeeds (law 1).
    FailedSyncBelieved = "failed-sync-believed",
    /// What is read after a failed sync and a restart is not written again (law 1).
    UnsyncedTailBelieved = "unsynced-tail-believed",
    /// The name of a new segment is not synced: a power loss takes the file (law 1).
    SegmentNameNotSynced = "segment-name-not-synced",
    /// A restarted leader goes on in its old term and reuses log ids (law 1).
    LeaderRestored = "leader-restored",
    /// Cursors resume at the number of events seen, not at what was seen (law 9).
    CursorByPosition = "cursor-by-position",
    /// A resumed subscription begins one event too late (law 9).
    ResumesOneLate = "resumes-one-late",
    /// A read does not wait for what its session has seen (law 8).
    SessionIgnored = "session-ignored",
    /// The client does not add what it wrote to its session (law 8).
    OwnWritesNotInSession = "own-writes-not-in-session",
    /// A region promises others more than its log does: a second ahead (law 6).
    PromisesAhead = "promises-ahead",
    /// A stream of appends is waited for to its end, which may be lost: a follower is left behind (law 5).
    AppendStreamEndAwaited = "append-stream-end-awaited",
    /// A node that lost its disk votes and counts like any other (law 1).
    LostDiskUnnoticed = "lost-disk-unnoticed",
    /// A stream is expected to exist, and nobody looks (law 7).
    ExistsUnchecked = "exists-unchecked",
    /// The filter of a sealed segment denies some streams that the segment holds (law 3).
    FilterDenies = "filter-denies",
    /// A name may be a byte longer than the limit says (law 11).
    LimitOneMore = "limit-one-more",
    /// A region counts twice among those that hold an append (law 1).
    OwnRegionCountedTwice = "own-region-counted-twice",
    /// Aggregates count a request once for every region that it reached (laws 2, 5).
    RetryCountedTwice = "retry-counted-twice",
    /// Aggregates forget what this region holds, whether the others do or not (law 5).
    StableWhenHeldHere = "stable-when-held-here",
    /// Of two definitions of one version the one that arrived last counts (law 5).
    LastDefinitionCounts = "last-definition-counts",
    /// An event that comes before what was folded of ordered fields is folded after it (law 5).
    LateEventFoldedLast = "late-event-folded-last",
    /// Conflicts are not looked for with events that this region holds, whether the others do or not (law 5).
    ConflictsForgetWhatIsHeldHere = "conflicts-forget-what-is-held-here",
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|bug| bug.name() == name);
        found.ok_or_else(|| format!("{name} is no bug of the bank"))
    }
}

/// Whether the bug is put back.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
mod bank {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Bug;

    static PLANTED: AtomicU64 = AtomicU64::new(0);

    /// Whether the bug is put back.
    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) & (1 << bug as u8) != 0
    }

    /// Puts bugs back, for the rest of the process.
    pub fn plant(bugs: &[Bug]) {
        let bits = bugs.iter().fold(0, |bits, bug| bits | 1 << *bug as u8);
        PLANTED.fetch_or(bits, Ordering::Relaxed);
    }
}

#[cfg(feature = "planted-bugs")]
pub use bank::{is, plant};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_fits_the_set() {
        assert!(Bug::ALL.len() <= 64);
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(*bug));
            assert!(bug.words().contains("(law"), "{}", bug.name());
        }
        assert!("no-such-bug".parse::<Bug>().is_err());
    }
}
