//! Two regions of one node each, worked with through the binary.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};

use crate::ports::free_address;
use crate::{anabranch, done, run, text, write_config};

/// How long a test waits for what should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

struct Region {
    config: PathBuf,
    endpoint: String,
    clock_offset: Option<PathBuf>,
    process: Option<Child>,
}

impl Region {
    fn start(&mut self) {
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
    fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        let id = process.id().to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success());
        process.wait().unwrap().code()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
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

fn two_regions() -> (TempDir, [Region; 2]) {
    let (dir, mut regions) = two_regions_down();
    regions.iter_mut().for_each(Region::start);
    (dir, regions)
}

fn two_regions_down() -> (TempDir, [Region; 2]) {
    let dir = tempdir().unwrap();
    done(["certs", "init", &dir.path().display().to_string(), "--regions", "eu,us"]);
    let (eu, us) = (ports(), ports());
    let other = |name: &str, [_, _, gossip]: [u16; 3]| {
        format!("[[regions]]\nname = \"{name}\"\ngossip = [\"127.0.0.1:{gossip}\"]\n")
    };
    write_config(dir.path(), "eu", eu, &other("us", us));
    write_config(dir.path(), "us", us, &other("eu", eu));
    let region = |name: &str, [api, _, _]: [u16; 3]| Region {
        config: dir.path().join(format!("{name}.toml")),
        endpoint: format!("http://127.0.0.1:{api}"),
        clock_offset: None,
        process: None,
    };
    let regions = [region("eu", eu), region("us", us)];
    (dir, regions)
}

fn history(dir: &Path, lines: usize) -> String {
    let line = |nth: usize| {
        let region = ["eu", "us"][nth % 2];
        let (stream, time) = (nth % 7, 1_312_242_084 + nth);
        format!(
            r#"{{"region":"{region}","time":{time},"stream":"file-{stream}","type":"FileChanged","data":{{"nth":{nth}}}}}"#
        )
    };
    let text: String = (0..lines).map(|nth| line(nth) + "\n").collect();
    let path = dir.join("history.ndjson.zst");
    std::fs::write(&path, zstd::encode_all(text.as_bytes(), 3).unwrap()).unwrap();
    path.display().to_string()
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
    assert_eq!(
        import(&eu, "eu"),
        "1000 events added, 0 were there already, 1000 of other regions\n"
    );
    assert_eq!(
        import(&us, "us"),
        "1000 events added, 0 were there already, 1000 of other regions\n"
    );
    assert_eq!(
        import(&eu, "eu"),
        "0 events added, 1000 were there already, 1000 of other regions\n"
    );

    let verified = done(["verify", "--wait", "60", "--endpoint", &both]);
    assert!(verified.starts_with("equal: all "), "{verified}");

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
