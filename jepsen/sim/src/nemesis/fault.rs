//! What can go wrong.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cluster::{NodeAt, region_name};
use crate::world::Conditions;

/// A kind of fault: what swarms are drawn from, and what coverage counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Their names in words are below.
pub enum Kind {
    Kill,
    PowerLoss,
    RegionPowerLoss,
    TotalPowerLoss,
    Drain,
    FailedSync,
    FullDisk,
    SlowDisk,
    LostCheckpoints,
    RottenBit,
    Pause,
    NodeCut,
    OneWayNodeCut,
    RegionCut,
    OneWayRegionCut,
    LongCut,
    PacketLoss,
    Duplication,
    Reordering,
    Delay,
    ClockJump,
    ClockDrift,
    ClockSkew,
    Membership,
    EmptyNode,
    Overload,
    LostRegion,
    RebuiltRegion,
    RestoredRegion,
    LeaderPause,
    LeaderCut,
    LostDisk,
}

impl Kind {
    /// What a seed's swarm is drawn from. Seeds rest on these and on their order, those of the corpus
    /// too: what is new comes in scenes.
    pub const SWARM: [Self; 29] = [
        Self::Kill,
        Self::PowerLoss,
        Self::RegionPowerLoss,
        Self::TotalPowerLoss,
        Self::Drain,
        Self::FailedSync,
        Self::FullDisk,
        Self::SlowDisk,
        Self::LostCheckpoints,
        Self::RottenBit,
        Self::Pause,
        Self::NodeCut,
        Self::OneWayNodeCut,
        Self::RegionCut,
        Self::OneWayRegionCut,
        Self::LongCut,
        Self::PacketLoss,
        Self::Duplication,
        Self::Reordering,
        Self::Delay,
        Self::ClockJump,
        Self::ClockDrift,
        Self::ClockSkew,
        Self::Membership,
        Self::EmptyNode,
        Self::Overload,
        Self::LostRegion,
        Self::RebuiltRegion,
        Self::RestoredRegion,
    ];

    /// What scenes bring.
    const SCENES: [Self; 3] = [Self::LeaderPause, Self::LeaderCut, Self::LostDisk];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::SWARM.into_iter().chain(Self::SCENES)
    }

    /// As an argument: `power-loss`.
    pub fn slug(self) -> String {
        let mut slug = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !slug.is_empty() {
                slug.push('-');
            }
            slug.push(letter.to_ascii_lowercase());
        }
        slug
    }
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "process killed",
            Self::PowerLoss => "power loss of a node, torn writes",
            Self::RegionPowerLoss => "power loss of a region",
            Self::TotalPowerLoss => "restart of everything at once",
            Self::Drain => "orderly restart",
            Self::FailedSync => "failed fsync",
            Self::FullDisk => "full disk",
            Self::SlowDisk => "slow disk",
            Self::LostCheckpoints => "checkpoints lost",
            Self::RottenBit => "flipped bit in a cold segment",
            Self::Pause => "node paused",
            Self::NodeCut => "node cut off",
            Self::OneWayNodeCut => "node cut off, one way",
            Self::RegionCut => "regions cut apart",
            Self::OneWayRegionCut => "regions cut apart, one way",
            Self::LongCut => "region cut off for long",
            Self::PacketLoss => "packet loss between regions",
            Self::Duplication => "packets duplicated between regions",
            Self::Reordering => "packets reordered between regions",
            Self::Delay => "delay",
            Self::ClockJump => "clock jump",
            Self::ClockDrift => "clock drift",
            Self::ClockSkew => "clocks of a region skewed",
            Self::Membership => "membership changed under load",
            Self::EmptyNode => "node with an empty disk joins",
            Self::Overload => "overload",
            Self::LostRegion => "region lost for good",
            Self::RebuiltRegion => "region rebuilt under its name",
            Self::RestoredRegion => "region restored from an old copy",
            Self::LeaderPause => "leader paused",
            Self::LeaderCut => "leader cut off",
            Self::LostDisk => "disk lost, node back under its old id",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(slug: &str) -> Result<Self, String> {
        let known = || Self::all().map(Self::slug).collect::<Vec<_>>().join(", ");
        let found = Self::all().find(|kind| kind.slug() == slug);
        found.ok_or_else(|| format!("{slug} is no kind of fault; there are {}", known()))
    }
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Processes end; with `power`, what was not synced is lost or torn. They start again at the
    /// end, unless it is `for_good`.
    Down {
        /// Which kind it counts as.
        kind: Kind,
        /// The nodes.
        nodes: Vec<NodeAt>,
        /// Whether the power goes, too.
        power: bool,
    },
    /// The node stops in an orderly way, and starts at the end.
    Drain(NodeAt),
    /// The next sync of the node's disk fails, and all later ones.
    FailedSync(NodeAt),
    /// The node's disk has room for so many bytes more.
    FullDisk(NodeAt, u64),
    /// A sync of the node's disk takes up to twice so long.
    SlowDisk(NodeAt, Duration),
    /// The node is killed and loses its checkpoints.
    LostCheckpoints(NodeAt),
    /// A bit of a sealed segment flips for good; the node is replaced at the end.
    RottenBit(NodeAt, u64),
    /// Nothing comes out of the node or goes in.
    Pause(NodeAt),
    /// Nothing passes from the first to the second of each pair.
    Cut {
        /// Which kind it counts as.
        kind: Kind,
        /// Directed pairs.
        pairs: Vec<(NodeAt, NodeAt)>,
    },
    /// Packets between two regions fare badly.
    Weather {
        /// Which kind it counts as.
        kind: Kind,
        /// The regions.
        regions: (usize, usize),
        /// How badly.
        conditions: Conditions,
    },
    /// The way between two regions, or within one, takes longer.
    Delay(usize, usize, Duration),
    /// The wall clocks of nodes jump by so many milliseconds, and are set right at the end.
    Jump {
        /// Which kind it counts as.
        kind: Kind,
        /// The nodes.
        nodes: Vec<NodeAt>,
        /// By how much.
        by_ms: i64,
    },
    /// A wall clock gains so many millionths.
    Drift(NodeAt, i64),
    /// A node leaves its group, and comes back at the end.
    Membership(NodeAt),
    /// The region's spare node, empty, takes the place of another.
    EmptyNode(NodeAt),
    /// Clients press ten times as hard.
    Overload,
    /// All nodes of the region are gone for good.
    LostRegion(usize),
    /// All nodes of the region lose their disks and start anew.
    RebuiltRegion(usize),
    /// All nodes of the region get back disks as they were some time before.
    RestoredRegion(usize),
    /// Whoever leads the region when the time comes is paused, or cut off from its other nodes.
    Leader {
        /// Which kind it counts as: what is done.
        kind: Kind,
        /// The region.
        region: usize,
    },
    /// A node comes back under its old id with an empty disk; the region's spare takes its place.
    LostDisk(NodeAt),
}

