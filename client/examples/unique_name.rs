//! Gives a name once, over all regions: with a home for any name, and with a bounded counter for names
//! that are known beforehand. `docs/rules.md` says which to choose.

mod shared;

use std::time::Duration;

use anabranch_client::{AppendError, Client, Expect, event};
use anyhow::ensure;
use serde_json::json;

const VOUCHER: &str = r#"{
    "category": "voucher",
    "version": 1,
    "fields": { "free": "bounded-counter", "holder": "lww-register" }
}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    let home = client.status().await?.region;

    // Once, for all regions. Until all have confirmed it, the home says yes to no expectation.
    client.classes().declare("name", &home).await?;
    let missing = client.classes().await_all("name", Duration::from_secs(30)).await?;
    ensure!(missing.is_empty(), "these regions have not confirmed the home of names: {missing:?}");
    for by in ["ada@example.com", "eve@example.com"] {
        println!("the name ada for {by}: {}", take_name(&client, "ada", by).await?);
    }

    // The issuer gives every voucher one right.
    client.define(VOUCHER).await?;
    client.counter("voucher-AX17", "free").add(1).await?;
    for by in ["ada@example.com", "eve@example.com"] {
        println!("voucher AX17 for {by}: {}", use_voucher(&client, "AX17", by).await?);
    }
    Ok(())
}

/// Whether the name was free, and is now taken.
async fn take_name(client: &Client, name: &str, by: &str) -> anyhow::Result<bool> {
    let taken = event("Taken").json(&json!({ "by": by }))?;
    match client.append(format!("name-{name}"), taken).expect(Expect::NoStream).await {
        Ok(_) => Ok(true),
        Err(AppendError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the voucher had not been used, and now is.
async fn use_voucher(client: &Client, code: &str, by: &str) -> anyhow::Result<bool> {
    let stream = format!("voucher-{code}");
    match client.counter(&stream, "free").add(-1).await {
        Ok(_) => {
            client.register(&stream, "holder").set(by).await?;
            Ok(true)
        }
        Err(AppendError::RightsShort { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
