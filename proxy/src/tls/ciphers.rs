//! `tls_versions` and `tls_ciphers` in OpenSSL's names, as suites and versions of rustls.
//!
//! A document's list is two, as Octavia takes it apart: elements that are names of TLS 1.3 suites (HAProxy `ciphersuites`),
//! and all the others, which are read as ciphers(1) of OpenSSL 3.0 says (HAProxy `ciphers`). A half that is empty is the
//! default of its version. Order counts: the server's preference decides.

use amphora_model::{CertificateId, TlsSettings, TlsVersion};
use rustls::{
    SupportedCipherSuite, SupportedProtocolVersion,
    crypto::aws_lc_rs::cipher_suite as suites,
    version::{TLS12, TLS13},
};

use super::{TlsRemark, openssl_names};

/// What a listener or a pool offers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offer {
    /// In order of preference; those of TLS 1.3 first.
    pub(super) suites: Vec<SupportedCipherSuite>,
    /// At least one.
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// What the document asks for that is left out.
    pub(super) remarks: Vec<TlsRemark>,
}

/// Why nothing can be offered: the field of the document, and the reason.
pub(super) type Refused = (&'static str, String);

const VERSIONS: &str = "tls_versions";
const CIPHERS: &str = "tls_ciphers";

/// A suite of TLS 1.2 that is here, and what ciphers(1) finds it by.
struct Known {
    name: &'static str,
    suite: SupportedCipherSuite,
    rsa: bool,
    /// `AES128`, `AES256` or `CHACHA20`.
    cipher: &'static str,
    /// In bits, as OpenSSL counts.
    strength: u16,
}

const fn known(
    name: &'static str,
    suite: SupportedCipherSuite,
    rsa: bool,
    cipher: &'static str,
    strength: u16,
) -> Known {
    Known { name, suite, rsa, cipher, strength }
}

/// In the order that OpenSSL begins with, which is that of `ALL`.
static KNOWN: [Known; 6] = [
    known(
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        false,
        "AES256",
        256,
    ),
    known("ECDHE-RSA-AES256-GCM-SHA384", suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true, "AES256", 256),
    known(
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        false,
        "CHACHA20",
        256,
    ),
    known(
        "ECDHE-RSA-CHACHA20-POLY1305",
        suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        true,
        "CHACHA20",
        256,
    ),
    known(
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        false,
        "AES128",
        128,
    ),
    known("ECDHE-RSA-AES128-GCM-SHA256", suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true, "AES128", 128),
];

/// In the order of OpenSSL's `TLS_DEFAULT_CIPHERSUITES`.
static KNOWN_OF_TLS13: [(&str, SupportedCipherSuite, u16); 3] = [
    ("TLS_AES_256_GCM_SHA384", suites::TLS13_AES_256_GCM_SHA384, 256),
    ("TLS_CHACHA20_POLY1305_SHA256", suites::TLS13_CHACHA20_POLY1305_SHA256, 256),
    ("TLS_AES_128_GCM_SHA256", suites::TLS13_AES_128_GCM_SHA256, 128),
];

/// The names of OpenSSL for a suite that was negotiated.
pub(super) fn openssl_name(suite: rustls::CipherSuite) -> &'static str {
    let below = KNOWN.iter().map(|known| (known.name, known.suite));
    let all = below.chain(KNOWN_OF_TLS13.iter().map(|(name, suite, _)| (*name, *suite)));
    let found = all.into_iter().find(|(_, known)| known.suite() == suite);
    found.map_or("(NONE)", |(name, _)| name)
}

/// Octavia's `CIPHERS_OWASP_SUITE_B`, the default of `[api_settings] default_listener_ciphers` and
/// `default_pool_ciphers`.
const DEFAULT: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:\
    ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
    DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";

