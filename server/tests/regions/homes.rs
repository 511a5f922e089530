//! Streams with a home, and counters that never go below zero, in regions that do not always see each
//! other.

use std::time::Duration;

use anabranch_core::aggregate::{Action, Operation, Operations};
use anabranch_core::class::Change;
use anabranch_core::event::{Event, Request};
use anabranch_core::rights;
use anabranch_core::sequencer::{Expectation, Expected, Submission};
use anabranch_server::shard::{AppendError, Appended};
use tokio::time::{Instant, sleep};

use crate::SOON;
use crate::world::{World, event};

const ASIA: usize = 0;
const EUROPE: usize = 1;
const US: usize = 2;

impl World {
    async fn ask(&self, region: usize, event: Event) -> Result<Appended, AppendError> {
        let request = Request { producer: None, events: vec![event] };
        let submission = Submission { request, expectations: Vec::new() };
        self.shard(region).append(submission, 1, SOON).await
    }

    async fn strict(
        &self,
        region: usize,
        stream: &str,
        expected: Expected,
    ) -> Result<Appended, AppendError> {
        let expectations = vec![Expectation { stream: stream.into(), expected }];
        let request = Request { producer: None, events: vec![event(stream, "x")] };
        self.shard(region).append(Submission { request, expectations }, 1, SOON).await
    }

    /// The same, again until the home is sure of itself.
    async fn strict_soon(&self, region: usize, stream: &str, expected: Expected) {
        let deadline = Instant::now() + SOON;
        loop {
            match self.strict(region, stream, expected).await {
                Ok(_) => return,
                Err(AppendError::HomeUnconfirmed { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn declared(home: &str) -> Event {
    Change::Declared { category: "account".into(), home: home.parse().unwrap(), epoch: 1 }.event()
}

fn released(stream: &str, to: &str) -> Event {
    let (stream, to) = (Some(stream.into()), to.parse().unwrap());
    Change::Released { category: "account".into(), stream, to, epoch: 2 }.event()
}

fn right(action: Action) -> Event {
    let operations = vec![Operation { field: "left".into(), key: None, action }];
    let payload = Operations { operations, observed: None }.to_json();
    Event { kind: rights::EVENT_TYPE.into(), ..event("stock-1", &payload) }
}

fn assert_homed(result: Result<Appended, AppendError>, region: &str, of_epoch: u32) {
    match result {
        Err(AppendError::NotHome { home, .. }) => {
            assert_eq!((home.region.as_str(), home.epoch), (region, of_epoch));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_is_strict_once_every_region_has_confirmed_it_and_can_be_handed_over() {
    let world = World::start(&["asia", "europe", "us"]).await;
    world.append(US, "account-1", "before anybody declared anything").await;
    world.converged(1, SOON).await;
    world.cut_off(US);
    world.ask(EUROPE, declared("asia")).await.expect("any region may declare");
    assert_homed(world.strict(EUROPE, "account-1", Expected::Any).await, "asia", 1);
    world.holds(ASIA, 2, SOON).await;
    match world.strict(ASIA, "account-1", Expected::Revision(0)).await {
        Err(AppendError::HomeUnconfirmed { waits_for, .. }) => {
            let waits_for: Vec<_> = waits_for.iter().map(|region| region.as_str()).collect();
            assert!(waits_for.contains(&"us"), "us has not heard of it: {waits_for:?}");
        }
        other => panic!("us may append meanwhile: {other:?}"),
    }
    world.append(US, "account-1", "us does not know").await;
    world.heal(US);
    // 0: before; 1: what us appended while it was cut off. Asia says yes to nothing less.
    world.strict_soon(ASIA, "account-1", Expected::Revision(1)).await;
    assert_homed(world.strict(US, "account-1", Expected::Any).await, "asia", 1);

    world.ask(ASIA, released("account-1", "us")).await.expect("the home hands over");
    assert_homed(world.strict(ASIA, "account-1", Expected::Any).await, "us", 2);
    world.holds(US, 5, SOON).await;
    world.strict(US, "account-1", Expected::Revision(2)).await.expect("it holds all before it");
    world.strict(ASIA, "account-2", Expected::NoStream).await.expect("the others stay");
    world.converged(7, SOON).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounded_counter_stays_above_zero_while_regions_do_not_see_each_other() {
    let world = World::start(&["asia", "europe", "us"]).await;
    let pass = Action::Pass { amount: 4, to: "us".parse().unwrap() };
    world.ask(ASIA, right(Action::Earn(10))).await.unwrap();
    world.ask(ASIA, right(pass)).await.unwrap();
    world.converged(2, SOON).await;
    world.cut_off(US);
    let short = |result: Result<Appended, AppendError>| match result {
        Err(AppendError::RightsShort { wanted, held, .. }) => (wanted, held),
        other => panic!("{other:?}"),
    };
    let spend = |amount| right(Action::Spend(amount));
    for _ in 0..4 {
        world.ask(US, spend(1)).await.expect("its own rights, though it is alone");
    }
    assert_eq!(short(world.ask(US, spend(1)).await), (1, 0));
    assert_eq!(short(world.ask(ASIA, spend(7)).await), (7, 6));
    world.ask(ASIA, spend(6)).await.expect("the rest");
    assert_eq!(short(world.ask(EUROPE, spend(1)).await), (1, 0));
    world.heal(US);
    world.converged(7, SOON).await;
    world.stop().await;
}
