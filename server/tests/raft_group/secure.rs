//! Mutual TLS between nodes.

use anabranch_proto::internal::{Frame, raft_client::RaftClient};
use anabranch_server::raft::RaftTls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::cluster::{Cluster, TestNode};

const NAME: &str = "raft.eu.anabranch";

/// An authority that signs certificates of nodes.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this authority, for a node that trusts `trusted`.
    fn issue(&self, trusted: &Self) -> RaftTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        RaftTls {
            ca: trusted.pem.clone().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            server_name: NAME.to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_certificates_of_one_authority_form_a_group() {
    let authority = Authority::new();
    let mut cluster = Cluster::stopped(3).await;
    for node in cluster.nodes.values_mut() {
        node.tls = Some(authority.issue(&authority));
    }
    cluster.begin().await;
    cluster.write("over tls").await.unwrap();
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_certificate_of_another_authority_gets_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::stopped(1).await;
    cluster.node(1).tls = Some(ours.issue(&ours));
    cluster.begin().await;
    let mut stranger = TestNode::new(2);
    stranger.tls = Some(theirs.issue(&ours));
    stranger.start().await;
    cluster.keeps_out(stranger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_certificate_is_not_heard() {
    let authority = Authority::new();
    let mut cluster = Cluster::stopped(1).await;
    cluster.node(1).tls = Some(authority.issue(&authority));
    cluster.begin().await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.pem))
        .domain_name(NAME);
    let address = format!("https://{}", cluster.nodes[&1].address);
    let endpoint = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap();
    let heard = match endpoint.connect().await {
        // TLS 1.3 tells a client that it was turned away only when it reads.
        Ok(channel) => match RaftClient::new(channel).vote(Frame::default()).await {
            Ok(_) => true,
            // What our service answers to an empty frame.
            Err(status) => status.code() == tonic::Code::FailedPrecondition,
        },
        Err(_) => false,
    };
    assert!(!heard);
}
