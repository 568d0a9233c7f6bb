//! Both ends of TLS connections over loopback, for the tests of whoever has one.

#![allow(clippy::unwrap_used)]

use std::{future::poll_fn, net::Ipv4Addr, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::conn::Conn;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A server that sends so many tickets, and a client that trusts it.
pub(crate) fn configs(
    version: &'static SupportedProtocolVersion,
    tickets: usize,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["member.example".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = tickets;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server.into(), client.into())
}

pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let server = listener.accept().await.unwrap().0;
    server.set_nodelay(true).unwrap();
    (server, client)
}

pub(crate) fn begin(
    sockets: (TcpStream, TcpStream),
    configs: (Arc<ServerConfig>, Arc<ClientConfig>),
) -> (TlsStream, TlsStream) {
    let pool = BufferPool::default();
    let member = MemberTls { config: &configs.1, sni: Some("member.example") };
    let session = ServerConnection::new(configs.0).unwrap();
    (
        TlsStream::new(sockets.0, session.into(), &pool),
        TlsStream::client(sockets.1, member, Ipv4Addr::LOCALHOST.into(), &pool, &Arc::default()).unwrap(),
    )
}

/// Both ends of a connection whose handshake is over, to the last byte.
pub(crate) async fn pair_with(configs: (Arc<ServerConfig>, Arc<ClientConfig>)) -> (TlsStream, TlsStream) {
    let (mut server, mut client) = begin(sockets().await, configs);
    let (a, b) = tokio::join!(
        timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))),
        timeout(PATIENCE, async {
            poll_fn(|cx| client.poll_handshake(cx)).await?;
            poll_fn(|cx| client.poll_send(cx, Then::More)).await?;
            Ok::<_, HandshakeError>(())
        }),
    );
    a.unwrap().unwrap();
    b.unwrap().unwrap();
    (server, client)
}

pub(crate) async fn pair(version: &'static SupportedProtocolVersion) -> (TlsStream, TlsStream) {
    pair_with(configs(version, 2)).await
}

pub(crate) fn conn(stream: TlsStream) -> Conn {
    Conn::Tls(Box::new(stream))
}

/// What there is to read at once, in one read of at most so many bytes.
pub(crate) async fn read(stream: &mut TlsStream, most: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let reading = async {
        loop {
            poll_fn(|cx| stream.poll_read_ready(cx)).await?;
            match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    };
    let n = timeout(PATIENCE, reading).await.expect("there is something to read")?;
    buffer.truncate(n);
    Ok(buffer)
}

pub(crate) async fn write(stream: &mut TlsStream, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let slices = [IoSlice::new(&bytes[at..])];
        let writing = poll_fn(|cx| stream.poll_write(cx, &slices, Then::More));
        at += timeout(PATIENCE, writing).await.expect("the peer reads").unwrap();
    }
}

/// Whether `close_notify` has come.
pub(crate) fn was_told_of_the_end(stream: &mut TlsStream) -> bool {
    stream.session.process_new_packets().unwrap().peer_has_closed()
}
