//! Processes of one run each, in which the system's clock stands still (see `still_clock.c`), and which
//! end though something in them goes round for ever.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

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

/// Ends this process once it has used so many seconds of processor time: simulated time does not pass
/// while something goes round, so no simulated deadline ends it.
///
/// # Errors
/// The system refuses.
pub fn bound_processor_time(seconds: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 5) })?)
}

/// Whether a process ended by that bound.
pub fn went_round(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::XCPU.as_raw())
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
