//! What every store of states must do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{CHANGES_MAX, Change, KEY_BYTES_MAX, STATE_BYTES_MAX, StateError, States};

/// Checks an empty store against the contract of [`States`]. It is empty again afterwards.
///
/// # Panics
/// With what was expected, if the store breaks it.
pub fn check(store: &dyn States) {
    let checks = [
        keeps_what_was_put_last,
        pages_in_the_order_of_keys,
        ends_where_the_prefix_ends,
        removes_a_prefix_and_no_neighbour,
        removes_more_than_fits_into_one_write,
        refuses_what_passes_a_limit,
        refuses_a_write_whole,
        shows_a_write_whole,
        does_what_a_map_does,
    ];
    for check in checks {
        assert_eq!(keys(store, &[]), NONE, "an empty store has nothing");
        check(store);
        store.remove_all(&[]).expect("everything is removed");
    }
    assert_eq!(keys(store, &[]), NONE, "everything was removed");
}

const NONE: Vec<Vec<u8>> = Vec::new();

fn put(key: &[u8], state: impl AsRef<[u8]>) -> Change {
    (key.to_vec(), Some(Bytes::copy_from_slice(state.as_ref())))
}

fn remove(key: &[u8]) -> Change {
    (key.to_vec(), None)
}

fn keys(store: &dyn States, prefix: &[u8]) -> Vec<Vec<u8>> {
    let found = store.scan(prefix, None, usize::MAX).expect("scanned");
    found.into_iter().map(|(key, _)| key).collect()
}

fn keeps_what_was_put_last(store: &dyn States) {
    let state = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let get = |key: &[u8]| store.get(key).expect("read");
    assert_eq!(get(b"a"), None, "nothing was put");
    store.write(&[]).expect("no changes are fine");
    store.write(&[put(b"a", "one"), put(b"b", ""), remove(b"c")]).expect("written");
    assert_eq!((get(b"a"), get(b"b"), get(b"c")), (state("one"), state(""), None));
    store.write(&[put(b"a", "two"), remove(b"b"), put(b"c", "new")]).expect("written");
    assert_eq!((get(b"a"), get(b"b"), get(b"c")), (state("two"), None, state("new")));
    let twice = [put(b"a", "three"), put(b"a", "four"), put(b"c", "five"), remove(b"c")];
    store.write(&twice).expect("written");
    assert_eq!((get(b"a"), get(b"c")), (state("four"), None), "the later of two changes counts");
}

fn pages_in_the_order_of_keys(store: &dyn States) {
    let key = |nth: u32| [&b"page"[..], &nth.to_be_bytes()].concat();
    let numbers: Vec<u32> = (0..300).map(|nth| nth * 7 % 300).collect();
    let changes: Vec<Change> =
        numbers.iter().map(|nth| put(&key(*nth), nth.to_be_bytes())).collect();
    store.write(&changes).expect("written");
    assert_eq!(store.scan(b"page", None, 0), Ok(Vec::new()), "no more than the limit");
    for limit in [1, 7, 100, 299, 300, 301] {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.scan(b"page", after.as_deref(), limit).expect("scanned");
            assert!(page.len() <= limit, "{} states, at most {limit}", page.len());
            after = page.last().map(|(key, _)| key.clone());
            let full = page.len() == limit;
            all.extend(page);
            assert!(all.len() <= 300, "{} states, of 300", all.len());
            if !full {
                break;
            }
        }
        let expected =
            (0..300u32).map(|nth| (key(nth), Bytes::copy_from_slice(&nth.to_be_bytes())));
        assert!(all.into_iter().eq(expected), "every state once and in order, {limit} at a time");
    }
    let between = [&key(41)[..], &[0]].concat();
    let page = store.scan(b"page", Some(&between), 1).expect("scanned");
    assert_eq!(page[0].0, key(42), "after a key that is not there comes the next that is");
}

/// Keys on both sides of the borders of the prefixes `[1]` and `[255]`.
const BORDER: [&[u8]; 9] =
    [&[0, 255], &[1], &[1, 0], &[1, 255], &[1, 255, 255], &[2], &[254, 255], &[255], &[255, 255]];

fn put_border(store: &dyn States) {
    store.write(&BORDER.map(|key| put(key, key))).expect("written");
}

fn ends_where_the_prefix_ends(store: &dyn States) {
    put_border(store);
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, &'a [&'a [u8]]);
    let cases: [Case; 12] = [
        (&[], None, &BORDER),
        (&[], Some(&[2]), &BORDER[6..]),
        (&[1], None, &BORDER[1..5]),
        (&[1], Some(&[]), &BORDER[1..5]),
        (&[1], Some(&[0, 255]), &BORDER[1..5]),
        (&[1], Some(&[1]), &BORDER[2..5]),
        (&[1], Some(&[1, 255, 255]), &[]),
        (&[1], Some(&[2]), &[]),
        (&[1, 255], None, &BORDER[3..5]),
        (&[1, 1], None, &[]),
        (&[255], None, &BORDER[7..]),
        (&[255], Some(&[255, 255]), &[]),
    ];
    for (prefix, after, expected) in cases {
        let found = store.scan(prefix, after, 100).expect("scanned");
        let found: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(found, expected, "under {prefix:?} after {after:?}");
    }
}