/// What is offered for these settings.
///
/// # Errors
/// None of the versions, or none of the ciphers for them, is here.
pub(super) fn offer(settings: &TlsSettings) -> Result<Offer, Refused> {
    let has = |version| settings.versions.contains(&version);
    let (mut tls12, mut tls13) = (has(TlsVersion::Tls1_2), has(TlsVersion::Tls1_3));
    let old: Vec<&str> =
        settings.versions.iter().filter(|v| **v < TlsVersion::Tls1_2).map(|v| v.as_str()).collect();
    if !tls12 && !tls13 {
        let reason =
            format!("none of these can be honoured: {}; there are TLSv1.2 and TLSv1.3", old.join(", "));
        return Err((VERSIONS, reason));
    }
    let mut remarks = Vec::new();
    let mut remark = |field, text: String| remarks.push(TlsRemark::new(field, text));
    if !old.is_empty() {
        let offered = settings.versions.iter().filter(|v| **v >= TlsVersion::Tls1_2).map(|v| v.as_str());
        let offered: Vec<&str> = offered.collect();
        remark(VERSIONS, format!("{} not offered; {} offered", are(&old), are(&offered)));
    }

    let list =
        List::read(settings.ciphers.as_deref().unwrap_or(DEFAULT)).map_err(|reason| (CIPHERS, reason))?;
    // What is said of a version that is not offered says nothing.
    let asked12 = tls12 && list.names_tls12;
    let asked13 = tls13 && list.names_tls13;
    let nothing12 = asked12 && list.tls12.is_empty();
    let nothing13 = asked13 && list.tls13.is_empty();
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    if asked12 {
        missing.extend(&list.missing12);
        unknown.extend(&list.unknown);
    }
    if asked13 {
        missing.extend(&list.missing13);
    }
    for (only, named, version) in
        [(tls12 && !tls13, list.names_tls12, "TLSv1.2"), (tls13 && !tls12, list.names_tls13, "TLSv1.3")]
    {
        if only && !named {
            remark(CIPHERS, format!("none is one of {version}, which has its default"));
        }
    }
    // Refused: nothing of what is asked for is here, or one version alone is to be and has none.
    let something = (asked12 && !nothing12) || (asked13 && !nothing13);
    if (nothing12 || nothing13) && !something {
        let names: Vec<&str> = missing.iter().chain(&unknown).copied().collect();
        let what = if names.is_empty() {
            "no cipher remains".to_owned()
        } else {
            format!("none of these can be honoured: {}", names.join(", "))
        };
        let there = "there are ECDHE with AES-GCM or CHACHA20-POLY1305, and TLS_* with the same";
        return Err((CIPHERS, format!("{what}; {there}")));
    }
    for (nothing, enabled, version) in
        [(nothing12, &mut tls12, "TLSv1.2"), (nothing13, &mut tls13, "TLSv1.3")]
    {
        if nothing {
            remark(CIPHERS, format!("{version} is not offered, none of its ciphers is here"));
            *enabled = false;
        }
    }
    // A suite with DHE beside the same with ECDHE is for clients of before 2012: nobody misses it.
    missing.retain(|name| {
        let twin = name.strip_prefix("DHE-RSA-").map(|rest| format!("ECDHE-RSA-{rest}"));
        !twin.is_some_and(|twin| list.tls12.iter().any(|known| known.name == twin))
    });
    if !missing.is_empty() {
        remark(CIPHERS, format!("{} not offered", are(&missing)));
    }
    if let Some(level) = list.level.filter(|level| *level != LEVEL) {
        let text =
            format!("@SECLEVEL={level} is for ciphers alone, keys and certificates are judged at {LEVEL}");
        remark(CIPHERS, text);
    }
    if !unknown.is_empty() {
        remark(CIPHERS, format!("{} not known", are(&unknown)));
    }

    let mut offer = Offer { suites: Vec::new(), versions: Vec::new(), remarks };
    if tls13 {
        offer.versions.push(&TLS13);
        offer.suites.extend(if list.names_tls13 {
            list.tls13.clone()
        } else {
            default_of_tls13(list.level.unwrap_or(LEVEL))
        });
    }
    if tls12 {
        offer.versions.push(&TLS12);
        if list.names_tls12 {
            offer.suites.extend(list.tls12.iter().map(|known| known.suite));
        } else {
            offer.suites.extend(KNOWN.iter().map(|known| known.suite));
        }
    }
    Ok(offer)
}

/// Names of certificates in one remark.
const MOST_NAMED: usize = 8;

