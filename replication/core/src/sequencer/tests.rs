use super::*;
use crate::region::{Outcome, Refused};
use crate::sample::*;

const DRIFT_MAX: Duration = Duration::from_millis(500);

fn leading(region: &Region) -> Sequencer {
    Sequencer::new(region, DRIFT_MAX).unwrap()
}

fn plain(request: Request) -> Submission {
    Submission { request, expectations: Vec::new() }
}

fn expecting(stream: &str, expected: Expected) -> Expectation {
    Expectation { stream: stream.into(), expected }
}

/// Sequences one submission.
fn ask(
    sequencer: &mut Sequencer,
    region: &Region,
    submission: Submission,
) -> (Option<Ticketed>, Verdict) {
    let (ticketed, mut verdicts) = sequencer.sequence(NOW, region, vec![submission]).unwrap();
    assert_eq!(verdicts.len(), 1, "one verdict a submission");
    (ticketed, verdicts.remove(0))
}

fn sequenced(sequencer: &mut Sequencer, region: &Region, request: Request) -> Ticketed {
    let (ticketed, verdict) = ask(sequencer, region, plain(request));
    assert!(matches!(verdict, Verdict::Sequenced { .. }), "{verdict:?}");
    ticketed.unwrap()
}

fn last_revisions(verdict: &Verdict) -> &[u64] {
    match verdict {
        Verdict::Sequenced { receipt, .. } => &receipt.last_revisions,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_sequenced_before_genesis() {
    assert!(Sequencer::new(&Region::new(), DRIFT_MAX).is_none());
}

#[test]
fn commands_written_ahead_of_each_other_are_all_accepted() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let us = Author::new(origin("us")).write(at(90), cut(&[]), &[request(&["a", "b", "a"])]);
    let word = digest("us", at(95), &[("us", 3)]);
    let commands = [
        sequenced(&mut sequencer, &region, request(&["a", "b", "a"])),
        sequencer.import(&region, vec![us], vec![word]),
        sequencer.close(NOW).unwrap(),
        sequenced(&mut sequencer, &region, request(&["a", "c"])),
    ];
    assert_eq!(sequencer.on_their_way(), 4);
    for Ticketed { command, .. } in &commands {
        accept(&mut region, command);
    }
    // Applied, and the sequencer was not told: its numbers are absolute, so it makes no difference.
    let (after, verdict) = ask(&mut sequencer, &region, plain(request(&["a", "b"])));
    assert_eq!(last_revisions(&verdict), [5, 2]);
    sequencer.applied(commands[2].ticket);
    assert_eq!(sequencer.on_their_way(), 2);
    accept(&mut region, &after.unwrap().command);
    sequencer.applied(Ticket(5));
    let last = sequenced(&mut sequencer, &region, request(&["a", "c"]));
    accept(&mut region, &last.command);
    assert_eq!(region.frontier(), sequencer.frontier());
    assert_eq!(region.last_stamp(), sequencer.last_stamp());
    assert!(region.last_stamp() > at(90), "an effect is stamped after its cause");
}

#[test]
fn what_a_command_changed_is_forgotten_once_it_has_landed() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let first = sequenced(&mut sequencer, &region, request(&["a", "b", "a"]));
    let second = sequenced(&mut sequencer, &region, request(&["c", "a"]));
    let third = sequenced(&mut sequencer, &region, request(&["c"]));
    let mut foreseen = |landed: &Ticketed| {
        accept(&mut region, &landed.command);
        sequencer.applied(landed.ticket);
        let mut streams: Vec<String> =
            sequencer.overlay.revisions.keys().map(|stream| stream.to_string()).collect();
        streams.sort();
        streams
    };
    // What a later command changes as well is foreseen until that has landed.
    assert_eq!(foreseen(&first), ["a", "c"]);
    assert_eq!(foreseen(&second), ["c"]);
    assert_eq!(foreseen(&third), [""; 0]);
}

