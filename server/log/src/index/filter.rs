//! A Bloom filter in pages: tells which names a segment certainly does not hold.
//!
//! All bits of a key lie in one page, so a test reads one page of the file. With 10 bits a key and 7
//! probes about one test in a hundred says "maybe" of a name that is not there.

const BITS_PER_KEY: usize = 10;
const PROBES: u64 = 7;
const PAGE_BYTES: usize = 4096;

/// The pages of a filter over `keys` (distinct hashes).
pub(crate) fn build(keys: &[u64]) -> Vec<Vec<u8>> {
    let bytes = (keys.len() * BITS_PER_KEY).div_ceil(8).max(8);
    let pages = bytes.div_ceil(PAGE_BYTES);
    let mut filter = vec![vec![0u8; bytes.min(PAGE_BYTES)]; pages];
    for key in keys {
        let page = &mut filter[page_of(*key, pages)];
        for bit in bits(*key, page.len()) {
            page[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Which of `pages` pages holds the bits of `key`.
pub(crate) fn page_of(key: u64, pages: usize) -> usize {
    // The upper half picks the page, the lower half the bits within it.
    ((u64::from((mix(key) >> 32) as u32) * pages as u64) >> 32) as usize
}

/// Whether the key may be in the filter whose page this is.
pub(crate) fn may_contain(page: &[u8], key: u64) -> bool {
    !page.is_empty() && bits(key, page.len()).all(|bit| page[bit / 8] & (1 << (bit % 8)) != 0)
}

fn bits(key: u64, page_bytes: usize) -> impl Iterator<Item = usize> {
    let mixed = mix(key);
    let (start, step) = (mixed & 0xffff, (mixed >> 16) & 0xffff | 1);
    (0..PROBES).map(move |probe| ((start + probe * step) % (page_bytes as u64 * 8)) as usize)
}

/// Finaliser of SplitMix64: keys may come from any hash, so they are spread again.
fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_denies_a_key_and_seldom_affirms_another() {
        for count in [0u64, 1, 100, 3_000, 50_000] {
            let keys: Vec<u64> = (0..count).map(|key| key * 7919).collect();
            let filter = build(&keys);
            let test = |key| may_contain(&filter[page_of(key, filter.len())], key);
            assert!(keys.iter().all(|key| test(*key)), "{count} keys");
            let wrong = (0..10_000u64).filter(|key| test(key * 7919 + 1)).count();
            assert!(wrong < 300, "{wrong} of 10000 wrongly affirmed with {count} keys");
            let bytes: usize = filter.iter().map(Vec::len).sum();
            assert!(bytes as u64 <= count * 2 + 4096, "{bytes} bytes for {count} keys");
        }
    }
}
