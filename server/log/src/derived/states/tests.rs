use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::conformance::check;
use super::*;

fn put(key: &[u8], state: &[u8]) -> Change {
    (key.to_vec(), Some(Bytes::copy_from_slice(state)))
}

fn state(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

#[test]
fn memory_keeps_the_contract() {
    check(&MemoryStates::new());
}

/// A way to break the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    WritesOneByOne,
    WritesUntilRefused,
    NeverRemoves,
    KeepsTheFirstOfTwo,
    TakesAnyKey,
    TakesAnySize,
    TakesAnyNumber,
    IgnoresThePrefix,
    StartsAtAfter,
    ForgetsAfter,
    GivesOneTooMany,
    GivesOneTooFew,
    StartsAtTheEnd,
    RemovesNeighbours,
    RemovesSome,
    RemovesNotThePrefixItself,
}

/// States in memory with one fault.
struct Faulty(MemoryStates, Fault);

impl Faulty {
    fn has(&self, fault: Fault) -> bool {
        self.1 == fault
    }
}

impl States for Faulty {
    fn write(&self, changes: &[Change]) -> Result<(), StateError> {
        let mut changes = changes.to_vec();
        let limited = check_changes(&changes);
        match self.1 {
            Fault::WritesUntilRefused => {
                return changes.iter().try_for_each(|one| self.0.write(std::slice::from_ref(one)));
            }
            Fault::WritesOneByOne if changes.len() == 64 => {
                for one in &changes {
                    self.0.write(std::slice::from_ref(one))?;
                    std::thread::yield_now();
                }
                return Ok(());
            }
            Fault::NeverRemoves => changes.retain(|(_, state)| state.is_some()),
            Fault::KeepsTheFirstOfTwo => changes.reverse(),
            _ => (),
        }
        match limited {
            Err(StateError::Key { .. }) if self.has(Fault::TakesAnyKey) => Ok(()),
            Err(StateError::TooLarge { .. }) if self.has(Fault::TakesAnySize) => Ok(()),
            Err(StateError::TooMany { .. }) if self.has(Fault::TakesAnyNumber) => Ok(()),
            _ => self.0.write(&changes),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        let prefix = if self.has(Fault::IgnoresThePrefix) { &[] } else { prefix };
        let longer = limit.saturating_add(1);
        match self.1 {
            Fault::ForgetsAfter => self.0.scan(prefix, None, limit),
            Fault::GivesOneTooMany => self.0.scan(prefix, after, longer),
            Fault::GivesOneTooFew => self.0.scan(prefix, after, limit.saturating_sub(1)),
            Fault::StartsAtAfter => {
                let mut all = self.0.scan(prefix, None, usize::MAX)?;
                all.retain(|(key, _)| after.is_none_or(|after| &key[..] >= after));
                all.truncate(limit);
                Ok(all)
            }
            Fault::StartsAtTheEnd => {
                let mut found = self.0.scan(prefix, after, limit)?;
                found.reverse();
                Ok(found)
            }
            _ => self.0.scan(prefix, after, limit),
        }
    }

    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        match self.1 {
            Fault::RemovesNeighbours => self.0.remove_all(&prefix[..prefix.len().min(1)]),
            Fault::RemovesSome => {
                let some = self.0.scan(prefix, None, 1_000)?;
                let some: Vec<_> = some.into_iter().map(|(key, _)| (key, None)).collect();
                self.0.write(&some)
            }
            Fault::RemovesNotThePrefixItself => {
                let kept = if prefix.is_empty() { None } else { self.0.get(prefix)? };
                self.0.remove_all(prefix)?;
                kept.map_or(Ok(()), |kept| self.0.write(&[put(prefix, &kept)]))
            }
            _ => self.0.remove_all(prefix),
        }
    }
}

#[test]
fn the_suite_finds_every_fault() {
    let faults = [
        Fault::WritesOneByOne,
        Fault::WritesUntilRefused,
        Fault::NeverRemoves,
        Fault::KeepsTheFirstOfTwo,
        Fault::TakesAnyKey,
        Fault::TakesAnySize,
        Fault::TakesAnyNumber,
        Fault::IgnoresThePrefix,
        Fault::StartsAtAfter,
        Fault::ForgetsAfter,
        Fault::GivesOneTooMany,
        Fault::GivesOneTooFew,
        Fault::StartsAtTheEnd,
        Fault::RemovesNeighbours,
        Fault::RemovesSome,
        Fault::RemovesNotThePrefixItself,
    ];
    for fault in faults {
        let faulty = Faulty(MemoryStates::new(), fault);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&faulty)));
        assert!(checked.is_err(), "the suite does not see that a store {fault:?}");
    }
}

#[test]
fn a_changed_state_is_an_error_that_names_its_key() {
    let states = MemoryStates::new();
    let damaged = StateError::Damaged { key: b"b\0\xff".to_vec() };
    assert_eq!(damaged.to_string(), r#"the state under key "b\x00\xff" fails its checksum"#);
    for bit in 0..8 * (4 + 5) {
        states.write(&[put(b"a", b"a"), put(b"b\0\xff", b"hello"), put(b"c", b"c")]).unwrap();
        assert!(states.flip_bit(b"b\0\xff", bit));
        assert_eq!(states.get(b"b\0\xff"), Err(damaged.clone()), "bit {bit}");
        assert_eq!(states.scan(&[], None, 10), Err(damaged.clone()), "bit {bit}");
        assert_eq!(states.scan(&[], None, 1).unwrap().len(), 1, "the ones before are fine");
        assert_eq!(states.scan(&[], Some(b"b\0\xff"), 9).unwrap().len(), 1, "those after, too");
    }
    states.write(&[put(b"b\0\xff", b"again")]).unwrap();
    assert_eq!(states.get(b"b\0\xff"), Ok(state("again")), "put again, it is whole");
}

#[test]
fn in_memory_states_live_as_long_as_a_clone_and_are_lost_for_all() {
    let states = MemoryStates::new();
    let next_life = states.clone();
    states.write(&[put(b"a", b"kept")]).unwrap();
    drop(states);
    assert_eq!(next_life.get(b"a"), Ok(state("kept")));
    next_life.clone().clear();
    assert_eq!(next_life.get(b"a"), Ok(None));
}
