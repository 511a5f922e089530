//! Passing requests on to the shard's leader.
//!
//! A request is passed on once: the leader that gets it with [`FORWARDED`] set answers it or refuses
//! it, so two nodes that take each other for the leader do not play ball with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_proto::convert::{LEADER, cause, never_sent, sources};
use parking_lot::Mutex;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::refusal::{lost, not_leader, unknown};
use super::settings::ApiTls;
use crate::env::{Net, dial};

/// Request metadata that counts the regions that a request was carried to.
pub(super) const HOPS: &str = "anabranch-hops";
/// Request metadata of a request that was passed on.
pub(super) const FORWARDED: &str = "anabranch-forwarded";

/// Addresses kept: those of one region's nodes, and of some that left.
const CHANNELS_MAX: usize = 32;
/// How often a connection that is in use is checked, and how long it may not answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Connections to the nodes that lead, or led.
pub(super) struct Leaders {
    net: Arc<dyn Net>,
    tls: Option<ApiTls>,
    connect_within: Duration,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Leaders {
    pub(super) fn new(net: Arc<dyn Net>, tls: Option<ApiTls>, connect_within: Duration) -> Self {
        Self { net, tls, connect_within, channels: Mutex::default() }
    }

    /// The connection to `address`; it connects when it is used.
    pub(super) fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.dial(address).map_err(|error| {
            not_leader(format!("the leader's address {address} is unusable: {error}"), None)
        })?;
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Does not use the connection to `address` again: it may be half open.
    pub(super) fn forget(&self, address: &str) {
        self.channels.lock().remove(address);
    }

    fn dial(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(self.connect_within)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.client())?;
        }
        Ok(dial(&endpoint, &self.net, address))
    }
}

/// Whether a request was passed on already.
pub(super) fn was_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// Regions that a request was carried to already. What is no number is taken for more than is allowed.
pub(super) fn hops(metadata: &MetadataMap) -> u32 {
    let Some(told) = metadata.get(HOPS) else { return 0 };
    told.to_str().ok().and_then(|told| told.parse().ok()).unwrap_or(u32::MAX)
}

/// Says to how many regions a request was carried.
pub(super) fn set_hops(metadata: &mut MetadataMap, hops: u32) {
    metadata.insert(HOPS, hops.into());
}

/// A request to be passed on, to be answered within `within`.
pub(super) fn passed_on<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    request.metadata_mut().insert(FORWARDED, AsciiMetadataValue::from_static("1"));
    request
}

/// What a caller is told of a leader's refusal, or of a leader that could not be asked, or died after
/// `waited`.
pub(super) fn answer(status: Status, address: &str, waited: Duration) -> Status {
    if never_sent(&status) {
        return not_leader(format!("the leader at {address} cannot be reached"), None);
    }
    if sources(&status).next().is_some() {
        // Made on this side: the leader did not say it, and what it did nobody knows.
        let cause = cause(&status);
        return lost(
            format!("the leader at {address} was lost before it answered: {cause}"),
            waited,
        );
    }
    status
}

/// What a caller is told if the leader does not answer in time.
pub(super) fn no_answer(address: &str, waited: Duration) -> Status {
    unknown(format!("the leader at {address} did not answer in {waited:?}"), waited)
}

/// Names the leader in metadata of a response or a refusal.
pub(super) fn name_leader(metadata: &mut MetadataMap, address: &str) {
    if let Ok(value) = AsciiMetadataValue::try_from(address) {
        metadata.insert(LEADER, value);
    }
}
