//! What is shown while the demonstration runs: a live view on a terminal, else a line a second.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::RegionName;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::ledger::Ledger;
use super::sight::Sights;

/// How often a live view is drawn.
const LIVE_EVERY: Duration = Duration::from_millis(250);
/// How often a line is written otherwise.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where the numbers come from.
#[derive(Clone)]
pub struct Scenery {
    /// The regions, in the order in which they are shown.
    pub regions: Vec<RegionName>,
    /// What clients were told.
    pub ledger: Arc<Mutex<Ledger>>,
    /// What subscribers were given.
    pub arrivals: Arc<Mutex<Arrivals>>,
    /// What the regions say of themselves.
    pub sights: Sights,
    /// What is going on.
    pub phase: watch::Receiver<String>,
}

/// Shows it, on standard error, until stopped.
pub async fn show(scenery: Scenery, stop: CancellationToken) {
    let live = std::io::stderr().is_terminal();
    let mut screen = if live { Screen::live(scenery.regions.len()) } else { Screen::Lines };
    let mut rates = Rates::default();
    let began = Instant::now();
    let draw = async {
        loop {
            sleep(if live { LIVE_EVERY } else { LINE_EVERY }).await;
            let lines = lines(&scenery, &mut rates, Instant::now());
            screen.draw(began.elapsed(), &scenery.phase.borrow(), &lines);
        }
    };
    stop.run_until_cancelled(draw).await;
    screen.clear();
}

enum Screen {
    Live { all: MultiProgress, phase: ProgressBar, regions: Vec<ProgressBar> },
    Lines,
}

impl Screen {
    fn live(regions: usize) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{msg}").expect("a template");
        let bar = || all.add(ProgressBar::new_spinner().with_style(style.clone()));
        let phase = bar();
        let regions = (0..regions).map(|_| bar()).collect();
        Self::Live { all, phase, regions }
    }

    fn draw(&mut self, elapsed: Duration, phase: &str, lines: &[String]) {
        let seconds = elapsed.as_secs_f64();
        match self {
            Self::Live { phase: bar, regions, .. } => {
                bar.set_message(format!("{seconds:5.1} s  {phase}"));
                for (bar, line) in regions.iter().zip(lines) {
                    bar.set_message(format!("  {line}"));
                }
            }
            Self::Lines => {
                let lines = lines.join(" | ");
                eprintln!("{seconds:5.1} s  {phase} | {lines}");
            }
        }
    }

    fn clear(&self) {
        if let Self::Live { all, .. } = self {
            // A terminal that cannot be written to shows nothing either way.
            let _ = all.clear();
        }
    }
}

/// Events acknowledged at the last look, to tell how fast they come.
#[derive(Default)]
struct Rates {
    last: BTreeMap<RegionName, (Instant, u64)>,
    shown: BTreeMap<RegionName, u64>,
}

impl Rates {
    /// Events a second, over at least a second.
    fn of(&mut self, region: &RegionName, events: u64, now: Instant) -> u64 {
        let (at, before) = *self.last.entry(region.clone()).or_insert((now, events));
        let passed = now - at;
        if passed >= Duration::from_millis(900) {
            let rate = (events - before) as f64 / passed.as_secs_f64();
            self.shown.insert(region.clone(), rate.round() as u64);
            self.last.insert(region.clone(), (now, events));
        }
        self.shown.get(region).copied().unwrap_or_default()
    }
}

/// One line a region.
fn lines(scenery: &Scenery, rates: &mut Rates, now: Instant) -> Vec<String> {
    let (ledger, arrivals) = (scenery.ledger.lock(), scenery.arrivals.lock());
    let sights = scenery.sights.lock();
    let line = |region: &RegionName| {
        let of = ledger.region(region);
        let rate = rates.of(region, of.map_or(0, |of| of.events), now);
        let sight = sights.get(region).cloned().unwrap_or_default();
        let holds = scenery.regions.iter().map(|origin| {
            let held = sight.held.get(origin.as_str()).copied().unwrap_or_default();
            format!("{origin} {held}")
        });
        let holds = holds.collect::<Vec<_>>().join(", ");
        let others = scenery.regions.iter().filter(|other| *other != region);
        let behind = others.map(|other| {
            let held = arrivals.held(other, region);
            let lacks = of.map_or(0, |of| of.last()).saturating_sub(held);
            let since = of.and_then(|of| of.next_after(held));
            let age = since.map_or(0, |since| (now - since).as_millis());
            format!("{other} {lacks} ev {age} ms")
        });
        let behind = behind.collect::<Vec<_>>().join(", ");
        let waits = match sight.blocked_by.as_slice() {
            [] => String::new(),
            regions => format!(", waits for {}", regions.join(" and ")),
        };
        let global = sight.global_position;
        format!(
            "{region}: {rate} ev/s; holds {holds}; lag to {behind}; global order {global}{waits}"
        )
    };
    scenery.regions.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use anabranch_client::{Dot, EventId};
    use anabranch_core::{Incarnation, Origin, Seq, ShardId};

    use super::super::ledger::{Answer, Asked};
    use super::*;

    #[tokio::test]
    async fn a_line_tells_what_a_region_holds_and_how_far_the_others_are_behind() {
        let region = |name: &str| RegionName::new(name).unwrap();
        let (eu, now) = (region("eu"), Instant::now());
        let scenery = Scenery {
            regions: vec![eu.clone(), region("us")],
            ledger: Arc::default(),
            arrivals: Arc::default(),
            sights: Sights::default(),
            phase: watch::channel(String::new()).1,
        };
        let mut rates = Rates::default();
        lines(&scenery, &mut rates, now);
        let dot = |seq| {
            let (region, shard) = (eu.clone(), ShardId(0));
            Dot { origin: Origin { region, incarnation: Incarnation(1), shard }, seq: Seq(seq) }
        };
        for seq in 1..=10 {
            let asked = [Asked { id: EventId([seq as u8; 16]), content: 0 }];
            scenery.ledger.lock().acknowledge(&Answer {
                region: &eu,
                asked: &asked,
                first: &dot(seq),
                repeated: false,
                latency: Duration::ZERO,
                at: now,
            });
        }
        scenery.arrivals.lock().record(&region("us"), &dot(1), now);
        scenery.sights.lock().entry(eu.clone()).or_default().blocked_by = vec!["us".into()];
        let shown = lines(&scenery, &mut rates, now + Duration::from_secs(2));
        assert!(shown[0].contains("eu: 5 ev/s"), "{}", shown[0]);
        assert!(shown[0].contains("lag to us 9 ev 2000 ms"), "{}", shown[0]);
        assert!(shown[0].ends_with("waits for us"), "{}", shown[0]);
        assert!(shown[1].contains("lag to eu 0 ev 0 ms"), "{}", shown[1]);
    }
}
