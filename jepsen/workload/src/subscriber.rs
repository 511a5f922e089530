//! Subscribers: they run all the time, move between regions and nodes with their cursor, and are
//! killed and resumed where they had kept it last.

use std::time::Duration;

use anabranch_client::{
    Client, Cursor, Dot, Event, From, Message, Order, Place, Read, Subscribe, Subscription,
};
use anabranch_history::evidence::Subscribed;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::home::Home;
use crate::plan::Following;
use crate::sites::Wanted;

/// How long a subscriber stays where it is.
const STAY_MILLIS: std::ops::Range<u64> = 1_500..9_000;
/// How long a slow one sleeps between events now and then.
const SLEEP_MILLIS: std::ops::Range<u64> = 500..4_000;
/// Pause after an error.
const RETRY_AFTER: Duration = Duration::from_millis(200);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Errors that are written down; a subscriber that meets more only counts.
const PROBLEMS_MAX: usize = 20;

/// What subscribers wait for in the end: as many events as there are, or a deadline.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// Events of the regional order; 0: stop at once.
    pub(crate) regional: u64,
    /// Events of the global order.
    pub(crate) global: u64,
    /// Numbers of the regions that hold them.
    pub(crate) regions: Vec<usize>,
    /// How long to go on for. No moment: the clocks of two simulated hosts have nothing in common.
    pub(crate) within: Duration,
}

/// Why a subscription was left.
enum Left {
    Done,
    /// Its time here is over.
    Moved,
    /// There is a goal now.
    Called,
    Broken(String),
}

struct Subscriber {
    home: Home,
    following: Following,
    rng: SmallRng,
    region: usize,
    given: Subscribed,
    /// The cursor kept last, as bytes, and how many events had been given by then.
    kept: (Vec<u8>, usize),
    goal: watch::Receiver<Option<Goal>>,
    /// When the goal's time is over, once there is a goal.
    deadline: Option<Instant>,
    /// Events to be given in all, once they are known.
    wanted: Option<u64>,
}

/// Runs subscriber `nth` of the region until its goal is reached or the goal's deadline has come.
pub(crate) async fn run(home: Home, nth: u32, goal: watch::Receiver<Option<Goal>>) -> Subscribed {
    let following = home.plan.following(home.number, nth);
    let rng = home.rng("subscriber", nth);
    let region = home.number;
    let Following { category, order, slow } = &following;
    let order_name = if *order == Order::Global { "global" } else { "regional" };
    let what = category.as_deref().unwrap_or("everything");
    let pace = if *slow { "slow " } else { "" };
    let name = format!("{pace}subscriber {nth} of {}: {what} in {order_name} order", home.name());
    let given = Subscribed {
        name,
        order: *order,
        category: category.clone(),
        complete: false,
        events: Vec::new(),
        forgotten: Vec::new(),
        moves: 0,
        problems: Vec::new(),
    };
    let kept = (Cursor::start(*order).encode().to_vec(), 0);
    let (deadline, wanted) = (None, None);
    Subscriber { home, following, rng, region, given, kept, goal, deadline, wanted }.run().await
}

