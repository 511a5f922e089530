use anabranch_core::ProducerId;
use anabranch_core::event::ProducerTag;
use tonic::Code;

use super::*;

const PATIENCE: Duration = Duration::from_secs(3);

fn ticket() -> Ticket {
    let tag = ProducerTag { id: ProducerId([1; 16]), epoch: 1, sequence: 5 };
    Ticket { region: "us".into(), tag }
}

fn policy(now: Instant) -> Policy {
    Policy {
        deadline: Some(now + Duration::from_secs(10)),
        region_patience: PATIENCE,
        may_move: false,
        move_in_doubt: false,
    }
}

fn retry(policy: Policy, now: Instant) -> AppendRetry {
    AppendRetry::new(now, 3, policy, ticket(), None)
}

fn no_answer() -> Failure {
    Failure::NoAnswer(Status::unavailable("gone"))
}
fn not_sent() -> Failure {
    Failure::NotSent(Status::unavailable("refused connection"))
}
fn conflict() -> Failure {
    Failure::Final(AppendError::Conflict { conflicts: vec![] })
}
fn overloaded(ms: u64) -> Failure {
    let after = Duration::from_millis(ms);
    let error = AppendError::Overloaded { what: "log".into(), retry_after: after };
    Failure::Later { error, after }
}

fn tried(step: Step<AppendError>) -> (Whom, Duration) {
    match step {
        Step::Try { whom, after } => (whom, after),
        Step::Stop(error) => panic!("gave up: {error}"),
    }
}
fn stopped(step: Step<AppendError>) -> AppendError {
    match step {
        Step::Stop(error) => error,
        Step::Try { whom, after } => panic!("tries {whom:?} after {after:?}"),
    }
}

#[test]
fn a_refusal_is_believed_only_if_no_attempt_before_it_went_unanswered() {
    let now = Instant::now();
    let mut certain = retry(policy(now), now);
    tried(certain.handle(now, 0.0, not_sent()));
    let error = stopped(certain.handle(now, 0.0, conflict()));
    assert!(matches!(error, AppendError::Conflict { .. }), "{error}");

    let mut doubtful = retry(policy(now), now);
    tried(doubtful.handle(now, 0.0, no_answer()));
    let error = stopped(doubtful.handle(now, 0.0, conflict()));
    let AppendError::Unknown { ticket: named, doubt: Doubt::RefusedLater { refusal }, .. } = error
    else {
        panic!("{error}");
    };
    assert!(matches!(*refusal, AppendError::Conflict { .. }));
    assert_eq!(named, ticket());

    let earlier = Some(Status::unknown("an earlier call"));
    let mut repeats = AppendRetry::new(now, 3, policy(now), ticket(), earlier);
    assert!(stopped(repeats.handle(now, 0.0, conflict())).is_unknown());
}

#[test]
fn at_the_deadline_it_is_unknown_if_and_only_if_something_went_unanswered() {
    let now = Instant::now();
    let end = now + Duration::from_secs(10);
    let leaderless = || Failure::NotLeader { leader: None };
    for (failures, unknown) in [
        (vec![not_sent(), leaderless(), not_sent()], false),
        (vec![overloaded(10), overloaded(10)], false),
        (vec![no_answer()], true),
        (vec![no_answer(), not_sent(), leaderless(), overloaded(5)], true),
    ] {
        let mut retry = retry(policy(now), now);
        let last = failures.len() - 1;
        for (at, failure) in failures.into_iter().enumerate() {
            let step = retry.handle(if at == last { end } else { now }, 0.0, failure);
            if at < last {
                tried(step);
                continue;
            }
            let error = stopped(step);
            assert_eq!(error.is_unknown(), unknown, "{error}");
            assert_eq!(error.is_refused(), !unknown, "{error}");
        }
    }
}

#[test]
fn a_refusal_is_not_turned_into_a_doubt_by_one_more_try_without_time_for_an_answer() {
    let now = Instant::now();
    let refused_with_left = |left: Duration| {
        let late = now + Duration::from_secs(10) - Duration::from_millis(10) - left;
        retry(policy(now), now).handle(late, 0.0, overloaded(10))
    };
    assert!(stopped(refused_with_left(ATTEMPT_MIN)).is_refused());
    tried(refused_with_left(ATTEMPT_MIN + Duration::from_millis(1)));
}

#[test]
fn redirects_are_followed_at_once_but_not_in_circles() {
    let now = Instant::now();
    let mut retry = retry(policy(now), now);
    let redirect = || Failure::NotLeader { leader: Some("b:1".into()) };
    for _ in 0..REDIRECTS_MAX {
        let step = tried(retry.handle(now, 0.0, redirect()));
        assert_eq!(step, (Whom::Leader("b:1".into()), Duration::ZERO));
    }
    assert_eq!(tried(retry.handle(now, 0.0, redirect())).0, Whom::Next);
}

