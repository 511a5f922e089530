//! Reads of which is written down what they showed.

use anabranch_client::{Client, Cursor, Event, From, Order, Place, Read};
use anabranch_history::note::{Note, Walked};
use anabranch_history::op::SessionRead;

use crate::home::Home;
use crate::scribe::Scribe;

/// Reads all of a stream where the scribe's client is, with its session.
pub(crate) async fn whole(scribe: &Scribe, stream: &str) {
    let (home, called) = (&scribe.home, scribe.home.ledger.now());
    let what = || format!("a read of {stream} in {}", scribe.region);
    let answer = collect(home, scribe.number, what, scribe.client.read_stream(stream)).await;
    let read = answer.map(|events| SessionRead {
        writer: scribe.number,
        region: scribe.region.clone(),
        stream: stream.to_owned(),
        whole: true,
        shown: events.into_iter().map(|event| event.dot).collect(),
        called,
        returned: home.ledger.now(),
    });
    home.ledger.session_read(read);
}

/// All events of a read; none if it gave up or was silent. The deadline is for progress: a read that
/// goes on may take as long as it takes.
pub(crate) async fn collect(
    home: &Home,
    writer: u32,
    what: impl Fn() -> String,
    read: Read,
) -> Option<Vec<Event>> {
    let mut events = read.timeout(home.plan.deadline).events();
    let mut all = Vec::new();
    while let Some(event) = home.answer(writer, home.plan.deadline, &what, events.next()).await? {
        all.push(event.ok()?);
    }
    Some(all)
}

/// A walk: one long read of a category in small parts, each in any region.
pub(crate) struct Walk {
    writer: u32,
    number: u32,
    category: &'static str,
    order: Order,
    /// As bytes, as it would travel between processes.
    cursor: Vec<u8>,
}

impl Walk {
    /// Begins at the start.
    pub(crate) fn new(writer: u32, number: u32, category: &'static str, order: Order) -> Self {
        let cursor = Cursor::start(order).encode().to_vec();
        Self { writer, number, category, order, cursor }
    }

    /// Goes on in the region of `client`, with its session, up to what is there; or up to `limit`
    /// events, 0: no limit.
    pub(crate) async fn go_on(&mut self, home: &Home, client: &Client, region: &str, limit: u64) {
        let from = From::saved(&self.cursor).expect("a cursor that was kept is one");
        let read = client.read_category(self.category).order(self.order).from(from).limit(limit);
        let mut events = read.timeout(home.plan.deadline).events();
        let (called, mut shown) = (home.ledger.now(), Vec::new());
        let what = || format!("a read of category {} in {region}", self.category);
        let ended = loop {
            match home.answer(self.writer, home.plan.deadline, what, events.next()).await {
                Some(Some(Ok(event))) => {
                    let (Place::Regional(place) | Place::Global(place)) = event.place;
                    shown.push((place, event.dot));
                }
                Some(None) => break true,
                Some(Some(Err(_))) | None => break false,
            }
        };
        if let Some(cursor) = events.cursor() {
            self.cursor = cursor.encode().to_vec();
        }
        // A read that was cut short by its limit says nothing about what it did not show.
        let complete = ended && (limit == 0 || (shown.len() as u64) < limit);
        home.ledger.note(Note::Walked(Walked {
            writer: self.writer,
            walk: self.number,
            region: region.to_owned(),
            category: self.category.to_owned(),
            order: self.order,
            called,
            returned: home.ledger.now(),
            shown,
            complete,
        }));
    }
}
