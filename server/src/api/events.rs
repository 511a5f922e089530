//! The service `anabranch.v1.Events`.

use anabranch_proto::v1;
use anabranch_proto::v1::events_server::Events;
use tonic::{Request, Response, Status};

use super::Api;
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

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.handle_read(request.into_inner()).await
    }
}
