//! Pages of the documentation that show commands with their output.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::text;

/// Runs the commands of each block of a page that shows output, where `…` stands for anything, at a node.
/// How many there were.
pub fn shows_what_happens(page: &str, endpoint: &str) -> usize {
    let names = [("ANABRANCH_ENDPOINT", endpoint)];
    blocks(page).iter().map(|block| run_block(block, &names)).sum()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a page that show output.
pub fn blocks(page: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join(page)).unwrap();
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// Runs the commands of one block, with `names` in their environment. How many there were.
pub fn run_block(block: &str, names: &[(&str, &str)]) -> usize {
    let binary = Path::new(env!("CARGO_BIN_EXE_anabranch")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for part in block.split("$ ").skip(1) {
        let (command, shown) = part.split_once('\n').unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(root()).env("PATH", &path);
        let output = shell.envs(names.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        let told = text(&output.stdout);
        assert!(fits(&told, shown), "{command}\n{told}\ndoes not fit\n{shown}");
        commands += 1;
    }
    commands
}

/// Whether `told` is `shown`, where a `…` stands for any text.
fn fits(told: &str, shown: &str) -> bool {
    let mut parts = shown.trim_end().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = told.trim_end().strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}
