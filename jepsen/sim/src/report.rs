//! A run in words, for people.

use std::fmt::Write;

use anabranch_history::excerpt;

use crate::cluster::Shape;
use crate::run::{Findings, Settings};

/// Lines of a history's excerpt that are shown for a broken law.
const EXCERPT_LINES: usize = 40;

/// The command that repeats a run.
pub fn command(settings: &Settings, planted: &[String]) -> String {
    let mut command = "cargo run --release -p anabranch-sim".to_owned();
    if !planted.is_empty() {
        command.push_str(" --features planted-bugs");
    }
    let _ = write!(command, " -- --seed {}", settings.seed);
    let _ = write!(command, " --seconds {}", settings.lasts.as_secs());
    for kind in &settings.choice.only {
        let _ = write!(command, " --only {}", kind.slug());
    }
    if settings.choice.plain {
        command.push_str(" --plain");
    }
    for nth in &settings.without {
        let _ = write!(command, " --without {nth}");
    }
    for bug in planted {
        let _ = write!(command, " --plant {bug}");
    }
    command
}

/// What was found, law by law; of a broken law the smallest part of the history that shows it.
pub fn verdicts(findings: &Findings) -> String {
    let mut text = String::new();
    for verdict in &findings.verdicts {
        let said = match (verdict.broken, verdict.facts) {
            (0, 0) => "not tested".to_owned(),
            (0, facts) => format!("holds, {facts} facts"),
            (broken, facts) => format!("BROKEN, {broken} of {facts} facts"),
        };
        let _ = writeln!(text, "  {:18} {:58} {said}", verdict.name, verdict.law);
        for words in &verdict.words {
            let _ = writeln!(text, "      {words}");
        }
        for note in verdict.notes.iter().take(3) {
            let _ = writeln!(text, "      (noted: {note})");
        }
    }
    text
}

/// The smallest part of the history that shows what was broken.
pub fn excerpts(findings: &Findings) -> String {
    let mut text = String::new();
    for verdict in findings.verdicts.iter().filter(|verdict| verdict.broken > 0) {
        let _ = writeln!(text, "what shows that {} is broken:", verdict.name);
        let excerpt = excerpt(&findings.evidence, verdict);
        let lines: Vec<&str> = excerpt.lines().collect();
        for line in lines.iter().take(EXCERPT_LINES) {
            let _ = writeln!(text, "    {line}");
        }
        if lines.len() > EXCERPT_LINES {
            let _ = writeln!(text, "    and {} lines more", lines.len() - EXCERPT_LINES);
        }
    }
    text
}

/// What went wrong, and what came of it, in one paragraph.
pub fn summary(findings: &Findings) -> String {
    let Shape { nodes, .. } = &findings.shape;
    let struck: Vec<String> =
        findings.struck.iter().map(|(kind, times)| format!("{times} × {}", kind.name())).collect();
    let (ops, faults) = (findings.evidence.history.ops.len(), struck.join(", "));
    format!(
        "{} regions, {} nodes, {:.1} simulated seconds, {ops} operations; {}\nfingerprint {}",
        nodes.len(),
        nodes.iter().sum::<usize>(),
        findings.simulated.as_secs_f64(),
        if faults.is_empty() { "nothing went wrong".to_owned() } else { faults },
        findings.fingerprint(),
    )
}
