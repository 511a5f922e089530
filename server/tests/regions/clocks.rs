//! Regions whose wall clock is wrong.

use anabranch_server::shard::{AppendError, ClockDoubted};

use super::SOON;
use super::world::{World, submission};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_starts_with_a_wrong_clock_writes_nothing_until_it_is_right() {
    let mut world = World::start(&["asia", "europe", "us"]).await;
    let mut events = 0;
    for off_ms in [HOUR_MS, -HOUR_MS] {
        world.append(1, "a-1", "before").await;
        world.converged(events + 1, SOON).await;
        world.set_clock(1, off_ms);
        world.restart(1).await;
        match world.shard(1).append(submission("a-1", "wrong"), 1, SOON).await {
            Err(AppendError::ClockDoubted(ClockDoubted::Contradicted { by, .. })) => {
                assert_eq!(by.len(), 2, "{by:?}");
                let off = by.iter().all(|other| (other.ahead_ms - off_ms).abs() < 1_000);
                assert!(off, "{by:?}");
            }
            other => panic!("two regions say otherwise: {other:?}"),
        }
        assert!(world.shard(1).trouble().is_some());
        // The others go on, and it reads along.
        world.append(0, "a-1", "meanwhile").await;
        world.holds(1, events + 2, SOON).await;
        world.set_clock(1, 0);
        world.append(1, "a-1", "after").await;
        events += 3;
        world.converged(events, SOON).await;
        assert_eq!(world.shard(1).trouble(), None);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_serves_after_a_clock_that_was_wrong_is_set_back() {
    let world = World::start(&["asia", "europe"]).await;
    world.append(0, "a-1", "before").await;
    world.converged(1, SOON).await;
    world.cut_off(0);
    // Far more than the others would let pass; nobody is heard soon.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    world.set_clock(0, -HOUR_MS);
    world.append(0, "a-1", "stamped right after what was there").await;
    world.set_clock(0, 0);
    world.append(0, "a-1", "and in time again").await;
    world.heal(0);
    world.converged(3, SOON).await;
    world.stop().await;
}
