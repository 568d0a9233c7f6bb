//! TLS for tests: an authority, certificates of it, and clients that verify them.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
    version::TLS13,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{PATIENCE, process::shared_directory};

/// The name of the certificate that a directory begins with.
pub const SERVER_NAME: &str = "shop.example";

/// A directory of certificates as the proxy's `--certificates` reads it, `ID.pem` each: `ca`, and `server` for
/// [`SERVER_NAME`] with its key.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
    authority: CertificateDer<'static>,
}

impl Certificates {
    /// New ones.
    pub fn new() -> Self {
        let directory = shared_directory();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "test authority");
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let authority = CertifiedIssuer::self_signed(parameters, key()).unwrap();
        let mut parameters = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        let server = key();
        let certificate = parameters.signed_by(&server, &authority).unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let server = certificate.pem() + &server.serialize_pem();
        fs::write(directory.path().join("server.pem"), server).unwrap();
        Self { authority: authority.der().clone(), directory }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The file of an id.
    pub fn file(&self, id: &str) -> PathBuf {
        self.directory.path().join(id).with_extension("pem")
    }

    /// A client that trusts the authority, resumes nothing, and offers these application protocols.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.into()
    }

    /// A connection with TLS 1.3 over which HTTP/1.1 is spoken.
    ///
    /// # Errors
    /// When the handshake fails, or takes too long.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.connect_with(self.client(&[&TLS13], &["http/1.1"]), address).await
    }

    /// The same as the client wants it.
    ///
    /// # Errors
    /// When the handshake fails, or takes too long.
    pub async fn connect_with(
        &self,
        client: Arc<ClientConfig>,
        address: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(client).connect(name, stream).await
        };
        tokio::time::timeout(PATIENCE, connect).await?
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// `GET /` with `Connection: close`: all that comes back, as text.
///
/// # Errors
/// As the connection says; an end without `close_notify` is one.
pub async fn https_get(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}
