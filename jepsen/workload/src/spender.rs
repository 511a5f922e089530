//! Spenders: earn, spend and pass rights to bounded counters that all regions share. Now and then two
//! spends are under way at once, which are too much together.

use anabranch_core::RegionName;
use anabranch_core::aggregate::Action;
use anabranch_history::note::Refusal;
use anabranch_history::op::Outcome;
use anabranch_history::said::{SEATS, Said};
use anabranch_history::shape::Class;
use rand::Rng;

use crate::home::Home;
use crate::scribe::{Scribe, Told, Wish};

/// Streams with a counter.
const STREAMS: usize = 2;
/// Most that is earned at once.
const EARNED_MAX: u64 = 6;
/// A client has two scribes; the second one has a number of its own.
const SECOND: u32 = 1 << 8;

struct Spender {
    scribe: Scribe,
    second: Scribe,
    /// What the region should have left, by what it answered to this client.
    left: [u64; STREAMS],
}

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let scribe = |nth| {
        let number = Class::Spender.writer(home.number, nth);
        let client = home.client("spender", nth, false);
        Scribe::new(home.clone(), number, client, false, home.rng("spender", nth))
    };
    let (scribe, second) = (scribe(nth), scribe(nth + SECOND));
    let mut spender = Spender { scribe, second, left: [0; STREAMS] };
    while !spender.scribe.home.stopped() {
        spender.turn().await;
        spender.scribe.home.think(&mut spender.scribe.rng).await;
    }
}

fn wish(counter: usize, actions: impl IntoIterator<Item = Action>) -> Wish {
    Wish::new().tell(format!("{SEATS}-{counter}"), Said::rights(actions))
}

impl Spender {
    async fn turn(&mut self) {
        let counter = self.scribe.rng.random_range(0..STREAMS);
        let left = self.left[counter];
        let rng = &mut self.scribe.rng;
        let amount = rng.random_range(1..=EARNED_MAX);
        match rng.random_range(0..100) {
            0..25 => self.one(counter, [Action::Earn(amount)]).await,
            25..45 => {
                let next = self.scribe.home.elsewhere(&mut self.scribe.rng);
                let to = &self.scribe.home.sites.regions()[next];
                let to = RegionName::new(to).expect("regions of a cluster have names");
                if next != self.scribe.home.number {
                    self.one(counter, [Action::Pass { amount: left.max(1), to }]).await;
                }
            }
            45..55 => {
                let (one, other) = (Action::Earn(amount), Action::Spend(amount));
                self.one(counter, [one, other]).await;
            }
            55..80 => self.one(counter, [Action::Spend(left.clamp(1, amount))]).await,
            _ => self.both(counter, left.max(1)).await,
        }
    }

    async fn one<const N: usize>(&mut self, counter: usize, actions: [Action; N]) {
        let (_, told) = self.scribe.append(wish(counter, actions.clone())).await;
        self.learn(counter, &actions, &told);
    }

    /// Two spends at once, of all that there is.
    async fn both(&mut self, counter: usize, amount: u64) {
        let spend = [Action::Spend(amount)];
        let one = self.scribe.append(wish(counter, spend.clone()));
        let other = self.second.append(wish(counter, spend.clone()));
        let ((_, one), (_, other)) = tokio::join!(one, other);
        self.learn(counter, &spend, &one);
        self.learn(counter, &spend, &other);
    }

    fn learn(&mut self, counter: usize, actions: &[Action], told: &Told) {
        let left = &mut self.left[counter];
        match (&told.outcome, &told.refusal) {
            (Outcome::Acknowledged(_), _) => {
                for action in actions {
                    *left = match action {
                        Action::Earn(amount) => left.saturating_add(*amount),
                        Action::Spend(amount) | Action::Pass { amount, .. } => {
                            left.saturating_sub(*amount)
                        }
                        _ => *left,
                    };
                }
            }
            (_, Some(Refusal::RightsShort { held, .. })) => *left = *held,
            _ => {}
        }
    }
}
