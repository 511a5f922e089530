//! The binary `anabranch`: the server, and the commands to work with it.

mod cli;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request is some fifty small allocations, many of which another thread frees.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
