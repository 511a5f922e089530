//! A node's configuration: `node.toml`, then the environment, then flags; the later ones win.
//!
//! [`Config`] is what was written, [`ValidConfig`] what was checked. A node takes only the latter.

mod error;
mod file;
mod overrides;
#[cfg(test)]
mod tests;
mod units;
mod valid;

use std::path::Path;

pub use error::ConfigError;
pub use file::{
    Admission, Clock, Config, Listen, Log, Member, Peer, Raft, RequestLimits, Route, Tls,
};
pub use overrides::Overrides;
pub use units::{InvalidUnit, Size, Span};
pub use valid::{Listening, TlsFiles, ValidConfig};

impl Config {
    /// Reads a file. Paths in it that are not absolute are relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Parse`] with line and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Self::parse(path, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Tls { ca, cert, key, .. } = &mut config.tls;
        for file in [&mut config.data_dir, ca, cert, key] {
            if !file.as_os_str().is_empty() {
                *file = folder.join(&*file);
            }
        }
        Ok(config)
    }

    /// Reads a text. `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Parse`] with line and key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::parse(path.to_owned(), text, &error))
    }
}
