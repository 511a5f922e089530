//! Declares what streams add up to, changes it from anywhere, and reads it.
//!
//! Two regions may do this at the same time without asking each other; both end with the same.

mod shared;

use anabranch_client::{Comparison, Operation, event};
use serde_json::json;

const STOCK: &str = r#"{
    "category": "stock",
    "version": 1,
    "fields": { "on_hand": "pn-counter", "tags": "or-set", "name": "lww-register",
                "for_sale": "flag", "notes": "list", "reserved": "map of pn-counter" },
    "on": { "Received": ["on_hand += $.count"] }
}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = shared::client()?;

    // Once, for all regions. The same again changes nothing; a change needs a higher version.
    let defined = client.define(STOCK).await?;
    println!("{} version {}", defined.category, defined.version);

    // Ordinary events feed fields, as the definition says ...
    client.append("stock-42", event("Received").json(&json!({ "count": 12 }))?).await?;
    // ... and operations change them directly. Each is an append: retried, and counted once.
    client.counter("stock-42", "on_hand").add(-2).await?;
    client.set("stock-42", "tags").add("fragile").await?;
    client.register("stock-42", "name").set("teapot").await?;
    client.flag("stock-42", "for_sale").enable().await?;
    client.list("stock-42", "notes").push("count again").await?;
    client.counter("stock-42", "reserved").key("ada").add(1).await?;

    // Reads hold what this client has written and seen.
    println!("{} on hand", client.counter("stock-42", "on_hand").value().await?);
    println!("tags {}", json!(client.set("stock-42", "tags").members().await?));
    println!("notes {}", json!(client.list("stock-42", "notes").values().await?));

    // Several at once: all of them, or none. With `observed`, nothing is removed that was not seen.
    let stock = client.aggregate("stock-42");
    let seen = stock.get().await?;
    println!("all of it: {}", json!(seen.value));
    let operations = [Operation::remove("tags", "fragile"), Operation::increment("on_hand", -1)];
    stock.operate(operations).observed(seen.session_token).await?;

    // Over all streams of the category.
    let mut plenty = client.query("stock").where_("on_hand", Comparison::Greater, 5).all();
    while let Some(aggregate) = plenty.next().await {
        println!("plenty of {}", aggregate?.stream);
    }

    // Now, and whenever it changes. This one change is all that is waited for here.
    let mut watch = stock.watch();
    for _ in 0..2 {
        if let Some(aggregate) = watch.next().await {
            println!("now {} on hand", aggregate?.value["on_hand"]);
        }
        client.counter("stock-42", "on_hand").add(1).await?;
    }
    Ok(())
}