/// That clients which are shown these certificates have no cipher of TLS 1.2 for them.
pub(super) fn of_no_use<'a>(
    certificates: impl Iterator<Item = &'a CertificateId>,
    offer: &Offer,
) -> Option<TlsRemark> {
    let mut names: Vec<&str> = certificates.map(CertificateId::as_str).collect();
    if names.is_empty() {
        return None;
    }
    let further = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    let further = if further > 0 { format!(" and {further} more") } else { String::new() };
    let rsa = |suite: &SupportedCipherSuite| KNOWN.iter().any(|known| known.rsa && known.suite == *suite);
    let keys = if offer.suites.iter().any(rsa) { "RSA" } else { "ECDSA" };
    let served =
        if offer.versions.contains(&&TLS13) { "is served with TLSv1.3 alone" } else { "is not served" };
    Some(TlsRemark::new(
        CIPHERS,
        format!("those of TLSv1.2 are for {keys} keys: who is shown {}{further} {served}", names.join(", ")),
    ))
}

fn are(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn default_of_tls13(level: u8) -> Vec<SupportedCipherSuite> {
    let enough = |strength: u16| strength >= least_strength(level);
    KNOWN_OF_TLS13.iter().filter(|(.., strength)| enough(*strength)).map(|(_, suite, _)| *suite).collect()
}

/// The level that distributions set, at which certificates are judged whatever a list says.
const LEVEL: u8 = 2;

/// The bits of security of `@SECLEVEL` (SSL_CTX_set_security_level(3)).
fn least_strength(level: u8) -> u16 {
    [0, 80, 112, 128, 192, 256][usize::from(level.min(5))]
}

/// A list that was read.
struct List<'l> {
    tls12: Vec<&'static Known>,
    tls13: Vec<SupportedCipherSuite>,
    /// Whether it says anything of TLS 1.2, and of 1.3.
    names_tls12: bool,
    names_tls13: bool,
    /// Names of OpenSSL's that are to be added and are not here.
    missing12: Vec<&'l str>,
    missing13: Vec<&'l str>,
    /// Names that OpenSSL does not know either, and passes over.
    unknown: Vec<&'l str>,
    /// `@SECLEVEL`.
    level: Option<u8>,
}

/// What an element does.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Add,
    Delete,
    Kill,
    ToTheEnd,
}

/// A suite on its way through the rules.
#[derive(Clone, Copy)]
struct Entry {
    known: &'static Known,
    active: bool,
}

const SEPARATORS: [char; 4] = [':', ',', ';', ' '];

impl<'l> List<'l> {
    /// `ssl_create_cipher_list` of OpenSSL over the suites that are here: each rule acts on each suite by itself.
    fn read(text: &'l str) -> Result<Self, String> {
        let mut list = Self {
            tls12: Vec::new(),
            tls13: Vec::new(),
            names_tls12: false,
            names_tls13: false,
            missing12: Vec::new(),
            missing13: Vec::new(),
            unknown: Vec::new(),
            level: None,
        };
        let mut entries: Vec<Entry> = KNOWN.iter().map(|known| Entry { known, active: false }).collect();
        let mut of_tls13 = Vec::new();
        for (at, element) in text.split(SEPARATORS).enumerate().filter(|(_, element)| !element.is_empty()) {
            if let Some((_, suite, strength)) = KNOWN_OF_TLS13.iter().find(|(name, ..)| *name == element) {
                list.names_tls13 = true;
                if !of_tls13.iter().any(|(known, _): &(SupportedCipherSuite, u16)| known == suite) {
                    of_tls13.push((*suite, *strength));
                }
            } else if openssl_names::SUITES_OF_TLS13.contains(&element) {
                list.names_tls13 = true;
                list.missing13.push(element);
            } else {
                list.names_tls12 = true;
                list.element(element, at == 0, &mut entries)?;
            }
        }
        let least = least_strength(list.level.unwrap_or(LEVEL));
        list.tls12 =
            entries.iter().filter(|e| e.active && e.known.strength >= least).map(|e| e.known).collect();
        list.tls13 =
            of_tls13.into_iter().filter(|(_, strength)| *strength >= least).map(|(s, _)| s).collect();
        Ok(list)
    }

