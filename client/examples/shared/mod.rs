//! Where the examples find their nodes.

use anabranch_client::Client;

#[allow(dead_code, reason = "one example puts its client together itself")]
/// A client of the region whose node is given as the first argument, or in `ANABRANCH_ENDPOINT`.
pub fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().region("home", [endpoint(1, "ANABRANCH_ENDPOINT", 7101)]).build()?)
}

/// Argument number `nth`, else the environment's `name`, else `port` on this machine.
pub fn endpoint(nth: usize, name: &str, port: u16) -> String {
    let given = std::env::args().nth(nth).or_else(|| std::env::var(name).ok());
    given.unwrap_or_else(|| format!("http://127.0.0.1:{port}"))
}
