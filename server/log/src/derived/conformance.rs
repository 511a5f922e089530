//! What every store of checkpoints must do.

use bytes::Bytes;

use super::{Checkpoint, Checkpoints};

/// Checks an empty store against the contract of [`Checkpoints`].
///
/// # Panics
/// With what was expected, if the store breaks it.
pub fn check(store: &dyn Checkpoints) {
    assert_eq!(store.latest("region"), None, "an empty store has nothing");
    keeps_the_newest(store);
    joins_parts_of_any_size(store);
    keeps_names_apart(store);
    assert!(store.put("", 1, &[]).is_err(), "a name is not empty");
    assert!(store.put("a\0b", 1, &[]).is_err(), "a name holds no zero byte");
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
    store.put("reg", 1, &state("short")).expect("kept");
    store.put("region-2", 2, &state("long")).expect("kept");
    let read = |name| store.latest(name).map(|held| held.at);
    assert_eq!((read("reg"), read("region"), read("region-2")), (Some(1), Some(7), Some(2)));
    store.forget("region").expect("forgotten");
    assert_eq!((read("reg"), read("region"), read("region-2")), (Some(1), None, Some(2)));
}
