//! Nodes and clients that are not set up for each other: said at once, and never as doubt.

mod support;

use std::time::Duration;

use anabranch_client::{AppendError, Builder, Client, event};
use support::Node;
use tokio::time::timeout;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

const CA: &str = include_str!("../../jepsen/sim/certs/ca.pem");
const CERTIFICATE: &str = include_str!("../../jepsen/sim/certs/r1.pem");
const KEY: &str = include_str!("../../jepsen/sim/certs/r1-key.pem");

/// Longer than any test may take: what is tried until then was not seen to be hopeless.
const PATIENCE: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(30);

fn tls() -> ServerTlsConfig {
    ServerTlsConfig::new().identity(Identity::from_pem(CERTIFICATE, KEY))
}

async fn append(client: Builder) -> Result<(), AppendError> {
    let append = client.build().unwrap().append("cart-1", event("Happened")).timeout(PATIENCE);
    timeout(SOON, async { append.await.map(drop) }).await.expect("seen to be hopeless")
}

#[tokio::test]
async fn a_node_that_is_spoken_to_the_wrong_way_refuses_at_once_and_has_written_nothing() {
    let plain = Node::start().await;
    let secure = Node::start_tls(tls()).await;
    let strict = Node::start_tls(tls().client_ca_root(Certificate::from_pem(CA))).await;
    let to = |address: &str| Client::builder().region("us", [address]);
    let http = |node: &Node| node.address.replace("https", "http");
    let https = |node: &Node| node.address.replace("http:", "https:");
    let cases = [
        (to(&http(&secure)), "the node speaks TLS: write https"),
        (to(&https(&plain)).ca_pem(CA), "received corrupt message"),
        // Somebody who signs nothing.
        (to(&secure.address).ca_pem(CERTIFICATE), "invalid peer certificate"),
        (to(&secure.address).ca_pem(CA).tls_domain("elsewhere"), "not valid for name"),
        (to(&strict.address).ca_pem(CA), "received fatal alert: CertificateRequired"),
    ];
    for (client, says) in cases {
        let error = append(client).await.unwrap_err();
        assert!(error.is_refused(), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for node in [&plain, &secure, &strict] {
        assert!(node.appended().is_empty());
    }
    append(to(&secure.address).ca_pem(CA)).await.unwrap();
    append(to(&strict.address).ca_pem(CA).identity_pem(CERTIFICATE, KEY)).await.unwrap();
}

#[tokio::test]
async fn another_node_that_fits_is_found() {
    let (plain, secure) = (Node::start().await, Node::start_tls(tls()).await);
    let http = secure.address.replace("https", "http");
    let client = Client::builder().region("us", [http, plain.address.clone()]);
    append(client.seed(1)).await.unwrap();
    assert_eq!((plain.appended().len(), secure.appended().len()), (1, 0));
}

#[tokio::test]
async fn nobody_at_the_address_is_said_with_its_cause_once() {
    let vacant = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = vacant.local_addr().unwrap().to_string();
    drop(vacant);
    let client = Client::builder().region("us", [address]).timeout(support::SHORT).build().unwrap();
    let error = client.append("cart-1", event("Happened")).await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().ends_with(": Connection refused (os error 111)")
    );
    let error = client.read_all().collect().await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(error.to_string().ends_with(": Connection refused (os error 111)"), "{error}");
}
