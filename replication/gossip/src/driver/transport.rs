//! QUIC: keys, congestion control, windows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TimeSource, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;

use super::StartError;
use crate::config::{GossipConfig, Tuning};
use crate::session::server::BLOCKS_UNDER_WAY;
use crate::tls::TlsIdentity;
use crate::traits::WallClock;

const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What a puller lets come to it: full windows of the session's own stream and of every block, which wait
/// while its importer takes nothing, and another for answers, which do not wait for them.
const PULLER_WINDOW_BYTES: u32 = (2 + BLOCKS_UNDER_WAY as u32) * STREAM_WINDOW_BYTES;
/// Datagrams that wait, either way: questions for the time, a few bytes each. Older ones give way.
const DATAGRAM_BYTES: usize = 4 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT_MS: u32 = 10_000;

/// Tokens of address validation and stateless resets, keyed so that they outlive a restart.
struct Blake3Key([u8; 32]);

impl HmacKey for Blake3Key {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }
    fn signature_len(&self) -> usize {
        32
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        // Comparing hashes takes the same time wherever they differ.
        match <[u8; 32]>::try_from(signature) {
            Ok(given) if expected == blake3::Hash::from(given) => Ok(()),
            _ => Err(CryptoError),
        }
    }
}

struct Clock(WallClock);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis((self.0)())
    }
}

/// How this node's endpoint names its connections.
///
/// Both the key of stateless resets and that of connection ids are kept across restarts: a node that
/// comes back then recognises packets of its former life as its own and says so, and the peer
/// reconnects at once instead of after its idle timeout.
pub(super) fn endpoint_config(config: &GossipConfig) -> EndpointConfig {
    let mut endpoint = EndpointConfig::new(Arc::new(Blake3Key(config.reset_key)));
    let derived = blake3::derive_key("anabranch gossip connection ids", &config.reset_key);
    let key = u64::from_le_bytes(derived[..8].try_into().expect("a key has 32 bytes"));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    endpoint.rng_seed(Some(config.seed));
    endpoint
}

/// How sessions are accepted: two-way streams, opened by the puller, and no other: the session's own, and
/// one for each question.
pub(super) fn server_config(
    tls: &TlsIdentity,
    clock: WallClock,
    tuning: &Tuning,
) -> Result<ServerConfig, StartError> {
    let crypto = QuicServerConfig::try_from(tls.server_config()?)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    let questions = u32::try_from(tuning.questions_max).unwrap_or(u32::MAX);
    let streams = VarInt::from_u32(questions.saturating_add(1));
    let mut transport = transport(CONNECTION_WINDOW_BYTES);
    transport.max_concurrent_bidi_streams(streams);
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    server.transport_config(Arc::new(transport));
    server.time_source(Arc::new(Clock(clock)));
    server.max_incoming(tuning.sessions_max);
    server.incoming_buffer_size_total(4 * 1024 * 1024);
    Ok(server)
}

/// How sessions are opened: the server may answer with blocks, each on a stream of its own.
pub(super) fn client_config(tls: &TlsIdentity) -> Result<ClientConfig, StartError> {
    let crypto = QuicClientConfig::try_from(tls.client_config()?)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport(PULLER_WINDOW_BYTES);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(BLOCKS_UNDER_WAY as u32));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

/// BBR, because between regions a lost packet seldom means a full queue.
fn transport(window_bytes: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(window_bytes))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES);
    transport
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_keys_verify_what_they_signed_and_nothing_else() {
        let key = Blake3Key([1; 32]);
        let mut signature = vec![0; key.signature_len()];
        key.sign(b"data", &mut signature);
        assert!(key.verify(b"data", &signature).is_ok());
        assert!(key.verify(b"date", &signature).is_err());
        assert!(Blake3Key([2; 32]).verify(b"data", &signature).is_err());
        assert!(key.verify(b"data", &signature[1..]).is_err());
    }
}
