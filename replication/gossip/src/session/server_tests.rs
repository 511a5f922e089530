use super::*;
use crate::session::testing::{history, origin};
use anabranch_core::{NodeId, ShardId};

const MS: Duration = Duration::from_millis(1);

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

struct Case {
    server: Server,
    now: Instant,
}

impl Case {
    /// A session with `us`, after the hellos; blocks of any size, from 10 events behind.
    fn connected() -> Self {
        let tuning = Tuning { catch_up_events: 10, live_bytes: 1, ..Tuning::DEFAULT };
        let region = RegionName::new("us").unwrap();
        let now = tokio::time::Instant::now().into_std();
        let mut case = Self { server: Server::new(hello("eu"), region, tuning), now };
        let actions = case.give(Input::Frame(Frame::Hello(hello("us"))));
        assert_eq!(actions, [Action::Send(Frame::Hello(hello("eu"))), Action::Report]);
        case
    }
    fn want(&mut self, id: u32, region: &str, from: u64) -> Vec<Action> {
        let origin = origin(region);
        self.give(Input::Frame(Frame::Want { id: WantId(id), origin, from: Seq(from) }))
    }
    fn read(&mut self, id: u32, groups: &[Group], held: u64) -> Vec<Action> {
        self.give(Input::Read { id: WantId(id), groups: groups.to_vec(), held: Seq(held) })
    }
    fn give(&mut self, input: Input) -> Vec<Action> {
        self.server.handle(self.now, input).unwrap();
        std::iter::from_fn(|| self.server.poll_action()).collect()
    }
    fn elapse(&mut self, by: Duration) -> Vec<Action> {
        self.now += by;
        self.give(Input::Elapsed)
    }
}

fn live(id: u32, group: &Group) -> Action {
    Action::Send(Frame::Group { id: WantId(id), group: group.encoded().clone() })
}

fn read_live(id: u32, region: &str, from: u64) -> Action {
    let (origin, from) = (origin(region), Seq(from));
    Action::Read(ReadRequest { id: WantId(id), origin, from, max_bytes: 1 })
}

fn read_block(id: u32, region: &str, from: u64) -> Action {
    let (origin, max_bytes) = (origin(region), Tuning::DEFAULT.block_bytes);
    Action::Read(ReadRequest { id: WantId(id), origin, from: Seq(from), max_bytes })
}

fn block(number: u64, id: u32, groups: &[Group]) -> Action {
    Action::SendBlock { number, block: Block { id: WantId(id), groups: groups.to_vec() } }
}

#[test]
fn the_tail_is_read_to_its_end_and_again_when_the_log_grew() {
    let (mut case, groups) = (Case::connected(), history("eu", 3, 1));
    assert_eq!(case.want(1, "eu", 1), [read_live(1, "eu", 1)]);
    let sent = case.read(1, &groups[..2], 2);
    assert_eq!(sent, [live(1, &groups[0]), live(1, &groups[1]), read_live(1, "eu", 3)]);
    assert_eq!(case.read(1, &[], 2), []);
    assert_eq!(case.give(Input::Changed), [read_live(1, "eu", 3)]);
    assert_eq!(case.read(1, &groups[2..], 3), [live(1, &groups[2]), read_live(1, "eu", 4)]);
}

#[test]
fn a_change_during_a_read_that_found_nothing_is_not_missed() {
    let mut case = Case::connected();
    assert_eq!(case.want(1, "eu", 1), [read_live(1, "eu", 1)]);
    assert_eq!(case.give(Input::Changed), []);
    assert_eq!(case.read(1, &[], 0), [read_live(1, "eu", 1)]);
}

#[test]
fn origins_take_turns() {
    let mut case = Case::connected();
    let (eu, asia) = (history("eu", 2, 1), history("asia", 2, 1));
    case.want(1, "eu", 1);
    assert_eq!(case.want(2, "asia", 1), []);
    assert_eq!(case.read(1, &eu[..1], 2), [live(1, &eu[0]), read_live(2, "asia", 1)]);
    assert_eq!(case.read(2, &asia[..1], 2), [live(2, &asia[0]), read_live(1, "eu", 2)]);
}

