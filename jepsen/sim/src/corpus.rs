//! Runs that once broke a law: they run first, for ever.

use std::str::FromStr;

use crate::nemesis::Choice;

/// The corpus of the repository. A line a run: seed, simulated seconds, kinds of faults if only some or
/// `plain` for no scenes, and after `#` what it found.
const CORPUS: &str = include_str!("../corpus.txt");

/// A run to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The seed.
    pub seed: u64,
    /// Simulated seconds of work and faults.
    pub seconds: u64,
    /// What faults are drawn from.
    pub choice: Choice,
}

impl FromStr for Job {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let mut number = |what: &str| {
            let word = words.next().ok_or_else(|| format!("{line:?} has no {what}"))?;
            word.parse::<u64>().map_err(|error| format!("{line:?}: {what}: {error}"))
        };
        let (seed, seconds) = (number("seed")?, number("seconds")?);
        let mut choice = Choice::default();
        for word in words {
            match word {
                "plain" => choice.plain = true,
                kind => choice.only.push(kind.parse()?),
            }
        }
        Ok(Self { seed, seconds, choice })
    }
}

/// All runs of the corpus.
///
/// # Errors
/// The line that cannot be read.
pub fn jobs() -> Result<Vec<Job>, String> {
    let lines = CORPUS.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Job::from_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Kind;

    #[test]
    fn the_corpus_can_be_read() {
        assert!(!jobs().unwrap().is_empty());
    }

    #[test]
    fn lines_name_seed_seconds_and_kinds() {
        let job: Job = "7 30 kill full-disk # lost a vote".parse().unwrap();
        let choice = Choice { only: vec![Kind::Kill, Kind::FullDisk], plain: false };
        assert_eq!(job, Job { seed: 7, seconds: 30, choice });
        assert!("7 30 plain".parse::<Job>().unwrap().choice.plain);
        for wrong in ["7", "x 30", "7 30 flood"] {
            assert!(wrong.parse::<Job>().is_err(), "{wrong}");
        }
    }
}
