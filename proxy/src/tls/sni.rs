//! Which certificate a client is shown.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rustls::{
    CipherSuite, SignatureScheme, SupportedCipherSuite,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::identity::{KeyKind, hosts, kind};

/// The certificates of a listener by host, as HAProxy's `crt-list` with the same files in this order has them.
///
/// A name that a client gives is looked for as it is, and with its first label replaced by `*`, without regard to case. Of what
/// is found either way, an ECDSA certificate is taken if the client can verify one, or else an RSA one, or else another. A
/// client that gives no name, or one that no certificate is for, is shown the first of all.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<CertifiedKey>,
    exact: HashMap<Box<str>, Candidates>,
    /// By what follows the `*`, with its dot.
    wildcard: HashMap<Box<str>, Candidates>,
    /// The suites of TLS 1.2 for ECDSA, and for RSA.
    suites: [Vec<CipherSuite>; 2],
}

/// The first certificate of each kind.
#[derive(Clone, Debug, Default)]
struct Candidates {
    ecdsa: Option<Arc<CertifiedKey>>,
    rsa: Option<Arc<CertifiedKey>>,
    other: Option<Arc<CertifiedKey>>,
}

impl Candidates {
    fn add(&mut self, key: &Arc<CertifiedKey>) {
        let place = match kind(key) {
            KeyKind::Ecdsa => &mut self.ecdsa,
            KeyKind::Rsa => &mut self.rsa,
            KeyKind::Other => &mut self.other,
        };
        place.get_or_insert_with(|| Arc::clone(key));
    }
}

/// The longest name that DNS has; HAProxy cuts longer ones, here none is found for them.
const LONGEST_NAME: usize = 255;

impl Certificates {
    pub(super) fn new(
        default: Arc<CertifiedKey>,
        others: &[Arc<CertifiedKey>],
        suites: &[SupportedCipherSuite],
    ) -> Self {
        let of = |scheme: SignatureScheme| {
            let usable = |suite: &&SupportedCipherSuite| match suite {
                SupportedCipherSuite::Tls12(suite) => suite.sign.contains(&scheme),
                SupportedCipherSuite::Tls13(_) => false,
            };
            suites.iter().filter(usable).map(|suite| suite.suite()).collect()
        };
        let mut certificates = Self {
            default: Arc::clone(&default),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            suites: [of(SignatureScheme::ECDSA_NISTP256_SHA256), of(SignatureScheme::RSA_PKCS1_SHA256)],
        };
        for key in [&default].into_iter().chain(others) {
            for host in key.cert.first().map(hosts).unwrap_or_default() {
                certificates.add(&host.to_ascii_lowercase(), key);
            }
        }
        certificates
    }

    fn add(&mut self, host: &str, key: &Arc<CertifiedKey>) {
        // In a crt-list `!` takes a name out, which no certificate's own name does.
        let (names, host) = match host.strip_prefix('*') {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, host),
        };
        if !host.is_empty() {
            names.entry(host.into()).or_default().add(key);
        }
    }

    /// Whether a client that offers these suites can do anything with an ECDSA certificate. Which version it speaks is not known
    /// here: one that has but RSA suites below TLS 1.3 is taken at its word.
    fn ecdsa_is_of_use(&self, offered: &[CipherSuite]) -> bool {
        let common = |suites: &[CipherSuite]| suites.iter().any(|suite| offered.contains(suite));
        let [ecdsa, rsa] = &self.suites;
        common(ecdsa) || !common(rsa)
    }

    /// Those that a client of TLS 1.2 may be shown, and be able to do nothing with whatever it offers: no suite is for their key,
    /// and of another kind there is none for a host of theirs. That comes about when suites are for one kind of keys alone.
    pub(super) fn without_suite(&self) -> HashSet<*const CertifiedKey> {
        let [ecdsa, rsa] = &self.suites;
        if ecdsa.is_empty() == rsa.is_empty() {
            return HashSet::new();
        }
        let has_suite = |key: &CertifiedKey| (kind(key) == KeyKind::Rsa) == ecdsa.is_empty();
        let offered = if ecdsa.is_empty() { rsa } else { ecdsa };
        let wildcards = self.wildcard.keys().map(|suffix| format!("*{suffix}"));
        let hosts = self.exact.keys().map(|host| host.to_string()).chain(wildcards);
        let shown = hosts.filter_map(|host| self.find(&host, offered, |_| true));
        [&self.default].into_iter().chain(shown).filter(|key| !has_suite(key)).map(Arc::as_ptr).collect()
    }

    fn find(
        &self,
        name: &str,
        offered: &[CipherSuite],
        verifies: impl Fn(&Arc<CertifiedKey>) -> bool,
    ) -> Option<&Arc<CertifiedKey>> {
        let mut buffer = [0; LONGEST_NAME];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = str::from_utf8(lower).ok()?;
        let exact = self.exact.get(name);
        let suffix = name.find('.').map(|dot| &name[dot..]);
        let wildcard = suffix.and_then(|suffix| self.wildcard.get(suffix));
        let of = |kind: fn(&Candidates) -> Option<&Arc<CertifiedKey>>| {
            exact.and_then(kind).or_else(|| wildcard.and_then(kind))
        };
        let (ecdsa, rsa) = (of(|found| found.ecdsa.as_ref()), of(|found| found.rsa.as_ref()));
        ecdsa
            .filter(|key| verifies(key) && self.ecdsa_is_of_use(offered))
            .or(rsa.filter(|key| verifies(key)))
            .or_else(|| of(|found| found.other.as_ref()))
            .or(ecdsa)
            .or(rsa)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let verifies = |key: &Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let found = hello.server_name().and_then(|name| self.find(name, hello.cipher_suites(), verifies));
        Some(Arc::clone(found.unwrap_or(&self.default)))
    }
}
