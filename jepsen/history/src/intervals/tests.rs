//! The interval check against stateright's search, on small histories of one conditional log.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::*;

/// A log that is only counted: an append expects its length.
#[derive(Clone, Debug, Default)]
struct Log(u64);

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Append { expected: u64 },
}
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// The length after it.
    Appended(u64),
    /// The length that it met.
    Conflict(u64),
}

impl SequentialSpec for Log {
    type Op = Call;
    type Ret = Answer;
    fn invoke(&mut self, Call::Append { expected }: &Call) -> Answer {
        if *expected != self.0 {
            return Answer::Conflict(self.0);
        }
        self.0 += 1;
        Answer::Appended(self.0)
    }
}

/// One client's calls follow each other; times are whole and never equal.
#[derive(Clone, Debug)]
struct Event {
    client: u32,
    expected: u64,
    called: u64,
    returned: u64,
    answer: Answer,
}

/// A true history: every operation takes effect at a moment between its call and its answer. Then
/// some of the answers, or of the times, are changed.
fn history(rng: &mut SmallRng) -> Vec<Event> {
    let (clients, each) = (rng.random_range(2..5), rng.random_range(1..5));
    let mut events: Vec<(u64, Event)> = Vec::new();
    for client in 0..clients {
        let mut times: Vec<u64> =
            (0..each * 3).map(|_| rng.random_range(0..10_000) * 8 + u64::from(client)).collect();
        times.sort_unstable();
        times.dedup();
        for time in times.chunks_exact(3) {
            let answer = Answer::Conflict(0);
            let (called, returned) = (time[0], time[2]);
            events.push((time[1], Event { client, expected: 0, called, returned, answer }));
        }
    }
    events.sort_by_key(|(at, _)| *at);
    let mut log = Log::default();
    for (_, event) in &mut events {
        event.expected = if rng.random_bool(0.6) { log.0 } else { rng.random_range(0..4) };
        event.answer = log.invoke(&Call::Append { expected: event.expected });
    }
    let mut events: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
    for _ in 0..rng.random_range(0..3) {
        let one = rng.random_range(0..events.len());
        let other = rng.random_range(0..events.len());
        match rng.random_range(0..3) {
            0 => {
                // Two swap what they were told.
                let (mine, yours) = (events[one].clone(), events[other].clone());
                (events[one].expected, events[one].answer) = (yours.expected, yours.answer);
                (events[other].expected, events[other].answer) = (mine.expected, mine.answer);
            }
            1 => {
                if let Answer::Conflict(met) = &mut events[one].answer {
                    *met = rng.random_range(0..5);
                }
            }
            _ => {
                // Called no earlier than in the truth.
                let Event { called, returned, .. } = events[one];
                events[one].called = (called + returned) / 2 / 8 * 8 + called % 8;
            }
        }
    }
    events
}

/// What `checks/expected_revision.rs` makes of such a history, for a log whose events are each one append.
fn by_intervals(events: &[Event]) -> bool {
    let nanos = Duration::from_nanos;
    let mut appended: Vec<(u64, &Event)> = Vec::new();
    let mut observers = Vec::new();
    for event in events {
        let (called, returned) = (nanos(event.called), nanos(event.returned));
        match event.answer {
            Answer::Appended(length) if event.expected + 1 == length => {
                appended.push((length, event));
            }
            Answer::Conflict(met) if event.expected != met => {
                let met = met as usize;
                observers.push(Observer { after: met, until: met, called, returned });
            }
            _ => return false,
        }
    }
    appended.sort_by_key(|(length, _)| *length);
    let dense = (1..).zip(&appended).all(|(at, (length, _))| at == *length);
    if !dense || observers.iter().any(|observer| observer.after > appended.len()) {
        return false;
    }
    let step = |(_, event): &(u64, &Event)| Step {
        called: nanos(event.called),
        returned: nanos(event.returned),
    };
    let steps: Vec<Step> = appended.iter().map(step).collect();
    linearizable(&steps, &observers).is_ok()
}

fn by_search(events: &[Event]) -> bool {
    let mut moments: Vec<(u64, bool, &Event)> = events
        .iter()
        .flat_map(|event| [(event.called, false, event), (event.returned, true, event)])
        .collect();
    moments.sort_by_key(|(at, answered, _)| (*at, *answered));
    let mut tester = LinearizabilityTester::new(Log::default());
    for (_, answered, event) in moments {
        let ok = match answered {
            false => tester.on_invoke(event.client, Call::Append { expected: event.expected }),
            true => tester.on_return(event.client, event.answer.clone()),
        };
        ok.expect("a client's calls follow each other");
    }
    tester.is_consistent()
}

#[test]
fn agrees_with_a_search_through_all_orders() {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut yes, mut no) = (0, 0);
    for _ in 0..3_000 {
        let events = history(&mut rng);
        let found = by_intervals(&events);
        assert_eq!(found, by_search(&events), "{events:#?}");
        *(if found { &mut yes } else { &mut no }) += 1;
    }
    assert!(yes > 500 && no > 500, "{yes} linearizable, {no} not");
}

#[test]
fn names_the_two_that_cannot_both_be() {
    let at = |called, returned| Step {
        called: Duration::from_secs(called),
        returned: Duration::from_secs(returned),
    };
    let impossible = linearizable(&[at(0, 9), at(5, 6), at(1, 2)], &[]).unwrap_err();
    assert_eq!((impossible.late, impossible.early), (By::Step(1), By::Step(2)));
    let seconds = Duration::from_secs;
    let stale = Observer { after: 1, until: 1, called: seconds(7), returned: seconds(8) };
    let impossible = linearizable(&[at(0, 1), at(2, 3)], &[stale]).unwrap_err();
    assert_eq!((impossible.late, impossible.early), (By::Observer(0), By::Step(1)));
    let early = Observer { until: 2, after: 2, called: seconds(0), returned: seconds(1) };
    let impossible = linearizable(&[at(0, 1), at(2, 3)], &[early]).unwrap_err();
    assert_eq!((impossible.late, impossible.early), (By::Step(1), By::Observer(0)));
}
