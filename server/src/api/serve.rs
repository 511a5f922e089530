//! Serving the interface on a listener.

use std::future::Future;
use std::time::Duration;

use anabranch_proto::v1::DESCRIPTORS;
use anabranch_proto::v1::aggregates_server::AggregatesServer;
use anabranch_proto::v1::classes_server::ClassesServer;
use anabranch_proto::v1::cluster_server::ClusterServer;
use anabranch_proto::v1::conflicts_server::ConflictsServer;
use anabranch_proto::v1::events_server::EventsServer;
use futures_util::FutureExt;
use futures_util::future::select_all;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::Api;
use super::malformed::in_our_words;
use crate::env::{Listener, connections};
use crate::shard::Shard;

/// Bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Streams that a connection may have reset before they were looked at: more is an attack.
const RESETS_PENDING_MAX: usize = 64;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How often health is looked at that changes by silence.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Names under which health is asked for: of the server, and of its services.
const NAMES: [&str; 6] = [
    "",
    "anabranch.v1.Events",
    "anabranch.v1.Aggregates",
    "anabranch.v1.Conflicts",
    "anabranch.v1.Classes",
    "anabranch.v1.Cluster",
];

/// Why the interface is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The TLS files are unusable, or serving failed.
    #[error("serve the API")]
    Transport(#[from] tonic::transport::Error),
    /// The compiled descriptors are unusable.
    #[error("serve reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves `api` on `listener` until `stop` is done; then ends reads, and lets appends finish.
///
/// # Errors
/// [`ServeError`]. A connection that breaks concerns nobody else.
pub async fn serve(
    listener: Box<dyn Listener>,
    api: Api,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let settings = &api.inner.settings;
    let bytes_max = settings.limits.message_bytes();
    let events = EventsServer::new(api.clone())
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let aggregates = AggregatesServer::new(api.clone())
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let conflicts = ConflictsServer::new(api.clone())
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let classes = ClassesServer::new(api.clone());
    let cluster = ClusterServer::new(api.clone());
    let (health, health_service) = health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut server = Server::builder()
        .max_concurrent_streams(settings.streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN));
    if let Some(tls) = &api.inner.tls {
        server = server.tls_config(tls.server())?;
    }
    let router = server
        .layer(in_our_words(bytes_max))
        .add_service(events)
        .add_service(aggregates)
        .add_service(conflicts)
        .add_service(classes)
        .add_service(cluster)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let stopping = api.inner.stopping.clone();
    let stop = async move {
        stop.await;
        // A followed read has no end of its own to wait for.
        stopping.cancel();
    };
    let connections = connections(listener, "api", settings.connections_max);
    let serving = router.serve_with_incoming_shutdown(connections, stop);
    tokio::select! {
        biased;
        served = serving => Ok(served?),
        () = report_health(&api, &health) => unreachable!("health is reported for ever"),
    }
}

fn is_born(shard: &Shard) -> bool {
    shard.state().region(|region| region.origin().is_some())
}

/// Why appends have no chance here, or reads show the past.
fn why_not(shard: &Shard) -> Option<&'static str> {
    if !is_born(shard) {
        return Some("the region is not born yet");
    }
    if !shard.raft().is_in_touch() {
        return Some(
            "no leader, or no quorum, has been heard for a while: this node may be cut off, or no \
             longer a member",
        );
    }
    let unreadable = shard.state().unreadable();
    let unreadable = unreadable.borrow().is_some();
    unreadable.then_some("events of its log cannot be read")
}

/// Tells those who ask about health whether appends have a chance here, and reads show the present, for
/// ever.
async fn report_health(api: &Api, health: &HealthReporter) {
    let shards: Vec<_> = api.inner.shards.values().cloned().collect();
    let mut leaderships: Vec<_> = shards.iter().map(|s| s.raft().leadership()).collect();
    let mut born: Vec<_> = shards.iter().map(|s| s.state().applied()).collect();
    let mut said = None;
    loop {
        leaderships.iter_mut().for_each(|leadership| drop(leadership.borrow_and_update()));
        born.iter_mut().for_each(|applied| drop(applied.borrow_and_update()));
        let why_not = shards.iter().find_map(why_not);
        let all_born = shards.iter().all(is_born);
        if said != Some(why_not) {
            match why_not {
                None => tracing::info!("healthy"),
                Some(why) => tracing::warn!(why, "not healthy"),
            }
            said = Some(why_not);
        }
        let status = match why_not {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        for name in NAMES {
            health.set_service_status(name, status).await;
        }
        // Batches are applied all the time; once every log has its genesis only leadership matters.
        let mut changes: Vec<_> =
            leaderships.iter_mut().map(|leadership| leadership.changed().boxed()).collect();
        if !all_born {
            changes.extend(born.iter_mut().map(|applied| applied.changed().boxed()));
        }
        let changed = tokio::select! {
            biased;
            (changed, _, _) = select_all(changes) => changed,
            () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
        };
        if changed.is_err() {
            // The shard is gone: nothing changes any more, and the node is about to stop.
            for name in NAMES {
                health.set_service_status(name, ServingStatus::NotServing).await;
            }
            std::future::pending::<()>().await;
        }
    }
}
