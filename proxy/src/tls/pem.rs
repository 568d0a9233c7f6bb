//! PEM bundles (RFC 7468): sections in any order, text around them, line ends of any kind.
//!
//! No error says what is in a section.

use data_encoding::BASE64;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// What a bundle has, in its order.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

impl Bundle {
    /// Reads every section; those that are of no use here (parameters of curves, requests, public keys) are passed over.
    ///
    /// # Errors
    /// The reason, for a human.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let mut bundle = Self::default();
        let mut section: Option<(&[u8], Vec<u8>, bool)> = None;
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let line = line.trim_ascii();
            match section.take() {
                None => {
                    if let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) {
                        section = Some((label, Vec::new(), false));
                    }
                }
                Some((label, body, encrypted)) if line.starts_with(END) => {
                    if line.strip_prefix(END).and_then(|rest| rest.strip_suffix(DASHES)) != Some(label) {
                        return Err(format!("a section {} that ends as another", name(label)));
                    }
                    bundle.section(label, &body, encrypted)?;
                }
                Some((label, ..)) if line.starts_with(BEGIN) => {
                    return Err(format!("a section {} without its end", name(label)));
                }
                Some((label, mut body, encrypted)) => {
                    // Headers of RFC 1421: `Proc-Type: 4,ENCRYPTED`.
                    if line.contains(&b':') {
                        let encrypted = encrypted || line.ends_with(b"ENCRYPTED");
                        section = Some((label, body, encrypted));
                    } else {
                        body.extend_from_slice(line);
                        section = Some((label, body, encrypted));
                    }
                }
            }
        }
        match section {
            Some((label, ..)) => Err(format!("a section {} without its end", name(label))),
            None => Ok(bundle),
        }
    }

    fn section(&mut self, label: &[u8], body: &[u8], encrypted: bool) -> Result<(), String> {
        let decode = || {
            let body: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            BASE64.decode(&body).map_err(|_| format!("a section {} that is not in base64", name(label)))
        };
        if encrypted || label == b"ENCRYPTED PRIVATE KEY" {
            return Err("a private key that is encrypted; it must be stored without a passphrase".to_owned());
        }
        match label {
            b"CERTIFICATE" | b"X509 CERTIFICATE" => self.certificates.push(decode()?.into()),
            b"PRIVATE KEY" => self.keys.push(PrivateKeyDer::Pkcs8(decode()?.into())),
            b"RSA PRIVATE KEY" => self.keys.push(PrivateKeyDer::Pkcs1(decode()?.into())),
            b"EC PRIVATE KEY" => self.keys.push(PrivateKeyDer::Sec1(decode()?.into())),
            b"DSA PRIVATE KEY" => return Err("a DSA key; there are RSA, ECDSA and Ed25519".to_owned()),
            b"X509 CRL" => self.lists.push(decode()?.into()),
            b"TRUSTED CERTIFICATE" => {
                return Err(
                    "a section TRUSTED CERTIFICATE, which is OpenSSL's own form; there is CERTIFICATE"
                        .to_owned(),
                );
            }
            b"PKCS7" => return Err("a section PKCS7; there is CERTIFICATE, one for each".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

fn name(label: &[u8]) -> String {
    amphora_model::excerpt(&String::from_utf8_lossy(label))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_in_any_order_between_other_text() {
        let text = b"Bag Attributes\r\n  friendlyName: x\r\n-----BEGIN RSA PRIVATE KEY-----\r\nAQI=\r\n-----END RSA PRIVATE KEY-----\r\n\
            subject=/CN=x\n-----BEGIN CERTIFICATE-----\nAw\n Q=\n-----END CERTIFICATE-----\n\
            -----BEGIN EC PARAMETERS-----\n!\n-----END EC PARAMETERS-----\n-----BEGIN X509 CRL-----\rBQ==\r-----END X509 CRL-----";
        let bundle = Bundle::read(text).unwrap();
        assert_eq!(bundle.certificates, [CertificateDer::from(vec![3, 4])]);
        assert!(matches!(&bundle.keys[..], [PrivateKeyDer::Pkcs1(key)] if key.secret_pkcs1_der() == [1, 2]));
        assert_eq!(bundle.lists, [CertificateRevocationListDer::from(vec![5])]);
    }

    #[test]
    fn what_cannot_be_used_is_told_without_what_is_in_it() {
        for (text, reason) in [
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "a section \"CERTIFICATE\" without its end"),
            (
                "-----BEGIN PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----\n",
                "a section \"PRIVATE KEY\" without its end",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\n-----END CERTIFICATE-----\n",
                "a section \"PRIVATE KEY\" that ends as another",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nSECRET!\n-----END PRIVATE KEY-----\n",
                "a section \"PRIVATE KEY\" that is not in base64",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "a private key that is encrypted; it must be stored without a passphrase",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
                "a private key that is encrypted; it must be stored without a passphrase",
            ),
        ] {
            assert_eq!(Bundle::read(text.as_bytes()).unwrap_err(), reason, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(-----(BEGIN|END) (CERTIFICATE|X509 CRL|PRIVATE KEY)-----|[A-Z=:]{0,8}|\r|\n){0,20}") {
            let _ = Bundle::read(text.as_bytes());
        }
    }
}
