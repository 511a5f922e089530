//! Frames off a QUIC stream, and questions and answers onto one.

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::LinkError;
use crate::frame::{Frame, FrameBuffer};
use crate::session::SessionError;

/// Bytes taken off the stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes a head and what follows it. Done as soon as the transport has taken all of it.
pub(super) async fn write_both(
    stream: &mut SendStream,
    head: Bytes,
    body: Bytes,
) -> Result<(), WriteError> {
    // quinn may come back for an empty last part when all the others are gone already, and then say that
    // the stream was stopped.
    let parts = if body.is_empty() { 1 } else { 2 };
    stream.write_all_chunks(&mut [head, body][..parts]).await
}

/// Reads frames. Safe to drop at the await: what was read is kept in the buffer.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: FrameBuffer::default() }
    }

    /// The next frame that is already here, if one is.
    pub(super) fn buffered(&mut self) -> Result<Option<Frame>, SessionError> {
        self.buffer.next_frame().map_err(SessionError::Frame)
    }

    /// Waits until more bytes are here.
    pub(super) async fn fill(&mut self) -> Result<(), LinkError> {
        match self.stream.read_chunk(CHUNK_BYTES, true).await {
            Ok(Some(chunk)) => {
                self.buffer.push(&chunk.bytes);
                Ok(())
            }
            Ok(None) => Err(LinkError::Ended),
            Err(ReadError::ConnectionLost(error)) => Err(error.into()),
            Err(_) => Err(LinkError::Ended),
        }
    }

    /// Waits for one frame.
    pub(super) async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}
