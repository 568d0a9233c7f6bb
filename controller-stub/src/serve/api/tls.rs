//! TLS in front of the API, when there is a certificate. Certificates may be replaced at any time: each new connection looks whether the
//! files changed. A pair that is not usable is reported once, and the one before stays in use.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use amphora_ipc::places::{Progress, Watched};
use amphora_x509::Certificate;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::AsyncWriteExt,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::socket::Socket;
use crate::serve::metrics::metrics;

/// How long a client may take from its connection until it has shaken hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a client that speaks no TLS is told, so that who has forgotten the `s` of `https` sees it.
const PLAIN: &str = "This is HTTPS, and the request was plain HTTP: use https:// in its address.\n";

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, its own certificate first.
    pub certificate: PathBuf,
    /// The key; without it, it is in the file of the chain.
    pub key: Option<PathBuf>,
}

/// What changes when a file is replaced or rewritten.
type Stamp = Option<(u64, u64, SystemTime)>;

/// Certificate and key as they are in use.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    stamps: [Stamp; 2],
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Files {
    fn key(&self) -> &Path {
        self.key.as_deref().unwrap_or(&self.certificate)
    }

    fn stamps(&self) -> [Stamp; 2] {
        [&self.certificate, self.key()].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
        })
    }

    /// What they make of it. The time when the first of the chain ends is told to Prometheus.
    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let fail =
            |path: &Path, what: &dyn std::fmt::Display| TlsError(format!("{}: {what}", path.display()));
        let (certificate, key) = (self.certificate.as_path(), self.key());
        let text = fs::read(certificate).map_err(|e| fail(certificate, &e))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|e| fail(certificate, &e))?;
        if chain.is_empty() {
            return Err(fail(certificate, &"no certificate in it"));
        }
        let ends = chain.iter().filter_map(|one| Certificate::read(one)?.not_after.unix()).min();
        let text = fs::read(key).map_err(|e| fail(key, &e))?;
        let secret =
            PrivateKeyDer::from_pem_slice(&text).map_err(|e| fail(key, &format!("no private key: {e}")))?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    fail(certificate, &format!("its key is not the one in {}", key.display()))
                }
                e => fail(certificate, &e),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if has_ended(ends, SystemTime::now()) {
            tracing::warn!(file = %certificate.display(), "the certificate has expired: clients that verify it do not come in");
        }
        metrics().api_certificate_ends(ends);
        Ok(config.into())
    }
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        // What changes meanwhile is read once more.
        let stamps = files.stamps();
        let config = files.read()?;
        Ok(Self { files, loaded: Mutex::new(Loaded { config, stamps }) })
    }

    /// What a new connection gets, read again when a file changed. Blocks.
    fn current(&self) -> Arc<ServerConfig> {
        let stamps = self.files.stamps();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match self.files.read() {
                Ok(config) => {
                    loaded.config = config;
                    tracing::info!("the API's certificate was read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the API's new certificate is not usable; the old one stays");
                }
            }
        }
        loaded.config.clone()
    }

    /// Shakes hands; `None` when nothing comes of it.
    pub(super) async fn accept(
        self: Arc<Self>,
        stream: Socket,
        progress: Arc<Progress>,
    ) -> Option<TlsStream<Watched<Socket>>> {
        let handshake = async {
            if stream.first().await?.is_ascii_alphabetic() {
                refuse_plain(stream).await?;
                return Err(io::Error::other("it speaks plain HTTP"));
            }
            let config = spawn_blocking(move || self.current()).await?;
            TlsAcceptor::from(config).accept(Watched::new(stream, progress.clone())).await
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, handshake) => shaken,
            () = progress.let_go() => return None,
        };
        match shaken {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

/// Whether the first of a chain has expired, by seconds since 1970.
pub(super) fn has_ended(ends: Option<i64>, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    ends.is_some_and(|ends| i64::try_from(now).is_ok_and(|now| ends < now))
}

/// No byte of TLS is a letter at the begin; one of HTTP is.
async fn refuse_plain(mut stream: Socket) -> io::Result<()> {
    let text = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{PLAIN}",
        PLAIN.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // What it sends meanwhile would be answered by a reset, which may overtake the answer.
    let mut rest = [0; 4096];
    let drained = async {
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        drained = drained => drained,
        () = sleep(Duration::from_secs(1)) => Ok(()),
    }
}
