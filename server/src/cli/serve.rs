//! `anabranch serve`.

use std::path::PathBuf;
use std::sync::Arc;

use anabranch_server::config::{Config, Overrides};
use anabranch_server::env::{OffsetClock, raise_open_files};
use anabranch_server::node::{Certificates, Environment, Node};
use anabranch_server::telemetry::log_to_stderr;
use anyhow::{Context, Result};

use super::Exit;
use super::stop::Stop;

/// Run a node
///
/// Reads its configuration from a file; flags win over environment variables, these over the file.
/// SIGTERM and SIGINT stop it in an orderly way; a second one stops it at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file; docs/configuration.md lists its keys
    #[arg(long, short, env = "ANABRANCH_CONFIG", value_name = "FILE", default_value = "node.toml")]
    config: PathBuf,
    /// Check the configuration and the files of `tls`, print what is in effect, and stop
    #[arg(long)]
    check: bool,
    /// For tests only: sets the wall clock off by the milliseconds in a file, which is read again and
    /// again
    // Neither a key nor a variable, so that nothing that lies about can set a clock wrong.
    #[arg(long, value_name = "FILE", hide = true)]
    test_clock_offset: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Where it says what to do about a node that does not start.
const START: &str = "the node does not start (docs/runbooks/does-not-start.md)";
/// Open files below which connections and segments of a busy node can use them up.
const OPEN_FILES: u64 = 8192;

/// Gets as many open files as the system gives, and says if they are few.
fn open_files() {
    match raise_open_files() {
        Ok(files) if files < OPEN_FILES => tracing::warn!(
            files,
            "this process may have few files and connections open; raise its limit (ulimit -n, LimitNOFILE=)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
}

/// Runs a node until a signal, or until it cannot go on.
pub async fn run(args: Args) -> Result<Exit> {
    let mut config = Config::read(&args.config)?;
    args.overrides.apply(&mut config);
    let effective = config.to_toml();
    let config = config.validate()?;
    if args.check {
        Certificates::read(&config)?.check(&config)?;
        print!("{effective}");
        return Ok(Exit::Done);
    }
    log_to_stderr(config.log_level());
    open_files();
    let environment = environment(args.test_clock_offset)?;
    let mut stop = Stop::listen()?;
    let node = tokio::select! {
        biased;
        () = stop.asked() => return Ok(Exit::Done),
        node = Node::start(config, environment) => node.context(START)?,
    };
    let exit = tokio::select! {
        biased;
        () = stop.asked() => Exit::Done,
        reason = node.failed() => {
            tracing::error!(reason, "the node cannot go on and stops; see docs/runbooks/README.md");
            Exit::Stopped
        }
    };
    tracing::info!("stopping; once more stops at once");
    tokio::select! {
        biased;
        () = stop.asked() => Ok(Exit::Failed),
        () = node.drain() => Ok(exit),
    }
}

fn environment(clock_offset: Option<PathBuf>) -> Result<Environment> {
    let system = Environment::system();
    let Some(file) = clock_offset else { return Ok(system) };
    let read = || format!("read the clock's offset from {}", file.display());
    let clock = OffsetClock::follow(file.clone()).with_context(read)?;
    let offset_ms = clock.offset_ms();
    tracing::warn!(?file, offset_ms, "TEST: this node's wall clock is wrong on purpose");
    Ok(Environment { clock: Arc::new(clock), ..system })
}
