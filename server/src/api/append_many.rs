//! AppendMany: many appends in one call, without a call's cost for each.

use std::pin::Pin;
use std::time::Duration;

use anabranch_proto::convert::required;
use anabranch_proto::v1;
use anabranch_proto::v1::append_many_response::Outcome;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, unfold};
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::Api;
use super::malformed::in_words_of_ours;

/// Answers on their way to a caller.
pub(super) type Answers = BoxStream<'static, Result<v1::AppendManyResponse, Status>>;

/// One call.
struct Many {
    api: Api,
    /// None once no more are taken.
    asked: Option<Streaming<v1::AppendManyRequest>>,
    working: FuturesUnordered<BoxFuture<'static, v1::AppendManyResponse>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Api {
    pub(super) fn handle_append_many(&self, asked: Streaming<v1::AppendManyRequest>) -> Answers {
        let stopping = Box::pin(self.inner.stopping.clone().cancelled_owned());
        let (api, working) = (self.clone(), FuturesUnordered::new());
        let many = Many { api, asked: Some(asked), working, stopping };
        unfold(many, |mut many| async {
            let answer = many.next().await?;
            Some((answer, many))
        })
        .boxed()
    }

    async fn append_one(self, asked: v1::AppendManyRequest) -> v1::AppendManyResponse {
        let v1::AppendManyRequest { number, within_ms, append } = asked;
        let within = (within_ms > 0).then(|| Duration::from_millis(within_ms.into()));
        let result = match required("append", append) {
            Ok(message) => self.append_within(MetadataMap::new(), within, message).await,
            Err(error) => Err(error.into()),
        };
        let outcome = match result {
            Ok(response) => Outcome::Appended(response.into_inner()),
            Err(status) => Outcome::Failed((&status).into()),
        };
        v1::AppendManyResponse { number, outcome: Some(outcome) }
    }
}

impl Many {
    /// The next answer; none after the last one.
    async fn next(&mut self) -> Option<Result<v1::AppendManyResponse, Status>> {
        loop {
            let open = self.asked.is_some();
            // As many as calls of their own there could be; the next ones wait on the wire.
            let at_once = self.api.inner.settings.streams_per_connection as usize;
            let takes = open && self.working.len() < at_once;
            tokio::select! {
                biased;
                () = &mut self.stopping, if open => self.asked = None,
                Some(answer) = self.working.next() => return Some(Ok(answer)),
                asked = next(&mut self.asked), if takes => match asked {
                    Ok(Some(asked)) => {
                        self.working.push(self.api.clone().append_one(asked).boxed());
                    }
                    Ok(None) => self.asked = None,
                    Err(status) => {
                        // What is worked on is given up with the call: its caller is gone, or is not understood.
                        (self.asked, self.working) = (None, FuturesUnordered::new());
                        let bytes_max = self.api.inner.settings.limits.message_bytes();
                        return Some(Err(in_words_of_ours(status, bytes_max)));
                    }
                },
                else => return None,
            }
        }
    }
}

async fn next(
    asked: &mut Option<Streaming<v1::AppendManyRequest>>,
) -> Result<Option<v1::AppendManyRequest>, Status> {
    match asked {
        Some(asked) => asked.message().await,
        None => Ok(None),
    }
}
