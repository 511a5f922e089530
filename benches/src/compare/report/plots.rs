//! The same figures as bars.

use super::super::append::Turn;
use super::super::history::Start;
use super::super::svg::{Bar, Group, chart};
use super::{Report, is_own, words};
use crate::spread::Spread;

/// File name, title and SVG of each plot that there is something for.
pub fn all(report: &Report) -> Vec<(&'static str, &'static str, String)> {
    let plots = [
        ("append-cpu", "Append: CPU µs of all servers an event", appends(report, |t| t.servers_us)),
        ("append-rate", "Append: events acknowledged a second", appends(report, |t| t.rate)),
        ("history", "A history: disk, memory, start after kill -9, replay", histories(report)),
        ("delay", "Lag at rest, and loss of the leader", delays(report)),
    ];
    let some = plots.into_iter().filter(|(_, _, groups)| !groups.is_empty());
    some.map(|(name, title, groups)| (name, title, chart(title, &groups))).collect()
}

fn group(name: &str, bars: impl Iterator<Item = (String, Option<Spread>)>) -> Option<Group> {
    let bar = |(label, value): (String, Option<Spread>)| {
        let own = is_own(&label);
        Some(Bar { label, value: value?, own })
    };
    let bars: Vec<Bar> = bars.filter_map(bar).collect();
    (!bars.is_empty()).then(|| Group { name: name.to_owned(), bars })
}

fn appends(report: &Report, figure: impl Fn(&Turn) -> f64) -> Vec<Group> {
    let groups = report.appends.iter().filter_map(|case| {
        let bars = case.peers.iter();
        let bars = bars.map(|(name, _, turns)| ((*name).to_owned(), Spread::by(turns, &figure)));
        group(&words(case.shape), bars)
    });
    groups.collect()
}

fn histories(report: &Report) -> Vec<Group> {
    let one = |figure: f64| Spread::of([figure]);
    let of = |name: &str, figure: &dyn Fn(&super::History) -> Option<Spread>| {
        let bars = report.histories.iter();
        group(name, bars.map(|history| (history.name.to_owned(), figure(history))))
    };
    let start = |figure: fn(&Start) -> f64| {
        move |history: &super::History| Spread::by(&history.starts, figure)
    };
    let groups = [
        of("disk bytes an event and node", &|h| one(h.disk / f64::from(h.nodes))),
        of("MB in memory of a node after writing", &|h| one(h.written_mb / f64::from(h.nodes))),
        of("seconds from start to the first write", &start(|start| start.ready_s)),
        of("events replayed a second", &start(|start| start.rate)),
        of("replay: CPU µs of all servers an event", &start(|start| start.servers_us)),
    ];
    groups.into_iter().flatten().collect()
}

fn delays(report: &Report) -> Vec<Group> {
    let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
    let lags = |name, figures: fn(&super::Lags) -> &[f64]| {
        let bars = report.lags.iter();
        group(name, bars.map(|lags| (lags.name.to_owned(), spread(figures(lags)))))
    };
    let losses = report.losses.iter();
    let losses = losses.map(|losses| (losses.name.to_owned(), spread(&losses.seconds)));
    let groups = [
        lags("ms from an append to a subscriber, median", |lags| &lags.p50_ms),
        lags("ms from an append to a subscriber, 99 of 100", |lags| &lags.p99_ms),
        group("seconds from the loss of the leader to the next write", losses),
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::appends;
    use super::*;

    #[test]
    fn only_what_was_measured_is_plotted() {
        assert_eq!(all(&Report::default()).len(), 0);
        let report = Report { appends: vec![appends(1, 64)], ..Report::default() };
        let names: Vec<_> = all(&report).iter().map(|(name, _, _)| *name).collect();
        assert_eq!(names, ["append-cpu", "append-rate"]);
    }
}
