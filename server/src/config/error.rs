//! What can be wrong with a configuration, said so that it can be put right.

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no TOML, a value has the wrong type, or there is no such key.
    #[error("{path}, line {line}, {}: {problem}", at_key(.key))]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Key with its table: `raft.heartbeat`. Empty if the line holds none.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A value that is out of bounds, or does not fit another.
    #[error("{key} = {value}: {allowed}")]
    Invalid {
        /// Key with its table.
        key: String,
        /// The value found.
        value: String,
        /// What is allowed, and why.
        allowed: String,
    },
}

fn at_key(key: &str) -> String {
    if key.is_empty() { "here".to_owned() } else { format!("key {key}") }
}

impl ConfigError {
    pub(crate) fn invalid(
        key: impl Into<String>,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Invalid { key: key.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// What the TOML reader found, with the place in the text.
    pub(super) fn parse(path: PathBuf, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text[..at].matches('\n').count() + 1;
        let problem = error.message().trim().to_owned();
        Self::Parse { path, line, key: key_at(text, line), problem }
    }
}

/// Key of a line, with the table that the line is in.
fn key_at(text: &str, line: usize) -> String {
    let table = text.lines().take(line).filter_map(table_of).last();
    let here = text.lines().nth(line - 1).unwrap_or_default();
    let key = match table_of(here) {
        None => here.split_once('=').map(|(key, _)| key.trim()),
        Some(_) => None,
    };
    [table, key].into_iter().flatten().collect::<Vec<_>>().join(".")
}

/// Name of the table that a line opens: `raft` of `[raft]`, `nodes` of `[[nodes]]`.
fn table_of(line: &str) -> Option<&str> {
    let opened = line.trim().strip_prefix('[')?;
    let opened = opened.strip_prefix('[').unwrap_or(opened);
    Some(opened.split(']').next().unwrap_or(opened).trim())
}
