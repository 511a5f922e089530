//! The service `anabranch.v1.Events`.

use anabranch_proto::v1;
use anabranch_proto::v1::events_server::Events;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::append_many::Answers;
use super::read::Frames;

#[tonic::async_trait]
impl Events for Api {
    type ReadStream = Frames;

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        self.handle_append(request).await
    }

    type AppendManyStream = Answers;

    async fn append_many(
        &self,
        request: Request<Streaming<v1::AppendManyRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        Ok(Response::new(self.handle_append_many(request.into_inner())))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.handle_read(request.into_inner()).await
    }
}