fn removes_a_prefix_and_no_neighbour(store: &dyn States) {
    let cases: [(&[u8], std::ops::Range<usize>); 6] =
        [(&[1], 1..5), (&[1, 255], 3..5), (&[255], 7..9), (&[2], 5..6), (&[3], 0..0), (&[], 0..9)];
    for (prefix, gone) in cases {
        put_border(store);
        store.remove_all(prefix).expect("removed");
        let left = [&BORDER[..gone.start], &BORDER[gone.end..]].concat();
        assert_eq!(keys(store, &[]), left, "without those under {prefix:?}");
    }
}

fn removes_more_than_fits_into_one_write(store: &dyn States) {
    let key = |nth: u32| [&b"many"[..], &nth.to_be_bytes()].concat();
    for start in [0, 10_000] {
        let changes: Vec<Change> = (start..start + 10_000).map(|nth| put(&key(nth), "x")).collect();
        store.write(&changes).expect("as many changes as go into one write");
    }
    store.write(&[put(b"man", ""), put(b"mao", "")]).expect("written");
    assert_eq!(keys(store, b"many").len(), 20_000);
    store.remove_all(b"many").expect("removed");
    assert_eq!(keys(store, &[]), [b"man", b"mao"]);
}

fn refuses_what_passes_a_limit(store: &dyn States) {
    let longest = [7; KEY_BYTES_MAX];
    let largest = Bytes::from(vec![7; STATE_BYTES_MAX]);
    store.write(&[(longest.to_vec(), Some(largest.clone()))]).expect("at the limits");
    assert!(store.get(&longest) == Ok(Some(largest)), "the largest comes back as it was");

    for key in [&[][..], &[7; KEY_BYTES_MAX + 1]] {
        let refused = StateError::Key { bytes: key.len() };
        assert_eq!(store.write(&[put(key, "")]), Err(refused.clone()), "no key to write");
        assert_eq!(store.write(&[remove(key)]), Err(refused.clone()), "no key to remove");
        assert_eq!(store.get(key), Err(refused), "no key to read");
    }
    let too_large = vec![(b"a".to_vec(), Some(vec![0; STATE_BYTES_MAX + 1].into()))];
    let refused = StateError::TooLarge { key: b"a".to_vec(), bytes: STATE_BYTES_MAX + 1 };
    assert_eq!(store.write(&too_large), Err(refused));
    let too_many = vec![remove(b"a"); CHANGES_MAX + 1];
    assert_eq!(store.write(&too_many), Err(StateError::TooMany { changes: CHANGES_MAX + 1 }));
}

fn refuses_a_write_whole(store: &dyn States) {
    store.write(&[put(b"a", "old"), put(b"b", "old")]).expect("written");
    store.write(&[put(b"a", "new"), remove(b"b"), put(b"", "")]).expect_err("no key");
    let old = Ok(Some(Bytes::from_static(b"old")));
    assert_eq!((store.get(b"a"), store.get(b"b")), (old.clone(), old), "nothing was written");
}

/// Lets the other thread end also when a check fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One thread writes the same under many keys; another sees it change, and never sees them differ.
fn shows_a_write_whole(store: &dyn States) {
    let write = |round: u64| {
        let changes: Vec<Change> = (0..64).map(|nth| put(&[nth], round.to_be_bytes())).collect();
        store.write(&changes).expect("written");
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..).take_while(|_| !done.load(Ordering::Acquire)).for_each(write));
        let _end = SetOnDrop(&done);
        let mut rounds = BTreeSet::new();
        while rounds.len() < 30 {
            let seen = store.scan(&[], None, 100).expect("scanned");
            assert_eq!(seen.len(), 64);
            assert!(seen.iter().all(|(_, state)| *state == seen[0].1), "half a write: {seen:?}");
            rounds.insert(seen[0].1.clone());
        }
    });
}

/// Few keys and many rounds, drawn from a fixed seed.
fn does_what_a_map_does(store: &dyn States) {
    let mut model: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..60 {
        let mut key = |shortest: u64| -> Vec<u8> {
            let bytes = shortest + draw(3);
            (0..bytes).map(|_| [0, 1, 254, 255][draw(4) as usize]).collect()
        };
        let changes: Vec<Change> = (0..20)
            .map(|nth| {
                let key = key(1);
                let state = Bytes::from(vec![round; usize::from(key[0]) + nth]);
                (key, (nth % 3 != 0).then_some(state))
            })
            .collect();
        let (prefix, after, doomed) = (key(0), key(0), key(2));
        store.write(&changes).expect("written");
        for (key, state) in changes {
            match state {
                Some(state) => model.insert(key, state),
                None => model.remove(&key),
            };
        }
        if round % 4 == 0 {
            store.remove_all(&doomed).expect("removed");
            model.retain(|key, _| !key.starts_with(&doomed));
        }
        let limit = draw(10) as usize;
        let wanted = |key: &[u8]| key.starts_with(&prefix) && *key > after[..];
        let expected = model.iter().filter(|(key, _)| wanted(key)).take(limit);
        let expected: Vec<_> = expected.map(|(key, state)| (key.clone(), state.clone())).collect();
        let found = store.scan(&prefix, Some(&after), limit);
        assert!(found == Ok(expected), "round {round}: under {prefix:?} after {after:?}");
    }
}
