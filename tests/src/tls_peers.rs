//! Peers that speak TLS: a client that keeps its connection, and a member.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, ServerConfig, crypto::aws_lc_rs, pki_types::ServerName, server::WebPkiClientVerifier,
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
        Ok(Self { stream: tokio::time::timeout(PATIENCE, shaking).await??, buffer: Vec::new() })
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

    /// The serial number of the proxy's certificate, to tell one from another.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

/// A member that speaks HTTP/1.1 over TLS, and answers with what it knows of the proxy: `sni=NAME certificate=YES header=PROXY`.
#[derive(Debug)]
pub struct TlsMember {
    /// Counts connections; its requests are in [`requests`](Self::requests).
    pub backend: Backend,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl TlsMember {
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
        let config = builder.with_single_cert(chain, key).unwrap();
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
        if let Some(length) = request.target().strip_prefix("/bytes/") {
            body = vec![b'x'; length.parse().unwrap()];
        }
        if request.first_line().starts_with("POST") {
            body = request.body.clone();
        }
        requests.lock().unwrap().push(request);
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
