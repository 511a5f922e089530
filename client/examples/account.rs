//! An account that is never below zero, over all regions: with a home, where one region decides, and with
//! a bounded counter, where each region spends what it holds. `docs/rules.md` says which to choose.

mod shared;

use std::time::Duration;

use anabranch_client::{AppendError, Client, Expect, event};
use anyhow::ensure;
use serde_json::json;

const ACCOUNT: &str = r#"{
    "category": "account",
    "version": 1,
    "fields": { "balance": "ordered from 0" },
    "on": { "Deposited": ["balance += $.amount"],
            "Withdrawn": ["balance -= $.amount when balance >= $.amount"] }
}"#;

const WALLET: &str = r#"{
    "category": "wallet",
    "version": 1,
    "fields": { "balance": "bounded-counter" }
}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;
    let home = client.status().await?.region;

    // Once, for all regions.
    client.classes().declare("account", &home).await?;
    let missing = client.classes().await_all("account", Duration::from_secs(30)).await?;
    ensure!(missing.is_empty(), "these regions have not confirmed the home: {missing:?}");
    client.define(ACCOUNT).await?;
    client.append("account-ada", event("Deposited").json(&json!({ "amount": 50 }))?).await?;
    for _ in 0..2 {
        println!("30 from the account: {}", withdraw(&client, "account-ada", 30).await?);
    }

    client.define(WALLET).await?;
    client.counter("wallet-ada", "balance").add(50).await?;
    for _ in 0..2 {
        println!("30 from the wallet: {}", spend(&client, "wallet-ada", 30).await?);
    }
    Ok(())
}

/// Reads, decides, and appends to what was read; again if somebody was faster.
async fn withdraw(client: &Client, stream: &str, amount: i64) -> anyhow::Result<bool> {
    loop {
        let events = client.read_stream(stream).collect().await?;
        let Some(last) = events.last() else { return Ok(false) };
        let mut balance = 0;
        for event in &events {
            let amount = event.json::<serde_json::Value>()?["amount"].as_i64().unwrap_or_default();
            balance += if event.kind == "Deposited" { amount } else { -amount };
        }
        if balance < amount {
            return Ok(false);
        }
        let withdrawn = event("Withdrawn").json(&json!({ "amount": amount }))?;
        let append = client.append(stream, withdrawn).expect(Expect::Revision(last.revision));
        match append.await {
            Ok(_) => return Ok(true),
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Spends what the region holds, or can get from another one.
async fn spend(client: &Client, stream: &str, amount: i64) -> anyhow::Result<bool> {
    match client.counter(stream, "balance").add(-amount).await {
        Ok(_) => Ok(true),
        Err(AppendError::RightsShort { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
