use super::*;

const HOUR: i64 = 3_600_000;
const BEGAN_MS: i64 = 1_767_225_600_000;
const DRIFT_MAX: Duration = Duration::from_millis(500);

/// A node's clock that is off by some milliseconds, and what it hears.
struct Case {
    guard: ClockGuard,
    times: Times,
    now: Duration,
}

fn reading(now: Duration, off_ms: i64) -> Reading {
    let unix_ms = u64::try_from(BEGAN_MS + off_ms + now.as_millis() as i64).unwrap();
    Reading { unix_ms, monotonic: now }
}

impl Case {
    /// A process starts with its clock off by so much.
    fn started(off_ms: i64) -> Self {
        let now = Duration::from_secs(1);
        let guard = ClockGuard::new(DRIFT_MAX, false, reading(now, off_ms));
        Self { guard, times: Times::default(), now }
    }

    /// As [`started`](Self::started) right, and `eu` has agreed.
    fn vouched() -> Self {
        let mut case = Self::started(0);
        assert_eq!(case.hears(&[("eu", 0)], 0), Ok(()));
        assert!(case.guard.vouched);
        case
    }

    /// A second later nobody is heard, and the clock is off by so much.
    fn hears_nobody(&mut self, off_ms: i64) -> Result<(), ClockDoubted> {
        self.hears(&[], off_ms)
    }

    /// A second later these regions tell their times, off by so much, and nobody else.
    fn hears(&mut self, told: &[(&str, i64)], off_ms: i64) -> Result<(), ClockDoubted> {
        self.now += Duration::from_secs(1);
        self.times = Times::default();
        for (region, off_ms) in told {
            let Reading { unix_ms, .. } = reading(self.now, *off_ms);
            let answer = ClockAnswer { unix_ms, round_trip: Duration::ZERO, proven: true };
            self.times.hear(&RegionName::new(region).unwrap(), answer, self.now);
        }
        self.guard.check(reading(self.now, off_ms), &self.times)
    }

    fn time(&self, off_ms: i64) -> i64 {
        let now = reading(self.now, off_ms);
        self.guard.time_ms(now) as i64 - reading(self.now, 0).unix_ms as i64
    }
}

fn contradicted(result: Result<(), ClockDoubted>) -> Vec<(String, i64)> {
    match result {
        Err(ClockDoubted::Contradicted { by, .. }) => {
            by.into_iter().map(|other| (other.region.to_string(), other.ahead_ms)).collect()
        }
        other => panic!("not contradicted: {other:?}"),
    }
}

#[test]
fn drift_is_followed_however_far_it_leads() {
    let mut case = Case::vouched();
    for step in 1..100 {
        // 10 % fast: far off in the end, never by much from one look to the next.
        assert_eq!(case.hears_nobody(step * 100), Ok(()));
    }
}

#[test]
fn unheard_a_jump_ahead_is_refused_until_the_clock_is_back() {
    let mut case = Case::vouched();
    match case.hears_nobody(HOUR) {
        Err(ClockDoubted::Jumped { ahead, allowed: DRIFT_MAX }) => {
            assert_eq!(ahead, Duration::from_millis(HOUR as u64));
        }
        other => panic!("{other:?}"),
    }
    for _ in 0..100 {
        assert!(case.hears_nobody(HOUR).is_err(), "it stays refused");
    }
    assert_eq!(case.hears_nobody(0), Ok(()));
}

#[test]
fn unheard_a_jump_ahead_is_believed_once_it_has_lasted_as_long_as_it_is_far() {
    let mut case = Case::vouched();
    let refused = (0..30).take_while(|_| case.hears_nobody(8_000).is_err()).count();
    assert_eq!(refused, 8, "looks, one a second, and the first begins the count");
    assert!(!case.guard.vouched, "but nothing speaks for it against others");
    assert_eq!(case.hears_nobody(0), Ok(()));
    let mut case = Case::vouched();
    for _ in 0..HOUR / 1_000 {
        assert!(case.hears_nobody(HOUR).is_err());
    }
    assert_eq!(case.hears_nobody(HOUR), Ok(()));
}

