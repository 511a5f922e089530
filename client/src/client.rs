//! The client: what its calls share.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::ProducerId;
use anabranch_proto::v1::read_request::{All, Target};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::append::{Append, Regions};
use crate::builder::Builder;
use crate::error::AppendError;
use crate::event::IntoEvents;
use crate::nodes::{Base, Dialer, Region};
use crate::producer::{Line, Producer};
use crate::read::Read;
use crate::session::Session;
use crate::subscribe::Subscribe;

/// Largest message accepted and sent.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long things may take; see the builder.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) region_patience: Duration,
    pub(crate) session_wait: Duration,
}

impl Options {
    pub(crate) const DEFAULT: Self = Self {
        timeout: Duration::from_secs(10),
        attempt_timeout: Duration::from_secs(3),
        region_patience: Duration::from_secs(3),
        session_wait: Duration::from_secs(2),
    };
}

/// A client of a region, and of its fallback regions. Clones share everything.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    base: Arc<Base>,
}

struct Shared {
    regions: Vec<Region>,
    dialer: Dialer,
    options: Options,
    session: Session,
    /// Two producers: appends that wait for other regions stay in flight for long, and would hold up
    /// those that do not if both shared one window of sequences.
    near: Arc<Line>,
    far: Arc<Line>,
    rng: Mutex<SmallRng>,
}

impl Client {
    /// Begins to put a client together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        regions: Vec<Region>,
        dialer: Dialer,
        options: Options,
        session: Session,
        [near, far]: [Arc<Line>; 2],
        rng: SmallRng,
    ) -> Self {
        let rng = Mutex::new(rng);
        let shared = Arc::new(Shared { regions, dialer, options, session, near, far, rng });
        Self { shared, base: Arc::new(Base::new(0)) }
    }

    /// The same client and session at work in another of its regions; none if it knows no such region.
    pub fn in_region(&self, name: &str) -> Option<Self> {
        let home = self.shared.regions.iter().position(|region| region.name == name)?;
        Some(Self { shared: self.shared.clone(), base: Arc::new(Base::new(home)) })
    }

    /// Appends one event or several to `stream`.
    pub fn append(&self, stream: impl Into<String>, events: impl IntoEvents) -> Append {
        Append::new(self.clone(), stream.into(), events.into_events())
    }

    /// Reads one stream.
    pub fn read_stream(&self, stream: impl Into<String>) -> Read {
        Read::new(self.clone(), Target::Stream(stream.into()))
    }
    /// Reads all streams whose name is `category`, or begins with it and a `-`.
    pub fn read_category(&self, category: impl Into<String>) -> Read {
        Read::new(self.clone(), Target::Category(category.into()))
    }
    /// Reads everything.
    pub fn read_all(&self) -> Read {
        Read::new(self.clone(), Target::All(All {}))
    }

    /// Follows one stream.
    pub fn subscribe_stream(&self, stream: impl Into<String>) -> Subscribe {
        Subscribe::new(self.clone(), Target::Stream(stream.into()))
    }
    /// Follows all streams of a category.
    pub fn subscribe_category(&self, category: impl Into<String>) -> Subscribe {
        Subscribe::new(self.clone(), Target::Category(category.into()))
    }
    /// Follows everything.
    pub fn subscribe_all(&self) -> Subscribe {
        Subscribe::new(self.clone(), Target::All(All {}))
    }

    /// What this client has written and seen.
    pub fn session(&self) -> &Session {
        &self.shared.session
    }

    /// A new producer, with a random id and epoch 1.
    pub fn producer(&self) -> Producer {
        let id = ProducerId(self.shared.rng.lock().random());
        self.producer_with(id, 1, 1)
    }
    /// A producer that was kept: its next append gets the sequence `next`, from 1.
    ///
    /// A higher epoch than before fences whoever still uses the lower one.
    pub fn producer_with(&self, id: ProducerId, epoch: u32, next: u64) -> Producer {
        Producer::new(self.clone(), Line::new(id, epoch, next))
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.shared.regions
    }
    pub(crate) fn home(&self) -> &Region {
        &self.shared.regions[self.base.home()]
    }
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }
    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }
    pub(crate) fn line(&self, regions: Regions) -> &Arc<Line> {
        if regions > Regions(1) { &self.shared.far } else { &self.shared.near }
    }
    /// In `[0, 1)`.
    pub(crate) fn jitter(&self) -> f64 {
        self.shared.rng.lock().random()
    }
    pub(crate) fn region_named(&self, name: &str) -> Result<usize, AppendError> {
        let unknown = || AppendError::Invalid {
            field: "ticket.region".into(),
            problem: format!("this client knows no region {name}"),
            limit: None,
            actual: None,
        };
        self.regions().iter().position(|region| region.name == name).ok_or_else(unknown)
    }
}
