use super::*;
use crate::session::testing::{history, origin};
use anabranch_core::group::GroupHeader;
use anabranch_core::{Context, Digest, NodeId, ShardId, Stamp};

const SILENCE: Duration = Duration::from_secs(2);

fn hello(region: &str) -> Hello {
    Hello {
        version: crate::frame::WIRE_VERSION,
        cluster: "test".into(),
        region: RegionName::new(region).unwrap(),
        node: NodeId(1),
        shard: ShardId(0),
        origin: Some(origin(region)),
    }
}

fn name(region: &str) -> RegionName {
    RegionName::new(region).unwrap()
}

struct Case {
    puller: Puller,
    now: Instant,
}

impl Case {
    /// A session of `us` with `eu`, after the hellos.
    fn connected() -> Self {
        let now = tokio::time::Instant::now().into_std();
        let mut case = Self { puller: Puller::new(now, hello("us"), name("eu"), SILENCE), now };
        case.give(Input::Frame(Frame::Hello(hello("eu"))));
        let expected = [Action::Send(Frame::Hello(hello("us"))), Action::Connected(hello("eu"))];
        assert_eq!(case.actions(), expected);
        case
    }
    /// Pulling eu's own origin from `from` on, as want 1.
    fn pulling(from: u64) -> Self {
        let mut case = Self::connected();
        case.give(Input::Want { origin: origin("eu"), from: Seq(from) });
        let want = Frame::Want { id: WantId(1), origin: origin("eu"), from: Seq(from) };
        assert_eq!(case.actions(), [Action::Send(want)]);
        case
    }
    fn try_give(&mut self, input: Input) -> Result<(), SessionError> {
        self.puller.handle(self.now, input)
    }
    fn give(&mut self, input: Input) {
        self.try_give(input).unwrap();
    }
    fn live(&mut self, id: u32, group: &Group) -> Result<(), SessionError> {
        let group = group.encoded().clone();
        self.try_give(Input::Frame(Frame::Group { id: WantId(id), group }))
    }
    fn block(&mut self, id: u32, groups: &[Group]) -> Result<(), SessionError> {
        self.try_give(Input::Block(Block { id: WantId(id), groups: groups.to_vec() }))
    }
    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.puller.poll_action()).collect()
    }
}

#[test]
fn a_run_of_live_groups_becomes_one_offer() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 3, 2));
    groups.iter().for_each(|group| case.live(1, group).unwrap());
    assert_eq!(case.actions(), [Action::Offer(groups)]);
}

#[test]
fn blocks_are_put_in_order_and_their_room_is_given_back() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 9, 2));
    case.block(1, &groups[6..9]).unwrap();
    case.block(1, &groups[3..6]).unwrap();
    assert_eq!(case.actions(), []);
    case.block(1, &groups[..3]).unwrap();
    assert_eq!(case.actions(), [Action::Offer(groups), Action::Release(3)]);
}

#[test]
fn a_live_group_that_overtook_a_block_waits_and_the_stream_with_it() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 4, 2));
    case.live(1, &groups[3]).unwrap();
    assert!(!case.puller.reads_frames());
    case.block(1, &groups[..3]).unwrap();
    assert!(case.puller.reads_frames());
    assert_eq!(case.actions(), [Action::Offer(groups), Action::Release(1)]);
}

#[test]
fn a_gap_that_nothing_closes_ends_the_session() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 2, 2));
    case.live(1, &groups[1]).unwrap();
    let late = case.now + GAP_PATIENCE;
    case.puller.handle(late - Duration::from_millis(1), Input::Heard).unwrap();
    assert_eq!(case.puller.deadline(), Some(late), "heartbeats do not put it off");
    let ended = case.puller.handle(late, Input::Elapsed).unwrap_err();
    assert!(matches!(ended, SessionError::Gap { next: Seq(1), .. }), "{ended}");

    let (mut case, groups) = (Case::pulling(1), history("eu", 9, 2));
    case.block(1, &groups[2..3]).unwrap();
    case.now += GAP_PATIENCE - Duration::from_millis(1);
    case.live(1, &groups[0]).unwrap();
    case.give(Input::Elapsed);
    case.now += GAP_PATIENCE;
    let ended = case.try_give(Input::Elapsed).unwrap_err();
    assert!(matches!(ended, SessionError::Gap { next: Seq(3), .. }), "{ended}");
}

