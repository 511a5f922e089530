//! The bank of planted bugs: what the suite must find to be believed.
//!
//! Only with the feature `planted-bugs`; without it the code under test has no switches at all.

/// Puts bugs back into the code under test, for the rest of the process.
///
/// # Errors
/// There is no such bug, or this binary was built without any.
#[cfg(feature = "planted-bugs")]
pub fn plant(names: &[String]) -> anyhow::Result<()> {
    let bugs = names.iter().map(|name| name.parse::<anabranch_core::planted::Bug>());
    let bugs: Vec<_> = bugs.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    anabranch_core::planted::plant(&bugs);
    Ok(())
}

/// As above.
#[cfg(not(feature = "planted-bugs"))]
pub fn plant(names: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(names.is_empty(), "build with `--features planted-bugs` to plant {names:?}");
    Ok(())
}

/// Names of all bugs in the bank.
#[cfg(feature = "planted-bugs")]
pub fn all() -> Vec<String> {
    anabranch_core::planted::Bug::ALL.iter().map(|bug| bug.name().to_owned()).collect()
}

/// None: this binary was built without any.
#[cfg(not(feature = "planted-bugs"))]
pub fn all() -> Vec<String> {
    Vec::new()
}
