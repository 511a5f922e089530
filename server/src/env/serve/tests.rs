use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::env::{Net, TokioNet};

async fn listening(open_max: usize) -> (impl Stream<Item = io::Result<Connection>>, SocketAddr) {
    let listener = TokioNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (connections(listener, "test", open_max), address)
}

#[tokio::test]
async fn no_more_connections_are_open_than_may_be() {
    let (connections, address) = listening(2).await;
    let mut connections = std::pin::pin!(connections);
    let mut callers = Vec::new();
    for _ in 0..3 {
        callers.push(TcpStream::connect(address).await.unwrap());
    }
    let first = connections.next().await.unwrap().unwrap();
    let _second = connections.next().await.unwrap().unwrap();
    let mut third = std::pin::pin!(connections.next());
    assert!(futures_util::poll!(&mut third).is_pending());
    drop(first);
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_let_go_and_one_that_has_greeted_is_not() {
    const WITHIN: Duration = Duration::from_millis(50);
    let places = Arc::new(Semaphore::new(1));
    for (greeting, stays) in [(0, false), (GREETING_BYTES - 1, false), (GREETING_BYTES, true)] {
        let (mut caller, stream) = tokio::io::duplex(64);
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let from = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut connection = Connection::new(Box::new(stream), from, place, WITHIN);
        caller.write_all(&vec![7; greeting]).await.unwrap();
        let mut said = vec![0; greeting];
        connection.read_exact(&mut said).await.unwrap();
        let next = tokio::time::timeout(WITHIN * 4, connection.read_u8()).await;
        match (stays, next) {
            (true, Err(_)) => {}
            (false, Ok(Err(error))) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            (_, other) => panic!("{greeting} bytes: {other:?}"),
        }
    }
}