#[test]
fn expectations_see_what_is_on_its_way() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let create = || Submission {
        request: request(&["cart-1"]),
        expectations: vec![expecting("cart-1", Expected::NoStream)],
    };
    let batch = vec![create(), create()];
    let (ticketed, verdicts) = sequencer.sequence(NOW, &region, batch).unwrap();
    assert!(matches!(verdicts[0], Verdict::Sequenced { .. }));
    assert!(matches!(verdicts[1], Verdict::Conflicts(_)), "within one command");
    let (none, verdict) = ask(&mut sequencer, &region, create());
    assert!(matches!(verdict, Verdict::Conflicts(_)) && none.is_none(), "across commands");
    accept(&mut region, &ticketed.unwrap().command);
    sequencer.applied(Ticket(1));
    let (none, verdict) = ask(&mut sequencer, &region, create());
    assert!(matches!(verdict, Verdict::Conflicts(_)) && none.is_none(), "against the log");
    assert_eq!(sequencer.on_their_way(), 0, "a refused request enters no command");
}

#[test]
fn every_expectation_that_fails_is_reported_and_only_those() {
    let region = born("eu");
    let mut sequencer = leading(&region);
    sequenced(&mut sequencer, &region, request(&["one", "two", "two"]));
    let fails = [
        (expecting("one", Expected::NoStream), Some(0)),
        (expecting("none", Expected::Exists), None),
        (expecting("two", Expected::Revision(0)), Some(1)),
        (expecting("two", Expected::Revision(2)), Some(1)),
        (expecting("none", Expected::Revision(0)), None),
        (expecting("none", Expected::Revision(u64::MAX)), None),
    ];
    let holds = [
        expecting("none", Expected::NoStream),
        expecting("none", Expected::Any),
        expecting("one", Expected::Exists),
        expecting("two", Expected::Revision(1)),
    ];
    let failing = fails.iter().map(|(expectation, _)| expectation.clone());
    let expectations = holds.iter().cloned().chain(failing).collect();
    let (none, verdict) =
        ask(&mut sequencer, &region, Submission { request: request(&["x"]), expectations });
    let conflict = |(expectation, actual)| Conflict { expectation, actual };
    assert_eq!(verdict, Verdict::Conflicts(fails.map(conflict).into()));
    assert!(none.is_none());
    let fine = Submission { request: request(&["x"]), expectations: holds.into() };
    assert!(matches!(ask(&mut sequencer, &region, fine).1, Verdict::Sequenced { .. }));
}

#[test]
fn a_retry_joins_its_first_and_later_repeats_it() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    for asked in [tagged("s-1", tag(1, 1)), with_ids("s-1", &[1, 2])] {
        let (ticketed, first) = ask(&mut sequencer, &region, plain(asked.clone()));
        let Verdict::Sequenced { ticket, receipt } = first else { panic!("{first:?}") };
        let (none, again) = ask(&mut sequencer, &region, plain(asked.clone()));
        assert_eq!(again, Verdict::Joined { ticket, receipt: Arc::clone(&receipt) });
        assert!(none.is_none());
        accept(&mut region, &ticketed.unwrap().command);
        sequencer.applied(ticket);
        // A retry succeeds also when what it once expected no longer holds.
        let expectations = vec![expecting("s-1", Expected::NoStream)];
        let retry = Submission { request: asked, expectations };
        assert_eq!(ask(&mut sequencer, &region, retry).1, Verdict::Repeated(receipt));
    }
}

#[test]
fn a_retry_joins_an_import_that_is_on_its_way() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let requests = [request(&["s-1"]), tagged("s-1", tag(2, 1)), with_ids("s-1", &[1, 2])];
    let group = Author::new(origin("us")).write(at(1), cut(&[]), &requests);
    let Ticketed { ticket, command, .. } = sequencer.import(&region, vec![group], vec![]);
    let mut joined = Vec::new();
    for asked in &requests[1..] {
        let (none, verdict) = ask(&mut sequencer, &region, plain(asked.clone()));
        assert!(none.is_none(), "{verdict:?}");
        let Verdict::Joined { ticket: of, receipt } = verdict else { panic!("{verdict:?}") };
        assert_eq!((of, &receipt.origin), (ticket, &origin("us")));
        joined.push(receipt);
    }
    let zombie = ask(&mut sequencer, &region, plain(tagged("s-1", tag(1, 9)))).1;
    assert_eq!(zombie, Verdict::Fenced { epoch: 2 });
    accept(&mut region, &command);
    sequencer.applied(ticket);
    for (asked, receipt) in requests[1..].iter().zip(joined) {
        let verdict = ask(&mut sequencer, &region, plain(asked.clone())).1;
        assert_eq!(verdict, Verdict::Repeated(receipt), "what was promised is what was applied");
    }
}

