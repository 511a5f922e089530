//! Processes of one run each, in which the system's clock stands still and its random bytes follow from the
//! seed (see `still_system.c`), and which end though something in them goes round for ever.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

/// Set in a process that runs one seed, to that seed.
const STILL: &str = "ANABRANCH_SIM_STILL";

/// Whether this process runs one seed: its clock stands still.
pub fn is_still() -> bool {
    std::env::var_os(STILL).is_some()
}

/// This program, to be started for one seed.
///
/// # Errors
/// The system does not say where it is.
pub fn this_program(seed: u64) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(STILL, seed.to_string());
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

/// Runs this program again with the same arguments for one seed, to its end.
pub fn again(seed: u64) -> ExitCode {
    let ended = this_program(seed).and_then(|mut it| it.args(std::env::args_os().skip(1)).status());
    match ended {
        Ok(status) => status.code().map_or(ExitCode::from(2), |code| ExitCode::from(code as u8)),
        Err(error) => {
            eprintln!("the simulation could not be started: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;
    use std::time::Instant;

    use quinn::rustls::crypto::ring;
    use rand::TryRngCore;
    use rand::rngs::OsRng;

    use super::*;

    const DRAWN: &str = "drawn: ";

    /// What everything draws that asks the system itself: each with a crate, and a way to ask, of its own.
    fn draws() -> String {
        let mut of_ring = [0_u8; 13];
        ring::default_provider().secure_random.fill(&mut of_ring).unwrap();
        let of_rand = OsRng.try_next_u64().unwrap();
        let of_maps = RandomState::new().hash_one(1);
        format!("{of_ring:?} {of_rand} {of_maps} {:?}", Instant::now())
    }

    /// Draws in a process of its own for `seed`, which runs this test again.
    fn drawn_for(seed: u64) -> String {
        let mut child = this_program(seed).unwrap();
        let test = "still::tests::what_the_system_draws_follows_from_the_seed";
        // As in a simulation, nobody else draws.
        child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        let said = String::from_utf8(child.output().unwrap().stdout).unwrap();
        let drawn = said.lines().find_map(|line| line.split_once(DRAWN));
        drawn.unwrap_or_else(|| panic!("it drew nothing: {said}")).1.to_owned()
    }

    #[test]
    fn what_the_system_draws_follows_from_the_seed() {
        if is_still() {
            println!("{DRAWN}{}", draws());
            return;
        }
        let one = drawn_for(7);
        assert_eq!(drawn_for(7), one);
        let parts = |drawn: &str| drawn.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_ne!(parts(&drawn_for(8)), parts(&one));
        assert_ne!(draws(), draws(), "elsewhere the system is asked");
    }
}
