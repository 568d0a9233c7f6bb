//! The chain from a certificate to an authority: built, then judged in the order of OpenSSL's `verify_chain`, whose first
//! objection is the one that is told.

use amphora_x509::{Certificate, oid};
use rustls_pki_types::CertificateDer;

use super::{
    Authorities, Purpose, UNDERSTOOD, VerifyError, crl,
    issued::{is_well_formed, may_have_issued, may_have_signed_itself},
    names,
    signature::{is_signed, is_strong, is_weak},
};

/// The most certificates in a chain, beyond the leaf: a server of many tenants bounds what one handshake costs. OpenSSL's own
/// bound is 100.
const MAX_DEPTH: usize = 10;

/// The most certificates beside the leaf that a peer's chain is made of.
const MAX_OTHERS: usize = 32;

/// A certificate of a chain, with what it says read once.
pub(super) struct Link<'a> {
    pub(super) certificate: Certificate<'a>,
    /// The canonical form of its subject.
    pub(super) subject: Vec<u8>,
    /// The canonical form of its issuer.
    pub(super) issuer: Vec<u8>,
    /// Whether it is one of the authorities.
    trusted: bool,
}

impl<'a> Link<'a> {
    fn new(certificate: Certificate<'a>, trusted: bool) -> Self {
        let (subject, issuer) = (certificate.subject.canonical(), certificate.issuer.canonical());
        Self { certificate, subject, issuer, trusted }
    }

    /// `EXFLAG_SI`: subject and issuer are one name.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// `EXFLAG_SS`: and it may have signed itself.
    fn is_self_signed(&self) -> bool {
        self.is_self_issued() && may_have_signed_itself(&self.certificate)
    }
}

pub(super) fn verify(
    authorities: &Authorities,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    purpose: Purpose,
    now: i64,
) -> Result<(), VerifyError> {
    let leaf = Certificate::read(leaf).ok_or(VerifyError::InvalidExtension)?;
    if !is_strong(&leaf.public_key) {
        return Err(VerifyError::KeyTooSmall);
    }
    let others: Vec<Certificate<'_>> =
        others.iter().take(MAX_OTHERS).filter_map(|der| Certificate::read(der)).collect();
    let chain = build(authorities, leaf, others, now)?;
    check_extensions(&chain, purpose)?;
    check_strength(&chain)?;
    // What they are found to be is told when it is their turn.
    let genuine = genuine_from(&chain);
    if let Some(lists) = &authorities.lists {
        crl::check(&chain, genuine, lists, now)?;
    }
    check_signatures(&chain, genuine, now)?;
    names::check(&chain)
}

/// `build_chain`, with `X509_V_FLAG_TRUSTED_FIRST`: issuers are looked for among the authorities, then in what the peer sent.
fn build<'a>(
    authorities: &'a Authorities,
    leaf: Certificate<'a>,
    mut others: Vec<Certificate<'a>>,
    now: i64,
) -> Result<Vec<Link<'a>>, VerifyError> {
    let mut chain = vec![Link::new(leaf, false)];
    let mut look_in_others = true;
    loop {
        let depth = chain.len();
        let last = &chain[depth - 1];
        // What is spoilt has no issuer, not even itself.
        let spoilt = !is_well_formed(&last.certificate);
        let self_signed = !spoilt && last.is_self_signed();
        let found = if spoilt || depth > MAX_DEPTH {
            None
        } else {
            best(authorities.named(&last.issuer), &last.certificate, now)
        };
        match found {
            // A name and a key identifier are not enough to be taken for an authority.
            Some(issuer) if self_signed && issuer.der == last.certificate.der => {
                chain[depth - 1] = Link::new(issuer, true);
                return Ok(chain);
            }
            Some(issuer) if !self_signed => {
                let issuer = Link::new(issuer, true);
                let root = issuer.is_self_signed();
                chain.push(issuer);
                if root {
                    return Ok(chain);
                }
                look_in_others = false;
                continue;
            }
            _ => {}
        }
        if look_in_others && !spoilt && !self_signed && depth <= MAX_DEPTH {
            let issuers = others.iter().copied().filter(|other| other.subject.canonical() == last.issuer);
            if let Some(issuer) = best(issuers, &last.certificate, now) {
                others.retain(|other| !std::ptr::eq(other.der, issuer.der));
                chain.push(Link::new(issuer, false));
                continue;
            }
        }
        return Err(if depth > MAX_DEPTH {
            VerifyError::ChainTooLong
        } else if self_signed && depth == 1 {
            VerifyError::SelfSigned
        } else if self_signed {
            VerifyError::SelfSignedInChain
        } else if chain.iter().any(|link| link.trusted) {
            VerifyError::UnableToGetIssuer
        } else {
            VerifyError::UnknownIssuer
        });
    }
}

