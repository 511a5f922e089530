//! How much faster than others Anabranch has to be, and is.

use super::super::append::Appends;
use super::super::case::Shape;
use super::{head, is_own, ratio, row, words};
use crate::spread::{Spread, short};

/// What is asked for of one case.
struct Floor {
    batch: usize,
    clients: usize,
    /// The name of the other store begins with this. Of several the fastest counts.
    other: &'static str,
    nodes: u16,
    /// Anabranch's events a second over the other's.
    least: f64,
}

const FLOORS: [Floor; 3] = [
    Floor { batch: 1_000, clients: 4, other: "UmaDB", nodes: 1, least: 1.3 },
    Floor { batch: 1, clients: 64, other: "NATS R3", nodes: 3, least: 2.0 },
    Floor { batch: 1_000, clients: 4, other: "NATS R3", nodes: 3, least: 2.0 },
];
const PAYLOAD: usize = 256;

/// A table of those that were measured; nothing if none was.
pub fn table(appends: &[Appends]) -> String {
    let mut rows = String::new();
    for Floor { batch, clients, other, nodes, least } in FLOORS {
        let shape = Shape { batch, clients, payload: PAYLOAD };
        let measured = appends.iter().find(|appends| appends.shape == shape);
        let Some((faster, leaner)) = measured.and_then(|case| ratios(case, other, nodes)) else {
            continue;
        };
        let met = if faster.median >= least { "yes" } else { "**no**" };
        let cells = [
            format!("{}, beside {other}", words(shape)),
            format!("≥ {least}"),
            faster.to_string(),
            met.to_owned(),
            short(leaner.median),
        ];
        row(&mut rows, &cells);
    }
    if rows.is_empty() {
        return rows;
    }
    let mut text = "\n### Floors\n\n".to_owned();
    let asked =
        ["case", "asked for", "events/s over the other's", "met", "the other's CPU over ours"];
    head(&mut text, &asked);
    text + &rows
}

/// Of rates and of processor time, to the fastest of the others.
fn ratios(case: &Appends, other: &str, nodes: u16) -> Option<(Spread, Spread)> {
    let (_, _, own) = case.peers.iter().find(|(name, of, _)| is_own(name) && *of == nodes)?;
    let others = case.peers.iter().filter(|(name, _, _)| name.starts_with(other));
    let faster = |(_, _, turns): &(_, _, Vec<_>)| ratio(own, turns, |turn| turn.rate);
    let fastest = others
        .filter_map(|peer| Some((faster(peer)?, &peer.2)))
        .min_by(|(a, _), (b, _)| a.median.total_cmp(&b.median));
    let (faster, turns) = fastest?;
    Some((faster, ratio(turns, own, |turn| turn.servers_us)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{appends, turn};
    use super::*;

    #[test]
    fn the_fastest_of_the_others_counts() {
        let mut case = appends(1_000, 4);
        let slow = vec![turn(10.0, 2.0); 3];
        case.peers.push(("Anabranch ×3", 3, slow));
        case.peers.push(("NATS R3, pipelined", 3, vec![turn(4.0, 6.0)]));
        let table = table(&[case]);
        let rows: Vec<&str> = table.lines().filter(|row| row.contains("beside")).collect();
        assert_eq!(rows.len(), 2, "{table}");
        assert!(rows[0].contains("UmaDB | ≥ 1.3 | 4.00 (2.00..6.00) | yes | 2.00"), "{table}");
        assert!(rows[1].contains("NATS R3 | ≥ 2 | 2.00 (2.00..2.00) | yes | 1.00"), "{table}");
    }

    #[test]
    fn one_that_is_not_met_says_so() {
        let mut case = appends(1_000, 4);
        case.peers[1].2 = vec![turn(50.0, 1.0); 3];
        assert!(table(&[case]).contains("| **no** |"));
        assert_eq!(table(&[appends(100, 4)]), "");
    }
}