#[test]
fn blocks_that_overtook_the_last_live_groups_wait_for_them() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 12, 2));
    for block in groups[2..].chunks(1) {
        case.block(1, block).unwrap();
    }
    assert!(case.puller.reads_frames());
    case.live(1, &groups[0]).unwrap();
    case.live(1, &groups[1]).unwrap();
    assert_eq!(case.actions(), [Action::Offer(groups), Action::Release(10)]);
}

#[test]
fn what_is_held_already_is_dropped_and_what_overlaps_it_is_left_to_the_importer() {
    let (mut case, groups) = (Case::pulling(5), history("eu", 3, 2));
    case.live(1, &groups[0]).unwrap();
    case.live(1, &groups[1]).unwrap();
    assert_eq!(case.actions(), []);
    case.live(1, &groups[2]).unwrap();
    assert_eq!(case.actions(), [Action::Offer(groups[2..].to_vec())]);

    // A group that holds the first event that is missing, and the one before: another history.
    let mut case = Case::pulling(4);
    case.live(1, &groups[1]).unwrap();
    assert_eq!(case.actions(), [Action::Offer(groups[1..2].to_vec())]);
    let refused = case.live(1, &group_over(&groups[1], &groups[2])).unwrap_err();
    assert!(matches!(refused, SessionError::Mismatch { next: Seq(5), .. }), "{refused}");
}

/// A group that begins with the last event of `one` and ends with that of `other`.
fn group_over(one: &Group, other: &Group) -> Group {
    let header = GroupHeader { first: one.last(), events: 3, ..other.header().clone() };
    assert_eq!(header.first.plus(2), other.last());
    let events = vec![event(), event(), event()];
    Group::build(header, &[anabranch_core::Request { producer: None, events }])
}

#[test]
fn what_answers_a_want_that_was_given_up_is_dropped() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 6, 2));
    case.block(1, &groups[3..4]).unwrap();
    case.give(Input::Want { origin: origin("eu"), from: Seq(3) });
    let want = Frame::Want { id: WantId(2), origin: origin("eu"), from: Seq(3) };
    let unwant = Action::Send(Frame::Unwant { id: WantId(1) });
    assert_eq!(case.actions(), [unwant, Action::Release(1), Action::Send(want)]);
    case.live(1, &groups[5]).unwrap();
    case.block(1, &groups[..3]).unwrap();
    assert!(case.puller.reads_frames());
    assert_eq!(case.actions(), [Action::Release(1)]);
    case.live(2, &groups[1]).unwrap();
    assert_eq!(case.actions(), [Action::Offer(groups[1..2].to_vec())]);
}

#[test]
fn an_offer_not_yet_made_is_withdrawn_with_its_want() {
    let (mut case, groups) = (Case::pulling(1), history("eu", 3, 2));
    case.block(1, &groups).unwrap();
    case.give(Input::Unwant(origin("eu")));
    let unwant = Action::Send(Frame::Unwant { id: WantId(1) });
    assert_eq!(case.actions(), [Action::Release(1), unwant]);
    assert_eq!(case.puller.wanted().count(), 0);
}

#[test]
fn altered_foreign_and_forked_groups_end_the_session_before_they_are_offered() {
    let groups = history("eu", 3, 2);
    let mut bytes = groups[0].encoded().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let altered = Frame::Group { id: WantId(1), group: bytes.into() };
    let mut case = Case::pulling(1);
    let refused = case.try_give(Input::Frame(altered)).unwrap_err();
    assert!(matches!(refused, SessionError::Group { at: Seq(1), .. }), "{refused}");
    assert!(refused.is_damage());

    let mut case = Case::pulling(1);
    let refused = case.live(1, &history("asia", 1, 2)[0]).unwrap_err();
    assert!(matches!(refused, SessionError::Mismatch { .. }), "{refused}");

    // The same numbers, another history: its second group does not follow our first.
    let other = history("eu", 1, 1);
    let fork = crate::session::testing::group_after(&origin("eu"), other.last(), 1);
    let first = crate::session::testing::group_after(&origin("eu"), None, 1);
    let mut header = first.header().clone();
    header.stamp = Stamp(5);
    let request = anabranch_core::Request { producer: None, events: vec![event()] };
    let ours = Group::build(header, &[request]);
    let mut case = Case::pulling(1);
    case.live(1, &ours).unwrap();
    let refused = case.live(1, &fork).unwrap_err();
    assert!(matches!(refused, SessionError::Fork { first: Seq(2), .. }), "{refused}");
    assert_eq!(case.actions(), [Action::Offer(vec![ours])]);
}

