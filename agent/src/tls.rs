//! The server side of mutual TLS: a client certificate is mandatory, verified against `agent_server_ca`, and not one that
//! `agent_client_crl` revokes.
//!
//! Certificates may be replaced at any time: each new connection looks whether the files changed. A pair that is
//! not usable is reported once and the one before stays in use.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "who calls is a blocking thread, or starts the agent"
)]

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use amphora_x509::{Certificate, GeneralName, Time, oid};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use time::OffsetDateTime;

use crate::{config::TlsProtocol, directory::replace_file};

mod crl;

use self::crl::Dated;

/// Where certificates are, and the configuration made of them.
#[derive(Debug)]
pub struct ServerTls {
    files: Files,
    protocol: TlsProtocol,
    loaded: Mutex<Loaded>,
}

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The authorities that sign controllers' certificates.
    pub ca: PathBuf,
    /// The agent's own key and chain.
    pub cert: PathBuf,
    /// What the authorities have revoked, a list of each; without it nothing is.
    pub crl: Option<PathBuf>,
}

impl Files {
    fn stamps(&self) -> [Stamp; 3] {
        [stamp(&self.ca), stamp(&self.cert), self.crl.as_deref().and_then(stamp)]
    }
}

struct Loaded {
    config: Arc<ServerConfig>,
    stamps: [Stamp; 3],
    expiry: Expiry,
    /// When a revocation list expires, until that is told.
    expires: Option<OffsetDateTime>,
}

/// When the certificates in use expire, of several the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// The agent's own chain.
    pub server: Option<OffsetDateTime>,
    /// The authorities that sign controllers' certificates.
    pub authorities: Option<OffsetDateTime>,
    /// What the authorities have revoked: when the next list is due. `None` without lists.
    pub lists: Option<OffsetDateTime>,
}

/// Whether expired revocation lists are taken, by which nobody gets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expired {
    Taken,
    Refused,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// What changes when a file is replaced or rewritten.
type Stamp = Option<(u64, u64, SystemTime)>;

/// Why the agent's own certificate was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// It cannot be used.
    #[error(transparent)]
    Unusable(TlsError),
    /// The disk does not take it.
    #[error("cannot be stored: {0}")]
    Storage(std::io::Error),
}

/// Why certificates are not usable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl ServerTls {
    /// Loads the certificates. A revocation list that has expired keeps everybody out, as one that expires while the agent
    /// runs: the programs that it supervises, and its heartbeats, do not depend on that.
    ///
    /// # Errors
    /// When a file cannot be read, key and certificate do not match, or a revocation list is of somebody else.
    pub fn load(files: Files, protocol: TlsProtocol) -> Result<Self, TlsError> {
        let loaded = Loaded::read(&files, protocol, Expired::Taken)?;
        Ok(Self { files, protocol, loaded: Mutex::new(loaded) })
    }

    /// The configuration for a new connection, read again when a file changed.
    pub fn current(&self) -> Arc<ServerConfig> {
        let stamps = self.files.stamps();
        let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match Loaded::read(&self.files, self.protocol, Expired::Refused) {
                Ok(read) => {
                    *loaded = read;
                    tracing::info!("certificates were read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificates are not usable; the old ones stay")
                }
            }
        }
        loaded.tell_of_expiry(OffsetDateTime::now_utc());
        loaded.config.clone()
    }

    /// Until when the certificates of a new connection are good. Reads them again when a file changed.
    pub fn expiry(&self) -> Expiry {
        self.current();
        self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner).expiry
    }

    /// Replaces the agent's own key and chain: new connections use it at once. The certificate has to have this name, by which
    /// controllers know the amphora. Blocks on the disk.
    ///
    /// # Errors
    /// [`NotReplaced::Unusable`] when this is no key with its chain, or has other names, [`NotReplaced::Storage`] when the disk does not
    /// take it; the ones before stay.
    pub fn replace(&self, pem: &[u8], name: &str) -> Result<(), NotReplaced> {
        // Read whole before a byte of it is written: who cannot get in cannot mend it.
        server_config(&self.files, self.protocol, Expired::Taken, Some(pem))
            .and_then(|_| must_be_of(&self.files.cert, pem, name))
            .map_err(NotReplaced::Unusable)?;
        replace_file(&self.files.cert, pem).map_err(NotReplaced::Storage)?;
        let read = Loaded::read(&self.files, self.protocol, Expired::Taken).map_err(NotReplaced::Unusable)?;
        *self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = read;
        tracing::info!("the agent's certificate was replaced");
        Ok(())
    }

    /// Reads the certificates again, whether the files look changed or not.
    ///
    /// # Errors
    /// When they are not usable, or a revocation list has expired; the ones before stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Loaded::read(&self.files, self.protocol, Expired::Refused)?;
        *self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = read;
        Ok(())
    }
}

impl Loaded {
    fn read(files: &Files, protocol: TlsProtocol, expired: Expired) -> Result<Self, TlsError> {
        // What changes meanwhile is read once more.
        let stamps = files.stamps();
        let (config, expiry) = server_config(files, protocol, expired, None)?;
        Ok(Self { config, stamps, expiry, expires: expiry.lists })
    }

