//! Serving: sessions that other regions open, and what their [`Server`] decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anabranch_core::{Group, RegionName, Seq};
use quinn::{Connection, Incoming, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::answer::{self, Answering};
use super::stream::FrameReader;
use super::{LinkError, Shared, now, timing, until};
use crate::block::Block;
use crate::config::ReadOn;
use crate::frame::{Frame, Report};
use crate::session::SessionError;
use crate::session::server::{Action, BLOCKS_UNDER_WAY, Input, ReadRequest, Server};
use crate::tls::certified_region;
use crate::traits::{Source, SourceError};

/// Bytes of frames written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Accepts sessions until the endpoint closes. Beyond half of what may be open, those who connect
/// must first prove that their address is theirs.
pub(super) async fn accept(shared: Arc<Shared>) {
    let sessions_max = shared.config.tuning.sessions_max;
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = sessions.join_next() => {}
            incoming = shared.endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if sessions.len() >= sessions_max {
                    incoming.refuse();
                } else if sessions.len() >= sessions_max / 2 && incoming.may_retry() {
                    // Refused only if it has been validated, which `may_retry` rules out.
                    let _ = incoming.retry();
                } else {
                    sessions.spawn(serve(shared.clone(), incoming));
                }
            }
        }
    }
}

/// One session from handshake to its end.
async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let address = incoming.remote_address();
    let patience = shared.config.tuning.connect_timeout;
    let timeout = || LinkError::Timeout { address: address.to_string(), waited: patience };
    let handshake = async { Ok(incoming.accept()?.await?) };
    let connection = match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return log_end(&address, &error),
        Err(_) => return log_end(&address, &timeout()),
    };
    let opening = Session::open(&shared, &connection);
    let error = match tokio::time::timeout(patience, opening).await {
        Ok(Ok(session)) => session.run().await,
        Ok(Err(error)) => error,
        Err(_) => timeout(),
    };
    connection.close(error.code(), error.report().as_bytes());
    log_end(&address, &error);
}

