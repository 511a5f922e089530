//! A byte-bounded cache with second chances, for blocks of index files and decoded commands.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;

/// Keeps what was used lately, up to a number of bytes.
///
/// Clock replacement: a value that was found since the hand last passed it gets another round, so
/// one long scan does not drive out what many readers share.
pub(crate) struct ClockCache<K, V> {
    inner: Mutex<Inner<K, V>>,
    bytes_max: usize,
}

struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys in the order in which the hand meets them; each key of `slots` once.
    hand: VecDeque<K>,
    bytes: usize,
}

struct Slot<V> {
    value: V,
    bytes: usize,
    used: bool,
}

impl<K: Hash + Eq + Clone, V: Clone> ClockCache<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let inner = Inner { slots: HashMap::new(), hand: VecDeque::new(), bytes: 0 };
        Self { inner: Mutex::new(inner), bytes_max }
    }

    pub(crate) fn find(&self, key: &K) -> Option<V> {
        let mut inner = self.inner.lock();
        let slot = inner.slots.get_mut(key)?;
        slot.used = true;
        Some(slot.value.clone())
    }

    /// Keeps `value`, which counts as `bytes`. Values larger than the whole cache are not kept.
    pub(crate) fn keep(&self, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock();
        match inner.slots.get_mut(&key) {
            Some(slot) => {
                let old = std::mem::replace(slot, Slot { value, bytes, used: true });
                inner.bytes = inner.bytes + bytes - old.bytes;
                inner.shrink(self.bytes_max);
            }
            None => {
                // Room is made first: the hand must not meet the new value before it had a chance.
                inner.shrink(self.bytes_max - bytes);
                inner.slots.insert(key.clone(), Slot { value, bytes, used: false });
                inner.hand.push_back(key);
                inner.bytes += bytes;
            }
        }
    }

    /// Forgets every value whose key `doomed` names.
    pub(crate) fn forget(&self, doomed: impl Fn(&K) -> bool) {
        let mut inner = self.inner.lock();
        let Inner { slots, hand, bytes } = &mut *inner;
        hand.retain(|key| {
            let keep = !doomed(key);
            if !keep {
                *bytes -= slots.remove(key).map_or(0, |slot| slot.bytes);
            }
            keep
        });
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let key = self.hand.pop_front().expect("bytes are held by keys");
            let slot = self.slots.get_mut(&key).expect("each key under the hand has a slot");
            if std::mem::take(&mut slot.used) {
                self.hand.push_back(key);
            } else {
                self.bytes -= slot.bytes;
                self.slots.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bytes_and_spares_what_is_used() {
        let cache = ClockCache::new(100);
        cache.keep(0, "kept", 20);
        for key in 1..50 {
            assert_eq!(cache.find(&0), Some("kept"), "used before key {key}");
            cache.keep(key, "passing", 20);
            assert!(cache.bytes() <= 100, "{} bytes held", cache.bytes());
        }
        assert_eq!(cache.find(&1), None);
        for key in 50..60 {
            cache.keep(key, "used", 20);
            assert_eq!(cache.find(&key), Some("used"), "where everything is used, {key} is too");
        }
        cache.keep(0, "kept", 20);
        cache.keep(99, "too large", 101);
        assert_eq!(cache.find(&99), None);
        cache.keep(0, "replaced", 30);
        assert_eq!(cache.find(&0), Some("replaced"));
        cache.forget(|_| true);
        assert_eq!(cache.bytes(), 0);
    }
}
