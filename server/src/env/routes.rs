//! Ways round: some addresses are reached by way of others.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use super::net::{BoxStream, Listener, Net};

/// A network in which connections to some addresses go elsewhere. Listening is as it was.
pub struct Routed {
    net: Arc<dyn Net>,
    routes: BTreeMap<String, String>,
}

impl Routed {
    /// `net`, where a connection to a key of `routes` is made to its value instead.
    pub fn over(net: Arc<dyn Net>, routes: &BTreeMap<String, String>) -> Arc<dyn Net> {
        match routes.is_empty() {
            true => net,
            false => Arc::new(Self { net, routes: routes.clone() }),
        }
    }
}

#[async_trait]
impl Net for Routed {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.net.listen(address).await
    }
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        self.net.connect(self.routes.get(address).map_or(address, String::as_str)).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::net::TokioNet;
    use super::*;

    #[tokio::test]
    async fn a_connection_takes_the_way_round_and_others_do_not() {
        let plain: Arc<dyn Net> = Arc::new(TokioNet);
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(plain.listen("127.0.0.1:0").await.unwrap());
        }
        let address = |nth: usize| listeners[nth].local_addr().unwrap().to_string();
        let [there, round, other] = [0, 1, 2].map(address);
        let net = Routed::over(plain, &[(there.clone(), round)].into());
        let _connections = (net.connect(&there).await.unwrap(), net.connect(&other).await.unwrap());
        let soon = Duration::from_secs(20);
        for nth in [1, 2] {
            timeout(soon, listeners[nth].accept()).await.expect("it arrives").unwrap();
        }
        let astray = timeout(Duration::from_millis(50), listeners[0].accept()).await;
        assert!(astray.is_err(), "nothing arrives where it was to go at first");
    }
}
