use std::path::Path;
use std::thread;

use anabranch_core::region::Region;
use anabranch_core::{Incarnation, ShardId};
use anabranch_log::disk::MemoryDisk;
use anabranch_log::store::{Store, StoreOptions};
use anabranch_log::{Log, LogOptions};

use super::*;

fn empty_state() -> Arc<ShardState> {
    let disk = Arc::new(MemoryDisk::new(1));
    let options = LogOptions::new([1; 16]);
    let (log, _writer, _) = Log::open(disk.clone(), Path::new("log"), options).unwrap();
    let options = StoreOptions::new([1; 16]);
    let (store, _) = Store::open(disk, Path::new("index"), log, &options, None).unwrap();
    Arc::new(ShardState::new(Region::new(), 0, store, Vec::new()))
}

#[test]
fn asking_who_holds_an_event_never_keeps_the_importer_from_an_offer() {
    let (state, inlet) = (empty_state(), Arc::new(Inlet::new()));
    inlet.set(Some(Importer::new(Duration::from_millis(500))));
    let region = RegionName::new("eu").unwrap();
    let origin = Origin { region, incarnation: Incarnation(1), shard: ShardId(0) };
    thread::scope(|scope| {
        // As an offer does: the region first, then the importer.
        let free = state.region(|_| {
            let applying = Arc::clone(&state);
            scope.spawn(move || applying.apply(&[], 1));
            while !state.is_applying() {
                thread::yield_now();
            }
            // The apply waits for this look, and whoever looks now waits for the apply.
            let (asking, asked) = (Arc::clone(&inlet), Arc::clone(&state));
            scope.spawn(move || asking.holders(&asked, &origin, Seq(1)));
            // Long enough for that thread to get as far as it can.
            (0..50).all(|_| {
                thread::sleep(Duration::from_millis(4));
                inlet.importer.try_lock().is_some()
            })
        });
        assert!(free, "an offer would wait for the importer, and its holder for the offer");
    });
}
