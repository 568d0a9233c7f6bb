//! PKCS #12 (RFC 7292), protected by a password.

use std::{borrow::Cow, mem};

use amphora_x509::{Element, Reader, tag};
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

mod ber;
mod scheme;

#[cfg(test)]
pub(crate) use self::ber::indefinite;

use self::scheme::{Algorithm, Password, Work};
use crate::Found;

/// The most iterations of a hash that all the keys of one file may take together: some seconds.
pub(crate) const MAX_ITERATIONS: u32 = 5_000_000;

/// How deep bags may lie in bags.
const MAX_DEPTH: u8 = 8;

const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
/// 1.2.840.113549.1.12.10.1, and one more.
const BAGS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const X509_CRL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 23, 1];

const NOT_IN_ITS_FORM: &str = "is not PKCS #12";

/// Reads keys, certificates and revocation lists, whatever bags they are in.
///
/// # Errors
/// The reason.
pub(crate) fn read(der: &[u8], password: Option<&str>, iterations: u32) -> Result<Found, String> {
    let mut work = Work::new(iterations);
    let der = Zeroizing::new(ber::definite(der).ok_or(NOT_IN_ITS_FORM)?);
    let parsed = File::parse(&der).ok_or(NOT_IN_ITS_FORM)?;
    let safe = match parsed.content_type {
        DATA => parsed.safe.ok_or(NOT_IN_ITS_FORM)?,
        SIGNED_DATA => {
            return Err("is PKCS #12 that is signed with a key; there is one with a password".to_owned());
        }
        _ => return Err(NOT_IN_ITS_FORM.to_owned()),
    };
    let password = Password::new(password);
    let password = match parsed.mac {
        Some(mac) => scheme::verify(&mac, safe, password, &mut work)?,
        None => password,
    };
    let mut found = Found::default();
    // Its octets were signed as they are.
    let safe = Zeroizing::new(ber::definite(safe).ok_or(NOT_IN_ITS_FORM)?);
    let mut contents = Reader::new(&safe).enter(tag::SEQUENCE).ok_or(NOT_IN_ITS_FORM)?;
    while !contents.is_empty() {
        let (kind, content) = content_info(&mut contents).ok_or(NOT_IN_ITS_FORM)?;
        match kind {
            DATA => {
                let data = Reader::new(content).expect(tag::OCTET_STRING).ok_or(NOT_IN_ITS_FORM)?;
                bags(data.content, &password, &mut work, &mut found, 0)?;
            }
            ENCRYPTED_DATA => {
                let (algorithm, data) = encrypted_data(content).ok_or(NOT_IN_ITS_FORM)?;
                let data = scheme::decrypt(&algorithm, &data, &password, &mut work)?;
                bags(&data, &password, &mut work, &mut found, 0)?;
            }
            ENVELOPED_DATA => {
                return Err("is PKCS #12 for the holder of a key; there is one with a password".to_owned());
            }
            _ => return Err(NOT_IN_ITS_FORM.to_owned()),
        }
    }
    Ok(found)
}

/// `PFX`.
struct File<'a> {
    content_type: &'a [u8],
    /// `AuthenticatedSafe`, the octets that are signed.
    safe: Option<&'a [u8]>,
    mac: Option<Mac<'a>>,
}

/// `MacData`.
struct Mac<'a> {
    algorithm: Algorithm<'a>,
    digest: &'a [u8],
    salt: &'a [u8],
    iterations: u32,
}

impl<'a> File<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let mut file = Reader::new(der);
        let mut pfx = file.enter(tag::SEQUENCE)?;
        let [3] = pfx.expect(tag::INTEGER)?.content else { return None };
        let (content_type, content) = content_info(&mut pfx)?;
        let safe = Reader::new(content).expect(tag::OCTET_STRING).map(|element| element.content);
        let mac = if pfx.is_empty() { None } else { Some(Mac::parse(&mut pfx)?) };
        pfx.is_empty().then_some(Self { content_type, safe, mac })
    }
}

impl<'a> Mac<'a> {
    fn parse(pfx: &mut Reader<'a>) -> Option<Self> {
        let mut mac = pfx.enter(tag::SEQUENCE)?;
        let mut info = mac.enter(tag::SEQUENCE)?;
        let algorithm = Algorithm::read(&mut info)?;
        let digest = info.expect(tag::OCTET_STRING)?.content;
        let salt = mac.expect(tag::OCTET_STRING)?.content;
        let iterations = match mac.optional(tag::INTEGER) {
            None => 1,
            Some(number) => scheme::positive(number.content)?,
        };
        (info.is_empty() && mac.is_empty()).then_some(Self { algorithm, digest, salt, iterations })
    }
}