#[test]
fn an_import_of_a_request_that_is_known_here_does_not_take_its_place() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let asked = tagged("s-1", tag(1, 1));
    let first = sequenced(&mut sequencer, &region, asked.clone());
    let group = Author::new(origin("us")).write(at(300), cut(&[]), std::slice::from_ref(&asked));
    let second = sequencer.import(&region, vec![group], vec![]);
    let verdict = ask(&mut sequencer, &region, plain(asked.clone())).1;
    assert!(matches!(verdict, Verdict::Joined { ticket, .. } if ticket == first.ticket));
    accept(&mut region, &first.command);
    sequencer.applied(first.ticket);
    accept(&mut region, &second.command);
    sequencer.applied(second.ticket);
    let verdict = ask(&mut sequencer, &region, plain(asked)).1;
    assert!(matches!(verdict, Verdict::Repeated(r) if r.origin == origin("eu")));
}

#[test]
fn zombies_and_reused_ids_are_refused_on_the_way_and_after() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let Ticketed { command, ticket, .. } = {
        let batch = vec![plain(tagged("s-1", tag(3, 1))), plain(with_ids("s-1", &[1, 2]))];
        sequencer.sequence(NOW, &region, batch).unwrap().0.unwrap()
    };
    for told in [false, true] {
        let zombie = ask(&mut sequencer, &region, plain(tagged("s-1", tag(2, 1)))).1;
        assert_eq!(zombie, Verdict::Fenced { epoch: 3 });
        let other = ask(&mut sequencer, &region, plain(tagged("s-2", tag(3, 1)))).1;
        assert_eq!(other, Verdict::SequenceReused { sequence: 1 });
        for ids in [&[1][..], &[1, 3], &[3, 1], &[1, 2, 3]] {
            let (none, verdict) = ask(&mut sequencer, &region, plain(with_ids("s-1", ids)));
            assert!(matches!(verdict, Verdict::IdReused { .. }), "{ids:?}: {verdict:?}");
            assert!(none.is_none());
        }
        if !told {
            accept(&mut region, &command);
            sequencer.applied(ticket);
        }
    }
}

#[test]
fn a_sequence_from_before_the_window_is_refused() {
    let mut region = born("eu");
    let mut sequencer = leading(&region);
    let batch = (2..1028).map(|sequence| plain(tagged("s-1", tag(1, sequence)))).collect();
    let (ticketed, _) = sequencer.sequence(NOW, &region, batch).unwrap();
    accept(&mut region, &ticketed.unwrap().command);
    sequencer.applied(Ticket(1));
    let verdict = ask(&mut sequencer, &region, plain(tagged("s-1", tag(1, 1)))).1;
    assert_eq!(verdict, Verdict::Forgotten { oldest: 4 });
}

#[test]
fn what_a_lost_leader_had_on_its_way_is_refused_whole() {
    let mut region = born("eu");
    let mut lost = leading(&region);
    let group = Author::new(origin("us")).one(at(1));
    let half = sequenced(&mut lost, &region, request(&["s-1"]));
    let stale = [
        sequenced(&mut lost, &region, request(&["s-1", "s-2"])),
        lost.import(&region, vec![group], vec![]),
        sequenced(&mut lost, &region, request(&["s-3"])),
    ];
    accept(&mut region, &half.command);
    let mut next = leading(&region);
    let new = sequenced(&mut next, &region, request(&["s-2"]));
    accept(&mut region, &new.command);
    let refused = stale.map(|ticketed| refuse(&mut region, &ticketed.command));
    assert!(matches!(refused[0], Refused::Gap { .. }), "{refused:?}");
    assert!(matches!(refused[1], Refused::Numbers { what: "position", .. }), "{refused:?}");
    assert!(matches!(refused[2], Refused::Gap { .. }), "{refused:?}");
}

#[test]
fn a_clock_behind_its_log_decides_nothing() {
    let mut region = born("eu");
    accept(&mut region, &Command::Close { stamp: at(501) });
    let mut sequencer = leading(&region);
    assert!(sequencer.sequence(NOW, &region, vec![plain(request(&["s-1"]))]).is_err());
    assert!(sequencer.close(NOW).is_err());
    let (ticketed, _) =
        sequencer.sequence(NOW + 1, &region, vec![plain(request(&["s-1"]))]).unwrap();
    assert_eq!(region.apply(&ticketed.unwrap().command), Outcome::Accepted);
}
