//! QUIC: keys, congestion control, windows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TimeSource, TransportConfig, VarInt,
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

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

/// Names of connections that only this node makes: a nonce, and a hash of it under the node's key. Unlike
/// quinn's own they are drawn from the node's seed, so that a run can be repeated to the last byte of them.
struct ConnectionIds {
    key: [u8; 32],
    nonces: SmallRng,
}

const NONCE_BYTES: usize = 3;
const ID_BYTES: usize = 8;

impl ConnectionIds {
    fn of_nonce(&self, nonce: [u8; NONCE_BYTES]) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        let hash = blake3::keyed_hash(&self.key, &nonce);
        id[..NONCE_BYTES].copy_from_slice(&nonce);
        id[NONCE_BYTES..].copy_from_slice(&hash.as_bytes()[..ID_BYTES - NONCE_BYTES]);
        id
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE_BYTES];
        self.nonces.fill_bytes(&mut nonce);
        ConnectionId::new(&self.of_nonce(nonce))
    }
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let nonce = id.get(..NONCE_BYTES).and_then(|nonce| nonce.try_into().ok());
        match nonce.is_some_and(|nonce| self.of_nonce(nonce) == id[..]) {
            true => Ok(()),
            false => Err(InvalidCid),
        }
    }
    fn cid_len(&self) -> usize {
        ID_BYTES
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
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
    let key = blake3::derive_key("anabranch gossip connection ids", &config.reset_key);
    let seed = config.seed;
    endpoint
        .cid_generator(move || Box::new(ConnectionIds { key, nonces: SmallRng::from_seed(seed) }));
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
    fn connection_ids_follow_from_the_seed_and_are_known_after_a_restart() {
        let life =
            |key, seed| ConnectionIds { key: [key; 32], nonces: SmallRng::seed_from_u64(seed) };
        let ids = |mut life: ConnectionIds| [life.generate_cid(), life.generate_cid()];
        let [first, second] = ids(life(1, 7));
        assert_ne!(first, second);
        assert_eq!(ids(life(1, 7)), [first, second]);
        assert_ne!(ids(life(1, 8))[0], first);
        assert!(life(1, 8).validate(&first).is_ok(), "its next life knows it");
        assert!(life(2, 7).validate(&first).is_err(), "no other node does");
        assert!(life(1, 7).validate(&ConnectionId::new(&first[..7])).is_err());
    }

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