fn log_end(address: &std::net::SocketAddr, error: &LinkError) {
    match error {
        LinkError::Lost(_) | LinkError::Ended => {
            tracing::debug!(%address, error = error.report(), "served session ended");
        }
        _ => tracing::warn!(%address, error = error.report(), "refused or ended a session"),
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Input, SourceError>> + Send>>;

/// A session that is open.
struct Session<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    source: Arc<dyn Source>,
    changed: watch::Receiver<u64>,
    server: Server,
    answering: Answering,
    send: SendStream,
    frames: FrameReader,
    reading: Option<Reading>,
    blocks: JoinSet<()>,
    block_done: (mpsc::Sender<u64>, mpsc::Receiver<u64>),
}

impl<'a> Session<'a> {
    /// Waits for the hello, which says what the session is about.
    async fn open(shared: &'a Shared, connection: &'a Connection) -> Result<Self, LinkError> {
        let region = peer_region(shared, connection)?;
        let (send, recv) = connection.accept_bi().await?;
        let mut frames = FrameReader::new(recv);
        let Frame::Hello(hello) = frames.next().await? else {
            return Err(SessionError::OutOfPlace { frame: "a frame before the hello" }.into());
        };
        let not_ready = || LinkError::NotReady { shard: hello.shard };
        let shard = shared.shards.get(&hello.shard).ok_or_else(not_ready)?;
        let source = shard.source.clone();
        source.origin().ok_or_else(not_ready)?;
        let ours = shared.hello(hello.shard, &*source);
        let answering = Answering {
            from: region.clone(),
            shard: hello.shard,
            answer: shard.answer.clone(),
            room: shared.room.clone(),
            tuning: shared.config.tuning.clone(),
        };
        let mut server = Server::new(ours, region, shared.config.tuning.clone());
        server.handle(now(), Input::Frame(Frame::Hello(hello)))?;
        let changed = source.changed();
        let block_done = mpsc::channel(BLOCKS_UNDER_WAY as usize);
        let (reading, blocks) = (None, JoinSet::new());
        Ok(Self {
            shared,
            connection,
            source,
            changed,
            server,
            answering,
            send,
            frames,
            reading,
            blocks,
            block_done,
        })
    }

    async fn run(mut self) -> LinkError {
        // Owned by the set, so that it ends with the session.
        let mut tasks = JoinSet::new();
        let (clock, source) = (self.shared.clock.clone(), self.source.clone());
        tasks.spawn(timing::answer(self.connection.clone(), clock, source));
        tasks.spawn(answer::run(self.connection.clone(), self.answering.clone()));
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    /// Carries out what is decided, then waits for the next fact.
    async fn step(&mut self) -> Result<(), LinkError> {
        self.carry_out().await?;
        let input = tokio::select! {
            biased;
            error = self.connection.closed() => return Err(error.into()),
            frame = self.frames.next() => Input::Frame(frame?),
            Some(number) = self.block_done.1.recv() => Input::BlockDone(number),
            Some(_) = self.blocks.join_next() => return Ok(()),
            read = read_done(&mut self.reading) => read?,
            changed = self.changed.changed() => match changed {
                Ok(()) => Input::Changed,
                Err(_) => return Err(SourceError::Closed.into()),
            },
            () = until(self.server.deadline()) => Input::Elapsed,
        };
        Ok(self.server.handle(now(), input)?)
    }

    /// Frames are gathered, so that a run of small groups is one write. A write waits while the
    /// other side does not read: that is the back-pressure.
    async fn carry_out(&mut self) -> Result<(), LinkError> {
        let mut out = Vec::new();
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Send(frame) => out.append(&mut frame.encode()),
                Action::Report => out.append(&mut Frame::Report(self.report()).encode()),
                Action::Read(request) => self.reading = Some(self.read(request)),
                Action::SendBlock { number, block } => self.send_block(number, block).await?,
            }
            if out.len() >= WRITE_BYTES {
                self.write(&std::mem::take(&mut out)).await?;
            }
        }
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.send.write_all(bytes).await.map_err(|_| LinkError::Ended)
    }

    fn report(&self) -> Report {
        Report { clock_unix_ms: (self.shared.clock)(), digests: self.source.digests() }
    }

    fn read(&self, request: ReadRequest) -> Reading {
        let source = self.source.clone();
        match self.shared.config.tuning.read_on {
            ReadOn::Session => Box::pin(async move { read(&*source, request) }),
            ReadOn::BlockingPool => Box::pin(async move {
                match tokio::task::spawn_blocking(move || read(&*source, request)).await {
                    Ok(read) => read,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => Err(SourceError::Closed),
                    },
                }
            }),
        }
    }

    /// Opened here, one after the other, so that the other side accepts blocks in their order.
    async fn send_block(&mut self, number: u64, block: Block) -> Result<(), LinkError> {
        let mut stream = self.connection.open_uni().await?;
        let done = self.block_done.0.clone();
        self.blocks.spawn(async move {
            let written = stream.write_all(&block.encode()).await;
            // Resolves once the other side's transport has acknowledged everything. An error is the
            // connection's end, which the session sees itself.
            if written.is_ok()
                && stream.finish().is_ok()
                && matches!(stream.stopped().await, Ok(None))
            {
                let _ = done.send(number).await;
            }
        });
        Ok(())
    }
}

/// Which configured region the other side's certificate names.
fn peer_region(shared: &Shared, connection: &Connection) -> Result<RegionName, LinkError> {
    let identity = connection.peer_identity();
    let chain = identity.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let region = certified_region(&chain.unwrap_or_default())?;
    let known = shared.config.peers.iter().any(|peer| peer.region == region);
    if known { Ok(region) } else { Err(LinkError::UnknownRegion { region }) }
}

/// The read under way; for ever if there is none.
async fn read_done(reading: &mut Option<Reading>) -> Result<Input, SourceError> {
    match reading {
        Some(read) => {
            let input = read.await;
            *reading = None;
            input
        }
        None => std::future::pending().await,
    }
}

fn read(source: &dyn Source, request: ReadRequest) -> Result<Input, SourceError> {
    let ReadRequest { id, origin, from, max_bytes } = request;
    let groups = source.read_origin(&origin, from, max_bytes)?;
    let bytes: usize = groups.iter().map(|group| group.encoded().len()).sum();
    let mut held = groups.last().map_or(Seq(0), Group::last);
    // How much is left matters only where the read did not reach the end.
    if bytes * 2 >= max_bytes
        && let Some(own) = source.digests().first()
    {
        held = held.max(own.frontier.seq(&origin));
    }
    Ok(Input::Read { id, groups, held })
}
