//! The service `anabranch.v1.Cluster`.

use std::collections::BTreeMap;

use anabranch_proto::convert::{invalid, shard};
use anabranch_proto::v1;
use anabranch_proto::v1::cluster_client::ClusterClient;
use anabranch_proto::v1::cluster_server::Cluster;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::Api;
use super::append::{no_shard, with_margin, within};
use super::forward::{answer, no_answer, passed_on, was_forwarded};
use super::refusal::{not_leader, of_membership};
use crate::raft::Node;
use crate::shard::Shard;

#[tonic::async_trait]
impl Cluster for Api {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let shard = self.shard_at(request.get_ref().shard)?.clone();
        let api = self.clone();
        // Looks up the age of events.
        let status = crate::env::blocking(move || api.status_of(&shard)).await;
        Ok(Response::new(status))
    }

    async fn fingerprint(
        &self,
        request: Request<v1::FingerprintRequest>,
    ) -> Result<Response<v1::FingerprintResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard_at(request.shard)?.clone();
        let api = self.clone();
        // A pass over all streams for every bucket that is named.
        let made = crate::env::blocking(move || api.fingerprint_of(&shard, &request.buckets)).await;
        made.map(Response::new)
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        if !self.inner.settings.membership_on_api {
            return Err(Status::permission_denied(NOT_HERE));
        }
        let may_pass_on = !was_forwarded(request.metadata());
        self.change_members(request, may_pass_on).await
    }
}

/// What is said of a change of the members at the API's port.
const NOT_HERE: &str = "the members are changed at the Raft port of their leader, with a certificate of \
                        the region: `anabranch members --config node.toml --voters ...` does it; with \
                        membership-on-api = true it is served here, too";

impl Api {
    /// Changes the members if this node leads; asks the leader to, if that may be.
    pub(super) async fn change_members(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
        may_pass_on: bool,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let within = within(request.metadata()).unwrap_or(self.inner.settings.membership_within);
        let deadline = Instant::now() + with_margin(within);
        let message = request.into_inner();
        let shard = self.shard_at(message.shard)?;
        let leadership = shard.raft().leadership().borrow().clone();
        match leadership.leader.map(|(_, node)| node.api_address) {
            _ if leadership.mine => change_here(shard, message, deadline).await,
            Some(address) if may_pass_on => self.change_there(&address, message, deadline).await,
            known => Err(not_leader("this node does not lead the shard", known.as_deref())),
        }
    }

    fn shard_at(&self, wire: u32) -> Result<&Shard, Status> {
        let id = shard("shard", wire)?;
        self.inner.shards.get(&id).ok_or_else(|| no_shard(id.0))
    }

    async fn change_there(
        &self,
        address: &str,
        message: v1::ChangeMembershipRequest,
        deadline: Instant,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let mut leader = ClusterClient::new(self.inner.leaders.channel(address)?);
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        match timeout_at(deadline, leader.change_membership(passed_on(message, left))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) => Err(answer(status, address, began.elapsed())),
            Err(_) => {
                self.inner.leaders.forget(address);
                Err(no_answer(address, left))
            }
        }
    }
}

async fn change_here(
    shard: &Shard,
    message: v1::ChangeMembershipRequest,
    deadline: Instant,
) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
    let mut voters = BTreeMap::new();
    for (nth, member) in message.voters.into_iter().enumerate() {
        let path = format!("voters[{nth}]");
        if member.node == 0 {
            return Err(invalid(&format!("{path}.node"), "is 0, node ids begin at 1", 0, 0));
        }
        let v1::Member { node, raft_address, api_address } = member;
        for (field, address) in [("raft_address", &raft_address), ("api_address", &api_address)] {
            if address.is_empty() {
                return Err(invalid(&format!("{path}.{field}"), "is empty", 0, 0));
            }
        }
        if voters.insert(node, Node { raft_address, api_address }).is_some() {
            return Err(invalid(&format!("{path}.node"), "is named twice", 0, node));
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let ids = voters.keys().copied().collect();
    shard.raft().change_membership(voters, left).await.map_err(of_membership)?;
    Ok(Response::new(v1::ChangeMembershipResponse { voters: ids }))
}
