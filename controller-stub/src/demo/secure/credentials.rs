//! The certificates of the demo's HTTPS listener and of the member that speaks TLS, and the authority that signs them.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use amphora_model::CertificateId;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::{
    client::Credential,
    error::{Error, Result},
};

/// A certificate of the listener, or one of the authority: what documents name it by, and the host that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) struct Name {
    /// Where it is kept on the amphora.
    pub(in crate::demo) id: &'static str,
    /// A DNS name, or a wildcard.
    pub(in crate::demo) host: &'static str,
}

/// Shown to clients that name no host, or one that no other certificate is for.
pub(in crate::demo) const WWW: Name = Name { id: "demo-www", host: "www.example.com" };
/// Shown by SNI; it is the one that is replaced.
pub(in crate::demo) const SHOP: Name = Name { id: "demo-shop", host: "shop.example.com" };
/// Shown by SNI, to every host of one domain.
pub(in crate::demo) const APPS: Name = Name { id: "demo-apps", host: "*.apps.example.com" };
/// The certificates of the listener.
pub(in crate::demo) const SERVED: [Name; 3] = [WWW, SHOP, APPS];
/// The id of the authority's own certificate, against which members are verified.
pub(in crate::demo) const AUTHORITIES: &str = "demo-authorities";

/// The authority. Its key lives as long as the demo.
pub(in crate::demo) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A key with its certificate.
pub(in crate::demo) struct Leaf {
    /// Both, as an amphora takes them.
    pub(in crate::demo) pem: String,
    /// The certificate.
    pub(in crate::demo) der: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Local`]: no key can be made.
    pub(in crate::demo) fn new() -> Result<Self> {
        let mut params = params("amphora demo CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, key()?).map(Self).map_err(failed)
    }

    /// A new key, and a certificate of it for these hosts.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::demo) fn issue(&self, hosts: &[&str]) -> Result<Leaf> {
        let mut params = params(hosts.first().copied().unwrap_or_default());
        for host in hosts {
            params.subject_alt_names.push(rcgen::SanType::DnsName((*host).try_into().map_err(failed)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = key()?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed)?;
        Ok(Leaf { pem: key.serialize_pem() + &certificate.pem(), der: certificate.der().clone() })
    }

    /// Its certificate, as an amphora takes it.
    pub(in crate::demo) fn credential(&self) -> Credential {
        Credential::Pem(Bytes::from(self.0.pem()))
    }

    /// It alone is trusted.
    ///
    /// # Errors
    /// [`Error::Local`]: rustls does not take it.
    pub(in crate::demo) fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).map_err(|e| Error::local("certificates", e))?;
        Ok(Arc::new(roots))
    }
}

impl Leaf {
    /// As it is brought to an amphora.
    pub(in crate::demo) fn credential(&self) -> Credential {
        Credential::Pem(Bytes::copy_from_slice(self.pem.as_bytes()))
    }

    /// Writes it for a member to read, and for nobody else.
    ///
    /// # Errors
    /// [`Error::Local`]: the file cannot be written.
    pub(in crate::demo) fn write(&self, path: &Path) -> Result<()> {
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            std::io::Write::write_all(&mut file, self.pem.as_bytes())
        };
        write().map_err(|e| Error::local(path.display(), e))
    }
}

/// What documents name one of these by.
///
/// # Errors
/// [`Error::Local`]: it is no id.
pub(in crate::demo) fn id(text: &str) -> Result<CertificateId> {
    text.parse().map_err(|e| Error::local(text, e))
}

fn key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)
}

fn failed(error: rcgen::Error) -> Error {
    Error::local("certificates", error)
}

/// Valid from an hour ago, because clocks differ, for as long as a demo runs.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::days(90);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}
