//! What the demonstration has to say in the end: tables for people, JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::arrivals::PairLag;
use super::ledger::Ledger;
use super::proof::Proof;
use super::reading::Faults;
use super::rift::Rift;
use super::sight::Sight;
use anabranch_core::RegionName;

/// Columns that the table of the rift may take: errors in it are sentences.
const RIFT_WIDTH: u16 = 120;

/// Everything in numbers. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether everything that was checked holds.
    pub holds: bool,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Acknowledged events that a region does not have, over all regions.
    pub missing: u64,
    /// Events that a region has more than once, over all regions.
    pub duplicated: u64,
    /// Appends whose outcome was unknown for a while.
    pub unknown: u64,
    /// Of those, appends that were found out about by asking again.
    pub unknown_resolved: u64,
    /// Events whose outcome is still unknown.
    pub unknown_events_left: u64,
    /// Appends that were retried and answered with their first result: written once.
    pub repeated: u64,
    /// Attempts that were refused: nothing was written.
    pub refused: u64,
    /// Seconds from the first append to the last.
    pub seconds: f64,
    /// Events acknowledged a second, over all regions.
    pub events_per_second: f64,
    /// From healing until every region held what all had acknowledged by then.
    pub converged_after_healing_ms: Option<f64>,
    /// From the last append until all nodes agreed and the global order was final.
    pub settled_ms: f64,
    /// Length of the global order.
    pub global_position: u64,
    /// Hash over the whole global order, the same on every node.
    pub global_chain: String,
    /// Each region.
    pub regions: Vec<RegionReport>,
    /// Each ordered pair of regions.
    pub lags: Vec<LagReport>,
    /// What was checked.
    pub proof: Proof,
    /// What two regions did and saw while they were cut off from each other; none of one region alone.
    pub rift: Option<Rift>,
}

/// One region in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionReport {
    /// Its name.
    pub region: String,
    /// gRPC addresses of its nodes.
    pub endpoints: Vec<String>,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Appends acknowledged.
    pub appends: u64,
    /// Events acknowledged a second.
    pub events_per_second: f64,
    /// Half of the appends took no longer.
    pub append_p50_ms: f64,
    /// 99 of 100 appends took no longer.
    pub append_p99_ms: f64,
    /// How often another node came to lead.
    pub leader_changes: u64,
}

/// From the acknowledgement of an event in one region until it can be read in another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LagReport {
    /// Where it was written.
    pub from: String,
    /// Where it was read.
    pub to: String,
    /// Half of the events took no longer.
    pub p50_ms: f64,
    /// 99 of 100 events took no longer.
    pub p99_ms: f64,
    /// The longest wait of an event that was acknowledged while one of the two was cut off.
    pub while_cut_max_ms: Option<f64>,
}

impl RegionReport {
    /// Puts one region's numbers together; `wrote` is how long it was written to.
    pub fn of(
        region: &RegionName,
        endpoints: Vec<String>,
        ledger: &Ledger,
        sight: &Sight,
        wrote: Duration,
    ) -> Self {
        let of = ledger.region(region);
        let quantile = |q: f64| of.map_or(0.0, |region| millis(&region.latency, q));
        let acknowledged = of.map_or(0, |region| region.events);
        Self {
            region: region.to_string(),
            endpoints,
            acknowledged,
            appends: of.map_or(0, |region| region.appends),
            events_per_second: per_second(acknowledged, wrote),
            append_p50_ms: quantile(0.5),
            append_p99_ms: quantile(0.99),
            leader_changes: sight.leader_changes,
        }
    }
}

impl LagReport {
    /// Puts one pair's numbers together.
    pub fn of(lag: &PairLag) -> Self {
        Self {
            from: lag.from.to_string(),
            to: lag.to.to_string(),
            p50_ms: millis(&lag.connected, 0.5),
            p99_ms: millis(&lag.connected, 0.99),
            while_cut_max_ms: (!lag.cut.is_empty()).then(|| millis(&lag.cut, 1.0)),
        }
    }
}

/// Events a second; 0 if there was no time.
pub fn per_second(events: u64, within: Duration) -> f64 {
    if within.is_zero() { 0.0 } else { tenths(events as f64 / within.as_secs_f64()) }
}

