//! The binary `anabranch`: the server, and the commands to work with it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
