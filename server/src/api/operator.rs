//! The service `anabranch.v1.Cluster` as it is served on the Raft port.
//!
//! Who comes there has shown a certificate that the authority of the nodes has signed. That is what a
//! change of the members needs: whoever may make it can end a region.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anabranch_gossip::certified_region;
use anabranch_proto::v1;
use anabranch_proto::v1::cluster_server::{Cluster, ClusterServer};
use tonic::service::Routes;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status};

use super::refusal::not_leader;
use super::{Api, Inner};

impl Api {
    /// What is served beside Raft, to those who run the region.
    pub fn operator(&self) -> Routes {
        Routes::new(ClusterServer::new(Operator { api: Arc::downgrade(&self.inner) }))
    }
}

struct Operator {
    /// Raft's connections outlive the node by a moment; its folder and ports must be free before.
    api: Weak<Inner>,
}

#[tonic::async_trait]
impl Cluster for Operator {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.api()?.status(request).await
    }

    async fn fingerprint(
        &self,
        request: Request<v1::FingerprintRequest>,
    ) -> Result<Response<v1::FingerprintResponse>, Status> {
        self.api()?.fingerprint(request).await
    }

    /// Not passed on: the leader has to see the caller's certificate itself.
    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let api = self.api()?;
        check_region(&api, &request)?;
        api.change_members(request, false).await
    }
}

impl Operator {
    fn api(&self) -> Result<Api, Status> {
        let inner = self.api.upgrade();
        inner.map(|inner| Api { inner }).ok_or_else(|| not_leader("the node has stopped", None))
    }
}

/// The certificates of all regions may be signed by one authority.
fn check_region<T>(api: &Api, request: &Request<T>) -> Result<(), Status> {
    let own = api.inner.identity.region();
    let shown = request.extensions().get::<TlsConnectInfo<SocketAddr>>();
    let chain = shown.and_then(TlsConnectInfo::peer_certs);
    let Some(chain) = chain else {
        return Err(Status::unauthenticated("no certificate was shown"));
    };
    match certified_region(&chain) {
        Ok(region) if region == *own => Ok(()),
        Ok(region) => {
            let problem = format!("the certificate is of region {region}, this one is {own}");
            Err(Status::permission_denied(problem))
        }
        Err(error) => Err(Status::permission_denied(error.to_string())),
    }
}