#[test]
fn unheard_a_clock_may_jump_to_where_the_log_is() {
    let mut case = Case::started(-HOUR);
    assert_eq!(case.hears_nobody(-HOUR), Ok(()));
    case.guard.know_log(reading(case.now, 0), reading(case.now, -200).unix_ms);
    assert_eq!(case.hears_nobody(0), Ok(()), "it is later than what is written");
    assert!(case.hears_nobody(2_000).is_err(), "but not by much");
}

#[test]
fn unheard_a_jump_back_is_believed_and_the_way_forth_again_too() {
    let mut case = Case::vouched();
    assert_eq!(case.hears_nobody(-HOUR), Ok(()), "stamps go on from the log's last");
    assert!(!case.guard.vouched, "but against others it has no past to speak for it");
    assert_eq!(case.hears_nobody(0), Ok(()));
    assert!(case.hears_nobody(1_000).is_err(), "not further than it had been");
}

#[test]
fn a_clock_that_was_wrong_at_the_start_may_be_set_right() {
    // Set back: at once. Set forth: as soon as another region agrees.
    let mut case = Case::started(1_300);
    assert_eq!(case.hears_nobody(1_300), Ok(()));
    assert_eq!(case.hears_nobody(0), Ok(()));
    let mut case = Case::started(-HOUR);
    assert_eq!(case.hears_nobody(-HOUR), Ok(()));
    assert!(case.hears_nobody(0).is_err());
    assert_eq!(case.hears(&[("eu", 0)], 0), Ok(()));
    assert_eq!(case.hears_nobody(0), Ok(()));
}

#[test]
fn a_start_with_a_wrong_clock_is_contradicted_by_those_that_are_heard() {
    for off in [HOUR, -HOUR] {
        let mut case = Case::started(off);
        let by = contradicted(case.hears(&[("eu", 20), ("us", -30)], off));
        assert_eq!(by, [("eu".to_owned(), off - 20), ("us".to_owned(), off + 30)]);
        assert!(case.time(off).abs() <= 30, "what others stamped is measured by their clocks");
        assert_eq!(case.hears(&[("eu", 0), ("us", 0)], 0), Ok(()), "set right");
        assert_eq!(case.time(0), 0);
    }
    let mut case = Case::started(HOUR);
    assert_eq!(contradicted(case.hears(&[("eu", 0)], HOUR)), [("eu".to_owned(), HOUR)]);
}

#[test]
fn one_wrong_clock_elsewhere_stops_nobody_whose_own_is_right() {
    for off in [HOUR, -HOUR] {
        // Of three or more the majority counts, whatever came before.
        let mut case = Case::started(0);
        assert_eq!(case.hears(&[("eu", off), ("us", 10)], 0), Ok(()));
        // Of two, the one that others have agreed with before, and that has not jumped.
        let mut case = Case::vouched();
        assert_eq!(case.hears(&[("eu", off)], 0), Ok(()));
        assert_eq!(case.time(0), 0, "nor is its time believed");
        // Others that contradict each other as well as this one are no majority.
        assert_eq!(case.hears(&[("eu", off), ("us", 2 * off)], 0), Ok(()));
    }
}

#[test]
fn of_two_without_a_past_the_one_behind_goes_on() {
    let mut behind = Case::started(0);
    assert_eq!(behind.hears(&[("eu", HOUR)], 0), Ok(()));
    let mut ahead = Case::started(HOUR);
    assert_eq!(contradicted(ahead.hears(&[("eu", 0)], HOUR)), [("eu".to_owned(), HOUR)]);
}

#[test]
fn of_two_the_one_that_jumped_is_refused_either_way() {
    for off in [HOUR, -HOUR, 2_000, -2_000] {
        let mut case = Case::vouched();
        assert_eq!(contradicted(case.hears(&[("eu", 0)], off)), [("eu".to_owned(), off)]);
        assert!(case.hears(&[("eu", 0)], off).is_err(), "also when it stays there");
        assert_eq!(case.hears(&[("eu", 0)], 0), Ok(()));
    }
}

