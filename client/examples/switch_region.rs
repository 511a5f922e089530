//! Writes in one region, then reads its own write in another.
//!
//! `cargo run -p anabranch-client --example switch_region -- http://127.0.0.1:7101 http://127.0.0.1:7201`

mod shared;

use anabranch_client::{Client, event};
use shared::endpoint;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let home = || endpoint(1, "ANABRANCH_ENDPOINT", 7101);
    let away = || endpoint(2, "ANABRANCH_ENDPOINT_2", 7201);

    // One process, two regions: reads also move there by themselves when home is gone.
    let client = Client::builder().region("home", [home()]).fallback_region("away", [away()]);
    let client = client.build()?;
    client.append("profile-5", event("Renamed").payload("Ada")).await?;
    let abroad = client.in_region("away").expect("named above");
    // Waits until the other region holds what this session has written.
    let there = abroad.read_stream("profile-5").backwards().limit(1).collect().await?;
    println!("read away: {:?}", there.first().map(|event| &event.payload));

    // Two processes: the token goes with the user, in a cookie for example.
    let token = client.session().token();
    let elsewhere = Client::builder().region("away", [away()]).build()?;
    elsewhere.session().merge(&token)?;
    let there = elsewhere.read_stream("profile-5").backwards().limit(1).collect().await?;
    println!("read elsewhere: {:?}", there.first().map(|event| &event.payload));
    Ok(())
}
