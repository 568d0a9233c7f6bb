//! Whether a certificate is revoked: OpenSSL's `check_revocation` with `X509_V_FLAG_CRL_CHECK_ALL`, without deltas and lists
//! of other issuers' certificates.

use std::{cmp::Reverse, collections::HashMap, sync::OnceLock};

use amphora_x509::{Certificate, PublicKey, Reader, RevocationList, oid, tag};
use rustls_pki_types::CertificateRevocationListDer;

use super::{
    VerifyError,
    chain::{CRL_SIGN, Link},
    signature::is_signed,
};

/// A revocation list, with its serial numbers in order.
#[derive(Debug)]
pub(crate) struct List {
    der: CertificateRevocationListDer<'static>,
    issuer: Vec<u8>,
    /// Sorted, without leading zeros; and whether the entry takes the revocation back.
    serials: Vec<(Box<[u8]>, bool)>,
    /// The key that is known to have signed it, which no other has then.
    signed_by: OnceLock<Key>,
    /// Some that are known to have not: an authority may have had more than one.
    not_by: [OnceLock<Key>; 4],
    /// `thisUpdate` and `nextUpdate` in seconds since 1970, or what is wrong with them.
    times: Result<(i64, Option<i64>), VerifyError>,
    /// `authorityKeyIdentifier`: key identifier, serial number, and the canonical form of the name.
    named: Named,
    scope: Scope,
    /// Whether an extension that must be understood is not.
    critical: bool,
    /// How often its signature was looked at.
    #[cfg(test)]
    pub(super) digested: std::sync::atomic::AtomicUsize,
}

/// A public key, as it is known again.
#[derive(Debug)]
struct Key {
    algorithm: Box<[u8]>,
    bits: Box<[u8]>,
}

impl Key {
    fn new(key: &PublicKey<'_>) -> Self {
        Self { algorithm: key.algorithm.content.into(), bits: key.key.into() }
    }

    fn is(&self, key: &PublicKey<'_>) -> bool {
        *self.bits == *key.key && *self.algorithm == *key.algorithm.content
    }
}

/// What `issuingDistributionPoint` says a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Everything,
    Authorities,
    Others,
    /// Something that is not looked at: a point of distribution, some reasons, attribute certificates, other issuers.
    Unknown,
}

