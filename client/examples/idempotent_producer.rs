//! Appends each line of work exactly once, also over restarts of this process.
//!
//! The number of the work item is the producer's sequence, so an item that is done again after a
//! crash yields the first result instead of a second event.

mod shared;

use anabranch_client::{ProducerId, event};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    // Chosen once at random and kept with the work. A new owner of the work takes a higher epoch,
    // which fences whoever still holds the lower one.
    let id = ProducerId(*b"invoice-importer");
    let producer = client.producer_with(id, 1, 1);

    for item in 1..=3_u64 {
        let appended = producer
            .append_again(
                item,
                "invoice-2031",
                event("LineImported").payload(format!("line {item}")),
            )
            .await?;
        let how = if appended.repeated { "was there already" } else { "is new" };
        println!("item {item} is {} and {how}", appended.first);
    }
    Ok(())
}
