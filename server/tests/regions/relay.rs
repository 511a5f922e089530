//! Regions that never see each other directly.

use super::SOON;
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_regions_without_a_link_converge_through_the_third() {
    let world = World::start(&["asia", "europe", "us"]).await;
    world.cut_between(0, 2);
    for n in 0..60 {
        // The same stream everywhere, so that contexts cross the missing link.
        world.append(n % 3, "a-1", &n.to_string()).await;
    }
    world.converged(60, SOON).await;
    // Also once nothing is new: statements go through the third region as well.
    for n in 0..6 {
        world.append(2 * (n % 2), "a-2", &n.to_string()).await;
    }
    world.converged(66, SOON).await;
    world.stop().await;
}
