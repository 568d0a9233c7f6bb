//! What may be told of a bundle: everything but its key, within [`MAX_DESCRIPTION`].

use std::fmt::Write;

use amphora_x509::{
    AlgorithmIdentifier, Certificate, GeneralName, Name, PublicKey, RevocationList, Time, oid, text,
};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::Serialize;
use time::OffsetDateTime;

use crate::Bundle;

/// The most bytes of a description, as it is in memory: some fifty certificates, or some three hundred names of one. What goes beyond
/// is counted and not told.
pub const MAX_DESCRIPTION: usize = 32 * 1024;

/// The most octets of a name, a serial number or an object identifier that are told. Those of RFC 5280 are far shorter.
const MAX_OCTETS: usize = 1024;

/// What is told of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `identity`, `authorities` or `revocations`.
    pub kind: &'static str,
    /// Of an identity the certificate itself first, then its issuers.
    pub certificates: Vec<CertificateFacts>,
    /// How many further ones it has.
    pub certificates_omitted: usize,
    /// Revocation lists.
    pub revocation_lists: Vec<ListFacts>,
    /// How many further ones it has.
    pub revocation_lists_omitted: usize,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Its subject, in the form of RFC 4514.
    pub subject: String,
    /// Its issuer, likewise.
    pub issuer: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// Since when it is good, RFC 3339 in UTC; none when it is not a time.
    pub not_before: Option<String>,
    /// Until when.
    pub not_after: Option<String>,
    /// `subjectAltName`: `DNS:`, `IP:`, `email:`, `URI:` and `DirName:` with the name.
    pub names: Vec<String>,
    /// How many further ones it has.
    pub names_omitted: usize,
    /// What kind of key it is for.
    pub key: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
}

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListFacts {
    /// Who has issued it, in the form of RFC 4514.
    pub issuer: String,
    /// Since when it is good, RFC 3339 in UTC.
    pub this_update: Option<String>,
    /// When the next one is due.
    pub next_update: Option<String>,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// SHA-256 of the list, in hexadecimal.
    pub sha256: String,
}

pub(crate) fn describe(bundle: &Bundle) -> Description {
    let mut left = MAX_DESCRIPTION;
    // Each was read when the bundle was judged.
    let certificates = bundle.certificates.iter().filter_map(|der| Certificate::read(der));
    let certificates =
        within(&mut left, certificates, |certificate, left| CertificateFacts::of(certificate, left));
    let lists = bundle.lists.iter().filter_map(|der| RevocationList::read(der));
    let revocation_lists = within(&mut left, lists, |list, _| ListFacts::of(list));
    Description {
        kind: bundle.kind().as_str(),
        certificates_omitted: bundle.certificates.len() - certificates.len(),
        certificates,
        revocation_lists_omitted: bundle.lists.len() - revocation_lists.len(),
        revocation_lists,
    }
}

/// What is told of the first ones, until no more than `left` bytes hold it.
fn within<T, F: Size>(
    left: &mut usize,
    all: impl Iterator<Item = T>,
    mut facts: impl FnMut(&T, usize) -> F,
) -> Vec<F> {
    let told = all.map_while(|one| {
        let facts = facts(&one, *left);
        *left = left.checked_sub(facts.size())?;
        Some(facts)
    });
    told.collect()
}

/// How many bytes something takes in memory, with the allocator's share.
trait Size {
    fn size(&self) -> usize;
}

impl Size for String {
    fn size(&self) -> usize {
        size_of::<Self>() + self.len() + 8
    }
}

impl Size for CertificateFacts {
    fn size(&self) -> usize {
        let texts = [&self.subject, &self.issuer, &self.serial, &self.key, &self.sha256];
        let times = [&self.not_before, &self.not_after];
        let texts = texts.into_iter().chain(times.into_iter().flatten()).chain(&self.names);
        size_of::<Self>() + texts.map(Size::size).sum::<usize>()
    }
}

impl Size for ListFacts {
    fn size(&self) -> usize {
        let times = [&self.this_update, &self.next_update];
        let texts = [&self.issuer, &self.sha256].into_iter().chain(times.into_iter().flatten());
        size_of::<Self>() + texts.map(Size::size).sum::<usize>()
    }
}