/// Milliseconds with a tenth.
pub fn as_millis(duration: Duration) -> f64 {
    tenths(duration.as_secs_f64() * 1_000.0)
}

fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    tenths(histogram.value_at_quantile(quantile) as f64 / 1_000.0)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Report {
    /// Takes in what became of the rift.
    pub fn tell(&mut self, rift: Rift, faults: Faults) {
        self.rift = Some(rift);
        self.proof
            .add("regions that could not see each other keep every rule and end alike", faults);
        self.holds = self.proof.holds();
    }

    /// As JSON, on several lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts have a JSON form")
    }

    /// As tables.
    pub fn to_text(&self) -> String {
        let parts = [self.regions_table(), self.lags_table(), self.summary_table()];
        let mut text: String = parts.iter().map(|table| format!("{table}\n\n")).collect();
        text.extend(self.rift.iter().map(|rift| format!("{}\n\n", rift_table(rift))));
        for check in &self.proof.checks {
            let sign = if check.faults == 0 { "holds" } else { "FAILS" };
            text.push_str(&format!("  {sign}  {}\n", check.law));
            if check.faults > 0 {
                text.push_str(&format!("         {} times, such as\n", check.faults));
            }
            for example in &check.examples {
                text.push_str(&format!("         - {example}\n"));
            }
        }
        text.push_str(if self.holds {
            "\nEverything holds.\n"
        } else {
            "\nNOT everything holds.\n"
        });
        text
    }

    fn regions_table(&self) -> Table {
        let heads = ["region", "acknowledged", "events/s", "append p50", "p99", "leader changes"];
        let mut table = table(&heads);
        for region in &self.regions {
            table.add_row([
                region.region.clone(),
                region.acknowledged.to_string(),
                region.events_per_second.to_string(),
                ms(region.append_p50_ms),
                ms(region.append_p99_ms),
                region.leader_changes.to_string(),
            ]);
        }
        align(table)
    }

    fn lags_table(&self) -> Table {
        let mut table = table(&["written in", "read in", "lag p50", "p99", "while cut, longest"]);
        for lag in &self.lags {
            table.add_row([
                lag.from.clone(),
                lag.to.clone(),
                ms(lag.p50_ms),
                ms(lag.p99_ms),
                lag.while_cut_max_ms.map_or("-".to_owned(), ms),
            ]);
        }
        align(table)
    }

    fn summary_table(&self) -> Table {
        let mut table = table(&["in all", ""]);
        let healed = self.converged_after_healing_ms.map_or("-".to_owned(), ms);
        for (name, value) in [
            ("events acknowledged", self.acknowledged.to_string()),
            ("missing", self.missing.to_string()),
            ("duplicated", self.duplicated.to_string()),
            ("unknown outcomes", self.unknown.to_string()),
            ("  of those resolved", self.unknown_resolved.to_string()),
            ("retries that found their first result", self.repeated.to_string()),
            ("refused attempts", self.refused.to_string()),
            ("events/s", self.events_per_second.to_string()),
            ("converged after healing", healed),
            ("all agree after the last append", ms(self.settled_ms)),
            ("global order, events", self.global_position.to_string()),
            ("global order, hash", self.global_chain.clone()),
        ] {
            table.add_row([name.to_owned(), value]);
        }
        align(table)
    }
}

/// Side by side: what the two regions did and saw.
fn rift_table(rift: &Rift) -> Table {
    let [left, right] = &rift.regions;
    let mut table = table(&["cut off from each other", left, right]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(RIFT_WIDTH);
    for moment in &rift.moments {
        table.add_row([moment.when, "", ""]);
        for (what, [left, right]) in &moment.lines {
            table.add_row([&format!("  {what}"), left, right]);
        }
    }
    table
}

fn ms(value: f64) -> String {
    format!("{value} ms")
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(heads);
    table
}

/// Names to the left, numbers to the right.
fn align(mut table: Table) -> Table {
    let texts = ["region", "written in", "read in", "in all"];
    let heads: Vec<String> = (table.header().into_iter())
        .flat_map(|row| row.cell_iter().map(|cell| cell.content()))
        .collect();
    for (column, head) in table.column_iter_mut().zip(heads) {
        if !texts.contains(&head.as_str()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