impl What {
    /// What it counts as.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Down { kind, .. }
            | Self::Cut { kind, .. }
            | Self::Weather { kind, .. }
            | Self::Leader { kind, .. }
            | Self::Jump { kind, .. } => *kind,
            Self::Drain(_) => Kind::Drain,
            Self::FailedSync(_) => Kind::FailedSync,
            Self::FullDisk(..) => Kind::FullDisk,
            Self::SlowDisk(..) => Kind::SlowDisk,
            Self::LostCheckpoints(_) => Kind::LostCheckpoints,
            Self::RottenBit(..) => Kind::RottenBit,
            Self::Pause(_) => Kind::Pause,
            Self::Delay(..) => Kind::Delay,
            Self::Drift(..) => Kind::ClockDrift,
            Self::Membership(_) => Kind::Membership,
            Self::EmptyNode(_) => Kind::EmptyNode,
            Self::Overload => Kind::Overload,
            Self::LostRegion(_) => Kind::LostRegion,
            Self::RebuiltRegion(_) => Kind::RebuiltRegion,
            Self::RestoredRegion(_) => Kind::RestoredRegion,
            Self::LostDisk(_) => Kind::LostDisk,
        }
    }

    /// The nodes it strikes, for the timeline. Nothing for what strikes links or clients.
    pub fn nodes(&self) -> Vec<NodeAt> {
        match self {
            Self::Down { nodes, .. } | Self::Jump { nodes, .. } => nodes.clone(),
            Self::Drain(at)
            | Self::FailedSync(at)
            | Self::FullDisk(at, _)
            | Self::SlowDisk(at, _)
            | Self::LostCheckpoints(at)
            | Self::RottenBit(at, _)
            | Self::Pause(at)
            | Self::Drift(at, _)
            | Self::Membership(at)
            | Self::LostDisk(at)
            | Self::EmptyNode(at) => vec![*at],
            Self::Cut { .. }
            | Self::Weather { .. }
            | Self::Delay(..)
            | Self::Overload
            | Self::LostRegion(_)
            | Self::RebuiltRegion(_)
            | Self::RestoredRegion(_)
            | Self::Leader { .. } => Vec::new(),
        }
    }
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When it begins, since the run began.
    pub at: Duration,
    /// When it is over.
    pub until: Duration,
    /// What it is.
    pub what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1} s", self.what, (self.until - self.at).as_secs_f64())
    }
}

fn list(nodes: &[NodeAt]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().name();
        match self {
            Self::Down { nodes, .. } => write!(f, "{kind}: {}", list(nodes)),
            Self::Drain(at)
            | Self::FailedSync(at)
            | Self::LostCheckpoints(at)
            | Self::RottenBit(at, _)
            | Self::Pause(at)
            | Self::Membership(at)
            | Self::LostDisk(at)
            | Self::EmptyNode(at) => write!(f, "{kind}: {at}"),
            Self::FullDisk(at, room) => write!(f, "{kind}: {at}, {room} bytes left"),
            Self::SlowDisk(at, pace) => write!(f, "{kind}: {at}, {pace:?} a sync"),
            Self::Cut { pairs, .. } => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(from, to)| format!("{from}>{to}")).collect();
                write!(f, "{kind}: {}", pairs.join(" "))
            }
            Self::Weather { regions: (one, other), conditions, .. } => {
                let (one, other) = (region_name(*one), region_name(*other));
                let Conditions { loss, duplicate, reorder, jitter } = conditions;
                write!(f, "{kind}: {one} and {other}, lost {loss:.2}, twice {duplicate:.2}, ")?;
                write!(f, "overtaken {reorder:.2}, jitter {jitter:?}")
            }
            Self::Delay(one, other, way) => {
                write!(f, "{kind}: {} and {}, {way:?}", region_name(*one), region_name(*other))
            }
            Self::Jump { nodes, by_ms, .. } => write!(f, "{kind}: {}, {by_ms} ms", list(nodes)),
            Self::Drift(at, ppm) => write!(f, "{kind}: {at}, {ppm} millionths"),
            Self::Overload => write!(f, "{kind}"),
            Self::LostRegion(region)
            | Self::RebuiltRegion(region)
            | Self::RestoredRegion(region)
            | Self::Leader { region, .. } => {
                write!(f, "{kind}: {}", region_name(*region))
            }
        }
    }
}
