//! What is done to the cluster, and when: data, drawn from a seed before the run.

mod plan;

use std::fmt;
use std::time::Duration;

pub use plan::{Shape, plan};

/// A kind of fault: what reports count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Their names in words are below.
pub enum Kind {
    Kill,
    Pause,
    PowerOff,
    Wipe,
    FullDisk,
    NodeCut,
    OneWayNodeCut,
    NodeDelay,
    RegionCut,
    OneWayRegionCut,
    RegionDelay,
    ClockJump,
    ClockStep,
    ClockSkew,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::Pause,
        Self::PowerOff,
        Self::Wipe,
        Self::FullDisk,
        Self::NodeCut,
        Self::OneWayNodeCut,
        Self::NodeDelay,
        Self::RegionCut,
        Self::OneWayRegionCut,
        Self::RegionDelay,
        Self::ClockJump,
        Self::ClockStep,
        Self::ClockSkew,
    ];

    /// In words, as reports count it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "nodes killed with SIGKILL",
            Self::Pause => "nodes paused with SIGSTOP",
            Self::PowerOff => "whole regions killed",
            Self::Wipe => "data folders wiped, nodes replaced",
            Self::FullDisk => "disks filled",
            Self::NodeCut => "nodes cut off in their region",
            Self::OneWayNodeCut => "nodes cut off in their region, one way",
            Self::NodeDelay => "delays between nodes of a region",
            Self::RegionCut => "regions cut apart",
            Self::OneWayRegionCut => "regions cut apart, one way",
            Self::RegionDelay => "delays between regions",
            Self::ClockJump => "clocks that jumped by an hour",
            Self::ClockStep => "clocks that jumped by up to 2 s",
            Self::ClockSkew => "clocks of a whole region skewed",
        }
    }
}

/// Which node of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// Whoever leads when the time comes.
    Leader,
    /// This one.
    Node(usize),
}

/// Which packets of a node are lost in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Those to it and those from it.
    Both,
    /// Those to it: it is deaf.
    To,
    /// Those from it: it is mute.
    From,
}

/// How a disk is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    /// Bytes that are left at first.
    pub left: u64,
    /// Whether these are taken soon after, and what the node gives back meanwhile, too: its reserve,
    /// first of all.
    pub greedy: bool,
    /// Whether the node is killed in the middle of it, and has to start on the full disk.
    pub restart: bool,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A node is killed, and started again at the end.
    Kill {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
    },
    /// A node is stopped, and goes on at the end.
    Pause {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
    },
    /// All nodes of a region are killed at once, and started again at the end.
    PowerOff {
        /// The region.
        region: usize,
    },
    /// A node is killed and its data folder deleted. At the end a new node, under an id that was
    /// never used, takes its place in the region.
    Wipe {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
        /// Whether it comes back under its old id first, as if nothing had happened: it has to notice,
        /// and stop.
        returns: bool,
    },
    /// A node's disk is full until the end.
    FullDisk {
        /// Its region.
        region: usize,
        /// Which node of it; the next one whose disk can be filled, if its cannot.
        victim: Victim,
        /// How.
        filling: Filling,
    },
    /// Nothing passes between a node and some others of its region until the end.
    NodeCut {
        /// The region.
        region: usize,
        /// Which node of it.
        victim: Victim,
        /// From how many of the others, counted on from it.
        others: usize,
        /// Which packets are lost.
        loss: Loss,
    },
    /// Packets between the nodes of a region take longer until the end.
    NodeDelay {
        /// The region.
        region: usize,
        /// One way.
        by: Duration,
    },
    /// Sessions from the first to the second region of each pair hear nothing until the end.
    Cut {
        /// Directed: who opens the session, and to whom.
        links: Vec<(usize, usize)>,
    },
    /// Packets between two regions take longer until the end.
    Delay {
        /// The regions.
        between: (usize, usize),
        /// One way.
        by: Duration,
    },
    /// A node's wall clock jumps, and is set right at the end.
    Jump {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
        /// How far, in milliseconds.
        by_ms: i64,
    },
    /// The wall clocks of all nodes of a region jump, and are set right at the end.
    Skew {
        /// The region.
        region: usize,
        /// How far, in milliseconds.
        by_ms: i64,
    },
}

