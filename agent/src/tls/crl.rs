//! Certificate revocation lists (RFC 5280 section 5), as far as they are looked at when they are read: who issued one, and
//! for how long it is good. webpki reads and verifies the rest.

use std::cmp::Reverse;

use rustls::{RootCertStore, pki_types::CertificateRevocationListDer};
use time::OffsetDateTime;

use super::der::{INTEGER, SEQUENCE, element, moment};

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
        let Some(Validity { version, issuer, this_update, next_update }) = Validity::read(&list) else {
            return Err("a revocation list that is not in the form of RFC 5280".to_owned());
        };
        if version != Some(&[1][..]) {
            return Err("a revocation list that is not of version 2 (OpenSSL makes those with `crlnumber`)"
                .to_owned());
        }
        if !authorities.roots.iter().any(|root| root.subject.as_ref() == issuer) {
            return Err(
                "a revocation list that none of the authorities in agent_server_ca has issued".to_owned()
            );
        }
        let Some(until) = next_update else {
            return Err("a revocation list that does not say when the next one is due".to_owned());
        };
        let (issuer, from) = (issuer.to_owned(), this_update);
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

struct Validity<'l> {
    /// Of version 1, which has no extensions, it is not there.
    version: Option<&'l [u8]>,
    /// The issuer's name, without the head of its SEQUENCE, as trust anchors have it.
    issuer: &'l [u8],
    this_update: OffsetDateTime,
    next_update: Option<OffsetDateTime>,
}

impl<'l> Validity<'l> {
    fn read(list: &'l [u8]) -> Option<Self> {
        let (SEQUENCE, list, _) = element(list)? else { return None };
        let (SEQUENCE, mut rest, _) = element(list)? else { return None };
        let mut version = None;
        if let (INTEGER, number, behind) = element(rest)? {
            (version, rest) = (Some(number), behind);
        }
        let (SEQUENCE, _, rest) = element(rest)? else { return None };
        let (SEQUENCE, issuer, rest) = element(rest)? else { return None };
        let (tag, text, rest) = element(rest)?;
        let this_update = moment(tag, text)?;
        let next_update = element(rest).and_then(|(tag, text, _)| moment(tag, text));
        Some(Self { version, issuer, this_update, next_update })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = Validity::read(&bytes);
        }
    }
}