#[test]
fn a_majority_is_believed_against_the_best_past() {
    let mut case = Case::vouched();
    let by = contradicted(case.hears(&[("eu", 5_000), ("us", 5_100)], 0));
    assert_eq!(by, [("eu".to_owned(), -5_000), ("us".to_owned(), -5_100)]);
    assert_eq!(case.time(0), 0, "but what others stamped is not measured by them");
}

#[test]
fn what_jumped_ahead_is_not_believed_for_a_clock_that_nothing_speaks_for() {
    let mut case = Case::started(0);
    let mut hears = |proven: bool| {
        case.now += Duration::from_secs(1);
        let now = reading(case.now, HOUR);
        let answer = ClockAnswer { unix_ms: now.unix_ms, round_trip: Duration::ZERO, proven };
        case.times.hear(&RegionName::new("eu").unwrap(), answer, case.now);
        case.guard.check(now, &case.times)
    };
    for _ in 0..10 {
        assert!(matches!(hears(false), Err(ClockDoubted::Jumped { .. })));
    }
    assert_eq!(hears(false), Ok(()), "but if it lasts it is");
    let mut case = Case::started(0);
    assert_eq!(case.hears(&[("eu", HOUR)], HOUR), Ok(()), "for one that is proven it is at once");
}

/// Two regions whose clocks were an hour behind and are set right at the same moment: each sees a jump
/// ahead, and has only the other to ask.
#[test]
fn two_regions_that_are_set_right_together_believe_each_other_in_the_end() {
    let mut cases = [Case::started(-HOUR), Case::started(-HOUR)];
    let mut judged: [Option<Judged>; 2] = [None; 2];
    let mut step = |off_ms: i64| {
        let mut checked = [Ok(()), Ok(())];
        for nth in 0..2 {
            let case = &mut cases[nth];
            case.now += Duration::from_secs(1);
            let now = reading(case.now, off_ms);
            let (unix_ms, round_trip) = (now.unix_ms, Duration::ZERO);
            let proven = match judged[1 - nth].map(|judged| judged.trust_at(now)) {
                Some(ClockTrust::Proven) => Some(true),
                Some(ClockTrust::Unproven) => Some(false),
                Some(ClockTrust::Doubted) | None => None,
            };
            if let Some(proven) = proven {
                let answer = ClockAnswer { unix_ms, round_trip, proven };
                case.times.hear(&RegionName::new("other").unwrap(), answer, case.now);
            }
            case.times.expire(case.now);
            checked[nth] = case.guard.check(now, &case.times);
            judged[nth] = Some(case.guard.judged(now, &checked[nth]));
        }
        checked
    };
    assert_eq!(step(-HOUR), [Ok(()), Ok(())]);
    let refused = (0..30).take_while(|_| step(0).iter().any(Result::is_err)).count();
    assert!((STEADY.as_secs() as usize..20).contains(&refused), "{refused} s");
}

#[test]
fn a_clock_that_jumped_since_it_was_judged_is_told_to_nobody() {
    let mut case = Case::vouched();
    let now = reading(case.now, 0);
    let judged = case.guard.judged(now, &Ok(()));
    assert_eq!(judged.trust_at(now), ClockTrust::Proven);
    case.now += Duration::from_secs(1);
    assert_eq!(judged.trust_at(reading(case.now, 500)), ClockTrust::Proven, "a drift");
    for off in [501, -501, HOUR, -HOUR] {
        assert_eq!(judged.trust_at(reading(case.now, off)), ClockTrust::Doubted);
    }
    let jumped = case.hears_nobody(HOUR);
    let now = reading(case.now, HOUR);
    assert_eq!(case.guard.judged(now, &jumped).trust_at(now), ClockTrust::Unproven);
    let contradicted = case.hears(&[("eu", 0)], HOUR);
    let now = reading(case.now, HOUR);
    assert_eq!(case.guard.judged(now, &contradicted).trust_at(now), ClockTrust::Doubted);
}