/// Faults of one line happen one after the other, those of different lines at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// The nodes of a region.
    Region(usize),
    /// The links between regions.
    Links,
    /// The clocks of all nodes.
    Clocks,
}

/// From here on a clock counts as one that jumped by an hour.
const HOUR_MS: u64 = 3_600_000;

impl What {
    /// What it counts as.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Pause { .. } => Kind::Pause,
            Self::PowerOff { .. } => Kind::PowerOff,
            Self::Wipe { .. } => Kind::Wipe,
            Self::FullDisk { .. } => Kind::FullDisk,
            Self::NodeCut { loss: Loss::Both, .. } => Kind::NodeCut,
            Self::NodeCut { .. } => Kind::OneWayNodeCut,
            Self::NodeDelay { .. } => Kind::NodeDelay,
            Self::Cut { links } if links.len() == 1 => Kind::OneWayRegionCut,
            Self::Cut { .. } => Kind::RegionCut,
            Self::Delay { .. } => Kind::RegionDelay,
            Self::Jump { by_ms, .. } if by_ms.unsigned_abs() >= HOUR_MS => Kind::ClockJump,
            Self::Jump { .. } => Kind::ClockStep,
            Self::Skew { .. } => Kind::ClockSkew,
        }
    }
    /// Where it happens.
    pub fn line(&self) -> Line {
        match self {
            Self::Kill { region, .. }
            | Self::Pause { region, .. }
            | Self::PowerOff { region }
            | Self::Wipe { region, .. }
            | Self::FullDisk { region, .. }
            | Self::NodeCut { region, .. }
            | Self::NodeDelay { region, .. } => Line::Region(*region),
            Self::Cut { .. } | Self::Delay { .. } => Line::Links,
            Self::Jump { .. } | Self::Skew { .. } => Line::Clocks,
        }
    }
}

/// Something that is done for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, since the beginning of the plan; later if its line is not done with the one
    /// before.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub what: What,
}

impl Fault {
    /// When it is over.
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.1?} for {:.1?}: {}", self.at, self.lasts, self.what)
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Node(node) => write!(f, "node {}", node + 1),
        }
    }
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let greedy = if self.greedy { ", later these and what becomes free" } else { "" };
        let restart = if self.restart { ", restarted meanwhile" } else { "" };
        write!(f, "but for {} bytes{greedy}{restart}", self.left)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { region, victim } => write!(f, "kill {victim} of region {region}"),
            Self::Pause { region, victim } => write!(f, "pause {victim} of region {region}"),
            Self::PowerOff { region } => write!(f, "kill all of region {region}"),
            Self::Wipe { region, victim, returns } => {
                let returns = if *returns { ", and it comes back" } else { "" };
                write!(f, "wipe {victim} of region {region}{returns}")
            }
            Self::FullDisk { region, victim, filling } => {
                write!(f, "fill the disk of {victim} of region {region} {filling}")
            }
            Self::NodeCut { region, victim, others, loss } => {
                let off = format!("cut {victim} of region {region} off from {others} others");
                match loss {
                    Loss::Both => f.write_str(&off),
                    Loss::To => write!(f, "{off}, in what they send"),
                    Loss::From => write!(f, "{off}, in what it sends"),
                }
            }
            Self::NodeDelay { region, by } => write!(f, "delay within region {region} by {by:.0?}"),
            Self::Cut { links } => write!(f, "cut {links:?}"),
            Self::Delay { between: (one, other), by } => {
                write!(f, "delay between regions {one} and {other} by {by:.0?}")
            }
            Self::Jump { region, victim, by_ms } => {
                write!(f, "set the clock of {victim} of region {region} off by {by_ms} ms")
            }
            Self::Skew { region, by_ms } => {
                write!(f, "set all clocks of region {region} off by {by_ms} ms")
            }
        }
    }
}