/// Of certificates whose subject is this one's issuer, the first that may have signed it and whose time it is, or else the one
/// that was good the longest.
fn best<'a>(
    candidates: impl Iterator<Item = Certificate<'a>>,
    subject: &Certificate<'_>,
    now: i64,
) -> Option<Certificate<'a>> {
    let mut latest: Option<Certificate<'a>> = None;
    for candidate in candidates.filter(|candidate| may_have_issued(candidate, subject)) {
        if check_time(&candidate, now).is_ok() {
            return Some(candidate);
        }
        if latest.is_none_or(|latest| latest.not_after.unix() < candidate.not_after.unix()) {
            latest = Some(candidate);
        }
    }
    latest
}

/// `check_extensions`: critical ones, authorities, purposes, lengths of paths.
fn check_extensions(chain: &[Link<'_>], purpose: Purpose) -> Result<(), VerifyError> {
    let mut path_length = 0;
    for (at, link) in chain.iter().enumerate() {
        let extensions = &link.certificate.extensions;
        if extensions.iter().any(|extension| extension.critical && !UNDERSTOOD.contains(&extension.oid)) {
            return Err(VerifyError::UnhandledCriticalExtension);
        }
        if extensions.find(oid::PROXY_CERT_INFO).is_some() {
            return Err(VerifyError::ProxyCertificate);
        }
        let said = Said::read(link).ok_or(VerifyError::InvalidExtension)?;
        if at > 0 {
            let authority = said.authority();
            let last = at + 1 == chain.len();
            if authority == Authority::No || (!last && authority != Authority::Yes) {
                return Err(VerifyError::InvalidCa);
            }
        }
        if !said.is_for(purpose, at > 0) {
            return Err(VerifyError::InvalidPurpose);
        }
        if at > 1 && said.path_length.is_some_and(|allowed| path_length > allowed) {
            return Err(VerifyError::PathLengthExceeded);
        }
        if at > 0 && !link.is_self_issued() {
            path_length += 1;
        }
    }
    Ok(())
}

/// What a certificate says it is for.
struct Said {
    /// `basicConstraints`, when it is there.
    authority: Option<bool>,
    path_length: Option<u32>,
    key_usage: Option<u16>,
    netscape: Option<u16>,
    client: bool,
    server: bool,
    /// Whether it is of version 1 and has signed itself.
    old_root: bool,
}

/// What X509_check_ca(3) says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    No,
    /// By `basicConstraints`.
    Yes,
    /// By something of older days.
    Perhaps,
}

const DIGITAL_SIGNATURE: u16 = 1 << 0;
const KEY_ENCIPHERMENT: u16 = 1 << 2;
const KEY_AGREEMENT: u16 = 1 << 4;
const KEY_CERT_SIGN: u16 = 1 << 5;
pub(super) const CRL_SIGN: u16 = 1 << 6;

const NETSCAPE_CLIENT: u16 = 1 << 0;
const NETSCAPE_SERVER: u16 = 1 << 1;
const NETSCAPE_SSL_CA: u16 = 1 << 5;
const NETSCAPE_ANY_CA: u16 = 1 << 5 | 1 << 6 | 1 << 7;

