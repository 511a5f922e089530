//! Processes in which the system's clock stands still: see `still_clock.c`.

use std::io;
use std::process::{Command, ExitCode};

/// Set in a process that runs one seed.
const STILL: &str = "ANABRANCH_SIM_STILL_CLOCK";

/// Whether the clock of this process stands still.
pub fn is_still() -> bool {
    std::env::var_os(STILL).is_some()
}

/// This program, to be started with a still clock.
///
/// # Errors
/// The system does not say where it is.
pub fn this_program() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(STILL, "1");
    Ok(command)
}

/// Runs this program again with the same arguments and a still clock, to its end.
pub fn again() -> ExitCode {
    let ended = this_program().and_then(|mut it| it.args(std::env::args_os().skip(1)).status());
    match ended {
        Ok(status) => status.code().map_or(ExitCode::from(2), |code| ExitCode::from(code as u8)),
        Err(error) => {
            eprintln!("the simulation could not be started: {error}");
            ExitCode::from(2)
        }
    }
}
