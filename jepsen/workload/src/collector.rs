//! Sets: elements are added in every region, and read back in parts by cursor: at home, hopping from
//! region to region, and in global order.

use anabranch_client::Order;
use anabranch_history::shape::Class;
use rand::Rng;

use crate::everywhere::Everywhere;
use crate::home::Home;
use crate::reads::Walk;
use crate::scribe::{Scribe, Wish};

/// The category of the sets.
const CATEGORY: &str = "set";
/// Number of sets.
const SETS: u32 = 3;

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Collector.writer(home.number, nth);
    let clients = Everywhere::new(&home, "collector", nth);
    let here = home.number;
    let rng = home.rng("collector", nth);
    let mut scribe = Scribe::new(home, number, clients.client(here).clone(), false, rng);
    let orders = [Order::Regional, Order::Regional, Order::Global];
    let mut walks = [0, 1, 2].map(|walk| Walk::new(number, walk, CATEGORY, orders[walk as usize]));
    while !scribe.home.stopped() {
        if scribe.rng.random_bool(0.5) {
            let wish = draw(&mut scribe);
            scribe.append(wish).await;
        } else {
            let walk = scribe.rng.random_range(0..walks.len());
            // The first walk stays at home, the others go anywhere.
            let there = match walk {
                0 => here,
                _ => scribe.rng.random_range(0..scribe.home.sites.regions().len()),
            };
            let limit =
                if scribe.rng.random_bool(0.25) { scribe.rng.random_range(1..20) } else { 0 };
            let region = scribe.home.sites.regions()[there].clone();
            if there != here {
                clients.carry(here, there);
            }
            walks[walk].go_on(&scribe.home, clients.client(there), &region, limit).await;
            if there != here {
                clients.carry(there, here);
            }
        }
        scribe.home.think(&mut scribe.rng).await;
    }
}

/// One to three elements, mostly for one set.
fn draw(scribe: &mut Scribe) -> Wish {
    let rng = &mut scribe.rng;
    let first = rng.random_range(0..SETS);
    (0..rng.random_range(1..=3)).fold(Wish::new(), |wish, _| {
        let set = if rng.random_bool(0.8) { first } else { rng.random_range(0..SETS) };
        wish.event(format!("{CATEGORY}-{set}"), rng.random_range(0..60))
    })
}
