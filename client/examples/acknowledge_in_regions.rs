//! Waits until two regions hold an append, so that losing one whole region cannot lose it.

mod shared;

use std::time::Duration;

use anabranch_client::{AppendError, Regions, event};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    let append = client
        .append("payment-9", event("Captured").payload("{}"))
        .acknowledge(Regions(2), Duration::from_secs(5));
    match append.await {
        Ok(appended) => println!("{} is durable in {} regions", appended.first, appended.regions),
        // Not a failure to write: it is durable here, and goes on to the others by itself.
        Err(AppendError::RegionsShort { wanted, reached, appended }) => {
            println!("{} is durable in {reached} of {wanted} regions so far", appended.first);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
