//! A certificate with its key, as it is shown to a peer.

use std::sync::Arc;

use amphora_bundle::Bundle;
use amphora_x509::{Certificate, GeneralName, oid, text};
use rustls::{SignatureAlgorithm, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;

/// Reads a bundle of a private key, its certificate, and the chain that goes with it, in any order.
///
/// # Errors
/// The reason, for a human, without anything of the key.
pub(super) fn read(bundle: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let bundle = Bundle::from_pem(bundle)?;
    let key = bundle.signing_key().ok_or("has no private key")?;
    Ok(Arc::new(CertifiedKey::new(bundle.certificates().to_vec(), Arc::clone(key))))
}

/// When the first of the certificates that go with a key expires, in seconds since 1970.
pub(super) fn expiry(key: &CertifiedKey) -> Option<i64> {
    key.cert.iter().filter_map(|der| Certificate::read(der)?.not_after.unix()).min()
}

/// The kinds of keys that a host may have a certificate of each for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Ecdsa,
    Rsa,
    Other,
}

pub(super) fn kind(key: &CertifiedKey) -> KeyKind {
    match key.key.algorithm() {
        SignatureAlgorithm::ECDSA => KeyKind::Ecdsa,
        SignatureAlgorithm::RSA => KeyKind::Rsa,
        _ => KeyKind::Other,
    }
}

/// The hosts that a certificate is for, as HAProxy takes them: the DNS names of its `subjectAltName`, and every
/// `commonName` of its subject.
pub(super) fn hosts(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Some(certificate) = Certificate::read(certificate) else { return Vec::new() };
    let alternatives = certificate.extensions.subject_alt_names().unwrap_or_default();
    let mut hosts: Vec<String> = alternatives
        .filter_map(|name| match name {
            GeneralName::Dns(host) => Some(host.iter().copied().map(char::from).collect()),
            _ => None,
        })
        .collect();
    let names = certificate.subject.attributes().filter(|attribute| attribute.oid == oid::COMMON_NAME);
    hosts.extend(names.filter_map(|name| text(name.tag, name.value)).map(|name| name.into_owned()));
    // HAProxy takes names up to their first NUL.
    hosts.retain(|host| !host.contains('\0'));
    hosts
}
