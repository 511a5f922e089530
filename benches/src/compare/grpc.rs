//! Calls of a gRPC service whose messages are written down by hand: two stores need a handful each.

use anyhow::Context as _;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

/// Pages of a replay are larger than the 4 MiB that are the default.
const ANSWER_MAX: usize = 256 << 20;

/// A connection of its own to one of `ports`: the first that answers.
///
/// # Errors
/// If none does.
pub async fn connect(ports: &[u16]) -> anyhow::Result<Channel> {
    let mut last = None;
    for port in ports {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true);
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no port is given")?.into())
}

/// One request, one answer.
///
/// # Errors
/// The service's.
pub async fn call<Asks, Answers>(
    channel: &Channel,
    path: &'static str,
    asks: Asks,
) -> anyhow::Result<Answers>
where
    Asks: Message + 'static,
    Answers: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_MAX);
    grpc.ready().await.context("connect")?;
    let codec = ProstCodec::<Asks, Answers>::default();
    let answer = grpc.unary(Request::new(asks), PathAndQuery::from_static(path), codec).await;
    Ok(answer.with_context(|| path)?.into_inner())
}

/// Requests as they come, many answers.
///
/// # Errors
/// The service's.
pub async fn stream<Asks, Answers>(
    channel: &Channel,
    path: &'static str,
    asks: impl tonic::IntoStreamingRequest<Message = Asks>,
) -> anyhow::Result<Streaming<Answers>>
where
    Asks: Message + 'static,
    Answers: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_MAX);
    grpc.ready().await.context("connect")?;
    let codec = ProstCodec::<Asks, Answers>::default();
    let asks = asks.into_streaming_request();
    let answers = grpc.streaming(asks, PathAndQuery::from_static(path), codec).await;
    Ok(answers.with_context(|| path)?.into_inner())
}
