//! TLS for tests: an authority, certificates of it, and clients that verify them.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, RevokedCertParams, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{PATIENCE, process::shared_directory};

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1000);

/// The name of the certificate that a directory begins with.
pub const SERVER_NAME: &str = "shop.example";

/// A directory of certificates as the proxy's `--certificates` reads it, `ID.pem` each: `ca`, and `server` for
/// [`SERVER_NAME`] with its key.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    /// The serial number that each id was issued last.
    serials: Mutex<HashMap<String, u64>>,
}

impl Certificates {
    /// New ones.
    pub fn new() -> Self {
        let (directory, serials) = (shared_directory(), Mutex::default());
        let certificates = Self { directory, authority: authority(), serials };
        certificates.put("ca", &certificates.authority.pem());
        certificates.issue("server", &[SERVER_NAME]);
        certificates
    }

    /// A certificate for these hosts, in place of what has this id. The first is its common name.
    pub fn issue(&self, id: &str, hosts: &[&str]) {
        self.issue_for(id, hosts.iter().map(|&host| host.to_owned()).collect(), &hosts[..1]);
    }

    /// The same for no host, with these common names: two at the most.
    pub fn issue_named(&self, id: &str, names: &[&str]) {
        self.issue_for(id, Vec::new(), names);
    }

    /// The same as [`issue`](Self::issue) with a key for RSA.
    pub fn issue_rsa(&self, id: &str, hosts: &[&str]) {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        self.issue_with(id, hosts.iter().map(|&host| host.to_owned()).collect(), &hosts[..1], &key, 2099);
    }

    /// The same as [`issue`](Self::issue) of one whose time is over.
    pub fn issue_expired(&self, id: &str, hosts: &[&str]) {
        self.issue_with(id, hosts.iter().map(|&host| host.to_owned()).collect(), &hosts[..1], &key(), 2021);
    }

    fn issue_for(&self, id: &str, hosts: Vec<String>, names: &[&str]) {
        self.issue_with(id, hosts, names, &key(), 2099);
    }

    fn issue_with(&self, id: &str, hosts: Vec<String>, names: &[&str], key: &KeyPair, until: i32) {
        let mut parameters = CertificateParams::new(hosts).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        // A type that is there already is replaced, unless it goes by another name.
        let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (kind, &name) in kinds.into_iter().zip(names) {
            parameters.distinguished_name.push(kind, name);
        }
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        self.serials.lock().unwrap().insert(id.to_owned(), serial);
        parameters.serial_number = Some(serial.into());
        (parameters.not_before, parameters.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let certificate = parameters.signed_by(key, &self.authority).unwrap();
        self.put(id, &(certificate.pem() + &key.serialize_pem()));
    }

    /// The authority's revocation list, with what was issued to these ids.
    pub fn revoke(&self, list: &str, ids: &[&str]) {
        let serials = self.serials.lock().unwrap();
        let revoked = ids.iter().map(|id| RevokedCertParams {
            serial_number: serials[*id].into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let parameters = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed).into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.put(list, &parameters.signed_by(&self.authority).unwrap().pem().unwrap());
    }

    /// An authority that has signed nothing.
    pub fn stranger(&self, id: &str) {
        self.put(id, &authority().pem());
    }

    /// Puts this in place of what has this id, at once.
    pub fn put(&self, id: &str, pem: &str) {
        let new = self.path().join(".new");
        fs::write(&new, pem).unwrap();
        fs::rename(new, self.file(id)).unwrap();
    }

    /// The directory as the value of an option.
    pub fn option(&self) -> String {
        self.path().display().to_string()
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
        let mut config = self.client_with(None, versions);
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.into()
    }

    /// A client that trusts the authority, resumes sessions, offers no application protocol, and shows this certificate.
    pub fn client_with(
        &self,
        certificate: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        match certificate {
            None => builder.with_no_client_auth(),
            Some(id) => {
                let (chain, key) = self.read(id);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    /// A client that trusts the authority, and shows this, whatever it is.
    pub fn client_showing(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    /// The authority alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    /// What has this id.
    pub fn read(&self, id: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let pem = fs::read(self.file(id)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(&pem).unwrap())
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

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(parameters, key()).unwrap()
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