impl Subscriber {
    async fn run(mut self) -> Subscribed {
        loop {
            if self.arrived().await {
                return self.given;
            }
            let mut subscription = match self.begin() {
                Ok(subscription) => subscription,
                Err(error) => {
                    self.given.problems.push(error.to_string());
                    return self.given;
                }
            };
            let left = self.follow(&mut subscription).await;
            match left {
                Left::Done | Left::Called => self.keep(&subscription),
                Left::Moved => self.leave(&subscription),
                Left::Broken(error) => {
                    self.keep(&subscription);
                    if self.given.problems.len() < PROBLEMS_MAX {
                        self.given.problems.push(error);
                    }
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Whether there is a goal and it is reached, or its deadline has come.
    async fn arrived(&mut self) -> bool {
        let Some(goal) = self.goal.borrow().clone() else { return false };
        if goal.regional == 0 {
            return true;
        }
        self.given.complete = true;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + goal.within);
        if Instant::now() >= deadline {
            return true;
        }
        if !goal.regions.contains(&self.region) {
            self.region = goal.regions[0];
        }
        if self.wanted.is_none() {
            self.wanted = self.count(&goal, deadline).await;
            if self.wanted.is_none() {
                // It may be a region that is gone for good.
                self.region = self.home.sites.around(self.region, 1);
            }
        }
        self.has_all()
    }

    fn has_all(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.given.events.len() as u64 >= wanted)
    }

    /// How many events there are for it; none if that cannot be found out now.
    async fn count(&mut self, goal: &Goal, deadline: Instant) -> Option<u64> {
        let Some(category) = self.following.category.clone() else {
            let global = self.following.order == Order::Global;
            return Some(if global { goal.global } else { goal.regional });
        };
        let client = self.client();
        let read: Read = match category.contains('-') {
            true => client.read_stream(category),
            false => client.read_category(category),
        };
        let read = read.order(self.following.order);
        let left = deadline.saturating_duration_since(Instant::now());
        let events = timeout(left, read.collect()).await.ok()?.ok()?;
        Some(events.len() as u64)
    }

    fn client(&mut self) -> Client {
        let seed = self.rng.random();
        self.home.sites.client(Wanted { home: self.region, roams: true, seed })
    }

    /// The cursor travels as bytes, as it would between processes.
    fn begin(&mut self) -> anyhow::Result<Subscription> {
        // Most ask any node of the region, some one node only, which may be gone.
        let client = match self.rng.random_bool(0.75) || self.goal.borrow().is_some() {
            true => self.client(),
            false => {
                let node = self.rng.random_range(0..self.home.sites.nodes(self.region));
                self.home.sites.node_client(self.region, node)
            }
        };
        let from = From::saved(&self.kept.0)?;
        let subscribe: Subscribe = match &self.following.category {
            None => client.subscribe_all(),
            Some(name) if name.contains('-') => client.subscribe_stream(name),
            Some(name) => client.subscribe_category(name),
        };
        Ok(subscribe.order(self.following.order).from(from).heartbeat(HEARTBEAT).start())
    }

    async fn follow(&mut self, subscription: &mut Subscription) -> Left {
        let called = self.goal.borrow_and_update().is_some();
        let stay = Duration::from_millis(self.rng.random_range(STAY_MILLIS));
        // Called since it looked last, it looks again at once.
        let until =
            self.deadline.unwrap_or(Instant::now() + if called { Duration::ZERO } else { stay });
        loop {
            if called && self.has_all() {
                return Left::Done;
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => return if called { Left::Done } else { Left::Moved },
                _ = self.goal.changed() => return Left::Called,
                message = subscription.next() => match message {
                    Some(Ok(Message::Event(event))) => self.take(event, subscription),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Left::Broken(error.to_string()),
                    None => return Left::Broken("the subscription ended".into()),
                },
            }
            let sleepy = self.following.slow && !called && self.rng.random_bool(0.1);
            if sleepy {
                let pause = Duration::from_millis(self.rng.random_range(SLEEP_MILLIS));
                sleep_until((Instant::now() + pause).min(until)).await;
            }
        }
    }

    fn take(&mut self, event: Event, subscription: &Subscription) {
        self.given.events.push(place(event));
        if self.rng.random_bool(0.1) {
            self.keep(subscription);
        }
    }

    fn keep(&mut self, subscription: &Subscription) {
        if let Some(cursor) = subscription.cursor() {
            self.kept = (cursor.encode().to_vec(), self.given.events.len());
        }
    }

    /// Goes to another region or stays; in good order, or killed: then what was given after the
    /// cursor was kept is forgotten, and has to be given again.
    fn leave(&mut self, subscription: &Subscription) {
        if self.rng.random_bool(0.5) {
            self.keep(subscription);
        } else {
            let forgotten = self.given.events.split_off(self.kept.1);
            self.given.forgotten.extend(forgotten);
        }
        let regions = self.home.sites.regions().len();
        if regions > 1 && self.rng.random_bool(0.7) {
            self.given.moves += 1;
            self.region = self.home.sites.around(self.region, self.rng.random_range(1..regions));
        }
    }
}

fn place(event: Event) -> (u64, Dot) {
    let (Place::Regional(place) | Place::Global(place)) = event.place;
    (place, event.dot)
}
