//! Mutual TLS towards an agent: which files, and what of them is checked before the first packet.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::error::{Error, Result};

/// The certificates that a connection to an amphora needs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Certificates")]
pub struct TlsOptions {
    /// Directory that `certs init` made: stands for --ca DIR/ca.pem --cert DIR/client.pem --key DIR/client.key
    #[arg(long, value_name = "DIR", env = "AMPHORA_CERTS")]
    pub certs: Option<PathBuf>,
    /// CA that signed the amphora's certificate, PEM
    #[arg(long, value_name = "FILE", env = "AMPHORA_CA")]
    pub ca: Option<PathBuf>,
    /// Client certificate with its chain, PEM
    #[arg(long, value_name = "FILE", env = "AMPHORA_CERT")]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate, PEM; when absent it is looked for in the certificate's file
    #[arg(long, value_name = "FILE", env = "AMPHORA_KEY")]
    pub key: Option<PathBuf>,
    /// Name that the amphora's certificate must carry, usually the amphora's UUID; by default the host of --amphora
    #[arg(long, value_name = "NAME", env = "AMPHORA_SERVER_NAME")]
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// Takes over those options of another that `wins` says of.
    pub(crate) fn take_over(&mut self, other: Self, wins: &dyn Fn(&str) -> bool) {
        let take = |id, own: &mut Option<PathBuf>, other| {
            if wins(id) {
                *own = other;
            }
        };
        take("certs", &mut self.certs, other.certs);
        take("ca", &mut self.ca, other.ca);
        take("cert", &mut self.cert, other.cert);
        take("key", &mut self.key, other.key);
        if wins("server_name") {
            self.server_name = other.server_name;
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the file that is missing or holds something else.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let file = |given: &Option<PathBuf>, name: &str| -> Option<PathBuf> {
            given.clone().or_else(|| self.certs.as_ref().map(|dir| dir.join(name)))
        };
        let (Some(ca), Some(cert)) = (file(&self.ca, "ca.pem"), file(&self.cert, "client.pem")) else {
            return Err(Error::Usage(
                "an amphora asks for a client certificate: give --certs DIR, or --ca and --cert (and --key)\n\
                 `amphora-controller certs init DIR` makes a set"
                    .to_owned(),
            ));
        };
        let key = self.key.clone().unwrap_or_else(|| match (&self.cert, &self.certs) {
            (None, Some(dir)) => dir.join("client.key"),
            _ => cert.clone(),
        });
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca)? {
            roots.add(root).map_err(|e| Error::file(&ca, e))?;
        }
        let chain = certificates(&cert)?;
        let key_der = PrivateKeyDer::from_pem_slice(&read(&key)?)
            .map_err(|e| Error::file(&key, format!("no private key in it: {e}")))?;
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::local("TLS", e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key_der)
            .map(Arc::new)
            .map_err(|e| Error::file(&key, format!("does not go with {}: {e}", cert.display())))
    }
}

/// What a server is known by whose certificate an authority of this file has signed. Of a host's own file some may be of no use.
///
/// # Errors
/// [`Error::Usage`] naming the file that is missing or holds something else.
pub(super) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates(ca)?).0 == 0 {
        return Err(Error::file(ca, "no certificate of an authority in it"));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::local("TLS", e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth().into())
}

/// The crypto of this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The file without the byte order marks that editors put before PEM: nothing in PEM looks like one.
fn read(path: &Path) -> Result<Vec<u8>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut bytes = fs::read(path).map_err(|e| Error::file(path, e))?;
    while let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) {
        bytes.drain(at..at + MARK.len());
    }
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::file(path, format!("not PEM: {e}")))?;
    if found.is_empty() {
        return Err(Error::file(path, "no certificate in it"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_with_a_byte_order_mark_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (ca, both) = (dir.path().join("ca.pem"), dir.path().join("client.pem"));
        let pem = signed.cert.pem();
        fs::write(&ca, format!("\u{feff}{pem}")).unwrap();
        fs::write(&both, format!("\u{feff}{}\u{feff}{pem}", signed.signing_key.serialize_pem())).unwrap();
        let options = TlsOptions { ca: Some(ca), cert: Some(both), ..TlsOptions::default() };
        options.client_config().unwrap();
    }
}
