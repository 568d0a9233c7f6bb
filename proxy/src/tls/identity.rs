//! A certificate with its key, as it is shown to a peer.

use std::sync::Arc;

use amphora_x509::{Certificate, GeneralName, PublicKey, oid, text};
use rustls::{
    SignatureAlgorithm,
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::pem::Bundle;

/// Reads a bundle of a private key, its certificate, and the chain that goes with it, in any order.
///
/// # Errors
/// The reason, for a human, without anything of the key.
pub(super) fn read(bundle: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let Bundle { certificates, mut keys, .. } = Bundle::read(bundle)?;
    if certificates.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    let key = match keys.len() {
        0 => return Err("no private key in it".to_owned()),
        1 => signing_key(&keys.remove(0))?,
        _ => return Err("more than one private key in it".to_owned()),
    };
    let read = certificates.iter().map(|der| Certificate::read(der)).collect::<Option<Vec<_>>>();
    let Some(read) = read else { return Err("a certificate that is not in the form of RFC 5280".to_owned()) };
    let public = key.public_key().ok_or("a private key of a kind that is not known")?;
    let public = PublicKey::read(&public).ok_or("a private key of a kind that is not known")?;
    let Some(leaf) = read.iter().position(|one| same_key(&one.public_key, &public)) else {
        return Err("a private key that is not that of any certificate in it".to_owned());
    };
    let order = in_order(&read, leaf);
    drop(read);
    let mut certificates: Vec<Option<CertificateDer<'static>>> = certificates.into_iter().map(Some).collect();
    let chain = order.into_iter().filter_map(|at| certificates[at].take()).collect();
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn signing_key(der: &PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    any_supported_type(der).map_err(|_| {
        "a private key that cannot be used; there are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, and Ed25519"
            .to_owned()
    })
}

fn same_key(one: &PublicKey<'_>, other: &PublicKey<'_>) -> bool {
    one.algorithm.oid == other.algorithm.oid && one.key == other.key
}

/// The certificate at `leaf`, the one of its issuer, of that one's issuer, and so on; then the others as they came.
fn in_order(certificates: &[Certificate<'_>], leaf: usize) -> Vec<usize> {
    let mut order = vec![leaf];
    let mut rest: Vec<usize> = (0..certificates.len()).filter(|at| *at != leaf).collect();
    let mut last = leaf;
    while !certificates[last].is_self_issued() {
        let issuer = certificates[last].issuer.canonical();
        let Some(next) = rest.iter().position(|at| certificates[*at].subject.canonical() == issuer) else {
            break;
        };
        last = rest.remove(next);
        order.push(last);
    }
    // One that comes twice is sent once.
    rest.retain(|at| !order.iter().any(|known| certificates[*known].der == certificates[*at].der));
    order.extend(rest);
    order
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
        .iter()
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