#[test]
fn a_follower_is_vouched_for_by_what_its_leader_stamps() {
    let mut case = Case::started(-HOUR);
    assert!(case.hears_nobody(0).is_err(), "set right, but who knows");
    case.guard.follow(reading(case.now, 0), reading(case.now, -HOUR).unix_ms);
    assert!(case.hears_nobody(0).is_err());
    case.guard.follow(reading(case.now, 0), reading(case.now, -100).unix_ms);
    assert_eq!(case.hears_nobody(0), Ok(()));
    assert_eq!(case.hears(&[("eu", HOUR)], 0), Ok(()), "it has a past");
}

#[test]
fn a_clock_that_nothing_speaks_for_counts_only_among_its_like() {
    let told = |proven| {
        let mut times = Times::default();
        for (region, off_ms, proven) in [("eu", HOUR, proven), ("us", 0, true)] {
            let Reading { unix_ms, .. } = reading(Duration::from_secs(1), off_ms);
            let answer = ClockAnswer { unix_ms, round_trip: Duration::ZERO, proven };
            times.hear(&RegionName::new(region).unwrap(), answer, Duration::from_secs(1));
        }
        let now = reading(Duration::from_secs(1), HOUR);
        ClockGuard::new(DRIFT_MAX, false, now).check(now, &times)
    };
    assert_eq!(told(true), Ok(()), "two of three agree");
    assert_eq!(contradicted(told(false)), [("us".to_owned(), HOUR)]);
}

#[test]
fn differences_within_the_drift_and_the_way_are_no_contradiction() {
    for off in [1_500, -1_500] {
        assert_eq!(Case::started(off).hears(&[("eu", 0), ("us", 0)], off), Ok(()));
        let more = off + off.signum();
        assert!(Case::started(more).hears(&[("eu", 0), ("us", 0)], more).is_err());
    }
}

#[test]
fn without_other_regions_a_jump_ahead_is_believed_once_it_has_lasted() {
    let second = Duration::from_secs(1);
    let mut guard = ClockGuard::new(DRIFT_MAX, true, reading(second, 0));
    let none = Times::default();
    assert!(guard.check(reading(second * 2, HOUR), &none).is_err());
    assert!(guard.check(reading(second * 11, HOUR), &none).is_err());
    // Gone elsewhere meanwhile: it begins anew.
    assert!(guard.check(reading(second * 12, 2 * HOUR), &none).is_err());
    assert!(guard.check(reading(second * 21, 2 * HOUR), &none).is_err());
    assert_eq!(guard.check(reading(second * 22, 2 * HOUR), &none), Ok(()));
}

#[test]
fn a_time_that_was_told_long_ago_or_after_a_long_way_is_not_known() {
    let (eu, second) = (RegionName::new("eu").unwrap(), Duration::from_secs(1));
    let mut times = Times::default();
    let slow = ClockAnswer {
        unix_ms: 5,
        round_trip: ROUND_TRIP_MAX + Duration::from_millis(1),
        proven: true,
    };
    times.hear(&eu, slow, second);
    assert_eq!(times.regions().count(), 0);
    let answer = ClockAnswer { unix_ms: 10_000, round_trip: second, proven: true };
    times.hear(&eu, answer, second);
    times.hear(&eu, answer, second * 2);
    // Half of the way back is added to what the clock showed when it was sent.
    assert_eq!(times.told, [Told { region: eu, offset_ms: 8_500, proven: true, at: second * 2 }]);
    times.expire(second * 7);
    assert_eq!(times.regions().count(), 1);
    times.expire(second * 7 + Duration::from_millis(1));
    assert_eq!(times.regions().count(), 0);
}

#[test]
fn the_message_names_who_contradicts_and_by_how_much() {
    let mut case = Case::started(HOUR);
    let doubted = case.hears(&[("eu", 0), ("us", 2 * HOUR)], HOUR);
    let text = doubted.unwrap_err().to_string();
    assert!(text.contains("3600s ahead of eu's, 3600s behind us's, 1.5s is allowed"), "{text}");
}
