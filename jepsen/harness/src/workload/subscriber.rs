//! A subscriber that runs all the time and now and then moves to another region with its cursor.

use std::time::Duration;

use anabranch_client::{Cursor, Event, From, Message, Order, Place, Subscription};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Addresses, Target, client};
use crate::cluster::REGIONS;
use crate::evidence::Subscribed;

const STAY_MILLIS: std::ops::Range<u64> = 1_500..9_000;
/// Errors that are written down; a subscriber that meets more only counts.
const PROBLEMS_MAX: usize = 20;

pub(super) struct Start {
    pub(super) order: Order,
    pub(super) home: usize,
    pub(super) rng: SmallRng,
}

/// Runs until the target is reached or its deadline has come.
pub(super) async fn run(
    start: Start,
    addresses: Addresses,
    mut target: watch::Receiver<Option<Target>>,
) -> Subscribed {
    let Start { order, home, mut rng } = start;
    let order_name = if order == Order::Global { "global" } else { "regional" };
    let name = format!("the {order_name} subscriber that began in {}", REGIONS[home]);
    let mut given = Subscribed { name, order, events: Vec::new(), moves: 0, problems: Vec::new() };
    let (mut region, mut cursor) = (home, Cursor::start(order).encode());
    loop {
        let mut subscription = match begin(&addresses, region, &cursor) {
            Ok(subscription) => subscription,
            Err(error) => {
                given.problems.push(error.to_string());
                return given;
            }
        };
        let stay = Duration::from_millis(rng.random_range(STAY_MILLIS));
        let left = follow(&mut subscription, &mut given, Instant::now() + stay, &mut target).await;
        if let Some(at) = subscription.cursor() {
            cursor = at.encode();
        }
        match left {
            Left::Done => return given,
            Left::Moved if target.borrow().is_none() => {
                given.moves += 1;
                region = (region + rng.random_range(1..REGIONS.len())) % REGIONS.len();
            }
            Left::Moved => {}
            Left::Broken(error) => {
                if given.problems.len() < PROBLEMS_MAX {
                    given.problems.push(error);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Why a subscription was left.
enum Left {
    Done,
    Moved,
    Broken(String),
}

/// The cursor travels as bytes, as it would between processes.
fn begin(addresses: &Addresses, region: usize, cursor: &[u8]) -> anyhow::Result<Subscription> {
    let client = client(addresses, region, true)?;
    let from = From::saved(cursor)?;
    let From::Cursor(at) = &from else { unreachable!("a saved cursor is a cursor") };
    let order = at.order;
    Ok(client.subscribe_all().order(order).from(from).heartbeat(Duration::from_millis(500)).start())
}

async fn follow(
    subscription: &mut Subscription,
    given: &mut Subscribed,
    until: Instant,
    target: &mut watch::Receiver<Option<Target>>,
) -> Left {
    loop {
        let end = *target.borrow_and_update();
        if end.is_some_and(|end| given.events.len() as u64 >= end.events) {
            return Left::Done;
        }
        tokio::select! {
            biased;
            message = subscription.next() => match message {
                Some(Ok(Message::Event(event))) => given.events.push(place(event)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Left::Broken(error.to_string()),
                None => return Left::Broken("the subscription ended".into()),
            },
            _ = target.changed() => {}
            () = tokio::time::sleep_until(end.map_or(until, |end| end.deadline)) => {
                return if end.is_some() { Left::Done } else { Left::Moved };
            }
        }
    }
}

fn place(event: Event) -> (u64, anabranch_client::Dot) {
    match event.place {
        Place::Regional(place) | Place::Global(place) => (place, event.dot),
    }
}