    /// Says it once, when somebody comes: the log of handshakes alone would not say why nobody gets in.
    fn tell_of_expiry(&mut self, now: OffsetDateTime) {
        if let Some(at) = self.expires.take_if(|at| *at < now) {
            tracing::error!("a revocation list expired at {at}: nobody gets in until it is replaced");
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// What the files say; with `own`, as if the agent's own key and chain were these.
fn server_config(
    files: &Files,
    protocol: TlsProtocol,
    expired: Expired,
    own: Option<&[u8]>,
) -> Result<(Arc<ServerConfig>, Expiry), TlsError> {
    let Files { ca, cert, crl } = files;
    let mut roots = RootCertStore::empty();
    let authorities = certificates(ca)?;
    let mut expiry = Expiry { authorities: first_to_expire(&authorities), ..Expiry::default() };
    for authority in authorities {
        roots.add(authority).map_err(|e| fail(ca, &e))?;
    }
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let lists = match crl {
        Some(crl) => revocation_lists(crl, &roots, expired)?,
        None => Vec::new(),
    };
    expiry.lists = lists.iter().map(|dated| dated.until).min();
    // With lists, every certificate of a chain needs the one of its issuer, and one that has expired meanwhile counts for
    // nothing: nobody gets in until it is replaced.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .with_crls(lists.into_iter().map(|dated| dated.list))
        .enforce_revocation_expiration()
        .build()
        .map_err(|e| fail(crl.as_ref().unwrap_or(ca), &e))?;
    let own = match own {
        Some(own) => without_marks(own.to_vec()),
        None => read(cert)?,
    };
    let key = PrivateKeyDer::from_pem_slice(&own).map_err(|e| fail(cert, &format!("no private key: {e}")))?;
    let versions: &[_] = match protocol {
        TlsProtocol::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsProtocol::Tls13 => &[&rustls::version::TLS13],
    };
    let chain = certificates_in(cert, &own)?;
    expiry.server = first_to_expire(&chain);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| TlsError(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| fail(cert, &e))?;
    // A resumed session would outlive the certificates that it was made with.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config.into(), expiry))
}

/// The first certificate has this name, as one of a host or as its subject's common name.
fn must_be_of(path: &Path, pem: &[u8], name: &str) -> Result<(), TlsError> {
    let chain = certificates_in(path, &without_marks(pem.to_vec()))?;
    let Some(own) = chain.first().and_then(|own| Certificate::read(own)) else {
        return Err(fail(path, &"the certificate cannot be read"));
    };
    let is_it = |text: &[u8]| text.eq_ignore_ascii_case(name.as_bytes());
    let hosts = own.extensions.subject_alt_names().unwrap_or_default();
    let mut common = own.subject.attributes().filter(|attribute| attribute.oid == oid::COMMON_NAME);
    if hosts.into_iter().any(|host| matches!(host, GeneralName::Dns(host) if is_it(host)))
        || common.any(|attribute| is_it(attribute.value))
    {
        return Ok(());
    }
    Err(fail(path, &format!("the certificate is not one of {name}, as which controllers know this amphora")))
}

fn fail(path: &Path, what: &dyn fmt::Display) -> TlsError {
    TlsError(format!("{}: {what}", path.display()))
}

/// The file without the byte order marks that editors put before PEM: nothing in PEM looks like one.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map(without_marks).map_err(|e| fail(path, &e))
}

fn without_marks(mut bytes: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    // DER may have anything.
    if !amphora_bundle::is_der(&bytes) {
        while let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) {
            bytes.drain(at..at + MARK.len());
        }
    }
    bytes
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_in(path, &read(path)?)
}

fn certificates_in(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|e| fail(path, &e))?;
    if certificates.is_empty() { Err(fail(path, &"no certificate in it")) } else { Ok(certificates) }
}

fn first_to_expire(certificates: &[CertificateDer<'_>]) -> Option<OffsetDateTime> {
    certificates.iter().filter_map(|certificate| moment(Certificate::read(certificate)?.not_after)).min()
}

fn moment(time: Time<'_>) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.unix()?).ok()
}

fn revocation_lists(
    path: &Path,
    authorities: &RootCertStore,
    expired: Expired,
) -> Result<Vec<Dated>, TlsError> {
    let bytes = read(path)?;
    let lists: Vec<_> = if amphora_bundle::is_der(&bytes) {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|e| fail(path, &e))?
    };
    if lists.is_empty() {
        return Err(fail(path, &"no certificate revocation list in it"));
    }
    let lists = lists.into_iter().map(|list| Dated::read(list, authorities));
    let lists = lists.collect::<Result<_, _>>().map_err(|reason| fail(path, &reason))?;
    let now = OffsetDateTime::now_utc();
    let lists = crl::in_order(lists, now);
    for dated in &lists {
        if let Some(reason) = dated.expired(now).filter(|_| expired == Expired::Refused) {
            return Err(fail(path, &reason));
        }
        if now < dated.from {
            // Who was revoked is, whatever this clock says.
            let (path, from) = (path.display(), dated.from);
            tracing::warn!("{path}: a revocation list that is good from {from} on counts already");
        }
    }
    Ok(lists)
}

#[cfg(test)]
mod tests;