#[test]
fn far_behind_goes_in_blocks_and_back_to_the_stream_only_after_the_last_is_acknowledged() {
    let (mut case, groups) = (Case::connected(), history("eu", 60, 1));
    case.want(1, "eu", 1);
    let sent = case.read(1, &groups[..1], 60);
    assert_eq!(sent, [live(1, &groups[0]), read_block(1, "eu", 2)]);
    let mut from = 1;
    for number in 0..3 {
        let sent = case.read(1, &groups[from..from + 10], 60);
        from += 10;
        let (sent_block, read) = (block(number, 1, &groups[from - 10..from]), from as u64 + 1);
        assert_eq!(sent, [sent_block, read_block(1, "eu", read)]);
    }
    // Four under way: no more until the oldest is acknowledged, whatever the others are.
    assert_eq!(case.read(1, &groups[31..41], 60), [block(3, 1, &groups[31..41])]);
    assert_eq!(case.give(Input::BlockDone(1)), []);
    assert_eq!(case.give(Input::BlockDone(0)), [read_block(1, "eu", 42)]);
    assert_eq!(case.read(1, &[], 41), []);
    case.give(Input::Changed);
    assert_eq!(case.give(Input::BlockDone(2)), [], "block 3 is not acknowledged");
    assert_eq!(case.give(Input::BlockDone(3)), [read_live(1, "eu", 42)]);
}

#[test]
fn a_long_run_without_reaching_the_tail_counts_as_far_behind() {
    let (mut case, groups) = (Case::connected(), history("eu", 4, 2));
    case.server.tuning.catch_up_bytes = groups[0].encoded().len();
    case.want(1, "eu", 1);
    assert_eq!(case.read(1, &groups[..1], 8), [live(1, &groups[0]), read_live(1, "eu", 3)]);
    assert_eq!(case.read(1, &groups[1..2], 8), [live(1, &groups[1]), read_block(1, "eu", 5)]);
}

#[test]
fn what_is_no_longer_wanted_is_not_sent() {
    let (mut case, groups) = (Case::connected(), history("eu", 2, 1));
    case.want(1, "eu", 1);
    case.give(Input::Frame(Frame::Unwant { id: WantId(1) }));
    assert_eq!(case.read(1, &groups, 2), []);
    assert_eq!(case.give(Input::Changed), []);
}

#[test]
fn digests_follow_changes_at_a_distance_and_beat_when_nothing_changes() {
    let mut case = Case::connected();
    assert_eq!(case.give(Input::Changed), [], "one was just sent");
    assert_eq!(case.server.deadline(), Some(case.now + 10 * MS));
    assert_eq!(case.elapse(9 * MS), []);
    assert_eq!(case.elapse(MS), [Action::Report]);
    assert_eq!(case.server.deadline(), Some(case.now + 500 * MS));
    assert_eq!(case.elapse(499 * MS), []);
    assert_eq!(case.elapse(MS), [Action::Report]);
    case.now += 20 * MS;
    assert_eq!(case.give(Input::Changed), [Action::Report], "long enough after the last");
}

#[test]
fn digests_let_history_go_first_but_not_for_long() {
    let mut case = Case::connected();
    case.want(1, "eu", 1);
    case.now += 20 * MS;
    assert_eq!(case.give(Input::Changed), [], "a read is under way");
    assert_eq!(case.server.deadline(), Some(case.now + 40 * MS));
    assert_eq!(case.elapse(40 * MS), [Action::Report]);
    case.give(Input::Changed);
    case.now += 20 * MS;
    case.read(1, &[], 0);
    assert_eq!(case.read(1, &[], 0), [Action::Report]);
}

#[test]
fn a_puller_that_breaks_the_rules_is_refused() {
    let refused =
        |input| Case::connected().server.handle(Case::connected().now, input).unwrap_err();
    let mut other_shard = origin("eu");
    other_shard.shard = ShardId(1);
    let want = Frame::Want { id: WantId(1), origin: other_shard, from: Seq(1) };
    assert!(matches!(refused(Input::Frame(want)), SessionError::Shard { .. }));
    let history = Frame::Group { id: WantId(1), group: Default::default() };
    assert!(matches!(refused(Input::Frame(history)), SessionError::OutOfPlace { .. }));

    let mut case = Case::connected();
    (0..WANTS_MAX as u32).for_each(|id| drop(case.want(id, "eu", 1)));
    let (id, origin) = (WantId(WANTS_MAX as u32), origin("eu"));
    let one_more = Input::Frame(Frame::Want { id, origin, from: Seq(1) });
    let refused = case.server.handle(case.now, one_more).unwrap_err();
    assert!(matches!(refused, SessionError::TooManyWants { .. }), "{refused}");
}
