//! What a bundle is, and whether it can be used.

use std::sync::Arc;

use amphora_x509::{Certificate, PublicKey, RevocationList};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::{Bundle, Found, Key, MAX_BYTES, MAX_ENTRIES, pem};

const UNKNOWN_KEY: &str = "has a private key that cannot be used; there are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and \
    P-521, and Ed25519";

/// The most private keys in one.
const MAX_KEYS: usize = 16;

/// Judges what was found, and brings it in order.
///
/// # Errors
/// The reason.
pub(crate) fn judge(found: Found) -> Result<Bundle, String> {
    let Found { keys, certificates, lists } = found;
    // DER is a quarter shorter than PEM, and so is PEM in long lines by a little: what is kept must be readable again.
    if pem::written_length(keys.first().map(|key| &**key), &certificates, &lists) > MAX_BYTES {
        return Err(format!("is larger than {} MiB in PEM", MAX_BYTES >> 20));
    }
    for (number, what) in [(certificates.len(), "certificates"), (lists.len(), "revocation lists")] {
        if number > MAX_ENTRIES {
            return Err(format!("has more than {MAX_ENTRIES} {what}"));
        }
    }
    let read: Option<Vec<_>> = certificates.iter().map(|der| Certificate::read(der)).collect();
    let Some(read) = read else {
        return Err("has a certificate that is not in the form of RFC 5280".to_owned());
    };
    if lists.iter().any(|der| RevocationList::read(der).is_none()) {
        return Err("has a revocation list that is not in the form of RFC 5280".to_owned());
    }
    match (keys.len(), read.is_empty(), lists.is_empty()) {
        (0, true, true) => Err("has neither certificates nor revocation lists".to_owned()),
        (0, false, false) => {
            Err("has certificates and revocation lists; each of them needs an id of its own".to_owned())
        }
        (0, ..) => {
            drop(read);
            Ok(Bundle { key: None, certificates, lists })
        }
        (_, _, false) => {
            Err("has a private key and revocation lists; each of them needs an id of its own".to_owned())
        }
        _ => {
            let (key, leaf) = the_one(keys, &read)?;
            let order = in_order(&read, leaf);
            drop(read);
            let mut certificates: Vec<Option<CertificateDer<'static>>> =
                certificates.into_iter().map(Some).collect();
            let certificates = order.into_iter().filter_map(|at| certificates[at].take()).collect();
            Ok(Bundle { key: Some(key), certificates, lists })
        }
    }
}

/// The key that has a certificate here, and which that is. Others may be there, as HAProxy lets them, if no certificate is theirs: a file
/// that keys were added to over the years. The same key in another form is the same.
///
/// # Errors
/// There is none, or there are several.
fn the_one(
    keys: Vec<Zeroizing<PrivateKeyDer<'static>>>,
    certificates: &[Certificate<'_>],
) -> Result<(Key, usize), String> {
    if keys.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} private keys"));
    }
    let several = keys.len() > 1;
    let mut found: Option<(Key, usize)> = None;
    for der in keys {
        let signing = signing_key(&der)?;
        let public = signing.public_key().ok_or(UNKNOWN_KEY)?;
        let public = PublicKey::read(&public).ok_or(UNKNOWN_KEY)?;
        if certificates.is_empty() {
            return Err("has a private key and no certificate".to_owned());
        }
        let leaf = certificates.iter().position(|one| same_key(&one.public_key, &public));
        match (leaf, &found) {
            (Some(leaf), None) => found = Some((Key { der, signing }, leaf)),
            (Some(leaf), Some((_, known))) if leaf != *known => {
                return Err(
                    "has more than one private key with its certificate; each of them needs an id of its own"
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
    found.ok_or_else(|| match several {
        false => "has a private key that is not that of any certificate in it".to_owned(),
        true => "has private keys, and none is that of any certificate in it".to_owned(),
    })
}

fn signing_key(der: &PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    any_supported_type(der).map_err(|_| UNKNOWN_KEY.to_owned())
}

fn same_key(one: &PublicKey<'_>, other: &PublicKey<'_>) -> bool {
    one.algorithm.oid == other.algorithm.oid && (one.key == other.key || is_compressed(one.key, other.key))
}

/// Whether the first is the other point of a curve in its short form (RFC 5480 section 2.2): x alone, and whether y is odd.
fn is_compressed(short: &[u8], point: &[u8]) -> bool {
    match (short, point) {
        ([sign @ 2..=3, x @ ..], [4, coordinates @ .., last]) => {
            coordinates.len() + 1 == 2 * x.len() && coordinates.starts_with(x) && last & 1 == sign & 1
        }
        _ => false,
    }
}

/// The certificate at `leaf`, the one of its issuer, of that one's issuer, and so on; then the others as they came. One that
/// comes twice is there once.
fn in_order(certificates: &[Certificate<'_>], leaf: usize) -> Vec<usize> {
    let names: Vec<_> = certificates.iter().map(|one| one.subject.canonical()).collect();
    let mut order = vec![leaf];
    let mut rest: Vec<usize> = (0..certificates.len()).filter(|at| *at != leaf).collect();
    let mut last = leaf;
    while !certificates[last].is_self_issued() {
        let issuer = certificates[last].issuer.canonical();
        let Some(next) = rest.iter().position(|at| names[*at] == issuer) else { break };
        last = rest.remove(next);
        order.push(last);
    }
    for at in rest {
        if !order.iter().any(|known| certificates[*known].der == certificates[at].der) {
            order.push(at);
        }
    }
    order
}
