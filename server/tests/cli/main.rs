//! The binary, as people meet it.

mod aggregate;
mod classes;
mod conflicts;
mod link;
mod page;
#[path = "../support/ports.rs"]
mod ports;
mod region;
mod rules;
mod usage;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// The binary, without whatever the caller's environment says.
pub fn anabranch<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anabranch"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANABRANCH_") {
            command.env_remove(name);
        }
    }
    command
}

pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    anabranch(args).output().expect("the binary runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

/// The output of a run that must succeed.
pub fn done<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = run(args);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// An authority in `dir`, and a certificate of the region.
pub fn certificates(dir: &Path, region: &str) {
    done(["certs", "init", &dir.display().to_string(), "--regions", region]);
}

/// A configuration of one node alone, with its certificates in `dir`.
pub fn write_config(dir: &Path, region: &str, ports: [u16; 3], others: &str) {
    let [api, raft, gossip] = ports;
    let config = format!(
        r#"
cluster = "test"
region = "{region}"
node = 1
data-dir = "data-{region}"
[tls]
ca = "ca.pem"
cert = "{region}.pem"
key = "{region}-key.pem"
[[nodes]]
id = 1
api = "127.0.0.1:{api}"
raft = "127.0.0.1:{raft}"
gossip = "127.0.0.1:{gossip}"
{others}
"#
    );
    std::fs::write(dir.join(format!("{region}.toml")), config).unwrap();
}
