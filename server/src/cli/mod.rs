//! The command line. Each command is a file: its arguments, and what it does.

mod aggregate;
mod append;
mod certs;
mod classes;
mod conflicts;
mod connect;
mod export;
mod import;
mod members;
mod print;
mod read;
mod serve;
mod status;
mod stop;
mod subscribe;
mod verify;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use anabranch_server::config::ConfigError;
use clap::{Parser, Subcommand};
use print::clean;
use tokio::runtime::Builder;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; `verify`: the regions agree
  1  refused or failed, nothing is in doubt; `verify`: the regions differ, or cannot be compared
  2  wrong usage or configuration
  3  `append`, `import`, `aggregate`, `classes`, `conflicts`: the outcome is unknown, it may have been written
  4  `serve`: the node stopped by itself, because it could not go on";

/// An event store that several regions write at the same time.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Append(append::Args),
    Read(read::Args),
    Subscribe(subscribe::Args),
    #[command(subcommand)]
    Aggregate(aggregate::Command),
    #[command(subcommand)]
    Conflicts(conflicts::Command),
    #[command(subcommand)]
    Classes(classes::Command),
    Import(import::Args),
    Export(export::Args),
    Status(status::Args),
    Verify(verify::Args),
    Members(members::Args),
    #[command(subcommand)]
    Certs(certs::Command),
    /// Show what Anabranch does: three regions in one process, a cut, a death, and the proof
    Demo(anabranch_server::demo::DemoArgs),
}

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unknown = 3,
    Stopped = 4,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    end_with_the_reader();
    // Wrong usage ends here, with code 2.
    let command = Cli::parse().command;
    let runtime = Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(command)));
    done.unwrap_or_else(|error| {
        eprintln!("error: {}", clean(&format!("{error:#}")));
        // A value that cannot be used is wrong usage, wherever it was written.
        let is_usage =
            |error: &(dyn Error + 'static)| error.is::<ConfigError>() || error.is::<WrongUsage>();
        let usage = error.chain().any(is_usage);
        if usage { Exit::Usage.into() } else { Exit::Failed.into() }
    })
}

/// Flags that cannot mean anything.
#[derive(Debug, PartialEq, Eq)]
struct WrongUsage(String);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Error for WrongUsage {}

/// Lets a reader that has seen enough (`status | head`) end the command quietly: `println!` panics
/// then.
fn end_with_the_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(Exit::Done as i32);
        }
        report(panic);
    }));
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Threads that drive tasks: half of the cores, since the log's own thread and those who follow it need
/// the others. A thread more than there is work for costs a switch between threads at every step of an
/// append (ADR 0012).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let exit = match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Append(args) => append::run(args).await,
        Command::Read(args) => read::run(args).await,
        Command::Subscribe(args) => subscribe::run(args).await,
        Command::Aggregate(command) => aggregate::run(command).await,
        Command::Conflicts(command) => conflicts::run(command).await,
        Command::Classes(command) => classes::run(command).await,
        Command::Import(args) => import::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Members(args) => members::run(args).await,
        Command::Certs(command) => certs::run(command),
        Command::Demo(args) => return anabranch_server::demo::run(args).await,
    };
    exit.map(ExitCode::from)
}
