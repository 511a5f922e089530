use std::path::Path;
use std::time::Duration;

use super::{Config, ConfigError, Listen, Overrides, Size, Span};

const GOOD: &str = r#"
cluster = "test"
region = "eu"
node = 2
data-dir = "data"

[tls]
ca = "ca.pem"
cert = "eu.pem"
key = "eu-key.pem"

[[nodes]]
id = 1
api = "10.0.0.1:7101"
raft = "10.0.0.1:7201"
gossip = "10.0.0.1:7301"

[[nodes]]
id = 2
api = "10.0.0.2:7101"
raft = "10.0.0.2:7201"
gossip = "10.0.0.2:7301"

[[regions]]
name = "us"
gossip = ["us-1.example:7301", "us-2.example:7301"]
"#;

fn good() -> Config {
    Config::parse(Path::new("node.toml"), GOOD).unwrap()
}
/// The message of the file with `add` in it, at its beginning.
fn message(add: &str) -> String {
    refused(&format!("{add}\n{GOOD}"))
}
/// The message of the file with a table or value at its end.
fn message_after(add: &str) -> String {
    refused(&format!("{GOOD}\n{add}"))
}
/// The message of the file with `from` replaced.
fn message_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    refused(&GOOD.replacen(from, to, 1))
}
fn refused(text: &str) -> String {
    let read = Config::parse(Path::new("node.toml"), text);
    read.and_then(Config::validate).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_good_file_says_who_the_node_is_and_whom_it_talks_to() {
    let valid = good().validate().unwrap();
    assert_eq!((valid.cluster(), valid.region().as_str(), valid.node().0), ("test", "eu", 2));
    assert_eq!(valid.listen().raft, "10.0.0.2:7201".parse().unwrap(), "its own entry of nodes");
    assert_eq!(valid.api_address(), "10.0.0.2:7101");
    let members: Vec<_> = valid.members().iter().map(ToString::to_string).collect();
    assert_eq!(members, ["eu", "us"]);
    assert_eq!(valid.voters.keys().copied().collect::<Vec<_>>(), [1, 2], "all, if not said");
    assert_eq!(valid.drift_max, Duration::from_millis(500));
    assert_eq!(valid.limits(), &anabranch_core::Limits::DEFAULT);
}

#[test]
fn the_defaults_are_valid_and_print_as_a_file_that_reads_back_the_same() {
    let config = good();
    let text = config.to_toml();
    assert_eq!(Config::parse(Path::new("printed"), &text).unwrap(), config, "{text}");
    assert!(text.contains("max-drift = \"500ms\"") && text.contains("segment-size = \"64MiB\""));
}

#[test]
fn what_does_not_fit_is_named_with_its_value_and_what_is_allowed() {
    let drift = "must be 50ms to 1m; the defence against bad clocks cannot be switched off";
    for (found, expected) in [
        (message("shards = 4"), "shards = 4: must be 1: this version runs one shard a region".into()),
        (message("log-level = \"loud\""), "log-level = \"loud\": must be one of error, warn, info, debug, trace".into()),
        (message("bootstrap = [9]"), "bootstrap = 9: must be the id of one of nodes".into()),
        (message("bootstrap = [1]"), "bootstrap = [1]: must hold this node, 2, or the node must have join = true".into()),
        (message_with("\"test\"", "\"\""), "cluster = \"\": must be 1 to 63 visible ASCII characters, the same on every node".into()),
        (message_with("\"eu\"", "\"EU\""), "region = \"EU\": must be 1 to 63 of a-z, 0-9 and -, not starting or ending with -".into()),
        (message_with("node = 2", "node = 7"), "node = 7: must be one of nodes, whose ids are [1, 2]".into()),
        (message_with("node = 2", ""), "node = 0: must be given: the number of this node, from 1, never reused".into()),
        (message_with("id = 2", "id = 1"), "nodes[1].id = 1: is another node's already".into()),
        (message_with("10.0.0.2:7201", "10.0.0.1:7201"), "nodes[1].raft = 10.0.0.1:7201: is another node's already".into()),
        (message_with("10.0.0.1:7101", "10.0.0.1"), "nodes[0].api = \"10.0.0.1\": must be host:port, reachable from the other nodes; port 0 is none".into()),
        (message_with("10.0.0.2:7301", "eu-2.example:7301"), "listen.gossip = \"eu-2.example:7301\": must be given as ip:port, because this node's gossip is a name".into()),
        (message_with("\"us\"", "\"eu\""), "regions[0].name = eu: is this node's own region; list only the others".into()),
        (message_with("key = \"eu-key.pem\"", ""), "tls.key = \"\": must name a PEM file: regions and nodes talk over mutual TLS only; `anabranch certs init` makes a set for development".into()),
        (message_with("key = \"eu", "client-certificates = true\nkey = \"eu"), "tls.client-certificates = true: needs tls.api = true: certificates are shown over TLS only".into()),
        (message_after("[[regions]]\nname = \"us\"\ngossip = [\"a:1\"]"), "regions[1].name = us: is listed twice".into()),
        (message_after("[[routes]]\nto = \"10.0.0.1\"\nvia = \"a:1\""), "routes[0].to = \"10.0.0.1\": must be host:port, reachable from the other nodes; port 0 is none".into()),
        (message_after("[[routes]]\nto = \"a:1\"\nvia = \"b:0\""), "routes[0].via = \"b:0\": must be host:port, reachable from the other nodes; port 0 is none".into()),
        (message_after("[[routes]]\nto = \"a:1\"\nvia = \"b:1\"\n[[routes]]\nto = \"a:1\"\nvia = \"c:1\""), "routes[1].to = a:1: has another route already".into()),
        (message_after("[[regions]]\nname = \"asia\"\ngossip = []"), "regions[1].gossip = []: must hold at least one host:port".into()),
        (message_after("[listen]\nraft = \"10.0.0.2:7101\""), "listen.raft = 10.0.0.2:7101: must differ from listen.api".into()),
        (message_after("[listen]\napi = \"localhost:1\""), "listen.api = \"localhost:1\": must be ip:port".into()),
        (message_after("[clock]\nmax-drift = \"0ms\""), format!("clock.max-drift = 0ms: {drift}")),
        (message_after("[clock]\nmax-drift = \"49ms\""), format!("clock.max-drift = 49ms: {drift}")),
        (message_after("[raft]\nheartbeat = \"9ms\""), "raft.heartbeat = 9ms: must be at least 10ms".into()),
        (message_after("[raft]\nelection-min = \"199ms\""), "raft.election-min = 199ms: must be at least twice raft.heartbeat, 100ms: one late heartbeat is no loss of the leader".into()),
        (message_after("[raft]\nelection-max = \"300ms\""), "raft.election-max = 300ms: must be greater than raft.election-min, 300ms".into()),
        (message_after("[limits]\npayload-size = \"2MiB\""), "limits.payload-size = 2MiB: must be 1B to 1MiB".into()),
        (message_after("[limits]\nappend-events = 0"), "limits.append-events = 0: must be 1 to 10000".into()),
        (message_after("[limits]\nappend-size = \"1KiB\""), "limits.append-size = 1KiB: must be at least limits.payload-size, 1MiB, or no such event could be appended".into()),
        (message_after("[admission]\nbytes = \"1MiB\""), "admission.bytes = 1MiB: must be at least limits.append-size, 4MiB".into()),
        (message_after("[log]\nsegment-size = \"2GiB\""), "log.segment-size = 2GiB: must be 64KiB to 1023MiB".into()),
        (message_after("[log]\ncache-size = \"1MiB\""), "log.cache-size = 1MiB: must be 16MiB to 64GiB of memory".into()),
        (message_after("[log]\nqueue-size = \"99999GiB\""), "log.queue-size = 99999GiB: must be 16MiB to 64GiB of memory".into()),
        (message_after("[log]\nreserve-size = \"9999GiB\""), "log.reserve-size = 9999GiB: must be at most 1GiB: it is written to the disk, and kept".into()),
        (message_after("[admission]\nbytes = \"65GiB\""), "admission.bytes = 65GiB: must be at most 64GiB".into()),
        (message_after("[raft]\nelection-max = \"1000000h\""), "raft.election-max = 1000000h: must be at most 5m".into()),
        (message_after("[limits]\nmetadata-entries = 65"), "limits.metadata-entries = 65: must be 1 to 64".into()),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_file_of_another_shape_is_refused_with_line_and_key() {
    let starts = |found: String, start: &str| assert!(found.starts_with(start), "{found}");
    starts(
        message("clustr = \"x\""),
        "node.toml, line 1, key clustr: unknown field `clustr`, expected one of `cluster`",
    );
    starts(
        message("shards = \"one\""),
        "node.toml, line 1, key shards: invalid type: string \"one\", expected u16",
    );
    starts(message("shards ="), "node.toml, line 1, key shards: ");
    let line = GOOD.lines().count() + 3;
    let at = |key: &str| format!("node.toml, line {line}, key {key}: ");
    starts(
        message_after("[raft]\nheartbeat = \"soon\""),
        &(at("raft.heartbeat")
            + "\"soon\" is no duration: write a whole number and a unit, as in 500ms"),
    );
    starts(
        message_after("[raft]\nheartbeat = 5"),
        &(at("raft.heartbeat") + "invalid type: integer `5`"),
    );
    starts(
        message_after("[log]\ncache-size = \"64MB\""),
        &(at("log.cache-size") + "\"64MB\" is no size: write a whole number and a unit"),
    );
    starts(message_after("[[nodes]]\nidd = 3"), &(at("nodes.idd") + "unknown field `idd`"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = Config::read(Path::new("/nowhere/node.toml")).unwrap_err();
    assert!(matches!(&missing, ConfigError::Read { .. }));
    assert_eq!(missing.to_string(), "read configuration /nowhere/node.toml");
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, GOOD.replace("eu.pem", "/etc/eu.pem")).unwrap();
    let config = Config::read(&file).unwrap();
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.tls.ca, dir.path().join("ca.pem"));
    assert_eq!(config.tls.cert, Path::new("/etc/eu.pem"));
}

#[test]
fn overrides_win_over_the_file_and_leave_the_rest() {
    let mut config = good();
    let file = config.clone();
    Overrides::default().apply(&mut config);
    assert_eq!(config, file, "nothing given, nothing changed");
    let given = Overrides {
        node: Some(1),
        join: Some(true),
        listen_raft: Some("0.0.0.0:1".into()),
        ..Overrides::default()
    };
    given.apply(&mut config);
    let listen = Listen { raft: Some("0.0.0.0:1".into()), ..Listen::default() };
    assert_eq!(config, Config { node: 1, join: true, listen, ..file });
}

#[test]
fn a_joining_node_need_not_be_among_the_first() {
    let config = Config { bootstrap: vec![1], join: true, ..good() };
    let valid = config.validate().unwrap();
    assert!(valid.join);
    assert_eq!(valid.voters.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn units_of_limits_reach_the_node() {
    let mut config = good();
    config.limits.payload_size = Size(1000);
    config.clock.max_drift = Span::millis(50);
    let valid = config.validate().unwrap();
    assert_eq!((valid.limits().payload_bytes, valid.drift_max), (1000, Duration::from_millis(50)));
}