    fn element(&mut self, element: &'l str, first: bool, entries: &mut Vec<Entry>) -> Result<(), String> {
        let (operation, name) = match element.as_bytes()[0] {
            b'-' => (Operation::Delete, &element[1..]),
            b'+' => (Operation::ToTheEnd, &element[1..]),
            b'!' => (Operation::Kill, &element[1..]),
            b'@' => return self.special(&element[1..], entries),
            _ => (Operation::Add, element),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '=');
        if !name.starts_with(plain) {
            return Err(format!("{element:?} is not an element of a list of ciphers"));
        }
        // These are recognized at the beginning alone, whatever follows.
        if first && operation == Operation::Add {
            let expanded: Option<&[&str]> = match name {
                "DEFAULT" => Some(&["ALL"]),
                "SUITEB128ONLY" => Some(&["ECDHE-ECDSA-AES128-GCM-SHA256"]),
                "SUITEB128" | "SUITEB128C2" => {
                    Some(&["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"])
                }
                "SUITEB192" => Some(&["ECDHE-ECDSA-AES256-GCM-SHA384"]),
                _ => None,
            };
            if let Some(names) = expanded {
                for name in names {
                    apply(entries, Operation::Add, |known| has(known, name) == Some(true));
                }
                return Ok(());
            }
        }
        // All parts are to hold, and one that is not known spoils the whole element.
        if name.split('+').any(|part| has(&KNOWN[0], part).is_none()) {
            self.unknown.push(element);
            return Ok(());
        }
        let matches = |known: &Known| name.split('+').all(|part| has(known, part) == Some(true));
        if operation == Operation::Add && !KNOWN.iter().any(matches) {
            self.missing12.push(element);
        }
        apply(entries, operation, matches);
        Ok(())
    }

    fn special(&mut self, command: &str, entries: &mut Vec<Entry>) -> Result<(), String> {
        match command.strip_prefix("SECLEVEL=").map(str::as_bytes) {
            Some([level @ b'0'..=b'5']) => self.level = Some(level - b'0'),
            None if command == "STRENGTH" => {
                for strength in [256, 128] {
                    apply(entries, Operation::ToTheEnd, |known| known.strength == strength);
                }
            }
            _ => return Err(format!("\"@{command}\" is neither @STRENGTH nor @SECLEVEL with 0 to 5")),
        }
        Ok(())
    }
}

/// Whether a suite is that of this name, or in the group of this name; `None` when OpenSSL has neither.
fn has(known: &Known, name: &str) -> Option<bool> {
    Some(match name {
        "ALL" | "HIGH" | "TLSv1.2" | "kECDHE" | "kEECDH" | "ECDH" | "ECDHE" | "EECDH" => true,
        "aRSA" => known.rsa,
        "aECDSA" | "ECDSA" => !known.rsa,
        "AES" | "AESGCM" | "FIPS" => known.cipher != "CHACHA20",
        "AES128" | "AES256" | "CHACHA20" => known.cipher == name,
        _ if KNOWN.iter().any(|other| other.name == name) => known.name == name,
        _ if list_has(openssl_names::SUITES, name) || list_has(openssl_names::GROUPS, name) => false,
        _ => return None,
    })
}

fn list_has(list: &str, name: &str) -> bool {
    list.split(' ').any(|known| known == name)
}

/// `ssl_cipher_apply_rule` of OpenSSL.
fn apply(entries: &mut Vec<Entry>, operation: Operation, matches: impl Fn(&Known) -> bool) {
    let concerned = |entry: &Entry| {
        matches(entry.known)
            && match operation {
                Operation::Add => !entry.active,
                Operation::Delete | Operation::ToTheEnd => entry.active,
                Operation::Kill => true,
            }
    };
    let (mut moved, rest): (Vec<Entry>, Vec<Entry>) = entries.iter().partition(|entry| concerned(entry));
    for entry in &mut moved {
        entry.active = operation != Operation::Delete;
    }
    *entries = match operation {
        Operation::Add | Operation::ToTheEnd => [rest, moved].concat(),
        // What was deleted last is first when it comes back.
        Operation::Delete => [moved, rest].concat(),
        Operation::Kill => rest,
    };
}

#[cfg(test)]
mod tests;
