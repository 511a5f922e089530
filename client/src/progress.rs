//! Where a reader is, event by event.
//!
//! A batch comes with one cursor, for its end. The cursor after each event inside follows from it:
//! *the end, less what comes later in the batch*. In both orders the events of one origin come in
//! the order of their numbers, so after event `i` an origin stands just before its first event later
//! in the batch, or at its end if there is none. What lies between was passed over by the filter, and
//! what other origins passed over may be counted as passed already: none of it will ever be
//! delivered to this reader. So the cursor is exact also where the reader's start was given as a
//! time or a position, whose context the client does not know.

use std::collections::BTreeMap;

use anabranch_core::{Context, Cursor, Dot, Origin, Seq};

/// Where a reader is; none until the first batch or sign of life came.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    cursor: Option<Cursor>,
}

/// How far an event's origin stands after the event.
pub(crate) type Mark = Seq;

/// The cuts of one batch: the one before its first event, and a mark for each event.
#[derive(Debug)]
pub(crate) struct Cuts {
    pub(crate) start: Context,
    pub(crate) marks: Vec<Mark>,
}

/// The cuts of a batch that ends at `end`. `dots` are its events, in order.
pub(crate) fn cuts<'a>(end: &Context, dots: impl DoubleEndedIterator<Item = &'a Dot>) -> Cuts {
    let mut before_later: BTreeMap<Origin, Seq> = BTreeMap::new();
    let mut marks: Vec<Mark> = dots
        .rev()
        .map(|dot| {
            let before = Seq(dot.seq.0.saturating_sub(1));
            match before_later.get_mut(&dot.origin) {
                Some(seq) => std::mem::replace(seq, before),
                None => {
                    before_later.insert(dot.origin.clone(), before);
                    end.seq(&dot.origin)
                }
            }
        })
        .collect();
    marks.reverse();
    let at_start = |(origin, seq): (&Origin, Seq)| {
        (origin.clone(), before_later.get(origin).copied().unwrap_or(seq))
    };
    Cuts { start: end.iter().map(at_start).collect(), marks }
}

impl Progress {
    /// At `cursor`, if it is known where the reader begins.
    pub(crate) fn new(cursor: Option<Cursor>) -> Self {
        Self { cursor }
    }
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }
    /// An event of this origin, with this mark, was delivered.
    pub(crate) fn delivered(&mut self, origin: &Origin, mark: Mark) {
        if let Some(cursor) = &mut self.cursor {
            cursor.context.advance(origin, mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::{Incarnation, ReadOrder, RegionName, ShardId};

    fn origin(region: &str) -> Origin {
        let region = RegionName::new(region).unwrap();
        Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
    }
    fn cut(seqs: &[(&str, u64)]) -> Context {
        seqs.iter().map(|(region, seq)| (origin(region), Seq(*seq))).collect()
    }
    fn dots(events: &[(&str, u64)]) -> Vec<Dot> {
        let dot = |(region, seq): &(&str, u64)| Dot { origin: origin(region), seq: Seq(*seq) };
        events.iter().map(dot).collect()
    }

    /// The cut before the batch and after each event.
    fn walk(end: &Context, events: &[(&str, u64)]) -> Vec<Context> {
        let dots = dots(events);
        let cuts = cuts(end, dots.iter());
        let start = Cursor { order: ReadOrder::Regional, context: cuts.start };
        let mut progress = Progress::new(Some(start));
        let mut walked = vec![progress.cursor().unwrap().context.clone()];
        for (dot, mark) in dots.iter().zip(cuts.marks) {
            progress.delivered(&dot.origin, mark);
            walked.push(progress.cursor().unwrap().context.clone());
        }
        walked
    }

    #[test]
    fn every_event_of_a_batch_has_its_own_cut() {
        let end = cut(&[("eu", 4), ("us", 2)]);
        let walked = walk(&end, &[("eu", 3), ("us", 2), ("eu", 4)]);
        let expected = [
            cut(&[("eu", 2), ("us", 1)]),
            cut(&[("eu", 3), ("us", 1)]),
            cut(&[("eu", 3), ("us", 2)]),
            end,
        ];
        assert_eq!(walked, expected);
    }

    #[test]
    fn an_origin_that_is_new_in_the_batch_is_absent_before_it() {
        let end = cut(&[("eu", 1)]);
        assert_eq!(walk(&end, &[("eu", 1)]), [cut(&[]), end]);
    }

    /// Resuming at any cut delivers exactly the matching events after it, whatever was filtered.
    #[test]
    fn no_cut_skips_or_repeats_an_event_that_the_filter_lets_through() {
        let log: Vec<(&str, u64)> = vec![
            ("eu", 1),
            ("us", 1),
            ("eu", 2),
            ("asia", 1),
            ("us", 2),
            ("us", 3),
            ("eu", 3),
            ("asia", 2),
        ];
        for mask in 0_u32..1 << log.len() {
            let passes = |at: usize| mask & (1 << at) != 0;
            let matching: Vec<_> =
                (0..log.len()).filter(|at| passes(*at)).map(|at| log[at]).collect();
            let end = cut(&[("eu", 3), ("us", 3), ("asia", 2)]);
            for (after, context) in walk(&end, &matching).into_iter().enumerate() {
                let left: Vec<_> = matching
                    .iter()
                    .filter(|(region, seq)| Seq(*seq) > context.seq(&origin(region)))
                    .copied()
                    .collect();
                assert_eq!(left, matching[after..], "filter {mask:b}, after {after} events");
            }
        }
    }
}
