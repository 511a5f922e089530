//! Appends events: one, and several to two streams at once.
//!
//! `cargo run -p anabranch-client --example append -- http://127.0.0.1:7101`

mod shared;

use anabranch_client::event;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;

    // Retried until it is acknowledged or 10 s have passed. A retry never writes twice.
    let added = event("ItemAdded").json(&["tea", "cups"])?.metadata("trace", "t-1");
    let appended = client.append("cart-42", added).await?;
    println!("{} is durable in its region, at {}", appended.first, appended.stamp);

    // All or none, also over several streams.
    let both = client
        .append("cart-42", [event("CheckedOut"), event("Closed")])
        .and("order-7", event("Placed").payload("{}"))
        .await?;
    for (stream, revision) in &both.revisions {
        println!("{stream} is at revision {revision}");
    }
    Ok(())
}
