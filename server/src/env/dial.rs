//! gRPC connections over whatever network a node has.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::Net;

/// A channel to `address` that connects through `net` when it is first used.
pub fn dial(endpoint: &Endpoint, net: &Arc<dyn Net>, address: &str) -> Channel {
    let (net, address) = (Arc::clone(net), address.to_owned());
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (net, address) = (Arc::clone(&net), address.clone());
        async move { net.connect(&address).await.map(TokioIo::new) }
    }))
}
