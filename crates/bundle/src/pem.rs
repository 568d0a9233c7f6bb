//! PEM (RFC 7468): sections in any order, text around them, line ends of any kind.

use data_encoding::BASE64;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::Found;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The labels of what is written.
const CERTIFICATE: &str = "CERTIFICATE";
const LIST: &str = "X509 CRL";

/// The characters of a line of base64.
const WIDTH: usize = 64;

/// Room for a body: that of any key fits, so that none is left behind where it has grown out of.
const BODY: usize = 16 * 1024;

struct Section<'t> {
    label: &'t [u8],
    body: Zeroizing<Vec<u8>>,
    encrypted: bool,
}

/// Reads every section; those that are of no use here (parameters of curves, public keys) are passed over.
///
/// # Errors
/// The reason.
pub(crate) fn read(text: &[u8]) -> Result<Found, String> {
    if crate::is_der(text) {
        return Err("is DER and not PEM; PKCS #12 is application/x-pkcs12".to_owned());
    }
    let mut found = Found::default();
    let mut section: Option<Section<'_>> = None;
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        // Editors put a byte order mark in front.
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let Some(mut inside) = section.take() else {
            if let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) {
                let body = Vec::with_capacity(BODY.min(text.len())).into();
                section = Some(Section { label, body, encrypted: false });
            }
            continue;
        };
        if line.starts_with(END) {
            if line.strip_prefix(END).and_then(|rest| rest.strip_suffix(DASHES)) != Some(inside.label) {
                return Err(format!("has a section {} that ends as another", name(inside.label)));
            }
            take(&mut found, inside)?;
            continue;
        }
        if line.starts_with(BEGIN) {
            return Err(format!("has a section {} without its end", name(inside.label)));
        }
        // Headers of RFC 1421: `Proc-Type: 4,ENCRYPTED`.
        if line.contains(&b':') {
            inside.encrypted |= line.ends_with(b"ENCRYPTED");
        } else {
            inside.body.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        }
        section = Some(inside);
    }
    match section {
        Some(Section { label, .. }) => Err(format!("has a section {} without its end", name(label))),
        None => Ok(found),
    }
}

fn take(found: &mut Found, section: Section<'_>) -> Result<(), String> {
    let Section { label, body, encrypted } = section;
    let decode =
        || BASE64.decode(&body).map_err(|_| format!("has a section {} that is not in base64", name(label)));
    if encrypted || label == b"ENCRYPTED PRIVATE KEY" {
        return Err("has a private key that is encrypted; send it without a passphrase".to_owned());
    }
    match label {
        b"CERTIFICATE" | b"X509 CERTIFICATE" => found.certificates.push(decode()?.into()),
        b"PRIVATE KEY" => found.keys.push(PrivateKeyDer::Pkcs8(decode()?.into()).into()),
        b"RSA PRIVATE KEY" => found.keys.push(PrivateKeyDer::Pkcs1(decode()?.into()).into()),
        b"EC PRIVATE KEY" => found.keys.push(PrivateKeyDer::Sec1(decode()?.into()).into()),
        b"X509 CRL" => found.lists.push(decode()?.into()),
        b"DSA PRIVATE KEY" => return Err("has a DSA key; there are RSA, ECDSA and Ed25519".to_owned()),
        b"OPENSSH PRIVATE KEY" => {
            return Err("has a key in OpenSSH's own form; there is PRIVATE KEY".to_owned());
        }
        b"TRUSTED CERTIFICATE" => {
            return Err(
                "has a section TRUSTED CERTIFICATE, OpenSSL's own form; there is CERTIFICATE".to_owned()
            );
        }
        b"PKCS7" => return Err("has a section PKCS7; there is CERTIFICATE, one for each".to_owned()),
        _ => {}
    }
    Ok(())
}

/// A label that may be told: it is the sender's own text.
fn name(label: &[u8]) -> String {
    let label: String = String::from_utf8_lossy(label).chars().take(40).collect();
    format!("{label:?}")
}

/// How many bytes [`write`] makes of these.
pub(crate) fn written_length(
    key: Option<&PrivateKeyDer<'_>>,
    certificates: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> usize {
    let of = |label: &str, length: usize| {
        let body = BASE64.encode_len(length);
        // Two lines with the label in them, and the end of each line.
        BEGIN.len() + END.len() + 2 * (label.len() + DASHES.len() + 1) + body + body.div_ceil(WIDTH)
    };
    let certificates = certificates.iter().map(|der| of(CERTIFICATE, der.len()));
    let lists = lists.iter().map(|der| of(LIST, der.len()));
    let key = key.map(|key| of(label(key), key.secret_der().len()));
    certificates.chain(lists).chain(key).sum()
}

/// Certificates, lists and the key, each with its section.
pub(crate) fn write(
    key: Option<&PrivateKeyDer<'_>>,
    certificates: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Zeroizing<Vec<u8>> {
    // It does not grow out of this.
    let length = written_length(key, certificates, lists);
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    certificates.iter().for_each(|der| section(&mut text, CERTIFICATE, der));
    lists.iter().for_each(|der| section(&mut text, LIST, der));
    if let Some(key) = key {
        section(&mut text, label(key), key.secret_der());
    }
    debug_assert_eq!(text.len(), length);
    text
}

const fn label(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

fn section(text: &mut Vec<u8>, label: &str, der: &[u8]) {
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    let body = Zeroizing::new(BASE64.encode(der));
    for line in body.as_bytes().chunks(WIDTH) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}
