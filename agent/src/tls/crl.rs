//! Certificate revocation lists (RFC 5280 section 5), as far as they are looked at when they are read: who issued one, and
//! for how long it is good. webpki verifies them.

use std::cmp::Reverse;

use amphora_x509::RevocationList;
use rustls::{RootCertStore, pki_types::CertificateRevocationListDer};
use time::OffsetDateTime;

use super::moment;

/// A list as it was read, and for how long it is good.
#[derive(Debug)]
pub(super) struct Dated {
    /// The list.
    pub list: CertificateRevocationListDer<'static>,
    /// The issuer's name, as trust anchors have it.
    issuer: Vec<u8>,
    /// Since when it is good.
    pub from: OffsetDateTime,
    /// When the next one is due.
    pub until: OffsetDateTime,
}

impl Dated {
    /// Reads a list, which must be of one of `authorities`.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn read(
        list: CertificateRevocationListDer<'static>,
        authorities: &RootCertStore,
    ) -> Result<Self, String> {
        const MALFORMED: &str = "a revocation list that is not in the form of RFC 5280";
        let read = RevocationList::read(&list).ok_or(MALFORMED)?;
        if read.version != 2 {
            return Err("a revocation list that is not of version 2 (OpenSSL makes those with `crlnumber`)"
                .to_owned());
        }
        let issuer = read.issuer.content();
        if !authorities.roots.iter().any(|root| root.subject.as_ref() == issuer) {
            return Err(
                "a revocation list that none of the authorities in agent_server_ca has issued".to_owned()
            );
        }
        let Some(until) = read.next_update else {
            return Err("a revocation list that does not say when the next one is due".to_owned());
        };
        let from = moment(read.this_update).ok_or(MALFORMED)?;
        let until = moment(until).ok_or(MALFORMED)?;
        let issuer = issuer.to_owned();
        Ok(Self { list, issuer, from, until })
    }

    /// Why nobody gets in by this list any more, if so.
    pub(super) fn expired(&self, now: OffsetDateTime) -> Option<String> {
        (self.until < now).then(|| format!("a revocation list that expired at {}", self.until))
    }
}

/// The newest first, of which the verifier takes the first of an issuer, and without those that have expired while another
/// of the same issuer has not.
pub(super) fn in_order(mut lists: Vec<Dated>, now: OffsetDateTime) -> Vec<Dated> {
    lists.sort_by_key(|dated| Reverse(dated.from));
    let good: Vec<_> =
        lists.iter().filter(|dated| dated.expired(now).is_none()).map(|dated| dated.issuer.clone()).collect();
    lists.retain(|dated| dated.expired(now).is_none() || !good.contains(&dated.issuer));
    lists
}
