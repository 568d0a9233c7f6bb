//! A client that sends what a case says, and writes down all that comes of it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use amphora_tests::{
    Certificates,
    http2::{answer, send_all},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{
    generate::{Manner, Shake, Visit, latin1},
    member::{Book, Seen},
    wire::{Message, Wire},
};

/// How long a peer may take for what takes it milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What the handshake told: whose certificate, which protocol.
    pub(super) tls: Option<String>,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) end: End,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Interim ones included.
    pub(super) responses: Vec<Message>,
    /// What members saw of it.
    pub(super) asked: Vec<Seen>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All was answered, and the connection with the last.
    Done,
    /// By the peer, before all was answered.
    Closed,
    Reset,
    /// No handshake came about.
    Refused,
    /// Nothing came.
    Silent,
    /// Nobody listens.
    Unreachable,
}

/// The certificates that clients have and are shown.
pub(super) struct Wallet {
    pub(super) own: Certificates,
    /// Of another authority.
    pub(super) foreign: Certificates,
}

impl Wallet {
    pub(super) fn new() -> Self {
        let (own, foreign) = (Certificates::new(), Certificates::new());
        for (id, hosts) in super::generate::HOSTS {
            own.issue(id, hosts);
        }
        own.issue("revoked", &["revoked"]);
        own.issue("member", &["www.example.com", "a.example.org", "api.example.com"]);
        own.revoke("crl", &["revoked"]);
        foreign.issue("foreign", &["foreign"]);
        Self { own, foreign }
    }

    fn read(&self, id: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        if id == "foreign" { self.foreign.read(id) } else { self.own.read(id) }
    }

