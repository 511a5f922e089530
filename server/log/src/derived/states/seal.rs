//! What is stored under a key: a checksum over the key and the state, and the state.

use bytes::Bytes;

use super::StateError;

const CHECK_BYTES: usize = 4;

/// The length of the key is in it, so that no byte can change sides unnoticed.
fn check(key: &[u8], state: &[u8]) -> [u8; CHECK_BYTES] {
    let check = crc32c::crc32c(&(key.len() as u64).to_le_bytes());
    let check = crc32c::crc32c_append(check, key);
    crc32c::crc32c_append(check, state).to_le_bytes()
}

pub(super) fn sealed(key: &[u8], state: &[u8]) -> Vec<u8> {
    [&check(key, state)[..], state].concat()
}

/// The state in what was found under `key`.
pub(super) fn opened(key: &[u8], found: &[u8]) -> Result<Bytes, StateError> {
    match found.split_first_chunk() {
        Some((expected, state)) if *expected == check(key, state) => {
            Ok(Bytes::copy_from_slice(state))
        }
        _ => Err(StateError::Damaged { key: key.to_vec() }),
    }
}
