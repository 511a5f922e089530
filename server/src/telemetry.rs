//! Log lines of the process.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that tell at `info` what is of use only to those who debug them.
const TALKATIVE: [&str; 4] = ["openraft", "sled", "h2", "hyper"];

/// Writes log lines of `level` and above to standard error, in colour on a terminal. Talkative
/// libraries say at `info` only what is a warning; at `debug` and `trace` they say all.
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
    match level {
        Level::INFO => all.with_targets(TALKATIVE.map(|library| (library, LevelFilter::WARN))),
        _ => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_at_info_and_heard_at_debug() {
        let info = filter(Level::INFO);
        assert!(info.would_enable("anabranch_server::node", &Level::INFO));
        assert!(info.would_enable("openraft::engine", &Level::WARN));
        assert!(!info.would_enable("openraft::engine", &Level::INFO));
        assert!(!info.would_enable("anabranch_server::node", &Level::DEBUG));
        assert!(filter(Level::DEBUG).would_enable("openraft::engine", &Level::DEBUG));
        assert!(!filter(Level::ERROR).would_enable("openraft::engine", &Level::WARN));
    }
}
