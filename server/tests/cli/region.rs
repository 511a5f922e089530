//! Two regions of one node each, worked with through the binary.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};

use crate::link::Link;
use crate::ports::free_address;
use crate::{anabranch, certificates, done, run, text, write_config};

/// How long a test waits for what should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

pub struct Region {
    config: PathBuf,
    pub endpoint: String,
    clock_offset: Option<PathBuf>,
    process: Option<Child>,
}

impl Region {
    pub fn start(&mut self) {
        let mut command = anabranch(["serve", "--log-level", "warn", "--config"]);
        command.arg(&self.config).stderr(Stdio::inherit());
        if let Some(file) = &self.clock_offset {
            command.arg("--test-clock-offset").arg(file);
        }
        self.process = Some(command.spawn().unwrap());
        let ready = || {
            let output = run(["append", "probe", "Probed", "--endpoint", &self.endpoint]);
            output.status.success()
        };
        eventually("the region takes appends", ready);
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        terminate(self.process.take().unwrap())
    }
}

pub fn terminate(mut process: Child) -> Option<i32> {
    let id = process.id().to_string();
    let killed = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(killed.success());
    process.wait().unwrap().code()
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !happened() {
        assert!(Instant::now() < deadline, "not soon: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports of API, Raft and gossip.
fn ports() -> [u16; 3] {
    std::array::from_fn(|_| free_address().port())
}

pub fn one_region() -> (TempDir, Region) {
    let dir = tempdir().unwrap();
    certificates(dir.path(), "eu");
    let ports = ports();
    write_config(dir.path(), "eu", ports, "");
    let mut region = Region {
        config: dir.path().join("eu.toml"),
        endpoint: format!("http://127.0.0.1:{}", ports[0]),
        clock_offset: None,
        process: None,
    };
    region.start();
    (dir, region)
}

fn two_regions() -> (TempDir, [Region; 2]) {
    let (dir, mut regions) = two_regions_down();
    regions.iter_mut().for_each(Region::start);
    (dir, regions)
}

pub fn two_regions_down() -> (TempDir, [Region; 2]) {
    let ports = [ports(), ports()];
    let [eu, us] = ports.map(gossip);
    regions_seeing(ports, [us, eu])
}

/// Two regions, and the link that they see each other through.
pub fn two_linked_regions() -> (TempDir, [Region; 2], Link) {
    let ports = [ports(), ports()];
    let link = Link::between(ports.map(gossip));
    let (dir, mut regions) = regions_seeing(ports, link.ends);
    regions.iter_mut().for_each(Region::start);
    (dir, regions, link)
}

fn gossip([_, _, port]: [u16; 3]) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Regions that are down; each sees the other at the address in its place.
fn regions_seeing(ports: [[u16; 3]; 2], seen_at: [SocketAddr; 2]) -> (TempDir, [Region; 2]) {
    let dir = tempdir().unwrap();
    done(["certs", "init", &dir.path().display().to_string(), "--regions", "eu,us"]);
    let region = |name: &str, other: &str, nth: usize| {
        let others = format!("[[regions]]\nname = \"{other}\"\ngossip = [\"{}\"]\n", seen_at[nth]);
        write_config(dir.path(), name, ports[nth], &others);
        Region {
            config: dir.path().join(format!("{name}.toml")),
            endpoint: format!("http://127.0.0.1:{}", ports[nth][0]),
            clock_offset: None,
            process: None,
        }
    };
    let regions = [region("eu", "us", 0), region("us", "eu", 1)];
    (dir, regions)
}

fn history(dir: &Path, lines: usize) -> String {
    let text: String = (0..lines).map(line).collect();
    let path = dir.join("history.ndjson.zst");
    std::fs::write(&path, zstd::encode_all(text.as_bytes(), 3).unwrap()).unwrap();
    path.display().to_string()
}

/// A line of a history.
fn line(nth: usize) -> String {
    let region = ["eu", "us"][nth % 2];
    let (stream, time) = (nth % 7, 1_312_242_084 + nth);
    format!(
        r#"{{"region":"{region}","time":{time},"stream":"file-{stream}","type":"FileChanged","data":{{"nth":{nth}}}}}"#
    ) + "\n"
}

#[test]
fn two_regions_are_imported_into_compared_exported_and_restarted() {
    let (dir, mut regions) = two_regions();
    let [eu, us] = [&regions[0], &regions[1]].map(|region| region.endpoint.clone());
    let both = format!("{eu},{us}");
    let file = history(dir.path(), 2_000);

    let import = |at: &str, region: &str| {
        done(["import", &file, "--region", region, "--batch", "300", "--endpoint", at])
    };
    let said = |added, known| {
        format!(
            "{added} events added, {known} were there already, 1000 of other regions, up to line \
             2000\n"
        )
    };
    assert_eq!(import(&eu, "eu"), said(1000, 0));
    assert_eq!(import(&us, "us"), said(1000, 0));
    assert_eq!(import(&eu, "eu"), said(0, 1000));

    let verified = done(["verify", "--wait", "60", "--endpoint", &both]);
    assert!(verified.starts_with("equal: all "), "{verified}");
    let verified = done(["verify", "--wait", "60", "--json", "--endpoint", &both]);
    let verified: serde_json::Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["outcome"], "equal", "{verified}");
    let same =
        done(["verify", "--endpoint", &format!("{eu},{}", eu.replace("127.0.0.1", "localhost"))]);
    assert!(same.contains("note: of one region are eu ("), "{same}");

    // The global order is the same file from both regions, once it is final there.
    let export = |at: &str| done(["export", "-", "--endpoint", at]);
    let imported = |exported: &str| {
        exported.lines().filter(|line| line.contains("FileChanged")).map(str::to_owned).collect()
    };
    let mut exported: [Vec<String>; 2] = Default::default();
    eventually("both regions export all of it", || {
        exported = [imported(&export(&eu)), imported(&export(&us))];
        exported.iter().all(|lines| lines.len() == 2_000)
    });
    assert_eq!(exported[0], exported[1]);
    assert!(exported[0].iter().any(|line| line.contains(r#""data":{"nth":1999}"#)));

    let refused = run(["append", "file-0", "X", "--expect", "none", "--endpoint", &eu]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("nothing was written: file-0 is at revision"));

    let status = done(["status", "--endpoint", &both]);
    assert!(status.contains("eu, node 1") && status.contains("us, node 1"), "{status}");

    assert_eq!(regions[0].stop(), Some(0), "SIGTERM drains the node");
    regions[0].start();
    let newest = done([
        "read",
        "--stream",
        "file-0",
        "--backwards",
        "--limit",
        "1",
        "--json",
        "--endpoint",
        &eu,
    ]);
    assert!(newest.contains(r#""type":"FileChanged""#), "{newest}");
    let verified = done(["verify", "--wait", "60", "--endpoint", &both]);
    assert!(verified.starts_with("equal: all "), "{verified}");
}

#[test]
fn a_cursor_file_goes_on_where_the_run_before_ended() {
    let (dir, regions) = two_regions();
    let at = regions[0].endpoint.clone();
    let cursor = dir.path().join("cursor").display().to_string();
    for nth in 1..=3 {
        let data = format!(r#"{{"nth":{nth}}}"#);
        done(["append", "s-1", "Added", "--data", &data, "--endpoint", &at]);
    }
    let next = || {
        done([
            "subscribe",
            "--stream",
            "s-1",
            "--limit",
            "1",
            "--json",
            "--cursor-file",
            &cursor,
            "--endpoint",
            &at,
        ])
    };
    for nth in 1..=3 {
        let printed = next();
        assert!(printed.contains(&format!(r#""data":{{"nth":{nth}}}"#)), "{printed}");
    }
}

#[test]
fn a_data_folder_of_another_node_is_refused() {
    let (dir, mut regions) = two_regions();
    assert_eq!(regions[0].stop(), Some(0));
    let output = anabranch(["serve", "--cluster", "other", "--config"])
        .arg(dir.path().join("eu.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("belongs to cluster test, this node is of cluster other"), "{said}");
}

#[test]
fn a_test_sets_the_clock_of_a_running_node_off() {
    let (dir, [mut eu, _down]) = two_regions_down();
    let (file, hour_ms) = (dir.path().join("offset"), 3_600_000);
    std::fs::write(&file, format!("-{hour_ms}")).unwrap();
    eu.clock_offset = Some(file.clone());
    eu.start();
    let append = || run(["append", "s-1", "Added", "--json", "--endpoint", &eu.endpoint]);
    let told: serde_json::Value = serde_json::from_slice(&append().stdout).unwrap();
    // No other region vouches for a clock that jumps ahead.
    std::fs::write(&file, "0").unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    let now_ms = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    // Files are stamped by a clock that is a tick behind.
    let tick_ms = 10;
    let behind_ms = now_ms + tick_ms - told["unix_ms"].as_i64().unwrap();
    assert!((hour_ms..hour_ms + 60_000).contains(&behind_ms), "{behind_ms}");
    eventually("a clock that jumped is not believed", || {
        let output = append();
        let said = text(&output.stderr);
        assert!(output.status.success() || said.contains("jumped ahead by"), "{said}");
        output.status.code() == Some(1)
    });
}

#[test]
fn a_history_that_has_grown_is_imported_on_however_it_is_cut() {
    let (dir, region) = one_region();
    let at = &region.endpoint;
    let file = dir.path().join("growing.ndjson");
    let write = |lines: std::ops::Range<usize>| {
        std::fs::write(&file, lines.map(line).collect::<String>()).unwrap();
    };
    let import = |flags: &[&str]| {
        let file = file.display().to_string();
        let import = ["import", &file, "--json", "--endpoint", at];
        let tally = done(import.iter().chain(flags).copied());
        let tally: serde_json::Value = serde_json::from_str(&tally).unwrap();
        ["added", "known", "last_line"].map(|key| tally[key].as_u64().unwrap())
    };
    write(0..250);
    assert_eq!(import(&["--batch", "100"]), [250, 0, 250]);
    write(0..390);
    assert_eq!(import(&["--batch", "100"]), [140, 250, 390], "the last batch was half there");
    assert_eq!(import(&["--batch", "100"]), [0, 390, 390]);
    assert_eq!(import(&["--batch", "37"]), [0, 390, 390], "all of it, in other batches");
    write(0..400);
    assert_eq!(import(&["--from-line", "391"]), [10, 0, 400]);
    let exported = done(["export", "-", "--endpoint", at]);
    assert_eq!(exported.lines().filter(|line| line.contains("FileChanged")).count(), 400);
}

#[test]
fn what_was_exported_is_imported_whole() {
    let (dir, region) = one_region();
    let at = &region.endpoint;
    let full = "x".repeat(16 * 1024 - "note".len());
    let note = |value: &str| format!(r#""metadata":{{"note":"{value}"}}"#);
    let line = |data: &str, metadata: &str| {
        format!(
            r#"{{"region":"mars","time":7,"stream":"s-1","type":"T","data":{data},{metadata}}}"#
        )
    };
    let text = [line("null", &note("")), line("1", &note(&full)), line("2", &note("short"))];
    let first = dir.path().join("first.ndjson");
    std::fs::write(&first, text.join("\n")).unwrap();
    let import = |file: &Path| done(["import", &file.display().to_string(), "--endpoint", at]);
    let said = import(&first);
    assert!(said.contains("3 events added"), "{said}");
    assert!(
        said.ends_with("; 1 without their time and region, since their metadata is full\n"),
        "{said}"
    );
    let second = dir.path().join("second.ndjson");
    let export = |file: &Path| {
        done(["export", &file.display().to_string(), "--json", "--endpoint", at]);
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter(|line| line.contains("s-1")).map(str::to_owned).collect::<Vec<_>>()
    };
    let exported = export(&second);
    assert_eq!(exported.len(), 3);
    assert!(exported[0].contains(r#""region":"mars","time":7,"#), "{}", exported[0]);
    assert!(exported[0].contains(r#""data":null"#) && exported[1].contains(&full));
    // One line further down they are other events.
    std::fs::write(&second, format!("\n{}", exported.join("\n"))).unwrap();
    let said = import(&second);
    assert!(said.starts_with("3 events added"), "{said}");
}

#[test]
fn a_subscriber_that_is_terminated_has_saved_its_cursor() {
    let (dir, region) = one_region();
    let at = &region.endpoint;
    let cursor = dir.path().join("cursor").display().to_string();
    let append = |nth: usize| {
        let data = format!(r#"{{"nth":{nth}}}"#);
        done(["append", "s-1", "Added", "--data", &data, "--endpoint", at]);
    };
    append(1);
    let subscribe = ["subscribe", "--stream", "s-1", "--json", "--cursor-file", &cursor];
    let mut command = anabranch(subscribe.iter().chain(&["--endpoint", at]));
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(printed.next().unwrap().unwrap().contains(r#""nth":1"#));
    assert_eq!(terminate(process), Some(0));
    append(2);
    let rest = done(subscribe.iter().chain(&["--limit", "1", "--endpoint", at]));
    assert!(rest.contains(r#""nth":2"#), "{rest}");

    let nowhere = dir.path().join("no/cursor").display().to_string();
    let refused = run(["subscribe", "--all", "--cursor-file", &nowhere, "--endpoint", at]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty(), "found before anything is printed");
}

#[test]
fn members_are_changed_with_the_nodes_certificate_and_by_nobody_else() {
    let (dir, region) = one_region();
    let config = region.config.display().to_string();
    let members =
        |flags: &[&str]| run(["members", "--config", &config].iter().chain(flags).copied());
    for flags in [&["--json"][..], &["--json", "--voters", "1"]] {
        let output = members(flags);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let shown: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        assert_eq!((&shown["region"], &shown["leader"]), (&"eu".into(), &1.into()));
        assert_eq!(shown["nodes"][0]["voter"], true);
    }
    // A certificate of the same authority, but of another region.
    certificates(dir.path(), "us");
    let foreign = std::fs::read_to_string(&region.config).unwrap();
    let foreign = foreign.replace("eu.pem", "us.pem").replace("eu-key", "us-key");
    std::fs::write(&region.config, foreign).unwrap();
    let refused = members(&["--voters", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("the certificate is of region us, this one is eu"), "{said}");
    assert!(members(&[]).status.success(), "looking is allowed");
}

#[test]
fn an_append_says_where_it_is_and_only_goes_to_one_region() {
    let (_dir, regions) = two_regions();
    let [eu, us] = [&regions[0], &regions[1]].map(|region| region.endpoint.clone());
    let append = |flags: &[&str]| {
        run(["append", "s-1", "T", "--endpoint", &eu].iter().chain(flags).copied())
    };
    let text_of = |output: &std::process::Output| text(&output.stdout);
    assert!(text_of(&append(&[])).trim_end().ends_with(", in 1 region"));
    assert!(text_of(&append(&["--regions", "2", "--within", "60"])).contains("in 2 regions"));
    let asked = Instant::now();
    append(&["--regions", "2", "--within", "0"]);
    assert!(asked.elapsed() < Duration::from_secs(8), "0 seconds are not all the time there is");

    let both = format!("{eu},{us}");
    let refused = run(["append", "s-1", "T", "--endpoint", &both]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("nodes of two regions") && said.contains("of us"), "{said}");

    let wild = "\u{1b}[2Jfake\nline";
    assert!(append(&["--data", wild, "--content-type", ""]).status.success());
    let read = done(["read", "--stream", "s-1", "--endpoint", &eu]);
    assert_eq!(read.lines().count(), 4, "{read}");
    assert!(read.contains(r"\u{1b}[2Jfake\nline"), "{read}");
    let read = done([
        "read",
        "--stream",
        "s-1",
        "--json",
        "--backwards",
        "--limit",
        "1",
        "--endpoint",
        &eu,
    ]);
    let event: serde_json::Value = serde_json::from_str(&read).unwrap();
    assert_eq!(event["metadata"], serde_json::json!({}));
}

#[test]
fn an_export_ends_quietly_when_its_reader_has_seen_enough() {
    let (_dir, region) = one_region();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = anabranch(["export", "-", "--endpoint", &region.endpoint]);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}
