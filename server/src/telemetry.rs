//! Log lines of the process.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that tell at `info` what is of use only to those who debug them, and what of theirs is
/// heard instead.
const TALKATIVE: [(&str, LevelFilter); 5] = [
    ("sled", LevelFilter::WARN),
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    // It warns of a follower that is down with every heartbeat: half a million lines a day. Who does
    // not answer is said once, by `shard::absent`.
    ("openraft", LevelFilter::ERROR),
    // Errors of a node that stops, as asked; what stops one that was not asked is said by the node.
    ("openraft::raft::raft_inner", LevelFilter::OFF),
];

/// Writes log lines of `level` and above to standard error, in colour on a terminal. At `debug` and
/// `trace` talkative libraries say all.
///
/// For the process's `main`: a second call changes nothing.
pub fn log_to_stderr(level: Level) {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Somebody else listens already: a test, or a program that embeds nodes.
    let _ = tracing_subscriber::registry().with(filter(level)).with(lines).try_init();
}

fn filter(level: Level) -> Targets {
    let all = Targets::new().with_default(level);
    let quiet = |(library, heard): (&'static str, LevelFilter)| (library, heard.min(level.into()));
    match level {
        Level::DEBUG | Level::TRACE => all,
        _ => all.with_targets(TALKATIVE.map(quiet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_at_info_and_heard_at_debug() {
        let info = filter(Level::INFO);
        assert!(info.would_enable("anabranch_server::node", &Level::INFO));
        for level in [Level::INFO, Level::WARN] {
            let filter = filter(level);
            assert!(filter.would_enable("openraft::engine", &Level::ERROR));
            assert!(!filter.would_enable("openraft::core::heartbeat::worker", &Level::WARN));
            assert!(!filter.would_enable("openraft::raft::raft_inner", &Level::ERROR));
            assert!(filter.would_enable("sled", &Level::WARN));
        }
        assert!(!info.would_enable("sled", &Level::INFO));
        assert!(!info.would_enable("anabranch_server::node", &Level::DEBUG));
        assert!(filter(Level::DEBUG).would_enable("openraft::engine", &Level::DEBUG));
        assert!(!filter(Level::ERROR).would_enable("sled", &Level::WARN));
    }
}
