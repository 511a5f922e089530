//! Fewer faults that still break the same law: the plan is data, so faults can be left out.

use std::collections::BTreeSet;

use crate::run::{Settings, run};

/// Leaves out faults, half of them, then a quarter, down to one by one, as long as the same law is
/// still broken. At most `runs` runs.
///
/// # Errors
/// The simulation failed.
pub fn minimise(settings: &Settings, law: &str, runs: u32) -> anyhow::Result<Settings> {
    let mut best = settings.clone();
    best.echo = false;
    let first = run(&best)?;
    let count = first.plan.faults.len();
    let mut left: Vec<usize> = (0..count).filter(|nth| !best.without.contains(nth)).collect();
    let (mut chunk, mut spent) = (left.len().div_ceil(2).max(1), 0);
    while spent < runs && !left.is_empty() {
        let mut smaller = false;
        let mut start = 0;
        while start < left.len() && spent < runs {
            let end = (start + chunk).min(left.len());
            let without: BTreeSet<usize> =
                best.without.iter().copied().chain(left[start..end].iter().copied()).collect();
            let tried = Settings { without, ..best.clone() };
            spent += 1;
            let broken = run(&tried)
                .is_ok_and(|found| found.verdicts.iter().any(|v| v.name == law && v.broken > 0));
            if broken {
                best = tried;
                left.drain(start..end);
                smaller = true;
            } else {
                start = end;
            }
        }
        match (smaller, chunk) {
            (false, 1) => break,
            _ => chunk = (chunk / 2).max(1),
        }
    }
    Ok(best)
}
