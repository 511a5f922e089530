//! Reads everything in both orders.
//!
//! Regional: as this region received it, at once. Global: the same in every region, gapless, final
//! once delivered; it ends where some region may still send an earlier event.

mod shared;

use anabranch_client::{Filter, From, Order};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;

    for order in [Order::Regional, Order::Global] {
        println!("{order:?}");
        let mut events = client.read_all().order(order).limit(20).events();
        while let Some(event) = events.next().await {
            let event = event?;
            println!("  {:?} {} {} {}", event.place, event.dot, event.stream, event.kind);
        }
    }

    // The last three of one stream, newest first; and a filtered read from some revision on.
    for event in client.read_stream("cart-42").backwards().limit(3).collect().await? {
        println!("revision {}: {}", event.revision, event.kind);
    }
    let added = Filter::new().types(["ItemAdded"]);
    let read = client.read_stream("cart-42").from(From::Revision(1)).filter(added);
    println!("{} items added since revision 1", read.collect().await?.len());
    Ok(())
}
