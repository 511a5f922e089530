use std::collections::BTreeMap;

use anabranch_gossip::{ClockAnswer, ClockTrust};
use parking_lot::Mutex;

use super::*;
use crate::raft::{FollowerStatus, Node, Role};

const BEGAN_MS: u64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;
const DRIFT_MAX: Duration = Duration::from_millis(500);

/// Right clocks but for what the wall clock is off by.
struct TestClock {
    now: Mutex<Duration>,
    off_ms: Mutex<i64>,
}

impl TestClock {
    fn right_ms(&self) -> u64 {
        BEGAN_MS + self.monotonic().as_millis() as u64
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.right_ms().saturating_add_signed(*self.off_ms.lock())
    }
    fn monotonic(&self) -> Duration {
        *self.now.lock()
    }
}

fn name(region: &str) -> RegionName {
    RegionName::new(region).unwrap()
}

struct Case {
    clock: Arc<TestClock>,
    inlet: Arc<Inlet>,
    watch: Watch,
}

impl Case {
    /// A process of `asia` starts with its clock off by so much; `europe` and `us` are members too.
    fn started(off_ms: i64) -> Self {
        let clock = Arc::new(TestClock { now: Mutex::default(), off_ms: Mutex::new(off_ms) });
        let inlet = Arc::new(Inlet::new());
        let members = ["asia", "europe", "us"].map(name);
        let shown: Arc<dyn Clock> = clock.clone();
        let watch = Watch::new(shown, Arc::clone(&inlet), name("asia"), &members, DRIFT_MAX);
        let mut case = Self { clock, inlet, watch };
        case.watch.begin();
        case
    }

    /// A region with a right clock says what it holds and what time it is.
    fn hears(&self, region: &str) {
        let unix_ms = self.clock.right_ms();
        let answer = ClockAnswer { unix_ms, round_trip: Duration::ZERO, proven: true };
        self.inlet.hear_for_test(&name(region), answer, self.clock.monotonic());
    }

    fn pass(&self, time: Duration) {
        *self.clock.now.lock() += time;
    }

    /// What it thinks of its clock, when it is asked now.
    fn trust(&self) -> ClockTrust {
        self.inlet.clock_trust(read(&*self.clock))
    }

    fn stands(&mut self) -> Standing {
        self.stands_with(Stamp::ZERO)
    }

    fn stands_with(&mut self, last: Stamp) -> Standing {
        self.watch.judge(last).0
    }
}

#[test]
fn a_fresh_process_writes_once_all_have_answered_or_after_a_moment() {
    let mut case = Case::started(0);
    assert_eq!(case.stands(), Standing::Waits);
    case.hears("europe");
    assert_eq!(case.stands(), Standing::Waits);
    case.hears("us");
    assert_eq!(case.stands(), Standing::Fit);
    // Not again in the same process.
    case.watch.end();
    case.watch.begin();
    assert_eq!(case.stands(), Standing::Fit);

    let mut cut_off = Case::started(0);
    assert_eq!(cut_off.stands(), Standing::Waits);
    cut_off.pass(LISTEN - Duration::from_millis(1));
    assert_eq!(cut_off.stands(), Standing::Waits);
    cut_off.pass(Duration::from_millis(1));
    assert_eq!(cut_off.stands(), Standing::Fit, "a region that is cut off serves");
}

#[test]
fn a_leadership_that_ends_while_it_listens_has_not_listened() {
    let mut case = Case::started(0);
    assert_eq!(case.stands(), Standing::Waits);
    case.watch.end();
    case.pass(LISTEN);
    case.watch.begin();
    assert_eq!(case.stands(), Standing::Waits);
}

#[test]
fn a_clock_far_ahead_of_the_log_is_given_longer_to_be_set_right() {
    let mut case = Case::started(HOUR);
    let last = Stamp::from_unix_ms(BEGAN_MS);
    assert_eq!(case.stands_with(last), Standing::Waits);
    case.pass(LISTEN);
    assert_eq!(case.stands_with(last), Standing::Waits);
    *case.clock.off_ms.lock() = 0;
    assert_eq!(case.stands_with(last), Standing::Fit);

    let mut down_for_long = Case::started(HOUR);
    assert_eq!(down_for_long.stands_with(last), Standing::Waits);
    down_for_long.pass(LISTEN_AFTER_LEAP);
    assert_eq!(down_for_long.stands_with(last), Standing::Fit, "nobody says otherwise");
}

#[test]
fn a_wrong_clock_is_doubted_said_and_believed_again_when_set_right() {
    let mut case = Case::started(HOUR);
    case.hears("europe");
    case.hears("us");
    let Standing::Doubted(ClockDoubted::Contradicted { by, .. }) = case.stands() else {
        panic!("two regions say otherwise");
    };
    assert_eq!(by.len(), 2);
    let trouble = case.inlet.trouble().expect("it is shown");
    assert!(trouble.contains("3600s ahead of europe's"), "{trouble}");
    *case.clock.off_ms.lock() = 0;
    assert_eq!(case.stands(), Standing::Fit);
    assert_eq!(case.inlet.trouble(), None);
}