    /// Whose certificate this is.
    fn name(&self, certificate: &CertificateDer<'_>) -> &'static str {
        let ids = super::generate::HOSTS.iter().map(|(id, _)| *id);
        ids.into_iter().find(|id| self.own.read(id).0[0] == *certificate).unwrap_or("unknown")
    }
}

/// A peer may show what it likes.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn config(wallet: &Wallet, shake: &Shake) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = match shake.newest {
        true => &[&rustls::version::TLS13, &rustls::version::TLS12],
        false => &[&rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match shake.certificate {
        None => builder.with_no_client_auth(),
        Some(id) => {
            let (chain, key) = wallet.read(id);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = shake.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.into()
}

/// A connection from this address.
pub(super) async fn open(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes a connection in the namespace that this is called in, and sends what it is to send.
pub(super) async fn visit(visit: &Visit, port: u16, wallet: &Wallet, book: &Book) -> Outcome {
    book.take();
    let mut outcome = Outcome { tls: None, exchanges: Vec::new(), end: End::Unreachable };
    let Ok(stream) = open(visit.from, SocketAddr::new(visit.to, port)).await else { return outcome };
    outcome.end = match &visit.tls {
        None if visit.in_streams => streams(stream, visit, book, &mut outcome.exchanges).await,
        None => talk(Wire::new(stream), visit, book, &mut outcome.exchanges).await,
        Some(shake) => {
            let name = match shake.name {
                Some(name) => ServerName::try_from(name).unwrap(),
                None => ServerName::IpAddress(visit.to.into()),
            };
            let shaken = TlsConnector::from(config(wallet, shake)).connect(name, stream);
            match tokio::time::timeout(PATIENCE, shaken).await {
                Err(_) => End::Silent,
                Ok(Err(_)) => End::Refused,
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    outcome.tls = Some(format!(
                        "{} {:?} {:?}",
                        session.peer_certificates().map_or("none", |chain| wallet.name(&chain[0])),
                        session.protocol_version(),
                        session.alpn_protocol().map(String::from_utf8_lossy),
                    ));
                    match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => streams(stream, visit, book, &mut outcome.exchanges).await,
                        _ => talk(Wire::new(stream), visit, book, &mut outcome.exchanges).await,
                    }
                }
            }
        }
    };
    if outcome.end == End::Refused && outcome.exchanges.is_empty() {
        // In TLS 1.3 a client has shaken hands before its certificate is looked at.
        outcome.tls = None;
    }
    outcome
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    visit: &Visit,
    book: &Book,
    exchanges: &mut Vec<Exchange>,
) -> End {
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset,
        io::ErrorKind::InvalidData => End::Refused,
        _ => End::Closed,
    };
    if visit.manner == Manner::AtOnce
        && let Err(error) = wire.stream.write_all(&visit.requests.concat()).await
    {
        return ended(error);
    }
    for (at, request) in visit.requests.iter().enumerate() {
        let is_last = at + 1 == visit.requests.len();
        let sent = match visit.manner {
            Manner::AtOnce => &[],
            // Into the first line of it.
            Manner::Late if is_last => &request[..2],
            Manner::InTurn | Manner::Late => &request[..],
        };
        if let Err(error) = wire.stream.write_all(sent).await {
            return ended(error);
        }
        let _ = wire.stream.flush().await;
        let mut responses = Vec::new();
        let is_over = loop {
            match tokio::time::timeout(PATIENCE, wire.response(request.starts_with(b"HEAD "))).await {
                Err(_) => break Some(End::Silent),
                Ok(Err(error)) => break Some(ended(error)),
                Ok(Ok(None)) => break Some(End::Closed),
                Ok(Ok(Some(message))) => {
                    let is_interim = (100..200).contains(&message.status());
                    let is_over = message.wants_close() || !message.is_complete;
                    responses.push(message);
                    if !is_interim {
                        break is_over.then_some(End::Closed);
                    }
                }
            }
        };
        let is_empty = responses.is_empty();
        // Of requests at once, members may have seen all before the first is answered.
        let asked = if visit.manner != Manner::AtOnce || is_last { book.take() } else { Vec::new() };
        exchanges.push(Exchange { responses, asked });
        match is_over {
            None => {}
            Some(end) if is_empty => return end,
            Some(_) => {
                let mut rest = Vec::new();
                return match tokio::time::timeout(PATIENCE, wire.stream.read_to_end(&mut rest)).await {
                    Err(_) => End::Silent,
                    Ok(Ok(_)) if is_last => End::Done,
                    Ok(Ok(_)) => End::Closed,
                    Ok(Err(error)) => ended(error),
                };
            }
        }
    }
    End::Done
}

/// The same requests in HTTP/2.
async fn streams<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    visit: &Visit,
    book: &Book,
    exchanges: &mut Vec<Exchange>,
) -> End {
    let shaken = tokio::time::timeout(PATIENCE, h2::client::handshake(stream)).await;
    let Ok(Ok((mut send, connection))) = shaken else { return End::Refused };
    let connection = tokio::spawn(connection);
    for bytes in &visit.requests {
        let (request, body) = as_stream(bytes, visit.tls.is_some());
        let Ok(ready) = send.clone().ready().await else { return End::Closed };
        send = ready;
        let Ok((response, mut sending)) = send.send_request(request, body.is_empty()) else {
            return End::Closed;
        };
        if !body.is_empty() {
            send_all(&mut sending, &body, true).await;
        }
        let answer = answer(response).await;
        let mut responses = Vec::new();
        if let Some(status) = answer.status {
            let fields =
                answer.fields.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes())));
            responses.push(Message {
                line: format!("HTTP/2 {status} "),
                fields: fields.collect(),
                body: answer.body,
                trailers: format!("{:?}", answer.trailers.unwrap_or_default()),
                is_complete: answer.reset.is_none(),
            });
        }
        exchanges.push(Exchange { responses, asked: book.take() });
    }
    drop(send);
    connection.abort();
    End::Done
}

/// The request as one of HTTP/2, without what that does not have.
fn as_stream(bytes: &[u8], is_tls: bool) -> (http::Request<()>, Vec<u8>) {
    let text = latin1(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let fields: Vec<(&str, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim_matches([' ', '\t'])))
        .collect();
    let host = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map_or("none.example", |(_, host)| host);
    let scheme = if is_tls { "https" } else { "http" };
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None if target == "*" => "/",
        None => target,
    };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = http::Request::builder()
        .method(method)
        .version(http::Version::HTTP_2)
        .uri(http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().unwrap());
    let body = if fields.iter().any(|(name, _)| *name == "Transfer-Encoding") { "hi" } else { body };
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        let is_of_connection = matches!(
            name.as_str(),
            "host" | "connection" | "keep-alive" | "transfer-encoding" | "content-length"
        );
        if !is_of_connection && let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
            request = request.header(name, value);
        }
    }
    (request.body(()).unwrap(), body.as_bytes().to_vec())
}