impl CertificateFacts {
    /// Half of what is `left` is for the names of one, so that they leave room for its issuers.
    fn of(certificate: &Certificate<'_>, left: usize) -> Self {
        let names = certificate.extensions.subject_alt_names().unwrap_or_default();
        let mut facts = Self {
            subject: distinguished_name(&certificate.subject),
            issuer: distinguished_name(&certificate.issuer),
            serial: short(certificate.serial, |serial| HEXLOWER.encode(serial)),
            not_before: moment(certificate.not_before),
            not_after: moment(certificate.not_after),
            names: Vec::new(),
            names_omitted: 0,
            key: key(&certificate.public_key),
            sha256: sha256(certificate.der),
        };
        let mut room = left / 2;
        for name in names.filter_map(|name| general_name(&name)) {
            match room.checked_sub(name.size()) {
                Some(less) if facts.names_omitted == 0 => {
                    room = less;
                    facts.names.push(name);
                }
                _ => facts.names_omitted += 1,
            }
        }
        facts
    }
}

impl ListFacts {
    fn of(list: &RevocationList<'_>) -> Self {
        Self {
            issuer: distinguished_name(&list.issuer),
            this_update: moment(list.this_update),
            next_update: list.next_update.and_then(moment),
            revoked: list.entries().count(),
            sha256: sha256(list.der),
        }
    }
}

/// The text of so many octets, or how many there are.
fn short(octets: &[u8], text: impl FnOnce(&[u8]) -> String) -> String {
    if octets.len() <= MAX_OCTETS { text(octets) } else { format!("({} octets)", octets.len()) }
}

fn sha256(der: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, der).as_ref())
}

fn moment(time: Time<'_>) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(time.unix()?).ok()?;
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    let (year, month, day) = date.to_calendar_date();
    Some(format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month)))
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    let latin = |text| short(text, |text| text.iter().map(|byte| char::from(*byte)).collect());
    match name {
        GeneralName::Dns(host) => Some(format!("DNS:{}", latin(host))),
        GeneralName::Email(address) => Some(format!("email:{}", latin(address))),
        GeneralName::Uri(uri) => Some(format!("URI:{}", latin(uri))),
        GeneralName::Ip(octets) => {
            let address = <[u8; 4]>::try_from(*octets).map(std::net::IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*octets).map(std::net::IpAddr::from));
            Some(format!("IP:{}", address.ok()?))
        }
        GeneralName::Directory(name) => Some(format!("DirName:{}", distinguished_name(name))),
        GeneralName::Other(_) => None,
    }
}

fn key(key: &PublicKey<'_>) -> String {
    let AlgorithmIdentifier { oid: kind, parameters, .. } = key.algorithm;
    match kind {
        oid::RSA => format!("RSA {}", key.rsa_bits().unwrap_or(0)),
        oid::RSA_PSS => format!("RSA-PSS {}", key.rsa_bits().unwrap_or(0)),
        // The curve's OBJECT IDENTIFIER behind its tag and length.
        oid::EC => match parameters.and_then(|parameters| parameters.get(2..)) {
            Some([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]) => "ECDSA P-256".to_owned(),
            Some([0x2b, 0x81, 4, 0, 0x22]) => "ECDSA P-384".to_owned(),
            Some([0x2b, 0x81, 4, 0, 0x23]) => "ECDSA P-521".to_owned(),
            _ => "ECDSA".to_owned(),
        },
        oid::ED25519 => "Ed25519".to_owned(),
        oid::ED448 => "Ed448".to_owned(),
        oid::DSA => "DSA".to_owned(),
        other => short(other, oid::dotted),
    }
}

/// In the form of RFC 4514.
fn distinguished_name(name: &Name<'_>) -> String {
    short(name.der(), |_| escaped_name(name))
}

/// The last attribute first, those of one set joined by `+`.
fn escaped_name(name: &Name<'_>) -> String {
    let mut sets: Vec<String> = Vec::new();
    for attribute in name.attributes() {
        let one = format!("{}={}", attribute_type(attribute.oid), value(attribute.tag, attribute.value));
        match sets.get_mut(attribute.set) {
            Some(set) => {
                set.push('+');
                set.push_str(&one);
            }
            None => sets.push(one),
        }
    }
    sets.reverse();
    sets.join(",")
}

/// The short names of RFC 4519, and of OpenSSL for what is common beyond.
fn attribute_type(oid: &[u8]) -> String {
    let name = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        oid::EMAIL_ADDRESS => "emailAddress",
        other => return oid::dotted(other),
    };
    name.to_owned()
}

/// Escaped as RFC 4514 section 2.4 says; control characters too, for they would be written to terminals.
fn value(tag: u8, bytes: &[u8]) -> String {
    let Some(text) = text(tag, bytes) else { return format!("#{tag:02x}:{}", HEXLOWER.encode(bytes)) };
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', c]),
            '#' | ' ' if at == 0 => escaped.extend(['\\', c]),
            ' ' if at == last => escaped.extend(['\\', c]),
            c if c.is_control() => {
                let mut octets = [0; 4];
                for octet in c.encode_utf8(&mut octets).bytes() {
                    write!(escaped, "\\{octet:02X}").expect("a String takes all that is written");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}