#[test]
fn the_same_node_is_asked_again_when_it_said_when() {
    let now = Instant::now();
    let mut retry = retry(policy(now), now);
    let (whom, after) = tried(retry.handle(now, 0.0, overloaded(300)));
    assert_eq!((whom, after), (Whom::Same, Duration::from_millis(300)));
    let beyond = stopped(retry.handle(now, 0.0, overloaded(11_000)));
    assert!(matches!(beyond, AppendError::Overloaded { .. }), "waiting would miss the deadline");
}

#[test]
fn a_home_that_cannot_be_asked_is_waited_for_for_a_while_and_asked_from_another_region_at_once() {
    let now = Instant::now();
    let homeless = || Failure::Homeless {
        error: AppendError::HomeUnreachable {
            stream: "bed-1".into(),
            home: "us".into(),
            epoch: 1,
            region: "eu".into(),
        },
    };
    let mut alone = retry(policy(now), now);
    let (whom, after) = tried(alone.handle(now, 0.0, homeless()));
    assert_eq!((whom, after), (Whom::Same, BACKOFF_MIN / 2));
    let early = now + PATIENCE - Duration::from_millis(1);
    assert_eq!(tried(alone.handle(early, 0.0, homeless())), (Whom::Same, BACKOFF_MIN));
    let error = stopped(alone.handle(now + PATIENCE, 0.0, homeless()));
    assert!(
        matches!(error, AppendError::HomeUnreachable { .. }),
        "long before the deadline: {error}"
    );

    // What came between says that the region is well.
    let mut well = retry(policy(now), now);
    tried(well.handle(now, 0.0, homeless()));
    tried(well.handle(now, 0.0, overloaded(10)));
    tried(well.handle(now + PATIENCE, 0.0, homeless()));

    let mut doubtful = retry(policy(now), now);
    tried(doubtful.handle(now, 0.0, no_answer()));
    tried(doubtful.handle(now, 0.0, homeless()));
    assert!(stopped(doubtful.handle(now + PATIENCE, 0.0, homeless())).is_unknown());

    let moving = Policy { may_move: true, ..policy(now) };
    let mut moving = retry(moving, now);
    assert_eq!(tried(moving.handle(now, 0.0, homeless())).0, Whom::NextRegion);
    moving.entered_region(now, 1, "asia");
    let (whom, after) = tried(moving.handle(now, 0.0, homeless()));
    assert_eq!((whom, after), (Whom::NextRegion, BACKOFF_MIN), "and not faster and faster");
    moving.entered_region(now, 3, "us");
    tried(moving.handle(now, 0.0, no_answer()));
    assert_eq!(tried(moving.handle(now, 0.0, homeless())).0, Whom::Same, "not while in doubt");
}

