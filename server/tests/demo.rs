//! The demonstration, short, in this process: it must hold what it says, and say what it did.

use std::path::PathBuf;

use anabranch_server::demo::{DemoArgs, perform, report::Report};

/// Ports by process, so that tests that run at the same time do not race for the same range.
fn args(seconds: u64, nth: u16) -> DemoArgs {
    let port = 10_000 + (std::process::id() % 30) as u16 * 600 + nth * 300;
    DemoArgs {
        input: None,
        serve: false,
        wan: None,
        seconds,
        data: None,
        seed: Some(7),
        json: true,
        port,
    }
}

async fn played(args: DemoArgs) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let folder_path: PathBuf = folder.path().join("demo");
    let (report, cluster) = perform(&args, folder_path).await.unwrap();
    cluster.drain().await;
    assert!(report.holds, "{}", report.to_text());
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_and_a_death_lose_nothing_and_the_report_says_so() {
    let report = played(args(6, 0)).await;
    assert!(report.acknowledged > 100, "{}", report.to_text());
    assert_eq!((report.missing, report.duplicated, report.unknown_events_left), (0, 0, 0));
    assert_eq!(report.global_position, report.acknowledged);
    assert_eq!(report.regions.len(), 3);
    assert!(report.regions.iter().all(|region| region.acknowledged > 0), "{}", report.to_text());
    assert_eq!(report.lags.len(), 6);
    assert!(report.converged_after_healing_ms.is_some(), "{}", report.to_text());
    // The last region was cut off for 45 % of the time, and its events waited for the end of it.
    let longest = report.lags.iter().filter(|lag| lag.from == "asia");
    assert!(longest.clone().count() == 2, "{}", report.to_text());
    for lag in longest {
        assert!(lag.while_cut_max_ms.unwrap() > 1_000.0, "{}", report.to_text());
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["holds"], true);
    what_two_regions_did_is_told_side_by_side(&report);
}

/// That it is what it must be is among what the report holds.
fn what_two_regions_did_is_told_side_by_side(report: &Report) {
    let rift = report.rift.as_ref().expect("there are three regions");
    assert_eq!(rift.regions, ["americas", "asia"]);
    let told = |what: &str| {
        let lines = rift.moments.iter().flat_map(|moment| &moment.lines);
        let found: Vec<_> = lines.filter(|(line, _)| line.starts_with(what)).collect();
        found.iter().map(|(_, told)| told.clone()).collect::<Vec<_>>()
    };
    let [home, away] = &told("account")[0];
    assert!(home.ends_with(": done"), "{home}");
    assert!(away.contains("NOT DONE, ") && away.contains("americas"), "{away}");
    assert!(told("seats")[2].iter().all(|told| told.contains("0 from seats")), "{report:?}");
    let likes = told("likes").into_iter().map(|told| told.join(" | ")).collect::<Vec<_>>();
    assert_eq!(likes, ["10 | 10", "3 more: done | 4 more: done", "13 | 14", "17 | 17"]);
    let [home, away] = &told("conflicts of the cart")[0];
    assert_eq!(home, away);
    let pairs =
        "remove bread / add bread, remove bread / add jam, add tea / add bread, add tea / add jam";
    assert_eq!(home, pairs);
    assert!(report.to_text().contains("cut off from each other"), "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_replayed_in_its_regions_and_proved_complete() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("history.ndjson");
    let line = |nth: usize| {
        let (region, stream) = (["north", "south"][nth % 2], nth % 50);
        format!(
            r#"{{"region":"{region}","time":{nth},"stream":"file-{stream}","type":"Changed","data":{{"nth":{nth}}}}}"#
        )
    };
    let lines: Vec<String> = (0..3_000).map(line).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    let report = played(DemoArgs { input: Some(input), ..args(5, 1) }).await;
    assert_eq!((report.acknowledged, report.global_position), (3_000, 3_000));
    let by_region: Vec<_> =
        report.regions.iter().map(|r| (r.region.as_str(), r.acknowledged)).collect();
    assert_eq!(by_region, [("north", 1_500), ("south", 1_500)]);
}
