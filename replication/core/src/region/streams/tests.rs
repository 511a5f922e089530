use super::*;

fn claimed(streams: &mut Streams, events: &[(&str, u64)]) -> Result<Vec<u32>, Refused> {
    Ok(streams.claim(events.iter().copied())?.into_iter().map(|place| place.0).collect())
}

fn state(streams: &Streams) -> Vec<(String, Head)> {
    streams.rows().iter().map(|(name, head)| (name.to_owned(), *head)).collect()
}

#[test]
fn what_is_claimed_in_part_is_given_back() {
    let mut streams = Streams::default();
    assert_eq!(claimed(&mut streams, &[("a", 0), ("b", 0), ("a", 1)]).unwrap(), [0, 1, 0]);
    let before = state(&streams);
    // Each fails at its end, behind streams that go on, streams that begin, and ones that do both.
    for refused in [
        vec![("a", 2), ("c", 0), ("c", 1), ("d", 0), ("b", 2)],
        vec![("c", 0), ("a", 2), ("c", 1), ("d", 1)],
        vec![("a", 2), ("a", 3), ("a", 3)],
        vec![("c", 1)],
    ] {
        let error = claimed(&mut streams, &refused).unwrap_err();
        assert!(matches!(error, Refused::Numbers { what: "revision", .. }), "{error}");
        assert_eq!(state(&streams), before, "after {refused:?}");
        assert_eq!((streams.len(), streams.head("c")), (2, None));
        assert_eq!(streams.numbers.len(), 2, "nothing is left of streams that did not begin");
    }
    assert_eq!(claimed(&mut streams, &[("c", 0), ("d", 0), ("a", 2)]).unwrap(), [2, 3, 0]);
}

#[test]
fn streams_are_found_among_very_many() {
    let name = |nth: u32| format!("account-{nth}");
    let mut streams = Streams::default();
    for nth in 0..50_000 {
        let head = Head { next_revision: u64::from(nth) + 1, ..Head::default() };
        streams.restore(&name(nth), head);
    }
    streams.restore(&name(7), Head { next_revision: 70, ..Head::default() });
    assert_eq!(streams.len(), 50_000, "a stream is restored once");
    let found = |nth| streams.head(&name(nth)).map(|head| head.next_revision);
    assert_eq!((found(7), found(49_999), found(50_000)), (Some(70), Some(50_000), None));
}

#[test]
fn streams_are_equal_whatever_the_order_in_which_they_began() {
    let (mut one, mut other) = (Streams::default(), Streams::default());
    claimed(&mut one, &[("a", 0), ("b", 0)]).unwrap();
    claimed(&mut other, &[("b", 0), ("a", 0)]).unwrap();
    assert_eq!(one, other);
    claimed(&mut other, &[("b", 1)]).unwrap();
    assert_ne!(one, other);
    claimed(&mut one, &[("c", 0)]).unwrap();
    assert_ne!(one, other);
}
