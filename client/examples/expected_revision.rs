//! Writes only if nobody else has: optimistic concurrency, and what to do when it fails.

mod shared;

use anabranch_client::{AppendError, Expect, event};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    loop {
        // Read, decide ...
        let last = client.read_stream("seat-12a").backwards().limit(1).collect().await?;
        let expected = match last.first() {
            Some(event) if event.kind == "Reserved" => {
                println!("taken");
                return Ok(());
            }
            Some(event) => Expect::Revision(event.revision),
            None => Expect::NoStream,
        };
        // ... and write if nothing has changed. That holds within this region: another region that
        // has not seen this write may reserve the same seat, and both events are kept.
        match client.append("seat-12a", event("Reserved")).expect(expected).await {
            Ok(appended) => {
                println!("reserved by {}", appended.first);
                return Ok(());
            }
            // Certainly not written: read again and decide anew.
            Err(AppendError::Conflict { conflicts }) => println!("lost the race: {conflicts:?}"),
            // Perhaps written. Repeating it under the same ticket cannot reserve twice.
            Err(AppendError::Unknown { ticket, .. }) => {
                let again = client.append("seat-12a", event("Reserved")).expect(expected);
                println!("reserved by {}", again.retry_of(ticket).await?.first);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}