impl List {
    /// # Errors
    /// It is none, for a human.
    pub(crate) fn new(der: CertificateRevocationListDer<'static>) -> Result<Self, String> {
        let list =
            RevocationList::read(&der).ok_or("a revocation list that is not in the form of RFC 5280")?;
        let mut serials: Vec<(Box<[u8]>, bool)> =
            list.entries().map(|entry| (normal(entry.serial).into(), entry.is_removal())).collect();
        serials.sort_unstable();
        serials.dedup();
        // A list that only says what has changed is none that something can be found missing in.
        let scope = match list.extensions.find(oid::ISSUING_DISTRIBUTION_POINT) {
            _ if list.extensions.find(oid::DELTA_CRL_INDICATOR).is_some() => Scope::Unknown,
            None => Scope::Everything,
            Some(point) => scope(point.value),
        };
        let understood =
            [oid::ISSUING_DISTRIBUTION_POINT, oid::AUTHORITY_KEY_IDENTIFIER, oid::DELTA_CRL_INDICATOR];
        let mut critical = list.extensions.iter().any(|e| e.critical && !understood.contains(&e.oid));
        critical |= list
            .entries()
            .any(|entry| entry.extensions.iter().any(|e| e.critical && e.oid != oid::CERTIFICATE_ISSUER));
        let issuer = list.issuer.canonical();
        let times = times(&list);
        let named = list.extensions.authority_key_identifier().ok().flatten();
        let named = named.map_or_else(Named::default, |named| Named {
            key: named.key.map(Into::into),
            serial: named.serial.map(Into::into),
            issuer: named.issuer.map(|name| name.canonical()),
        });
        Ok(Self {
            der,
            issuer,
            serials,
            signed_by: OnceLock::new(),
            not_by: Default::default(),
            times,
            named,
            scope,
            critical,
            #[cfg(test)]
            digested: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// The canonical form of its issuer.
    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Whether this key has signed it, which is remembered. A list may be long: it is digested for keys of authorities alone
    /// (`genuine`), whom strangers cannot add to, and for none once its signer is known.
    pub(super) fn is_signed(&self, key: &PublicKey<'_>, genuine: bool) -> bool {
        if let Some(known) = self.signed_by.get() {
            return known.is(key);
        }
        if !genuine || self.not_by.iter().filter_map(OnceLock::get).any(|known| known.is(key)) {
            return false;
        }
        #[cfg(test)]
        self.digested.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(list) = RevocationList::read(&self.der) else { return false };
        let signed = list.inner_algorithm == list.algorithm
            && is_signed(key, &list.algorithm, list.signed, list.signature);
        if signed {
            self.signed_by.get_or_init(|| Key::new(key));
        } else if let Some(free) = self.not_by.iter().find(|known| known.get().is_none()) {
            // Another thread may have been faster: then it is digested once more.
            let _ = free.set(Key::new(key));
        }
        signed
    }

    fn check_time(&self, now: i64) -> Result<(), VerifyError> {
        let (this, next) = self.times?;
        if this > now {
            return Err(VerifyError::CrlNotYetValid);
        }
        // One that does not say when the next is due is good for ever.
        if next.is_some_and(|next| next <= now) {
            return Err(VerifyError::CrlExpired);
        }
        Ok(())
    }

    /// Who has issued it, as far as it says: who has issued the certificate, at `above`, or who is further up and has that name, as
    /// when an authority has a new key and a certificate for it from its old one. `None`: nobody. `crl_akid_check`.
    fn issuer_in(&self, chain: &[Link<'_>], above: usize) -> Option<usize> {
        let is_named = |at: &usize| *at == above || chain[*at].subject == self.issuer;
        (above..chain.len()).filter(is_named).find(|at| self.names(&chain[*at].certificate))
    }

    /// Whether its `authorityKeyIdentifier` is of this certificate: `X509_check_akid`.
    fn names(&self, issuer: &Certificate<'_>) -> bool {
        let Named { key, serial, issuer: name } = &self.named;
        let of_issuer = issuer.extensions.subject_key_identifier().ok().flatten();
        key.as_deref().zip(of_issuer).is_none_or(|(named, key)| named == key)
            && serial.as_deref().is_none_or(|serial| serial == issuer.serial)
            && name.as_ref().is_none_or(|name| *name == issuer.issuer.canonical())
    }

    /// What speaks for it, before others for the same issuer: `get_crl_score`. `None`: it is not for this certificate.
    fn score(&self, direct: bool, authority: bool, now: i64) -> Option<Score> {
        let in_scope = match self.scope {
            Scope::Everything => true,
            Scope::Authorities => authority,
            Scope::Others => !authority,
            Scope::Unknown => return None,
        };
        Some(Score {
            understood: !self.critical,
            in_scope,
            in_time: self.check_time(now).is_ok(),
            direct,
            latest: self.times.ok().map(|(this, _)| this),
        })
    }
}

/// `authorityKeyIdentifier` of a list.
#[derive(Debug, Default)]
struct Named {
    key: Option<Box<[u8]>>,
    serial: Option<Box<[u8]>>,
    issuer: Option<Vec<u8>>,
}

/// In the order of weight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    understood: bool,
    in_scope: bool,
    in_time: bool,
    /// Whether it is of who has issued the certificate, and not of another certificate of that name further up.
    direct: bool,
    latest: Option<i64>,
}

fn normal(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|octet| **octet == 0).count();
    &serial[zeros..]
}

fn scope(point: &[u8]) -> Scope {
    let read = || {
        let mut point = Reader::new(point).enter(tag::SEQUENCE)?;
        let mut scope = Scope::Everything;
        while !point.is_empty() {
            let field = point.element()?;
            let yes = field.content.iter().any(|octet| *octet != 0);
            scope = match (field.tag, scope) {
                (0x81..=0x85, _) if !yes => scope,
                (0x81, Scope::Everything) => Scope::Others,
                (0x82, Scope::Everything) => Scope::Authorities,
                _ => return None,
            };
        }
        Some(scope)
    };
    read().unwrap_or(Scope::Unknown)
}

fn times(list: &RevocationList<'_>) -> Result<(i64, Option<i64>), VerifyError> {
    let this = list.this_update.unix().ok_or(VerifyError::BadLastUpdate)?;
    let next = list.next_update.map(|next| next.unix().ok_or(VerifyError::BadNextUpdate)).transpose()?;
    Ok((this, next))
}

/// Looks for every certificate of a chain, the root's as well, in a list of its issuer. From `genuine` on its certificates are
/// what they seem to be.
pub(super) fn check(
    chain: &[Link<'_>],
    genuine: usize,
    lists: &HashMap<Vec<u8>, Vec<List>>,
    now: i64,
) -> Result<(), VerifyError> {
    for (at, link) in chain.iter().enumerate() {
        let above = (at + 1).min(chain.len() - 1);
        let authority =
            link.certificate.extensions.basic_constraints().ok().flatten().is_some_and(|c| c.authority);
        let candidates = lists.get(&link.issuer).map_or(&[][..], |lists| &lists[..]);
        let scored = |list| {
            let by = List::issuer_in(list, chain, above)?;
            Some((list, by, list.score(by == above, authority, now)?))
        };
        let (list, by, score) = candidates
            .iter()
            .filter_map(scored)
            .min_by_key(|(.., score)| Reverse(*score))
            .ok_or(VerifyError::UnableToGetCrl)?;
        let issuer = &chain[by].certificate;
        if issuer.extensions.key_usage().ok().flatten().is_some_and(|usage| usage & CRL_SIGN == 0) {
            return Err(VerifyError::NoCrlSign);
        }
        if !score.in_scope {
            return Err(VerifyError::DifferentCrlScope);
        }
        list.check_time(now)?;
        if !list.is_signed(&issuer.public_key, by >= genuine) {
            return Err(VerifyError::CrlSignatureFailure);
        }
        if list.critical {
            return Err(VerifyError::UnhandledCriticalCrlExtension);
        }
        let serial = normal(link.certificate.serial);
        let from = list.serials.partition_point(|(known, _)| known.as_ref() < serial);
        let mut found = list.serials[from..].iter().take_while(|(known, _)| known.as_ref() == serial);
        if found.any(|(_, removal)| !removal) {
            return Err(VerifyError::Revoked);
        }
    }
    Ok(())
}
