//! Sessions: a client's connection from its acceptance to its end.

mod dispatch;
mod http;
mod inlet;
mod member;
mod metrics;
pub mod relay;
mod tcp;

use std::{net::SocketAddr, rc::Rc};

use tokio::net::TcpStream;

use crate::{
    local::{LocalListener, Worker},
    model::ListenerProtocol,
};

/// Serves a client until the connection ends.
pub(crate) async fn run(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: TcpStream,
    client: SocketAddr,
) {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let protocol = listener.present().plan().protocol;
    match protocol {
        ListenerProtocol::Http => http::serve(worker, listener, stream, client).await,
        ListenerProtocol::Tcp | ListenerProtocol::Https => tcp::serve(worker, listener, stream, client).await,
        ListenerProtocol::Prometheus => metrics::serve(worker, &listener, stream, client).await,
    }
}