impl Said {
    /// `None` when an extension is not in its form.
    fn read(link: &Link<'_>) -> Option<Self> {
        let extensions = &link.certificate.extensions;
        let constraints = extensions.basic_constraints().ok()?;
        let purposes = extensions.extended_key_usage().ok()?;
        let has = |wanted: &[&[u8]]| {
            purposes.as_ref().is_none_or(|purposes| purposes.iter().any(|purpose| wanted.contains(purpose)))
        };
        Some(Self {
            authority: constraints.map(|constraints| constraints.authority),
            path_length: constraints.and_then(|constraints| constraints.path_length),
            key_usage: extensions.key_usage().ok()?,
            netscape: extensions.netscape_cert_type().ok()?,
            client: has(&[oid::CLIENT_AUTH]),
            server: has(&[oid::SERVER_AUTH, oid::NETSCAPE_SGC, oid::MICROSOFT_SGC]),
            old_root: link.certificate.version == 1 && link.is_self_signed(),
        })
    }

    /// Whether a key may be used so: also when nothing is said.
    fn allows(&self, usage: u16) -> bool {
        self.key_usage.is_none_or(|allowed| allowed & usage != 0)
    }

    /// X509_check_ca(3).
    fn authority(&self) -> Authority {
        let netscape = self.netscape.is_some_and(|kinds| kinds & NETSCAPE_ANY_CA != 0);
        match self.authority {
            _ if !self.allows(KEY_CERT_SIGN) => Authority::No,
            Some(true) => Authority::Yes,
            Some(false) => Authority::No,
            None if self.old_root || self.key_usage.is_some() || netscape => Authority::Perhaps,
            None => Authority::No,
        }
    }

    /// X509_check_purpose(3).
    fn is_for(&self, purpose: Purpose, authority: bool) -> bool {
        let (extended, kind, usage) = match purpose {
            Purpose::Client => (self.client, NETSCAPE_CLIENT, DIGITAL_SIGNATURE | KEY_AGREEMENT),
            Purpose::Server => {
                (self.server, NETSCAPE_SERVER, DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT)
            }
        };
        if !extended {
            return false;
        }
        if authority {
            let only_netscape = self.authority.is_none() && self.key_usage.is_none() && !self.old_root;
            return !only_netscape || self.netscape.is_some_and(|kinds| kinds & NETSCAPE_SSL_CA != 0);
        }
        self.allows(usage) && self.netscape.is_none_or(|kinds| kinds & kind != 0)
    }
}

/// `check_auth_level`, at level 2.
fn check_strength(chain: &[Link<'_>]) -> Result<(), VerifyError> {
    for (at, link) in chain.iter().enumerate() {
        if at > 0 && !is_strong(&link.certificate.public_key) {
            return Err(VerifyError::CaKeyTooSmall);
        }
        if at + 1 < chain.len() && is_weak(&link.certificate.algorithm) {
            return Err(VerifyError::DigestTooWeak);
        }
    }
    Ok(())
}

/// From where on the certificates of a chain are genuine: from the root down each is signed with the key of the one above. The
/// root is trusted for what it is and not for having signed itself.
fn genuine_from(chain: &[Link<'_>]) -> usize {
    let is_signed = |at: &usize| {
        let (certificate, issuer) = (&chain[*at].certificate, &chain[*at + 1].certificate);
        certificate.inner_algorithm == certificate.algorithm
            && is_signed(
                &issuer.public_key,
                &certificate.algorithm,
                certificate.signed,
                certificate.signature,
            )
    };
    let root = chain.len() - 1;
    root - (0..root).rev().take_while(is_signed).count()
}

/// `internal_verify`: from the root down, signatures and then times.
fn check_signatures(chain: &[Link<'_>], genuine: usize, now: i64) -> Result<(), VerifyError> {
    for (at, link) in chain.iter().enumerate().rev() {
        if at < genuine {
            return Err(VerifyError::CertSignatureFailure);
        }
        check_time(&link.certificate, now)?;
    }
    Ok(())
}

/// X509_cmp_time(3): the last second of a certificate is the one before `notAfter`.
fn check_time(certificate: &Certificate<'_>, now: i64) -> Result<(), VerifyError> {
    if certificate.not_before.unix().ok_or(VerifyError::BadNotBefore)? > now {
        return Err(VerifyError::NotYetValid);
    }
    if certificate.not_after.unix().ok_or(VerifyError::BadNotAfter)? <= now {
        return Err(VerifyError::Expired);
    }
    Ok(())
}
