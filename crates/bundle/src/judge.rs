//! What a bundle is, and whether it can be used.

use std::sync::Arc;

use amphora_x509::{Certificate, PublicKey, RevocationList};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Bundle, Found, Key, MAX_BYTES, MAX_ENTRIES, pem};

const UNKNOWN_KEY: &str = "has a private key that cannot be used; there are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and \
    P-521, and Ed25519";

/// Judges what was found, and brings it in order.
///
/// # Errors
/// The reason.
pub(crate) fn judge(found: Found) -> Result<Bundle, String> {
    let Found { mut keys, certificates, lists } = found;
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
        (1, ..) => {
            let key = keys.remove(0);
            let signing = signing_key(&key)?;
            let public = signing.public_key().ok_or(UNKNOWN_KEY)?;
            let public = PublicKey::read(&public).ok_or(UNKNOWN_KEY)?;
            if read.is_empty() {
                return Err("has a private key and no certificate".to_owned());
            }
            let leaf = read.iter().position(|one| same_key(&one.public_key, &public));
            let leaf = leaf.ok_or("has a private key that is not that of any certificate in it")?;
            let order = in_order(&read, leaf);
            drop(read);
            let mut certificates: Vec<Option<CertificateDer<'static>>> =
                certificates.into_iter().map(Some).collect();
            let certificates = order.into_iter().filter_map(|at| certificates[at].take()).collect();
            Ok(Bundle { key: Some(Key { der: key, signing }), certificates, lists })
        }
        _ => Err("has more than one private key".to_owned()),
    }
}

fn signing_key(der: &PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    any_supported_type(der).map_err(|_| UNKNOWN_KEY.to_owned())
}

fn same_key(one: &PublicKey<'_>, other: &PublicKey<'_>) -> bool {
    one.algorithm.oid == other.algorithm.oid && one.key == other.key
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