/// A `ContentInfo`: what it is, and what is inside the explicit tag.
fn content_info<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut info = reader.enter(tag::SEQUENCE)?;
    let kind = info.expect(tag::OBJECT_IDENTIFIER)?.content;
    let content = info.expect(tag::constructed(0))?.content;
    info.is_empty().then_some((kind, content))
}

/// `EncryptedData` of `Data`: how, and what.
fn encrypted_data(content: &[u8]) -> Option<(Algorithm<'_>, Cow<'_, [u8]>)> {
    let mut data = Reader::new(content).enter(tag::SEQUENCE)?;
    data.expect(tag::INTEGER)?;
    let mut info = data.enter(tag::SEQUENCE)?;
    if info.expect(tag::OBJECT_IDENTIFIER)?.content != DATA {
        return None;
    }
    let algorithm = Algorithm::read(&mut info)?;
    // `[0]` is an OCTET STRING: in pieces it is constructed.
    match info.element()? {
        Element { tag, content, .. } if tag == tag::context(0) => Some((algorithm, content.into())),
        Element { tag, content, .. } if tag == tag::constructed(0) => {
            Some((algorithm, ber::joined(content)?.into()))
        }
        _ => None,
    }
}

/// `SafeContents`.
fn bags(
    contents: &[u8],
    password: &Password,
    work: &mut Work,
    found: &mut Found,
    depth: u8,
) -> Result<(), String> {
    let contents = Zeroizing::new(ber::definite(contents).ok_or(NOT_IN_ITS_FORM)?);
    let mut contents = Reader::new(&contents).enter(tag::SEQUENCE).ok_or(NOT_IN_ITS_FORM)?;
    while !contents.is_empty() {
        let (kind, value) = bag(&mut contents).ok_or(NOT_IN_ITS_FORM)?;
        let mut value = Reader::new(value);
        match kind.strip_prefix(BAGS) {
            Some([1]) => {
                let key = value.expect(tag::SEQUENCE).ok_or(NOT_IN_ITS_FORM)?;
                found.keys.push(PrivateKeyDer::Pkcs8(key.whole.to_vec().into()).into());
            }
            Some([2]) => {
                let mut shrouded = value.enter(tag::SEQUENCE).ok_or(NOT_IN_ITS_FORM)?;
                let parts = Algorithm::read(&mut shrouded).zip(shrouded.expect(tag::OCTET_STRING));
                let (algorithm, key) = parts.ok_or(NOT_IN_ITS_FORM)?;
                let mut key = scheme::decrypt(&algorithm, key.content, password, work)?;
                found.keys.push(PrivateKeyDer::Pkcs8(mem::take(&mut *key).into()).into());
            }
            Some([kind @ (3 | 4)]) => {
                let (of, der) = typed(&mut value).ok_or(NOT_IN_ITS_FORM)?;
                match (kind, of) {
                    (3, X509_CERTIFICATE) => found.certificates.push(der.to_vec().into()),
                    (4, X509_CRL) => found.lists.push(der.to_vec().into()),
                    // Certificates of SDSI, which nobody has.
                    _ => {}
                }
            }
            Some([6]) if depth < MAX_DEPTH => {
                let inner = value.expect(tag::SEQUENCE).ok_or(NOT_IN_ITS_FORM)?;
                bags(inner.whole, password, work, found, depth + 1)?;
            }
            // Secrets, and what comes after RFC 7292.
            Some([5]) => {}
            _ => return Err("is PKCS #12 with something in it that is not known".to_owned()),
        }
    }
    Ok(())
}

/// A `SafeBag`: what it is, and what is inside the explicit tag. Its attributes (names that programs gave it) say nothing.
fn bag<'a>(contents: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut bag = contents.enter(tag::SEQUENCE)?;
    let kind = bag.expect(tag::OBJECT_IDENTIFIER)?.content;
    let value = bag.expect(tag::constructed(0))?.content;
    bag.optional(tag::SET);
    bag.is_empty().then_some((kind, value))
}

/// `CertBag` and `CRLBag`: of which kind, and the octets.
fn typed<'a>(value: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut typed = value.enter(tag::SEQUENCE)?;
    let kind = typed.expect(tag::OBJECT_IDENTIFIER)?.content;
    let Element { content, .. } = typed.enter(tag::constructed(0))?.element()?;
    Some((kind, content))
}
