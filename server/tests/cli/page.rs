//! Pages of the documentation that show commands with their output.

use std::path::Path;
use std::process::Command;

use crate::text;

/// Runs the commands of each block of a page that shows output, where `…` stands for anything, at a node.
/// How many there were.
pub fn shows_what_happens(page: &str, endpoint: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join(page)).unwrap();
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let binary = Path::new(env!("CARGO_BIN_EXE_anabranch")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for part in blocks.flat_map(|block| block.split("$ ").skip(1)) {
        let (command, shown) = part.split_once('\n').unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&root).env("PATH", &path);
        let output = shell.env("ANABRANCH_ENDPOINT", endpoint).output().unwrap();
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
