//! Log lines of the process.

use std::io::IsTerminal;

use tracing::Level;

/// Writes log lines of `level` and above to standard error, in colour on a terminal.
///
/// For the process's `main`: a second call changes nothing.
pub fn log_to_stderr(level: Level) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Somebody else listens already: a test, or a program that embeds nodes.
    let _ = lines.try_init();
}