#[test]
fn waits_grow_to_a_bound_and_are_spread() {
    let (mut low, mut high) = (Backoff::default(), Backoff::default());
    let waits: Vec<_> = (0..10).map(|_| (low.next(0.0), high.next(0.999))).collect();
    assert_eq!(waits[0].0, BACKOFF_MIN / 2);
    assert!(waits.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(waits.iter().all(|(low, high)| low < high && *high <= BACKOFF_MAX));
    assert_eq!(waits[9].0, BACKOFF_MAX / 2);
}

#[test]
fn another_region_is_tried_only_where_nothing_can_be_written_twice() {
    let now = Instant::now();
    let late = now + PATIENCE;
    let moves = |may_move, move_in_doubt, failure: fn() -> Failure| {
        let policy = Policy { may_move, move_in_doubt, ..policy(now) };
        let mut retry = retry(policy, now);
        tried(retry.handle(now, 0.0, failure()));
        tried(retry.handle(late, 0.0, failure())).0 == Whom::NextRegion
    };
    assert!(moves(true, false, not_sent), "never sent, so it cannot be written at home");
    assert!(!moves(true, false, no_answer), "it may be written at home");
    assert!(moves(true, true, no_answer), "the caller allowed it");
    assert!(!moves(false, true, not_sent), "there is no fallback");
}

#[test]
fn a_region_where_no_node_takes_a_connection_is_left_at_once() {
    let now = Instant::now();
    let mut retry = retry(Policy { may_move: true, ..policy(now) }, now);
    assert_eq!(tried(retry.handle(now, 0.0, not_sent())).0, Whom::Next);
    assert_eq!(tried(retry.handle(now, 0.0, not_sent())).0, Whom::Next);
    assert_eq!(tried(retry.handle(now, 0.0, not_sent())).0, Whom::NextRegion);
    retry.entered_region(now, 1, "eu");
    let error = stopped(retry.handle(now + Duration::from_secs(11), 0.0, no_answer()));
    assert!(matches!(error, AppendError::Unknown { ticket, .. } if ticket.region == "eu"));
}

#[test]
fn what_every_node_would_say_again_ends_the_tries_unless_something_is_in_doubt() {
    let now = Instant::now();
    let misfit = || Failure::Misfit(Status::unknown("no such tongue"));
    let mut certain = retry(policy(now), now);
    tried(certain.handle(now, 0.0, misfit()));
    tried(certain.handle(now, 0.0, misfit()));
    let error = stopped(certain.handle(now, 0.0, misfit()));
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error}");

    let mut doubtful = retry(policy(now), now);
    tried(doubtful.handle(now, 0.0, no_answer()));
    tried(doubtful.handle(now, 0.0, misfit()));
    tried(doubtful.handle(now, 0.0, misfit()));
    assert!(stopped(doubtful.handle(now, 0.0, misfit())).is_unknown());

    let mut another = retry(policy(now), now);
    for _ in 0..2 {
        tried(another.handle(now, 0.0, misfit()));
    }
    tried(another.handle(now, 0.0, not_sent()));
    tried(another.handle(now, 0.0, misfit()));
    let moving = Policy { may_move: true, ..policy(now) };
    let mut moving = AppendRetry::new(now, 1, moving, ticket(), None);
    assert_eq!(tried(moving.handle(now, 0.0, misfit())).0, Whom::NextRegion);

    let damaged = || ReadFailure::Damaged(Status::data_loss("record 3"));
    let mut reading = ReadRetry::new(now, 2, Policy { deadline: None, ..policy(now) });
    assert!(matches!(reading.handle(now, 0.0, damaged()), Step::Try { whom: Whom::Next, .. }));
    let step = reading.handle(now, 0.0, damaged());
    let Step::Stop(ReadError::Refused { code: Code::DataLoss, .. }) = step else {
        panic!("{step:?}");
    };
}

#[test]
fn errors_say_whether_it_was_written_and_whether_to_come_back() {
    let unknown = || AppendError::Unknown {
        ticket: ticket(),
        waited: PATIENCE,
        doubt: Doubt::NoAnswer { attempts: 1, last: Box::new(Status::unavailable("")) },
    };
    let invalid = AppendError::Invalid {
        field: "events".into(),
        problem: "too many".into(),
        limit: Some(1),
        actual: Some(2),
    };
    let refused = AppendError::Refused { code: Code::PermissionDenied, message: "no".into() };
    let busy = AppendError::Overloaded { what: "log".into(), retry_after: PATIENCE };
    let nobody = AppendError::Unavailable { waited: PATIENCE, last: "no leader".into() };
    // (error, refused, unknown, retryable)
    let table = [
        (AppendError::Conflict { conflicts: vec![] }, true, false, false),
        (invalid, true, false, false),
        (AppendError::Fenced { epoch: 2 }, true, false, false),
        (AppendError::Forgotten { oldest: 9 }, false, true, false),
        (refused, true, false, false),
        (busy, true, false, true),
        (nobody, true, false, true),
        (
            AppendError::NotHome { stream: "a".into(), home: "us".into(), epoch: 2 },
            true,
            false,
            true,
        ),
        (unknown(), false, true, true),
    ];
    for (error, refused, unknown, retryable) in table {
        let said = (error.is_refused(), error.is_unknown(), error.retryable());
        assert_eq!(said, (refused, unknown, retryable), "{error}");
    }
}

#[test]
fn a_read_says_what_is_missing_when_nobody_has_it() {
    let now = Instant::now();
    let mut retry = ReadRetry::new(now, 2, policy(now));
    let behind = || ReadFailure::NotCaughtUp { missing: Context::new() };
    assert!(matches!(retry.handle(now, 0.0, behind()), Step::Try { whom: Whom::Next, .. }));
    let end = now + Duration::from_secs(10);
    let broken = ReadFailure::Broken(Status::unavailable("gone"));
    let step = retry.handle(end, 0.0, broken);
    assert!(matches!(step, Step::Stop(ReadError::NotCaughtUp { .. })), "{step:?}");
    let mut patient = ReadRetry::new(now, 2, Policy { deadline: None, ..policy(now) });
    let broken = ReadFailure::Broken(Status::unavailable("gone"));
    assert!(matches!(patient.handle(end, 0.0, broken), Step::Try { .. }), "for ever");
}
