//! TLS without sockets: what a listener terminates TLS with, what members are spoken to with, and what is known of a peer when
//! a handshake is done.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `material` | [`Material`]: keys, certificates, authorities and revocations by id |
//! | `identity` | a certificate with its key and chain |
//! | `ciphers`, `openssl_names`, `groups` | `tls_versions` and `tls_ciphers` as suites; key exchange |
//! | `server`, `sni` | [`ServerContext`]; which certificate a client is shown |
//! | `client`, `sessions` | [`ClientContext`]; sessions with a member that may be resumed |
//! | `verify`, `unverified` | whether a peer's certificate is taken, by OpenSSL's rules; or that it always is |
//! | `tickets` | [`TicketKeys`], which all workers and both amphorae of a pair share |
//! | `peer`, `dn`, `objects` | [`PeerFacts`], and names as HAProxy writes them |
//!
//! A context is made from a document's fields and from material, once; handshakes share it. What cannot be honoured is refused
//! with the field's name, what is honoured in part is remarked on.

mod ciphers;
mod client;
mod dn;
pub mod fuzz;
pub(crate) mod groups;
mod identity;
mod material;
mod objects;
mod openssl_names;
mod peer;
mod server;
mod sessions;
mod sni;
mod tickets;
pub(crate) mod unverified;
mod verify;

#[cfg(test)]
mod beside_haproxy;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use ::aws_lc_rs::digest::{Context, SHA256};
use amphora_bundle::Bundle;
use amphora_model::CertificateId;
use rustls::{
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    sign::CertifiedKey,
};

use self::{
    ciphers::Offer,
    verify::{Authorities, List},
};
pub use self::{
    client::{ClientContext, MemberContext},
    dn::write_field_value,
    material::{Material, MaterialError, NoMaterial, Pem},
    peer::{ClientCertificate, PeerFacts},
    server::ServerContext,
    tickets::{TicketKeys, TicketSecret},
    verify::VerifyError,
};

/// Why a context cannot be made: a field of the listener or pool, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct TlsFault {
    /// Octavia's name of the field.
    pub field: &'static str,
    /// What is wrong with it, for a human. Nothing of a key is in it.
    pub reason: String,
}

impl TlsFault {
    fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// What is honoured in part: a field of the listener or pool, and what of it is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {text}")]
pub struct TlsRemark {
    /// Octavia's name of the field.
    pub field: &'static str,
    /// What is left out, for a human.
    pub text: String,
}

impl TlsRemark {
    fn new(field: &'static str, text: impl Into<String>) -> Self {
        Self { field, text: text.into() }
    }
}

fn provider(offer: &Offer, groups: &[&'static dyn SupportedKxGroup]) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: offer.suites.clone(),
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    }
}

fn fetch(material: &dyn Material, id: &CertificateId, field: &'static str) -> Result<Pem, TlsFault> {
    material.pem(id).map_err(|error| TlsFault::new(field, error.to_string()))
}

/// A certificate with its key; and what makes it what it is.
fn certificate(
    material: &dyn Material,
    (field, id): (&'static str, &CertificateId),
    seal: &mut Seal,
) -> Result<Arc<CertifiedKey>, TlsFault> {
    let bytes = fetch(material, id, field)?;
    seal.add(&bytes);
    identity::read(&bytes).map_err(of(field, id))
}

/// Authorities with what they have revoked, each with the field that names it; and what makes them what they are.
fn authorities(
    material: &dyn Material,
    (field, id): (&'static str, &CertificateId),
    revocations: Option<(&'static str, &CertificateId)>,
    seal: &mut Seal,
) -> Result<Authorities, TlsFault> {
    let bytes = fetch(material, id, field)?;
    seal.add(&bytes);
    let certificates = Bundle::from_pem(&bytes).map_err(of(field, id))?.certificates().to_vec();
    if certificates.is_empty() {
        return Err(of(field, id)("has no certificate".to_owned()));
    }
    let lists = match revocations {
        None => None,
        Some((field, id)) => {
            let bytes = fetch(material, id, field)?;
            seal.add(&bytes);
            let lists = lists(&bytes).map_err(of(field, id))?;
            if lists.is_empty() {
                return Err(of(field, id)("has no revocation list".to_owned()));
            }
            Some(lists)
        }
    };
    Authorities::new(certificates, lists).map_err(of(field, id))
}

/// A fault of what a field names.
fn of(field: &'static str, id: &CertificateId) -> impl Fn(String) -> TlsFault {
    move |reason| TlsFault::new(field, format!("{id} {reason}"))
}

/// Revocation lists in PEM, or one in DER.
fn lists(bytes: &[u8]) -> Result<Vec<List>, String> {
    if bytes.first() == Some(&amphora_x509::tag::SEQUENCE) {
        return Ok(vec![List::new(bytes.to_vec().into())?]);
    }
    Bundle::from_pem(bytes)?.lists().iter().cloned().map(List::new).collect()
}

/// A digest over parts, none of which can pass for two.
pub(crate) struct Seal(Context);

impl Seal {
    pub(crate) fn new(purpose: &str) -> Self {
        let mut seal = Self(Context::new(&SHA256));
        seal.add(purpose.as_bytes());
        seal
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}
