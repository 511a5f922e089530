//! Clients that write: in every region at once, many of their streams shared by all regions.

use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{AppendError, Client, NewEvent, Ticket, event};
use anabranch_core::RegionName;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ledger::{Answer, Asked, Ids, Ledger, content_of};

/// Streams that every region writes to.
const SHARED_STREAMS: u32 = 300;
/// Streams of each region alone.
const OWN_STREAMS: u32 = 50;
/// Writers in each region.
pub const WRITERS: u32 = 4;
/// A writer begins an append this often, or as soon as the one before is answered.
const PACE: Duration = Duration::from_millis(25);
/// How long the client tries before it says *unknown* or *refused*; then the writer takes over.
const TRY: Duration = Duration::from_secs(4);
/// Pause after a refusal, before the same events are sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Events to append together, all or none.
#[derive(Debug, Default)]
pub struct Batch {
    parts: Vec<(String, Vec<NewEvent>)>,
    asked: Vec<Asked>,
}

impl Batch {
    /// Adds an event under the next of the writer's ids.
    pub fn add(
        &mut self,
        ids: &mut Ids,
        stream: &str,
        kind: &str,
        event: NewEvent,
        payload: &[u8],
    ) {
        let id = ids.draw();
        let event = event.payload(bytes::Bytes::copy_from_slice(payload)).id(id);
        self.asked.push(Asked { id, content: content_of(stream, kind, payload) });
        match self.parts.last_mut() {
            Some((last, events)) if last == stream => events.push(event),
            _ => self.parts.push((stream.to_owned(), vec![event])),
        }
    }
    /// Number of events.
    pub fn events(&self) -> usize {
        self.asked.len()
    }

    async fn send(
        &self,
        client: &Client,
        ticket: Option<Ticket>,
    ) -> Result<anabranch_client::Appended, AppendError> {
        let (first, rest) = self.parts.split_first().expect("a batch holds an event");
        let mut append = client.append(first.0.clone(), first.1.clone()).timeout(TRY);
        for (stream, events) in rest {
            append = append.and(stream.clone(), events.clone());
        }
        if let Some(ticket) = ticket {
            append = append.retry_of(ticket);
        }
        append.await
    }
}

/// One client in one region, writing down what it is told.
pub struct Writer {
    client: Client,
    region: RegionName,
    ledger: Arc<Mutex<Ledger>>,
    /// Until then the writer insists on knowing what became of an append.
    give_up: CancellationToken,
}

/// An append was refused for a reason that no retry mends.
#[derive(Debug, thiserror::Error)]
#[error("an append in {region} was refused")]
pub struct Refused {
    region: RegionName,
    source: AppendError,
}

impl Writer {
    /// A writer in `region`. `give_up` ends its insistence, not an append that is on its way.
    pub fn new(
        client: Client,
        region: RegionName,
        ledger: Arc<Mutex<Ledger>>,
        give_up: CancellationToken,
    ) -> Self {
        Self { client, region, ledger, give_up }
    }

    /// Appends the batch and stays with it until its outcome is known: the same producer sequence is
    /// sent while it is in doubt, so that nothing is written twice.
    ///
    /// # Errors
    /// [`Refused`] if it never can be written.
    pub async fn write(&self, batch: &Batch) -> Result<(), Refused> {
        let began = Instant::now();
        let mut ticket = None;
        loop {
            match batch.send(&self.client, ticket.clone()).await {
                Ok(appended) => {
                    let (at, asked) = (Instant::now(), &batch.asked[..]);
                    let (region, first, latency) = (&self.region, &appended.first, at - began);
                    let repeated = appended.repeated;
                    let answer = Answer { region, asked, first, repeated, latency, at };
                    self.ledger.lock().acknowledge(&answer);
                    return Ok(());
                }
                Err(AppendError::Unknown { ticket: doubted, .. }) => {
                    self.ledger.lock().doubt(&batch.asked);
                    ticket = Some(doubted);
                }
                Err(error) if is_hopeless(&error) => {
                    self.ledger.lock().refuse();
                    return Err(Refused { region: self.region.clone(), source: error });
                }
                Err(error) => {
                    tracing::debug!(region = %self.region, %error, "an append was refused");
                    self.ledger.lock().refuse();
                    sleep(REFUSED_PAUSE).await;
                }
            }
            if self.give_up.is_cancelled() {
                return Ok(());
            }
        }
    }
}

/// Whether sending the same again cannot help.
fn is_hopeless(error: &AppendError) -> bool {
    use AppendError::{Conflict, Fenced, Forgotten, Invalid};
    matches!(error, Conflict { .. } | Fenced { .. } | Forgotten { .. } | Invalid { .. })
}

/// Writes small batches to shared and own streams until `stop`.
///
/// # Errors
/// [`Refused`].
pub async fn write_carts(
    writer: Writer,
    mut ids: Ids,
    seed: u64,
    stop: CancellationToken,
) -> Result<(), Refused> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut next = Instant::now() + PACE.mul_f64(rng.random());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep_until(next) => {}
        }
        next = Instant::now().max(next + PACE);
        writer.write(&cart_batch(&mut rng, &mut ids, &writer.region)).await?;
    }
}

/// One to four events on a stream; now and then on two streams at once.
fn cart_batch(rng: &mut SmallRng, ids: &mut Ids, region: &RegionName) -> Batch {
    let mut batch = Batch::default();
    let streams = if rng.random_ratio(1, 8) { 2 } else { 1 };
    for _ in 0..streams {
        let stream = match rng.random_ratio(3, 4) {
            true => format!("cart-{}", rng.random_range(0..SHARED_STREAMS)),
            false => format!("till-{region}-{}", rng.random_range(0..OWN_STREAMS)),
        };
        for _ in 0..rng.random_range(1..=4) {
            let kind = if rng.random_ratio(4, 5) { "ItemAdded" } else { "ItemRemoved" };
            let (item, count) = (rng.random_range(0..1_000_u32), rng.random_range(1..5_u32));
            let payload = format!(r#"{{"item":"sku-{item}","count":{count},"at":"{region}"}}"#);
            let new = event(kind).metadata("content-type", "application/json");
            batch.add(ids, &stream, kind, new, payload.as_bytes());
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_batches_and_regions_meet_on_shared_streams() {
        let batches = |seed: u64, region: &str| {
            let (mut rng, mut ids) = (SmallRng::seed_from_u64(seed), Ids::new(1, 1));
            let region = RegionName::new(region).unwrap();
            let mut made = Vec::new();
            for _ in 0..500 {
                let batch = cart_batch(&mut rng, &mut ids, &region);
                assert!((1..=8).contains(&batch.events()));
                made.extend(batch.parts);
            }
            made
        };
        assert_eq!(batches(3, "eu"), batches(3, "eu"));
        let streams = |parts: Vec<(String, Vec<NewEvent>)>| {
            parts.into_iter().map(|(stream, _)| stream).collect::<std::collections::BTreeSet<_>>()
        };
        let (eu, us) = (streams(batches(3, "eu")), streams(batches(4, "us")));
        let both = eu.intersection(&us).count();
        assert!(both > 100, "{both} shared streams");
        assert!(eu.difference(&us).any(|stream| stream.starts_with("till-eu-")));
    }
}