#[test]
fn a_jump_while_another_node_leads_is_noticed() {
    let mut case = Case::started(0);
    case.pass(LISTEN);
    assert_eq!(case.stands(), Standing::Waits);
    case.pass(LISTEN);
    assert_eq!(case.stands(), Standing::Fit);
    case.watch.end();
    case.watch.look(Stamp::ZERO);
    *case.clock.off_ms.lock() = HOUR;
    assert_eq!(case.trust(), ClockTrust::Doubted, "not even looked at, it is told to nobody");
    case.watch.look(Stamp::ZERO);
    assert_eq!(case.trust(), ClockTrust::Unproven, "nothing speaks for it any more");
    case.watch.begin();
    assert!(matches!(case.stands(), Standing::Doubted(ClockDoubted::Jumped { .. })));
}

#[test]
fn a_log_ahead_of_the_time_goes_on_after_its_last_stamp_and_says_so() {
    let mut case = Case::started(0);
    case.hears("europe");
    case.hears("us");
    let ahead = Stamp::from_unix_ms(BEGAN_MS + HOUR as u64);
    assert_eq!(case.stands_with(ahead), Standing::Fit);
    assert!(case.inlet.trouble().is_some_and(|text| text.contains("ahead of the time")));
    assert_eq!(case.watch.stamping_ms(BEGAN_MS, ahead), ahead.unix_ms());
    let near = Stamp::from_unix_ms(BEGAN_MS + 500);
    assert_eq!(case.watch.stamping_ms(BEGAN_MS, near), BEGAN_MS, "the stamps see to that");
    // Billions of stamps in one millisecond borrow from the next; they never run out.
    let mut last = Stamp(ahead.0 + (1 << 22) - 2);
    let clock = anabranch_core::stamp::StampClock::new(DRIFT_MAX);
    for _ in 0..5 {
        let next = clock.propose(case.watch.stamping_ms(BEGAN_MS, last), last).unwrap();
        assert_eq!(next, last.next());
        last = next;
    }
}

#[test]
fn a_clock_is_proven_by_other_regions_or_by_a_log_that_moves_with_the_time() {
    let mut case = Case::started(HOUR);
    let trust = |case: &mut Case, last_ms| {
        case.watch.look(Stamp::from_unix_ms(last_ms));
        case.trust()
    };
    let ahead_ms = BEGAN_MS + HOUR as u64;
    assert_eq!(trust(&mut case, ahead_ms), ClockTrust::Unproven, "it may be from long ago");
    assert_eq!(trust(&mut case, ahead_ms), ClockTrust::Unproven, "nothing new");
    assert_eq!(trust(&mut case, ahead_ms + 50), ClockTrust::Proven);
    *case.clock.off_ms.lock() = 2 * HOUR;
    assert_eq!(trust(&mut case, ahead_ms + 100), ClockTrust::Unproven, "it jumped");
    case.hears("us");
    assert_eq!(trust(&mut case, ahead_ms + 100), ClockTrust::Doubted, "another says otherwise");
    *case.clock.off_ms.lock() = 0;
    case.hears("us");
    assert_eq!(trust(&mut case, ahead_ms + 100), ClockTrust::Proven);
}

fn group(silent_ms: [Option<u64>; 4]) -> GroupStatus {
    let node = || Node { raft_address: "a:1".into(), api_address: "b:1".into() };
    let follower = |silent: Option<u64>| FollowerStatus {
        matched: 1,
        lag: 0,
        silent: silent.map(Duration::from_millis),
    };
    let followers: BTreeMap<_, _> = (1..).zip(silent_ms).map(|(id, s)| (id, follower(s))).collect();
    GroupStatus {
        role: Role::Leader,
        term: 1,
        leader: Some(1),
        last_index: 1,
        committed: 1,
        applied: 1,
        voters: (1..=4).map(|id| (id, node())).collect(),
        learners: BTreeMap::new(),
        changing: false,
        followers,
        quorum_silent: None,
    }
}

#[test]
fn leadership_goes_round_to_those_that_are_there_with_ever_longer_pauses() {
    let mut case = Case::started(HOUR);
    case.hears("europe");
    case.hears("us");
    let all_there = || group([Some(0); 4]);
    let two_is_gone = || group([Some(0), Some(9_000), Some(0), None]);
    assert!(matches!(case.stands(), Standing::Doubted(_)));
    assert_eq!(case.watch.successor(1, all_there), None, "not at once");
    case.pass(DOUBT);
    assert_eq!(case.watch.successor(1, two_is_gone), Some(3));
    assert_eq!(case.watch.successor(1, all_there), None, "it pauses");
    let mut pauses = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..4 {
        let began = case.clock.monotonic();
        let to = loop {
            case.pass(Duration::from_secs(1));
            case.hears("europe");
            case.hears("us");
            assert!(matches!(case.stands(), Standing::Doubted(_)));
            if let Some(to) = case.watch.successor(1, all_there) {
                break to;
            }
        };
        pauses.push((case.clock.monotonic() - began).as_secs());
        asked.push(to);
    }
    assert_eq!(asked, [4, 2, 3, 4], "whoever has a right clock has its turn");
    assert_eq!(pauses, [2, 4, 8, 16]);
    // Alone in its region, it can only wait.
    case.pass(HAND_OVER_PAUSE.1);
    assert_eq!(case.watch.successor(1, || group([Some(0), None, None, None])), None);
}
