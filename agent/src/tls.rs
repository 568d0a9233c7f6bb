//! The server side of mutual TLS: a client certificate is mandatory and verified against `agent_server_ca`.
//!
//! Certificates may be replaced at any time: each new connection looks whether the files changed. A pair that is
//! not usable is reported once and the one before stays in use.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use crate::config::TlsProtocol;

/// Where certificates are, and the configuration made of them.
#[derive(Debug)]
pub struct ServerTls {
    ca: PathBuf,
    cert: PathBuf,
    protocol: TlsProtocol,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    stamps: [Stamp; 2],
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// What changes when a file is replaced or rewritten.
type Stamp = Option<(u64, u64, SystemTime)>;

/// Why certificates are not usable.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl ServerTls {
    /// Loads the certificates: `ca` holds authorities, `cert` the agent's own key and chain.
    ///
    /// # Errors
    /// When a file cannot be read, or key and certificate do not match.
    pub fn load(ca: &Path, cert: &Path, protocol: TlsProtocol) -> Result<Self, TlsError> {
        let stamps = [stamp(ca), stamp(cert)];
        let config = server_config(ca, cert, protocol)?;
        let loaded = Mutex::new(Loaded { config, stamps });
        Ok(Self { ca: ca.to_owned(), cert: cert.to_owned(), protocol, loaded })
    }

    /// The configuration for a new connection, read again when a file changed.
    pub fn current(&self) -> Arc<ServerConfig> {
        let stamps = [stamp(&self.ca), stamp(&self.cert)];
        let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match server_config(&self.ca, &self.cert, self.protocol) {
                Ok(config) => {
                    loaded.config = config;
                    tracing::info!("certificates were read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificates are not usable; the old ones stay")
                }
            }
        }
        loaded.config.clone()
    }

    /// Reads the certificates again, whether the files look changed or not.
    ///
    /// # Errors
    /// When they are not usable; the ones before stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = [stamp(&self.ca), stamp(&self.cert)];
        let config = server_config(&self.ca, &self.cert, self.protocol)?;
        *self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Loaded { config, stamps };
        Ok(())
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

fn server_config(ca: &Path, cert: &Path, protocol: TlsProtocol) -> Result<Arc<ServerConfig>, TlsError> {
    let fail = |path: &Path, what: &dyn fmt::Display| TlsError(format!("{}: {what}", path.display()));
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|e| fail(ca, &e))?;
    }
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|e| fail(ca, &e))?;
    let key = PrivateKeyDer::from_pem_file(cert).map_err(|e| fail(cert, &format!("no private key: {e}")))?;
    let versions: &[_] = match protocol {
        TlsProtocol::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsProtocol::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| TlsError(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(cert)?, key)
        .map_err(|e| fail(cert, &e))?;
    // A resumed session would outlive the certificates that it was made with.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config.into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |what: &dyn fmt::Display| TlsError(format!("{}: {what}", path.display()));
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| fail(&e))?;
    if certificates.is_empty() { Err(fail(&"no certificate in it")) } else { Ok(certificates) }
}
