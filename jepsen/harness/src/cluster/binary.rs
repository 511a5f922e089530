//! Which `anabranch` to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The binary given, else the one beside this executable.
///
/// That one is built first if it is missing, and under `cargo run` in any case, so that what is tested
/// is never older than its sources.
///
/// # Errors
/// If it cannot be found or built.
pub fn find_or_build(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "{} is no file", path.display());
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("find this executable")?;
    let folder = own.parent().context("this executable lies in no folder")?;
    let binary = folder.join("anabranch");
    if !binary.is_file() || std::env::var_os("CARGO").is_some() {
        build(folder)?;
    }
    ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(binary)
}

/// Builds into the profile that this executable was built in.
fn build(folder: &Path) -> anyhow::Result<()> {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--package",
            "anabranch-server",
            "--bin",
            "anabranch",
            "--profile",
            profile,
        ])
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "cargo build failed with {built}");
    Ok(())
}
