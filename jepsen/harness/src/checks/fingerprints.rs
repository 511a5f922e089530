//! Laws 4 and 5: every node of every region holds the same, hash by hash.

use super::Verdict;
use crate::evidence::Evidence;

/// Frontier, stream sums, chain hashes and the hash of the global order agree on all nodes.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("fingerprints of all nodes are equal");
    let mut prints = evidence.prints.iter();
    let Some((first_name, first)) = prints.next() else { return verdict };
    for (name, print) in prints {
        let names = format!("{first_name} and {name}");
        let (one, other) = (first, print);
        verdict.check(one.frontier == other.frontier, || {
            format!("{names} hold {} and {}", one.frontier, other.frontier)
        });
        let count = (one.streams, one.events) == (other.streams, other.events);
        verdict.check(count, || format!("{names} count streams or events differently"));
        let differ: Vec<usize> = (0..one.buckets.len().max(other.buckets.len()))
            .filter(|at| one.buckets.get(*at) != other.buckets.get(*at))
            .collect();
        verdict.check(differ.is_empty(), || format!("{names} differ in stream buckets {differ:?}"));
        let forks: Vec<String> = one
            .chains
            .iter()
            .filter(|(origin, chain)| other.chains.get(*origin) != Some(*chain))
            .map(|(origin, (seq, _))| format!("{origin}:{seq}"))
            .collect();
        let agree = forks.is_empty() && one.chains.len() == other.chains.len();
        verdict.check(agree, || format!("{names} have other chain hashes, at {forks:?}"));
        let global = (one.global_position, &one.global_chain)
            == (other.global_position, &other.global_chain);
        verdict.check(global, || {
            let (one, other) = (one.global_position, other.global_position);
            format!("{names} have another hash of the global order, at {one} and {other}")
        });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_node_that_differs_in_one_hash_is_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds(), "{:?}", check(&evidence).words);
        evidence.prints.get_mut("us-1").unwrap().buckets[1] = vec![9; 16].into();
        assert_eq!(check(&evidence).broken, 1);
        let mut evidence = sound();
        let forked = evidence.prints.get_mut("us-1").unwrap().chains.first_entry().unwrap();
        forked.into_mut().1 = vec![9; 32].into();
        let verdict = check(&evidence);
        assert!(verdict.broken == 1 && verdict.words[0].contains("eu/"), "{:?}", verdict.words);
        let mut evidence = sound();
        evidence.prints.get_mut("us-1").unwrap().global_chain = vec![9; 32].into();
        assert_eq!(check(&evidence).broken, 1);
    }
}
