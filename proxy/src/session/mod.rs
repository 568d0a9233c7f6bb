//! Sessions: a client's connection from its acceptance to its end.

mod dispatch;
mod http;
mod log;
mod member;
mod metrics;
pub mod relay;
mod tcp;
mod tls;

use std::{net::SocketAddr, rc::Rc};

use amphora_model::{AlpnProtocol, ListenerProtocol};
use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    conn::Conn,
    local::{LocalListener, Worker},
};

/// Begins to serve a client, on a task of its own. `held` is dropped when the connection has ended.
///
/// Each kind of session is a task of its own size, and most of them wait: what a client costs while it waits is what the
/// task is large.
pub(crate) fn start<H: 'static>(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: TcpStream,
    client: SocketAddr,
    held: H,
) {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let worker = Rc::clone(worker);
    let tls = listener.plan().tls.clone();
    match tls {
        None => begin(worker, listener, Conn::from(stream), client, held),
        Some(context) => drop(spawn_local(tls::serve(worker, listener, context, stream, client, held))),
    }
}

/// The session of a client who may speak.
fn begin<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: Conn,
    client: SocketAddr,
    held: H,
) {
    let protocol = listener.plan().protocol;
    match protocol {
        ListenerProtocol::Tcp if listener.present().is_of_http_by_its_pool() => {
            spawn_local(http::serve(worker, listener, stream, client, held))
        }
        ListenerProtocol::Http | ListenerProtocol::TerminatedHttps | ListenerProtocol::Prometheus
            if speaks_http2(&stream) =>
        {
            spawn_local(http::serve_http2(worker, listener, stream, client, held))
        }
        ListenerProtocol::Http | ListenerProtocol::TerminatedHttps => {
            spawn_local(http::serve(worker, listener, stream, client, held))
        }
        ListenerProtocol::Tcp | ListenerProtocol::Https => spawn_local(async move {
            tcp::serve(&worker, listener, stream, client).await;
            drop(held);
        }),
        // The kernel forwards these: no socket takes any.
        ListenerProtocol::Udp | ListenerProtocol::Sctp => {
            spawn_local(async move { drop((worker, listener, stream, client, held)) })
        }
        ListenerProtocol::Prometheus => spawn_local(metrics::serve(worker, listener, stream, client, held)),
    };
}

/// Whether the client has agreed on HTTP/2 when it has shaken hands.
fn speaks_http2(stream: &Conn) -> bool {
    let alpn = stream.facts().and_then(|facts| facts.alpn.as_deref());
    alpn == Some(AlpnProtocol::H2.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, E, F>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// What a client that waits costs is this, and what the runtime keeps of its connection: it grows on purpose alone. Some
    /// 400 bytes of it are in use then, the rest is room for a request.
    #[test]
    fn a_session_is_no_larger_than_it_was() {
        let size = size_of_future(http::serve::<[usize; 3]>);
        // 40 bytes of it come with tokio's `rt-multi-thread`, whose handles are larger: built with the tests of others.
        assert!(size <= 1712, "{size} bytes");
    }
}
