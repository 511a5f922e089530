//! What is measured, as it is named on the command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

/// One measurement of all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Appending.
    Append(Shape),
    /// Many events: disk, memory, start after kill -9, replay.
    History,
    /// From an append to a subscriber.
    Lag,
    /// From the loss of the leader to the next write.
    Loss,
    /// A second site takes in what it missed.
    CatchUp,
}

/// How an append case writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Events in one append.
    pub batch: usize,
    /// Writers, each with one append on its way.
    pub clients: usize,
    /// Bytes of an event's payload.
    pub payload: usize,
}

/// The cases of RESULTS.md.
pub fn usual() -> Vec<Case> {
    let append = |(batch, clients, payload)| Case::Append(Shape { batch, clients, payload });
    let shapes = [
        (1, 1, 256),
        (1, 64, 256),
        (100, 64, 256),
        (1000, 1, 256),
        (1000, 4, 256),
        (1000, 4, 1024),
    ];
    let others = [Case::History, Case::Lag, Case::Loss, Case::CatchUp];
    shapes.map(append).into_iter().chain(others).collect()
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(Shape { batch, clients, payload }) => {
                write!(f, "{batch}x{clients}x{payload}")
            }
            Self::History => f.write_str("history"),
            Self::Lag => f.write_str("lag"),
            Self::Loss => f.write_str("loss"),
            Self::CatchUp => f.write_str("catch-up"),
        }
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "history" => return Ok(Self::History),
            "lag" => return Ok(Self::Lag),
            "loss" => return Ok(Self::Loss),
            "catch-up" => return Ok(Self::CatchUp),
            _ => {}
        }
        let parts: Vec<&str> = text.split('x').collect();
        let [batch, clients, payload] = parts[..] else {
            bail!("{text} is no BATCHxCLIENTSxPAYLOAD, and not history, lag, loss or catch-up");
        };
        let number = |text: &str| text.parse::<usize>().with_context(|| format!("read {text}"));
        let (batch, clients, payload) = (number(batch)?, number(clients)?, number(payload)?);
        ensure!((1..=10_000).contains(&batch), "a batch of {batch}: 1 to 10000 events");
        ensure!((1..=90).contains(&clients), "{clients} clients: 1 to 90");
        ensure!(payload <= 65_536, "payloads of {payload} bytes: at most 65536");
        ensure!(batch * payload <= 4_000_000, "{text} has more than 4 MB in one append");
        Ok(Self::Append(Shape { batch, clients, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_as_they_are_written() {
        for case in usual() {
            assert_eq!(case.to_string().parse::<Case>().unwrap(), case);
        }
        for bad in ["", "1x1", "0x1x1", "1x91x1", "1x1x65537", "10000x1x65536", "ax1x1", "replay"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }
}
