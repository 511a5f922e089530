//! One region: its log and applied state, its leader, and a plain record of what it delivered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::aggregate::State;
use anabranch_core::import::Importer;
use anabranch_core::order::{Merge, OrderHash};
use anabranch_core::region::{Receipt, Region};
use anabranch_core::sequencer::{Sequencer, Submission, Ticket, Ticketed};
use anabranch_core::{Chain, Command, Context, Group, Origin, RegionName, Stamp};
use bytes::Bytes;

pub const DRIFT_MAX: Duration = Duration::from_millis(500);

pub struct Site {
    pub origin: Origin,
    pub region: Region,
    pub log: Vec<Bytes>,
    /// What its wall clock shows more than the true time.
    pub skew_ms: i64,
    /// The most its wall clock ever showed.
    pub latest_wall_ms: u64,
    pub leader: Leader,
    /// Commands that a lost leader had on their way and that never got into the log.
    pub stale: Vec<Bytes>,
    pub record: Record,
    pub merge: Merge<()>,
    pub hash: OrderHash,
}

/// What the laws say about a log, kept in the plainest way.
#[derive(Default)]
pub struct Record {
    pub groups: BTreeMap<Origin, Vec<Group>>,
    pub held: Context,
    pub stream_events: BTreeMap<String, u64>,
    /// Payload of the event at each position.
    pub payloads: Vec<Bytes>,
    /// Requests in the log by producer (id, epoch, sequence), with their first payload.
    pub requests: BTreeMap<([u8; 16], u32, u64), Bytes>,
    pub epochs: BTreeMap<[u8; 16], u32>,
    pub ids: BTreeMap<[u8; 16], Bytes>,
    pub watermark: Stamp,
    /// Whether a declaration of a home is held.
    pub homed: bool,
    /// Aggregates with a bounded counter, by stream.
    pub stocks: BTreeMap<String, State>,
    pub marks: Vec<(u64, Chain)>,
}

/// A term of leadership.
pub struct Leader {
    pub sequencer: Sequencer,
    pub importer: Importer,
    pub on_their_way: VecDeque<OnItsWay>,
    /// Applied, but the sequencer was not told yet.
    pub untold: VecDeque<Ticket>,
}

pub struct OnItsWay {
    pub ticket: Ticket,
    pub bytes: Bytes,
    pub promised: Vec<Promised>,
}

/// A submission that is answered with `receipt` once its command is accepted.
pub struct Promised {
    pub submission: Submission,
    pub receipt: Arc<Receipt>,
    /// False for a retry that joined: its expectations held earlier.
    pub fresh: bool,
}

impl Leader {
    fn of(region: &Region) -> Self {
        Self {
            sequencer: Sequencer::new(region, DRIFT_MAX).expect("the log has its genesis"),
            importer: Importer::new(DRIFT_MAX),
            on_their_way: VecDeque::new(),
            untold: VecDeque::new(),
        }
    }

    pub fn propose(&mut self, ticketed: Ticketed, promised: Vec<Promised>) {
        let Ticketed { ticket, command, encoded } = ticketed;
        assert_eq!(encoded, command.encode());
        self.on_their_way.push_back(OnItsWay { ticket, bytes: encoded, promised });
    }

    pub fn tell_all(&mut self) {
        while let Some(ticket) = self.untold.pop_front() {
            self.sequencer.applied(ticket);
        }
    }
}

impl Site {
    pub fn new(origin: Origin, members: Vec<RegionName>) -> Self {
        let genesis = Command::Genesis { origin: origin.clone(), members }.encode();
        let region = replay(std::slice::from_ref(&genesis));
        Self {
            leader: Leader::of(&region),
            origin,
            region,
            log: vec![genesis],
            skew_ms: 0,
            latest_wall_ms: 0,
            stale: Vec::new(),
            record: Record::default(),
            merge: Merge::after(Context::new()),
            hash: OrderHash::default(),
        }
    }

    pub fn wall_ms(&mut self, true_ms: u64) -> u64 {
        let wall = true_ms.checked_add_signed(self.skew_ms).expect("a time after 1970");
        self.latest_wall_ms = self.latest_wall_ms.max(wall);
        wall
    }

    /// A new leader; what the old one had on its way is lost.
    pub fn change_leader(&mut self) {
        self.stale = self.leader.on_their_way.drain(..).map(|way| way.bytes).collect();
        self.leader = Leader::of(&self.region);
    }

    /// Starts from a checkpoint, or from the log's beginning: either way the state is the same.
    pub fn restart(&mut self) {
        let bytes = self.region.encode_checkpoint();
        let restored = Region::decode_checkpoint(bytes.clone()).expect("a checkpoint of our own");
        assert!(restored == self.region, "a checkpoint gives the state back");
        assert_eq!(restored.encode_checkpoint(), bytes, "equal states, equal bytes");
        assert!(replay(&self.log) == self.region, "the state is a function of the log");
        self.region = restored;
    }
}

fn replay(log: &[Bytes]) -> Region {
    let mut region = Region::new();
    for bytes in log {
        region.apply(&Command::decode(bytes.clone()).expect("a command of our own"));
    }
    region
}
