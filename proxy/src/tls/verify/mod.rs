//! Whether a peer's certificate is taken: X509_verify_cert(3) of OpenSSL 3.0 as HAProxy calls it, step by step.
//!
//! webpki, which rustls brings along, is another judge: it takes no certificate of version 1 (what `openssl x509 -req` makes),
//! takes an intermediate authority for a root, does not ask whether a root has expired, and asks less of lists. Tenants have
//! certificates that HAProxy takes. So chains are built and judged here; signatures are verified by aws-lc.
//!
//! What is asked is what HAProxy asks with the security level 2 that distributions set: RSA from 2048 bits, no SHA-1. With lists,
//! every certificate of the chain must be on none of its issuer's, the root as well (`X509_V_FLAG_CRL_CHECK_ALL`).

mod chain;
mod crl;
mod error;
mod issued;
mod names;
mod signature;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use amphora_x509::{Certificate, oid};
use rustls_pki_types::{CertificateDer, UnixTime};

pub use self::error::VerifyError;
pub(super) use self::{
    crl::List,
    signature::{handshake_schemes, verify_handshake},
};

/// What certificates are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// They are clients': `sslclient`.
    Client,
    /// They are servers': `sslserver`.
    Server,
}

/// Authorities, and what they have revoked.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// Indices of `certificates`, in order, by the canonical form of their subject.
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
    /// By the canonical form of their issuer. `None`: nothing is asked of lists.
    lists: Option<HashMap<Vec<u8>, Vec<List>>>,
}

impl Authorities {
    /// # Errors
    /// One of the certificates is none, for a human.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        lists: Option<Vec<List>>,
    ) -> Result<Self, String> {
        let mut by_subject: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, der) in certificates.iter().enumerate() {
            let certificate =
                Certificate::read(der).ok_or("a certificate that is not in the form of RFC 5280")?;
            by_subject.entry(certificate.subject.canonical()).or_default().push(at);
        }
        let mut authorities = Self { certificates, by_subject, lists: None };
        authorities.lists = lists.map(|lists| {
            let mut by_issuer: HashMap<Vec<u8>, Vec<List>> = HashMap::new();
            for list in lists {
                // What can be found out beforehand no handshake waits for.
                let _ =
                    authorities.named(list.issuer()).any(|issuer| list.is_signed(&issuer.public_key, true));
                by_issuer.entry(list.issuer().to_vec()).or_default().push(list);
            }
            by_issuer
        });
        Ok(authorities)
    }

    /// Every authority's certificate.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate<'_>> {
        self.certificates.iter().filter_map(|der| Certificate::read(der))
    }

    /// The authorities with this subject, in its canonical form.
    fn named(&self, subject: &[u8]) -> impl Iterator<Item = Certificate<'_>> {
        let indices = self.by_subject.get(subject).map_or(&[][..], |indices| &indices[..]);
        indices.iter().filter_map(|at| Certificate::read(&self.certificates[*at]))
    }

    /// Whether a certificate that comes with these others is taken at this time.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        chain::verify(self, leaf, others, purpose, now)
    }
}

/// Extensions that X509_supported_extension(3) knows: those that may be critical.
const UNDERSTOOD: &[&[u8]] = &[
    oid::NETSCAPE_CERT_TYPE,
    oid::KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::BASIC_CONSTRAINTS,
    oid::CERTIFICATE_POLICIES,
    oid::CRL_DISTRIBUTION_POINTS,
    oid::EXTENDED_KEY_USAGE,
    oid::IP_ADDRESS_BLOCKS,
    oid::AUTONOMOUS_SYSTEMS,
    oid::OCSP_NO_CHECK,
    oid::POLICY_CONSTRAINTS,
    oid::PROXY_CERT_INFO,
    oid::NAME_CONSTRAINTS,
    oid::POLICY_MAPPINGS,
    oid::INHIBIT_ANY_POLICY,
];
