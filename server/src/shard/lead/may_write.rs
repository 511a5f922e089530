//! What a leader does about its clock and its memory: see [`standing`](super::super::standing).

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{CONFIRM, Lead, Reign};
use crate::shard::standing::{Forgetful, Standing};

/// How long another node may take to lead in this one's place.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Whether the log holds all that its region ever wrote.
pub(super) enum Memory {
    /// As far as is known.
    Whole,
    /// Another region seems to know more, and a quorum was asked whether this node still leads: if
    /// another one does, its log is the one to compare with.
    Asked,
    /// No quorum said so. It is asked again then.
    Unsure(Instant),
    /// It does not.
    Forgetful(Box<Forgetful>),
}

/// What came of something that went on beside the commands.
pub(super) enum Aside {
    /// Nothing to be known here: a refusal was confirmed and given, or leadership was handed over.
    Done,
    /// Whether a quorum confirmed that this node leads, after another region seemed to know more.
    Leads(bool),
}

impl Reign {
    /// What this leader may do, and the time now in Unix milliseconds, as good as it is known.
    pub(super) fn standing(&mut self, lead: &mut Lead) -> (Standing, u64) {
        let (standing, time_ms) = lead.watch.judge(self.sequencer.last_stamp());
        (self.recall(lead).unwrap_or(standing), time_ms)
    }

    /// Compares the log, with all that is on its way into it, with what others hold of its origin.
    fn recall(&mut self, lead: &Lead) -> Option<Standing> {
        let ours = self.sequencer.frontier().seq(&self.own);
        if lead.inlet.knows_more(&self.own, ours).is_none() {
            self.memory = Memory::Whole;
            return None;
        }
        match &self.memory {
            Memory::Forgetful(forgetful) => return Some(Standing::Forgetful(forgetful.clone())),
            Memory::Asked => {}
            Memory::Unsure(until) if Instant::now() < *until => {}
            Memory::Unsure(_) | Memory::Whole => {
                self.memory = Memory::Asked;
                let raft = lead.raft.clone();
                let leads = async move { Aside::Leads(raft.read_index(CONFIRM).await.is_ok()) };
                self.aside.push(leads.boxed());
            }
        }
        Some(Standing::Waits)
    }

    pub(super) fn went_aside(&mut self, lead: &Lead, aside: Aside) {
        let Aside::Leads(leads) = aside else { return };
        let ours = self.sequencer.frontier().seq(&self.own);
        let Some(forgetful) = lead.inlet.knows_more(&self.own, ours) else { return };
        if !leads {
            self.memory = Memory::Unsure(Instant::now() + CONFIRM);
            return;
        }
        tracing::error!(region = %lead.region, %forgetful, "not proposing");
        lead.inlet.set_forgetful(Some(forgetful.to_string()));
        self.memory = Memory::Forgetful(Box::new(forgetful));
    }

    /// Asks another node to lead, if this one's clock is doubted and it is time to.
    pub(super) fn hand_over(&mut self, lead: &mut Lead, standing: &Standing) {
        if !matches!(standing, Standing::Doubted(_)) {
            return;
        }
        let raft = lead.raft.clone();
        let own = raft.identity().node().0;
        let Some(to) = lead.watch.successor(own, || raft.status()) else { return };
        let region = lead.region.clone();
        self.aside.push(
            async move {
                match raft.transfer_leadership(Some(to), HAND_OVER).await {
                    Ok(to) => tracing::warn!(%region, to, "handed leadership over: clock doubted"),
                    Err(error) => {
                        tracing::warn!(%region, to, %error, "leading with a doubted clock")
                    }
                }
                Aside::Done
            }
            .boxed(),
        );
    }
}
