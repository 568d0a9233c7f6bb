//! Certificate revocation lists (RFC 5280 section 5), as far as they are looked at when they are read: who issued one, and
//! for how long it is good. webpki reads and verifies the rest.

use std::cmp::Reverse;

use rustls::{RootCertStore, pki_types::CertificateRevocationListDer};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

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

/// Tag and content of the DER element at the front, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn moment(tag: u8, text: &[u8]) -> Option<OffsetDateTime> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments() {
        let at = |tag, text: &str| moment(tag, text.as_bytes()).map(OffsetDateTime::unix_timestamp);
        assert_eq!(at(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(at(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        for text in ["", "Z", "700101000000", "701301000000Z", "7001010000Z", "70010100000\u{e9}Z"] {
            assert_eq!(at(UTC_TIME, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = Validity::read(&bytes);
        }
    }
}
