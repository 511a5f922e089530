//! How much memory states take, about: the caches that hold them are bounded by it.

use super::tag::Tag;

/// Entries that a node of a `BTreeMap` has room for.
const NODE: usize = 11;
/// What the allocator and the node itself take beside that.
const BLOCK: usize = 32;

/// Bytes of a `BTreeMap`, beside what its entries point to. A map of one entry takes a whole node;
/// large ones have nodes that are two thirds full.
pub(super) fn tree<K, V>(entries: usize) -> usize {
    let nodes = if entries <= NODE { entries.min(1) } else { entries.div_ceil(NODE * 2 / 3) };
    nodes * (NODE * size_of::<(K, V)>() + BLOCK)
}

/// Bytes that tags take where they are.
pub(super) fn tags(tags: &Vec<Tag>) -> usize {
    tags.capacity() * size_of::<Tag>() + BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_takes_a_node_and_many_take_little_more_than_themselves() {
        assert_eq!(tree::<u64, u64>(0), 0);
        assert_eq!(tree::<u64, u64>(1), tree::<u64, u64>(11));
        let (of_thousand, bare) = (tree::<u64, u64>(1_000), 1_000 * size_of::<(u64, u64)>());
        assert!((bare..2 * bare).contains(&of_thousand), "{of_thousand}");
    }
}
