//! What every store of checkpoints must do.

use bytes::Bytes;

use super::{Checkpoint, CheckpointError, Checkpoints, NAME_BYTES_MAX};

/// Checks an empty store against the contract of [`Checkpoints`].
///
/// # Panics
/// With what was expected, if the store breaks it.
pub fn check(store: &dyn Checkpoints) {
    assert_eq!(store.latest("region"), None, "an empty store has nothing");
    keeps_the_newest(store);
    joins_parts_of_any_size(store);
    keeps_names_apart(store);
    goes_by_sound_names_only(store);
}

fn keeps_the_newest(store: &dyn Checkpoints) {
    for at in [3, 9, 10, 11, 7] {
        let bytes = Bytes::from(format!("state at {at}"));
        store.put("region", at, std::slice::from_ref(&bytes)).expect("kept");
        let newest = Some(Checkpoint { at, bytes });
        assert_eq!(store.latest("region"), newest, "the last one put, also when `at` goes back");
    }
}

fn joins_parts_of_any_size(store: &dyn Checkpoints) {
    let sizes = [0, 1, 262_143, 262_144, 262_145, 700_000];
    for size in sizes {
        let whole: Bytes = (0..size).map(|nth: u32| (nth * 31 % 251) as u8).collect();
        let cut = whole.len() / 3;
        let parts = [whole.slice(..cut), Bytes::new(), whole.slice(cut..)];
        store.put("large", 1, &parts).expect("kept");
        let held = store.latest("large").expect("there");
        assert!(held.bytes == whole, "{size} bytes come back as they were");
    }
}

fn keeps_names_apart(store: &dyn Checkpoints) {
    let state = |text: &'static str| [Bytes::from_static(text.as_bytes())];
    // The last two look like what comes of the others when a number is put behind them.
    let numbered = ["region-2", "region-00000000000000000006"];
    store.put("reg", 1, &state("short")).expect("kept");
    for (at, name) in (2..).zip(numbered) {
        store.put(name, at, &state("long")).expect("kept");
    }
    let read = |name| store.latest(name).map(|held| held.at);
    assert_eq!((read("reg"), read("region")), (Some(1), Some(7)));
    assert_eq!(numbered.map(read), [Some(2), Some(3)]);
    store.forget("region").expect("forgotten");
    assert_eq!((read("reg"), read("region")), (Some(1), None));
    assert_eq!(numbered.map(read), [Some(2), Some(3)], "of its own each");
    store.forget("never").expect("there is nothing to forget");
}

fn goes_by_sound_names_only(store: &dyn Checkpoints) {
    let longest = "a".repeat(NAME_BYTES_MAX);
    store.put(&longest, 1, &[]).expect("kept");
    assert_eq!(store.latest(&longest), Some(Checkpoint { at: 1, bytes: Bytes::new() }));
    let too_long = "a".repeat(NAME_BYTES_MAX + 1);
    for name in ["", "a\0b", "Region", "a/b", "..", "a.new", "a_b", "ä", &too_long] {
        let put = store.put(name, 1, &[]);
        assert!(matches!(put, Err(CheckpointError::Name { .. })), "{name:?}: {put:?}");
        let forgotten = store.forget(name);
        assert!(matches!(forgotten, Err(CheckpointError::Name { .. })), "{name:?}: {forgotten:?}");
        assert_eq!(store.latest(name), None, "{name:?}");
    }
}
