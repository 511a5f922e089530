//! Regions whose disks are set back to an older copy.

use std::time::Duration;

use anabranch_core::Seq;
use anabranch_core::sequencer::Submission;
use anabranch_log::disk::MemoryDisk;
use anabranch_server::shard::AppendError;
use tokio::time::Instant;

use super::SOON;
use super::world::{World, event, submission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_was_set_back_writes_nothing_and_says_who_knows_more() {
    let mut world = World::start(&["asia", "europe", "us"]).await;
    for n in 0..10 {
        world.append(0, "a-1", &n.to_string()).await;
    }
    world.converged(10, SOON).await;
    let copy = world.copy(0);
    for n in 10..15 {
        world.append(0, "a-1", &n.to_string()).await;
    }
    world.converged(15, SOON).await;
    world.set_back(0, &copy).await;
    let stamp = world.shard(0).state().region(|region| region.last_stamp());
    for _ in 0..3 {
        match world.shard(0).append(submission("a-1", "new"), 1, SOON).await {
            Err(AppendError::Forgetful(forgetful)) => {
                assert_eq!((forgetful.theirs, forgetful.ours), (Seq(15), Seq(10)));
                assert_ne!(forgetful.knows.as_str(), "asia");
            }
            other => panic!("number 11 would be given out twice: {other:?}"),
        }
    }
    let trouble = world.shard(0).trouble().expect("it is shown");
    assert!(trouble.contains("set back to an older copy"), "{trouble}");
    // The others go on. It does not follow: its word on its own events would become a lie.
    world.append(1, "a-1", "meanwhile").await;
    world.holds(2, 16, SOON).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = world.shard(0).state().region(|region| (region.position(), region.last_stamp()));
    assert_eq!(now, (10, stamp));
    for region in [1, 2] {
        assert_eq!(world.shard(region).held(), [], "nothing to hold back");
        assert_eq!(world.shard(region).state().applied().borrow().position, 16);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_region_wrote_twice_while_it_was_cut_off_is_held_and_never_merged() {
    let appends: [fn() -> Vec<Submission>; 2] = [
        || (0..10).map(|n| submission("a-1", &format!("second {n}"))).collect(),
        // One group, over the end of what others hold.
        || {
            let mut group = submission("a-1", "second");
            group.request.events.extend((0..9).map(|n| event("a-1", &n.to_string())));
            vec![group]
        },
    ];
    for second in appends {
        let mut world = World::start(&["asia", "europe", "us"]).await;
        world.append(0, "a-1", "before").await;
        world.converged(1, SOON).await;
        let copy = world.copy(0);
        for n in 0..5 {
            world.append(0, "a-1", &n.to_string()).await;
        }
        world.converged(6, SOON).await;
        world.cut_off(0);
        world.set_back(0, &copy).await;
        for submission in second() {
            world.shard(0).append(submission, 1, SOON).await.expect("nobody says otherwise");
        }
        world.heal(0);
        for region in [1, 2] {
            forked(&world, region).await;
        }
        // Everything else goes on, over the same sessions.
        let sessions = [world.sessions(1, 0), world.sessions(2, 0)];
        for n in 0..6 {
            world.append(1 + n % 2, "a-2", &n.to_string()).await;
        }
        for region in [1, 2] {
            world.holds(region, 12, SOON).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!([world.sessions(1, 0), world.sessions(2, 0)], sessions);
        let heads = [1, 2].map(|region| {
            let held = world.shard(region).held();
            assert_eq!(held.len(), 1, "{held:?}");
            world.shard(region).state().region(|region| region.head(&held[0].0))
        });
        assert_eq!(heads[0].seq, Seq(6));
        assert_eq!(heads[0], heads[1], "only the first history, and the same");
        world.stop().await;
    }
}

async fn forked(world: &World, region: usize) {
    let deadline = Instant::now() + SOON;
    while !world.shard(region).held().iter().any(|(_, why)| why.contains("forked")) {
        assert!(Instant::now() < deadline, "held: {:?}", world.shard(region).held());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_began_anew_is_named_by_those_who_knew_it() {
    let mut world = World::start(&["asia", "europe", "us"]).await;
    world.append(0, "a-1", "before").await;
    world.converged(1, SOON).await;
    let born = world.shard(0).state().region(|region| region.origin().cloned()).unwrap();
    world.set_back(0, &MemoryDisk::new(0)).await;
    let anew = world.shard(0).state().region(|region| region.origin().cloned()).unwrap();
    assert_ne!(anew, born);
    for region in [1, 2] {
        let deadline = Instant::now() + SOON;
        loop {
            match world.shard(region).held().as_slice() {
                [(origin, why)] => {
                    assert_eq!(origin, &anew);
                    assert!(why.contains("is not the member of that name"), "{why}");
                    assert!(why.contains("docs/runbooks/region-set-back.md"), "{why}");
                    break;
                }
                [] => assert!(Instant::now() < deadline, "nobody is named"),
                several => panic!("{several:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(world.shard(0).trouble().is_some(), "and it knows itself");
    world.stop().await;
}
