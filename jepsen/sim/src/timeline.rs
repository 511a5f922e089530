//! A run to look at: one static page with regions, nodes, faults and what clients met, over simulated
//! time.

use std::fmt::Write;
use std::time::Duration;

use anabranch_history::op::Outcome;

use crate::cluster::{NodeAt, region_name};
use crate::nemesis::{Fault, Kind, What};
use crate::report;
use crate::run::{Findings, Settings};

/// Room for names, pixels.
const LEFT: f64 = 90.0;
/// Room for time, pixels.
const WIDTH: f64 = 1300.0;
/// Height of a row, pixels.
const ROW: f64 = 22.0;

const STYLE: &str = "
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1420px; color: #1c2733; }
h1 { font-size: 1.4em; margin-bottom: 0 } h2 { font-size: 1.1em; margin-top: 1.6em }
.broken { color: #b3261e; font-weight: 600 } .holds { color: #2e7d46 } .untested { color: #8a6d1a }
table { border-collapse: collapse } td { padding: 2px 14px 2px 0; vertical-align: top }
pre { background: #f4f6f8; padding: 10px 14px; overflow-x: auto; border-radius: 6px; font-size: 12px }
svg text { font: 12px system-ui, sans-serif; fill: #44515e } svg .region { font-weight: 600 }
.legend span { display: inline-block; margin-right: 1.2em }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 4px; border-radius: 2px }
code { background: #f4f6f8; padding: 1px 5px; border-radius: 4px }
";

/// The page of a run.
pub fn page(settings: &Settings, findings: &Findings, planted: &[String]) -> String {
    let mut page = String::new();
    let seed = settings.seed;
    let _ = write!(page, "<!doctype html><meta charset=utf-8><title>Seed {seed}</title>");
    let _ = write!(page, "<style>{STYLE}</style><h1>Seed {seed}</h1><p>{}</p>", {
        escape(&report::summary(findings))
    });
    let _ =
        write!(page, "<p>Again: <code>{}</code></p>", escape(&report::command(settings, planted)));
    page.push_str(&laws(findings));
    let _ = write!(page, "<h2>Over simulated time</h2>{}{}", legend(), Chart::of(findings).svg());
    let excerpts = report::excerpts(findings);
    if !excerpts.is_empty() {
        let _ = write!(page, "<h2>What shows it</h2><pre>{}</pre>", escape(&excerpts));
    }
    let _ = write!(page, "<h2>Faults</h2><pre>");
    for (nth, fault) in findings.plan.active() {
        let at = fault.at.as_secs_f64();
        let _ = writeln!(page, "{nth:3}  {at:8.3} s  {}", escape(&fault.to_string()));
    }
    let _ = write!(page, "</pre><h2>Journal</h2><pre>{}</pre>", escape(&findings.journal.text()));
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn laws(findings: &Findings) -> String {
    let mut table = "<h2>Laws</h2><table>".to_owned();
    for verdict in &findings.verdicts {
        let (class, said) = match (verdict.broken, verdict.facts) {
            (0, 0) => ("untested", "not tested".to_owned()),
            (0, facts) => ("holds", format!("holds, {facts} facts")),
            (broken, facts) => ("broken", format!("broken, {broken} of {facts} facts")),
        };
        let words = escape(&verdict.words.join("\n")).replace('\n', "<br>");
        let (name, law) = (verdict.name, escape(verdict.law));
        let _ = write!(
            table,
            "<tr><td>{name}</td><td>{law}</td><td class={class}>{said}</td><td>{words}</td></tr>"
        );
    }
    table + "</table>"
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill | Kind::Drain | Kind::LostCheckpoints => "#d9822b",
        Kind::PowerLoss | Kind::RegionPowerLoss | Kind::TotalPowerLoss => "#b3261e",
        Kind::FailedSync | Kind::FullDisk | Kind::SlowDisk | Kind::RottenBit | Kind::LostDisk => {
            "#8a5a2b"
        }
        Kind::Pause | Kind::LeaderPause => "#7a6fa8",
        Kind::NodeCut
        | Kind::OneWayNodeCut
        | Kind::LeaderCut
        | Kind::RegionCut
        | Kind::OneWayRegionCut
        | Kind::LongCut => "#2f5d8a",
        Kind::PacketLoss | Kind::Duplication | Kind::Reordering | Kind::Delay => "#6fa0c8",
        Kind::ClockJump | Kind::ClockDrift | Kind::ClockSkew => "#b08900",
        Kind::Membership | Kind::EmptyNode => "#3d8f7c",
        Kind::Overload => "#555",
        Kind::LostRegion | Kind::RebuiltRegion | Kind::RestoredRegion => "#111",
    }
}

fn legend() -> String {
    let groups = [
        (Kind::Kill, "killed, restarted"),
        (Kind::PowerLoss, "power loss"),
        (Kind::FailedSync, "disk"),
        (Kind::Pause, "paused"),
        (Kind::NodeCut, "cut"),
        (Kind::Delay, "weather, delay"),
        (Kind::ClockJump, "clock"),
        (Kind::Membership, "membership"),
        (Kind::LostRegion, "region lost, rebuilt, restored"),
    ];
    let mut legend =
        "<p class=legend><span><i style=\"background:#cfe3d4\"></i>serves</span>".to_owned();
    for (kind, words) in groups {
        let _ = write!(legend, "<span><i style=\"background:{}\"></i>{words}</span>", colour(kind));
    }
    let acknowledged = "<span><i style=\"background:#2e7d46\"></i>acknowledged</span>";
    let refused = "<span><i style=\"background:#b08900\"></i>refused</span>";
    let unknown = "<span><i style=\"background:#b3261e\"></i>unknown</span>";
    let shows = "<span><i style=\"background:#e91e63\"></i>shows a broken law</span>";
    legend + acknowledged + refused + unknown + shows + "</p>"
}

/// The drawing: rows of nodes, of clients and of links, under one axis.
struct Chart<'a> {
    findings: &'a Findings,
    rows: Vec<Row>,
    end: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Clients(usize),
    Node(NodeAt),
    Links,
}

impl<'a> Chart<'a> {
    fn of(findings: &'a Findings) -> Self {
        let mut rows = Vec::new();
        for region in 0..findings.shape.regions() {
            rows.push(Row::Clients(region));
            rows.extend(findings.shape.nodes_of(region).map(Row::Node));
            if findings.plan.needs_spare() && findings.shape.spare() == Some(region) {
                rows.push(Row::Node(NodeAt(region, findings.shape.nodes[region])));
            }
        }
        rows.push(Row::Links);
        Self { findings, rows, end: findings.simulated }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + WIDTH * (at.min(self.end).as_secs_f64() / self.end.as_secs_f64().max(0.001))
    }
    fn y(&self, row: Row) -> f64 {
        let at = self.rows.iter().position(|other| *other == row).unwrap_or(self.rows.len() - 1);
        30.0 + ROW * at as f64
    }

    fn svg(&self) -> String {
        let height = 30.0 + ROW * (self.rows.len() as f64 + self.link_lanes() as f64) + 10.0;
        let mut svg = format!("<svg width={} height={height}>", LEFT + WIDTH + 20.0);
        self.axis(&mut svg, height);
        self.names(&mut svg);
        self.lives(&mut svg);
        for (nth, fault) in self.findings.plan.active() {
            self.fault(&mut svg, nth, fault);
        }
        self.operations(&mut svg);
        svg + "</svg>"
    }

    fn axis(&self, svg: &mut String, height: f64) {
        let step = (self.end.as_secs() / 12).max(1);
        for second in (0..=self.end.as_secs()).step_by(step as usize) {
            let x = self.x(Duration::from_secs(second));
            let _ = write!(
                svg,
                "<line x1={x:.1} x2={x:.1} y1=20 y2={height} stroke=#e3e8ec /><text x={:.1} y=14>{second} s</text>",
                x - 8.0
            );
        }
        let x = self.x(self.findings.healed);
        let _ = write!(
            svg,
            "<line x1={x:.1} x2={x:.1} y1=20 y2={height} stroke=#2e7d46 stroke-width=2><title>healed</title></line>"
        );
    }

    fn names(&self, svg: &mut String) {
        for row in &self.rows {
            let y = self.y(*row) + 14.0;
            let (class, name) = match row {
                Row::Clients(region) => ("region", format!("{} clients", region_name(*region))),
                Row::Node(at) => ("node", at.to_string()),
                Row::Links => ("region", "links".to_owned()),
            };
            let _ = write!(svg, "<text class={class} x=4 y={y:.1}>{name}</text>");
        }
    }

    fn bar(
        &self,
        svg: &mut String,
        from: Duration,
        to: Duration,
        y: f64,
        look: (&str, f64),
        title: &str,
    ) {
        let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(2.0));
        let ((fill, height), title) = (look, escape(title));
        let _ = write!(
            svg,
            "<rect x={x:.1} y={y:.1} width={width:.1} height={height} fill=\"{fill}\" rx=2><title>{title}</title></rect>"
        );
    }

    fn lives(&self, svg: &mut String) {
        let changes = self.findings.journal.changes();
        for row in &self.rows {
            let Row::Node(at) = row else { continue };
            let mut since = None;
            for change in changes.iter().filter(|change| change.node == *at) {
                match (change.serves, since) {
                    (true, None) => since = Some(change.at),
                    (false, Some(began)) => {
                        self.bar(
                            svg,
                            began,
                            change.at,
                            self.y(*row) + 2.0,
                            ("#cfe3d4", 16.0),
                            "serves",
                        );
                        since = None;
                    }
                    _ => {}
                }
            }
            if let Some(began) = since {
                self.bar(svg, began, self.end, self.y(*row) + 2.0, ("#cfe3d4", 16.0), "serves");
            }
        }
    }

    fn fault(&self, svg: &mut String, nth: usize, fault: &Fault) {
        let title = format!("fault {nth}: {fault}");
        let look = (colour(fault.what.kind()), 7.0);
        let regions: Vec<usize> = match fault.what {
            What::LostRegion(region)
            | What::RebuiltRegion(region)
            | What::RestoredRegion(region) => {
                vec![region]
            }
            _ => Vec::new(),
        };
        let mut nodes = fault.what.nodes();
        nodes.extend(regions.into_iter().flat_map(|region| self.findings.shape.nodes_of(region)));
        for at in &nodes {
            let y = self.y(Row::Node(*at)) + 7.0;
            self.bar(svg, fault.at, fault.until, y, look, &title);
        }
        if nodes.is_empty() {
            let lane = self.lane(nth);
            let y = self.y(Row::Links) + 7.0 + ROW * 0.5 * lane as f64;
            self.bar(svg, fault.at, fault.until, y, look, &title);
        }
    }

    /// Faults of links overlap: each goes into the first lane that is free.
    fn lanes(&self) -> Vec<(usize, usize)> {
        let mut free: Vec<Duration> = Vec::new();
        let mut lanes = Vec::new();
        for (nth, fault) in self.findings.plan.active() {
            if !fault.what.nodes().is_empty() {
                continue;
            }
            let lane = free.iter().position(|until| *until <= fault.at).unwrap_or_else(|| {
                free.push(Duration::ZERO);
                free.len() - 1
            });
            free[lane] = fault.until;
            lanes.push((nth, lane));
        }
        lanes
    }
    fn lane(&self, nth: usize) -> usize {
        self.lanes().iter().find(|(of, _)| *of == nth).map_or(0, |(_, lane)| *lane)
    }
    fn link_lanes(&self) -> usize {
        self.lanes().iter().map(|(_, lane)| lane + 1).max().unwrap_or(0) / 2
    }

    fn operations(&self, svg: &mut String) {
        let verdicts = &self.findings.verdicts;
        let shows = |op: usize| verdicts.iter().any(|verdict| verdict.ops.contains(&op));
        for (nth, op) in self.findings.evidence.history.ops.iter().enumerate() {
            let region =
                (0..self.findings.shape.regions()).find(|at| region_name(*at) == op.region);
            let Some(region) = region else { continue };
            let (fill, said) = match &op.outcome {
                Outcome::Acknowledged(_) => ("#2e7d46", "acknowledged".to_owned()),
                Outcome::Conflict { .. } => ("#b08900", "conflict".to_owned()),
                Outcome::Refused { why } => ("#b08900", format!("refused: {why}")),
                Outcome::Unknown { why } => ("#b3261e", format!("unknown: {why}")),
            };
            let streams: Vec<&str> = op.events.iter().map(|event| event.stream.as_str()).collect();
            let title = format!("operation {nth}, {}: {said}", streams.join(" "));
            let y = self.y(Row::Clients(region));
            let until = op.returned.min(self.end);
            match shows(nth) {
                true => self.bar(svg, op.called, until, y, ("#e91e63", 20.0), &title),
                false => self.bar(svg, op.called, until, y + 4.0, (fill, 10.0), &title),
            }
        }
    }
}
