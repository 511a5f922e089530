//! The same node's aggregates, from the same script.

use std::collections::VecDeque;
use std::pin::Pin;

use anabranch_proto::v1;
use anabranch_proto::v1::aggregates_server::Aggregates;
use futures_util::stream::iter;
use futures_util::{Stream, StreamExt};
use serde_json::{Value as Json, json};
use tonic::{Request, Response, Status};

use super::{End, Node, token};

/// What a node does with the next questions about aggregates, and what it was asked.
#[derive(Default)]
pub struct AggregateScript {
    pub gets: VecDeque<Result<v1::Aggregate, Status>>,
    pub watches: VecDeque<(Vec<v1::Aggregate>, End)>,
    pub queries: VecDeque<v1::QueryResponse>,
    pub prepares: VecDeque<Status>,
    pub defines: VecDeque<Status>,
    pub got: Vec<v1::GetAggregateRequest>,
    pub watched: Vec<v1::GetAggregateRequest>,
    pub queried: Vec<v1::QueryRequest>,
    pub prepared: Vec<v1::PrepareRequest>,
    pub defined: Vec<v1::DefineRequest>,
}

/// An aggregate of one event of region `us`, the session having seen `seq` of them.
pub fn aggregate(value: Json, seq: u64) -> v1::Aggregate {
    v1::Aggregate {
        stream: "stock-1".into(),
        version: 1,
        value: value.to_string().into(),
        events: 1,
        session_token: token(&[("us", seq)]),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Aggregates for Node {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Aggregate, Status>> + Send>>;

    async fn define(
        &self,
        request: Request<v1::DefineRequest>,
    ) -> Result<Response<v1::DefineResponse>, Status> {
        let script = &mut self.script.lock().aggregates;
        let repeated = script.defined.contains(request.get_ref());
        script.defined.push(request.into_inner());
        match script.defines.pop_front() {
            Some(status) => Err(status),
            None => Ok(Response::new(v1::DefineResponse {
                category: "stock".into(),
                version: 1,
                repeated,
                session_token: token(&[("us", 1)]),
                ..Default::default()
            })),
        }
    }

    async fn definitions(
        &self,
        _request: Request<v1::DefinitionsRequest>,
    ) -> Result<Response<v1::DefinitionsResponse>, Status> {
        let definition = json!({ "category": "stock", "version": 2, "fields": { "n": "max" } });
        let standing = v1::DefinitionStanding {
            definition: definition.to_string().into(),
            position: 5,
            bad_events: 1,
            last_bad_event: "us/1: no".into(),
            ..Default::default()
        };
        Ok(Response::new(v1::DefinitionsResponse { definitions: vec![standing], position: 9 }))
    }

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareResponse>, Status> {
        let request = request.into_inner();
        let script = &mut self.script.lock().aggregates;
        script.prepared.push(request.clone());
        if let Some(status) = script.prepares.pop_front() {
            return Err(status);
        }
        let event = v1::NewEvent {
            stream: request.stream,
            r#type: "$operations".into(),
            payload: request.operations.join(",").into(),
            ..Default::default()
        };
        Ok(Response::new(v1::PrepareResponse { event: Some(event) }))
    }

    async fn operate(
        &self,
        _request: Request<v1::OperateRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("this client prepares and appends"))
    }

    async fn get(
        &self,
        request: Request<v1::GetAggregateRequest>,
    ) -> Result<Response<v1::Aggregate>, Status> {
        let script = &mut self.script.lock().aggregates;
        script.got.push(request.into_inner());
        script.gets.pop_front().expect("a get is scripted").map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<v1::GetAggregateRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let script = &mut self.script.lock().aggregates;
        script.watched.push(request.into_inner());
        let (told, end) = script.watches.pop_front().unwrap_or((Vec::new(), End::Open));
        let told = iter(told.into_iter().map(Ok));
        Ok(Response::new(match end {
            End::Clean => told.boxed(),
            End::Broken(status) => told.chain(iter([Err(status)])).boxed(),
            End::Open => told.chain(futures_util::stream::pending()).boxed(),
        }))
    }

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<v1::QueryResponse>, Status> {
        let script = &mut self.script.lock().aggregates;
        script.queried.push(request.into_inner());
        Ok(Response::new(script.queries.pop_front().expect("a query is scripted")))
    }
}
