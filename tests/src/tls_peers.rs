//! Peers that speak TLS: a client that keeps its connection, and a member.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ClientConfig, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::ServerName,
    server::{ResolvesServerCertUsingSni, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::{Backend, Certificates, Message, PATIENCE, message::read_message};

/// A client that speaks TLS.
#[derive(Debug)]
pub struct TlsClient {
    /// The connection.
    pub stream: client::TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl TlsClient {
    /// Connects and shakes hands, asking for this host.
    ///
    /// # Errors
    /// As the system or rustls says.
    pub async fn connect(address: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let shaking = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host.to_owned()).unwrap();
            TlsConnector::from(Arc::clone(config)).connect(name, stream).await
        };
        Ok(Self::over(tokio::time::timeout(PATIENCE, shaking).await??))
    }

    /// On a connection that is there.
    pub fn over(stream: client::TlsStream<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Asks for this path, with these lines in the head.
    ///
    /// # Errors
    /// As the system or rustls says; `UnexpectedEof` for a response that breaks off.
    pub async fn get(&mut self, path: &str, lines: &str) -> io::Result<Message> {
        let exchange = async {
            let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n");
            self.stream.write_all(request.as_bytes()).await?;
            let message = read_message(&mut self.stream, &mut self.buffer, true).await?;
            message.filter(|message| message.complete).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        tokio::time::timeout(PATIENCE, exchange).await?
    }

    /// Sends this, as it is.
    ///
    /// # Errors
    /// As the system or rustls says.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await
    }

    /// All that comes from here on, and how it ends.
    pub async fn rest(&mut self) -> (String, TlsEnd) {
        let mut bytes = std::mem::take(&mut self.buffer);
        let reading = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut bytes));
        let end = match reading.await.expect("an end") {
            Ok(_) => TlsEnd::Notified,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => TlsEnd::Cut,
            Err(_) => TlsEnd::Failed,
        };
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The serial number of the proxy's certificate, to tell one from another.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

/// How what comes over TLS ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// With `close_notify`.
    Notified,
    /// Without: as if somebody in between had cut it.
    Cut,
    /// With an alert or a reset.
    Failed,
}

/// A member that speaks HTTP/1.1 over TLS, and answers with what it knows of the proxy: `sni=NAME certificate=YES header=PROXY`.
/// For `/bytes/N` it sends so many. For `/ends/FRAMING/HOW` it breaks off in the middle of a body, or where FRAMING is `close` perhaps
/// at its end; HOW is `notify`, `silent` (no `close_notify`) or `reset`.
#[derive(Debug)]
pub struct TlsMember {
    /// Counts connections; its requests are in [`requests`](Self::requests).
    pub backend: Backend,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl TlsMember {
    /// With this certificate, for this host alone: who asks for another is refused.
    pub async fn strict(certificates: &Certificates, id: &str, host: &str) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (chain, key) = certificates.read(id);
        let key = CertifiedKey::from_der(chain, key, &provider).unwrap();
        let mut hosts = ResolvesServerCertUsingSni::new();
        hosts.add(host, key).unwrap();
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Self::with(builder.with_cert_resolver(Arc::new(hosts))).await
    }

    /// With this certificate; one that `verifies` wants one of the authority's.
    pub async fn start(certificates: &Certificates, id: &str, verifies: bool) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let (chain, key) = certificates.read(id);
        let builder = match verifies {
            false => builder.with_no_client_auth(),
            true => {
                let roots = Arc::new(certificates.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        Self::with(builder.with_single_cert(chain, key).unwrap()).await
    }

    async fn with(config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&requests);
        let backend = Backend::tcp("tls", move |stream| {
            let (acceptor, recorded) = (acceptor.clone(), Arc::clone(&recorded));
            async move {
                let _ = serve(acceptor, stream, &recorded).await;
            }
        });
        Self { backend: backend.await, requests }
    }

    /// What it was asked.
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
    requests: &Mutex<Vec<Message>>,
) -> io::Result<()> {
    let header = proxy_header(&mut stream).await?;
    let mut stream = acceptor.accept(stream).await?;
    let session = stream.get_ref().1;
    let sni = session.server_name().unwrap_or("none").to_owned();
    let certificate = session.peer_certificates().is_some();
    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut stream, &mut buffer, false).await? {
        let mut body =
            format!("sni={sni} certificate={certificate} resumed={resumed} header={header}").into_bytes();
        if let Some(ends) = request.target().strip_prefix("/ends/") {
            let (framing, how) = ends.split_once('/').unwrap();
            let text = match framing {
                "length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
                "chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                _ => "HTTP/1.1 200 OK\r\n\r\nhello",
            };
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            match how {
                "notify" => return stream.shutdown().await,
                "silent" => return stream.get_mut().0.shutdown().await,
                _ => {
                    // What was sent before is to arrive: a reset would overtake it.
                    let _ = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
                    return stream.get_ref().0.set_zero_linger();
                }
            }
        }
        if let Some(length) = request.target().strip_prefix("/bytes/") {
            body = vec![b'x'; length.parse().unwrap()];
        }
        if request.first_line().starts_with("POST") {
            body = request.body.clone();
        }
        let complete = request.complete;
        requests.lock().unwrap().push(request);
        if !complete {
            return Ok(());
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

/// The header of the PROXY protocol that a connection may begin with, in hexadecimal without its signature.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<String> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] != b'\r' {
        return Ok(String::new());
    }
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let mut rest = vec![0; u16::from_be_bytes([fixed[14], fixed[15]]).into()];
    stream.read_exact(&mut rest).await?;
    Ok(fixed[12..].iter().chain(&rest).map(|byte| format!("{byte:02x}")).collect())
}