fn event() -> anabranch_core::Event {
    anabranch_core::Event {
        stream: "eu-1".into(),
        id: None,
        kind: "Happened".into(),
        metadata: Default::default(),
        payload: Default::default(),
    }
}

#[test]
fn hellos_that_do_not_match_are_refused() {
    type Change = fn(&mut Hello);
    type Expected = fn(&SessionError) -> bool;
    let cases: [(Change, Expected); 6] = [
        (|h| h.version = 9, |e| matches!(e, SessionError::Version { theirs: 9, .. })),
        (|h| h.cluster = "other".into(), |e| matches!(e, SessionError::Cluster { .. })),
        (|h| h.region = name("asia"), |e| matches!(e, SessionError::Region { .. })),
        (|h| h.shard = ShardId(1), |e| matches!(e, SessionError::Shard { .. })),
        (|h| h.origin = Some(origin("asia")), |e| matches!(e, SessionError::Region { .. })),
        (
            |h| h.origin.as_mut().unwrap().shard = ShardId(2),
            |e| matches!(e, SessionError::Shard { .. }),
        ),
    ];
    for (nth, (change, expected)) in cases.into_iter().enumerate() {
        let now = tokio::time::Instant::now().into_std();
        let mut puller = Puller::new(now, hello("us"), name("eu"), SILENCE);
        let mut theirs = hello("eu");
        change(&mut theirs);
        let refused = puller.handle(now, Input::Frame(Frame::Hello(theirs))).unwrap_err();
        assert!(expected(&refused), "case {nth}: {refused}");
    }
}

#[test]
fn frames_out_of_place_are_refused() {
    let now = tokio::time::Instant::now().into_std();
    let mut early = Puller::new(now, hello("us"), name("eu"), SILENCE);
    let report = || Frame::Report(Report { clock_unix_ms: 1, digests: vec![] });
    assert!(early.handle(now, Input::Frame(report())).is_err());
    for frame in [Frame::Hello(hello("eu")), Frame::Unwant { id: WantId(1) }] {
        let refused = Case::connected().try_give(Input::Frame(frame)).unwrap_err();
        assert!(matches!(refused, SessionError::OutOfPlace { .. }), "{refused}");
    }
    Case::connected().give(Input::Frame(report()));
}

#[test]
fn a_region_speaks_for_itself_first_and_only_about_this_shard() {
    let digest = |origin| Digest { origin, stamp: Stamp(1), frontier: Context::new() };
    let report = |digests| Report { clock_unix_ms: 1, digests };
    let give = |digests| {
        let mut case = Case::connected();
        case.try_give(Input::Frame(Frame::Report(report(digests)))).map(|()| case.actions())
    };
    let good = vec![digest(origin("eu")), digest(origin("asia"))];
    assert_eq!(give(good.clone()).unwrap(), [Action::Report(report(good))]);
    let refused = give(vec![digest(origin("asia"))]).unwrap_err();
    assert!(matches!(refused, SessionError::Region { .. }), "{refused}");
    let mut other_shard = digest(origin("asia"));
    other_shard.origin.shard = ShardId(1);
    let refused = give(vec![digest(origin("eu")), other_shard]).unwrap_err();
    assert!(matches!(refused, SessionError::Shard { .. }), "{refused}");
}

#[test]
fn silence_ends_the_session_and_anything_heard_postpones_that() {
    let mut case = Case::connected();
    case.now += SILENCE / 2;
    case.give(Input::Heard);
    let deadline = case.puller.deadline().unwrap();
    assert_eq!(deadline, case.now + SILENCE);
    case.puller.handle(deadline - Duration::from_millis(1), Input::Elapsed).unwrap();
    let ended = case.puller.handle(deadline, Input::Elapsed).unwrap_err();
    assert!(matches!(ended, SessionError::Silent { waited: SILENCE }), "{ended}");
}
