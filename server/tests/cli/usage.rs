//! Help, wrong usage, configuration.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::tempdir;

use crate::{anabranch, certificates, done, run, text, write_config};

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = done(["--help"]);
    for word in [
        "serve",
        "append",
        "read",
        "subscribe",
        "aggregate",
        "classes",
        "import",
        "export",
        "status",
        "verify",
        "members",
        "certs",
        "demo",
        "Exit codes:",
        "outcome is unknown",
    ] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    for command in
        ["define", "list", "get", "watch", "query", "do"].map(|command| ["aggregate", command])
    {
        assert!(done([command[0], command[1], "--help"]).contains("Usage:"), "{command:?}");
    }
    for command in ["serve", "append", "read", "import", "export", "status", "verify", "members"] {
        assert!(done([command, "--help"]).contains("Usage:"), "{command}");
    }
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for args in [
        &["frobnicate"][..],
        &["read"],
        &["read", "--all", "--stream", "s"],
        &["append", "s", "t", "--expect", "maybe"],
        &["members", "--voters", "1,2"],
        &["aggregate"],
        &["classes", "declare", "account"],
        &["classes", "hand-over", "account", "us", "--epoch", "1"],
        &["aggregate", "do", "stock-1"],
        &["aggregate", "do", "stock-1", "on_hand"],
        &["aggregate", "query", "stock", "--where", "lines"],
        &["aggregate", "define", "stock.yaml"],
        &["serve", "--config", "/nowhere/node.toml"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn check_prints_what_is_in_effect_flags_before_environment_before_file() {
    let dir = tempdir().unwrap();
    certificates(dir.path(), "eu");
    write_config(dir.path(), "eu", [7101, 7201, 7301], "");
    let file = dir.path().join("eu.toml");
    let check = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = anabranch(["serve", "--check", "--config"]);
        command.arg(&file).args(flags).envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shows =
        |printed: String, line: &str| assert!(printed.lines().any(|l| l == line), "{printed}");
    shows(check(&[], &[]), "cluster = \"test\"");
    let variable = [("ANABRANCH_CLUSTER", "of-variable")];
    shows(check(&[], &variable), "cluster = \"of-variable\"");
    shows(check(&["--cluster", "of-flag"], &variable), "cluster = \"of-flag\"");
    shows(check(&["--join"], &[]), "join = true");
    shows(check(&["--join", "false"], &[("ANABRANCH_JOIN", "true")]), "join = false");
    shows(check(&[], &[]), "heartbeat = \"100ms\"");
}

#[test]
fn a_configuration_that_does_not_fit_ends_with_code_2_and_says_what_is_allowed() {
    let dir = tempdir().unwrap();
    write_config(dir.path(), "eu", [7101, 7201, 7301], "[clock]\nmax-drift = \"0ms\"\n");
    let output = anabranch(["serve", "--config"]).arg(dir.path().join("eu.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("clock.max-drift = 0ms: must be 50ms to 1m"), "{said}");
}

#[test]
fn a_clock_is_set_wrong_by_a_hidden_flag_only() {
    assert!(!done(["serve", "--help"]).contains("clock-offset"));
    let dir = tempdir().unwrap();
    write_config(dir.path(), "eu", [7101, 7201, 7301], "");
    let config = dir.path().join("eu.toml");
    let mut command = anabranch(["serve", "--test-clock-offset", "/nowhere/offset", "--config"]);
    let output = command.arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("read the clock's offset from /nowhere/offset"), "{said}");
    // Were the variable heeded, the node would not get as far as its certificates.
    let mut command = anabranch(["serve", "--config"]);
    let output =
        command.arg(&config).env("ANABRANCH_TEST_CLOCK_OFFSET", "/nowhere/offset").output();
    let said = text(&output.unwrap().stderr);
    assert!(!said.contains("offset") && said.contains("ca.pem"), "{said}");
}

#[test]
fn check_looks_into_the_files_of_certificates() {
    let dir = tempdir().unwrap();
    write_config(dir.path(), "eu", [7101, 7201, 7301], "");
    let start = |flags: &[&str]| {
        let mut command = anabranch(["serve", "--config"]);
        command.arg(dir.path().join("eu.toml")).args(flags).output().unwrap()
    };
    certificates(dir.path(), "us");
    for flags in [&["--check"][..], &[]] {
        let output = start(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("tls.cert = ") && said.contains("eu.pem: cannot be read: "),
            "{said}"
        );
    }
    certificates(dir.path(), "eu");
    assert!(start(&["--check"]).status.success());
}

#[test]
fn a_demo_that_cannot_begin_says_why_and_leaves_nothing_behind() {
    let folders = tempdir().unwrap();
    for (flags, why) in [
        (["--input", "/nowhere/events.ndjson"], "/nowhere/events.ndjson"),
        (["--port", "65535"], "port 65535: "),
    ] {
        let mut command = anabranch(["demo"]);
        let output = command.args(flags).env("TMPDIR", folders.path()).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(!said.contains("folders are kept"), "{said}");
        assert_eq!(std::fs::read_dir(folders.path()).unwrap().count(), 0, "{flags:?}");
    }
}

/// Every page that a message sends a person to.
#[test]
fn runbooks_that_messages_name_are_there_and_the_index_lists_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Two are put together where they are said.
    let mut named = BTreeSet::from(["region-set-back".to_owned(), "clock".to_owned()]);
    for folder in ["server/src", "server/log/src", "replication", "client/src"] {
        gather_runbooks(&root.join(folder), &mut named);
    }
    let index = std::fs::read_to_string(root.join("docs/runbooks/README.md")).unwrap();
    assert!(named.contains("lost-disk") && named.contains("damaged-record"), "{named:?}");
    for page in named {
        let file = format!("{page}.md");
        assert!(root.join("docs/runbooks").join(&file).exists(), "{file}");
        assert!(page == "README" || index.contains(&format!("({file})")), "{file} is not listed");
    }
}

fn gather_runbooks(folder: &Path, named: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather_runbooks(&path, named);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let pages =
                source.split("docs/runbooks/").skip(1).filter_map(|at| at.split_once(".md"));
            let pages = pages.map(|(page, _)| page).filter(|page| !page.starts_with('{'));
            named.extend(pages.map(str::to_owned));
        }
    }
}

#[test]
fn what_cannot_be_an_address_is_refused_before_anybody_is_asked() {
    for endpoint in ["", "nonsense", "https://127.0.0.1:1"] {
        for command in
            [&["append", "s", "t"][..], &["read", "--all"], &["status"], &["export", "-"]]
        {
            let output = run(command.iter().copied().chain(["--endpoint", endpoint]));
            let said = text(&output.stderr);
            assert!(said.contains("--endpoint"), "{command:?}: {said}");
            assert_eq!(output.status.code(), Some(2), "{command:?} {endpoint:?}: {said}");
        }
    }
}

#[test]
fn nobody_at_the_address_is_an_error_that_says_so() {
    let output = run(["status", "--endpoint", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = "error: connect to http://127.0.0.1:1: Connection refused (os error 111)\n";
    assert_eq!(text(&output.stderr), said, "the cause, once");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let dir = tempdir().unwrap();
    certificates(dir.path(), "eu");
    write_config(dir.path(), "eu", [7101, 7201, 7301], "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = anabranch(["serve", "--check", "--config"]);
    let output = command.arg(dir.path().join("eu.toml")).stdout(writer).output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}
