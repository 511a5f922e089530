//! Follows a category and keeps its place in a file, so that every event is handled once.
//!
//! The cursor in the file resumes in any region. In earnest it is stored in one transaction with
//! what the event caused; a file written after the effect may make the last event come twice.

mod shared;

use anabranch_client::{From, Message};

const PLACE: &str = "cart-reader.cursor";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    let from = match std::fs::read(PLACE) {
        Ok(bytes) => From::saved(&bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => From::Start,
        Err(error) => return Err(error.into()),
    };

    // Reconnects by itself when its node goes away; an error means that it gave up.
    let mut subscription = client.subscribe_category("cart").from(from).start();
    while let Some(message) = subscription.next().await {
        match message? {
            Message::Event(event) => println!("{} {}", event.stream, event.kind),
            Message::CaughtUp => println!("caught up, waiting for more"),
            Message::FellBehind => println!("the writers are faster than this reader"),
            Message::Heartbeat { .. } => {}
        }
        // Exact after every message: what was printed lies before it, nothing else does.
        if let Some(cursor) = subscription.cursor() {
            std::fs::write(PLACE, cursor.encode())?;
        }
    }
    Ok(())
}
