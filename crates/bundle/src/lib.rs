//! Keys with their certificates, authorities, and revocation lists as they are handed in: read from PEM or PKCS #12, judged, and
//! written in one form.
//!
//! What comes out of [`Bundle::from_pem`] and [`Bundle::from_pkcs12`] can be used: a key is of a kind that TLS takes here and
//! belongs to the first certificate, whose issuers follow it in order. Nothing is verified against anybody, and no clock is
//! looked at: a certificate that has expired is one. No error says what is in a key, and no memory that was freed here does.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `pem` | sections of PEM |
//! | `pkcs12` | PKCS #12: its structure; `pkcs12::ber`: lengths and strings as some write them; `pkcs12::scheme`: what it is encrypted and signed with |
//! | `judge` | what a bundle is, in its order |
//! | `describe` | [`Description`]: what may be told of one |
//! | `revocations` | who has signed revocation lists |

mod describe;
mod judge;
mod pem;
mod pkcs12;
mod revocations;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use amphora_x509::{Certificate, RevocationList};
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

pub use self::{
    describe::{CertificateFacts, Description, ListFacts, MAX_DESCRIPTION},
    revocations::is_signed,
};

/// The most bytes of a bundle, as it is handed in and as it is kept: the authorities of the web have some 230 KB, a large revocation
/// list some MB.
pub const MAX_BYTES: usize = 4 << 20;

/// The most certificates, and the most revocation lists, in one.
pub const MAX_ENTRIES: usize = 1000;

/// What a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A private key, its certificate, and the chain that goes with it.
    Identity,
    /// Certificates of authorities.
    Authorities,
    /// Revocation lists.
    Revocations,
}

impl Kind {
    /// How it is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Authorities => "authorities",
            Self::Revocations => "revocations",
        }
    }

    /// What it is, for a human.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Identity => "a private key with its certificate",
            Self::Authorities => "certificates of authorities, without a key",
            Self::Revocations => "revocation lists",
        }
    }
}

/// A bundle that can be used. Its key is neither shown nor described.
pub struct Bundle {
    key: Option<Key>,
    certificates: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle({})", self.kind().as_str())
    }
}

impl Bundle {
    /// Reads PEM (RFC 7468): sections in any order, text around them.
    ///
    /// # Errors
    /// The reason, for a human, with nothing of a key in it.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        judge::judge(pem::read(within_bounds(text)?)?)
    }

    /// Reads PKCS #12 (RFC 7292), with the password that it was made with, if any.
    ///
    /// # Errors
    /// The reason, for a human, with nothing of a key or the password in it.
    pub fn from_pkcs12(der: &[u8], password: Option<&str>) -> Result<Self, String> {
        judge::judge(pkcs12::read(within_bounds(der)?, password, pkcs12::MAX_ITERATIONS)?)
    }

    /// The key of an identity, as what signs with it.
    pub fn signing_key(&self) -> Option<&Arc<dyn SigningKey>> {
        self.key.as_ref().map(|key| &key.signing)
    }

    /// The certificates: of an identity its own first, then its issuers in order.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The revocation lists.
    pub fn lists(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.lists
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match (&self.key, self.certificates.is_empty()) {
            (Some(_), _) => Kind::Identity,
            (None, false) => Kind::Authorities,
            (None, true) => Kind::Revocations,
        }
    }

    /// The one form in which it is kept: the certificate first, then its issuers in order, the key last.
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        pem::write(self.key.as_ref().map(|key| &*key.der), &self.certificates, &self.lists)
    }

    /// When the first of its certificates expires, or the first of its lists is due, in seconds since 1970.
    pub fn expiry(&self) -> Option<i64> {
        let certificates =
            self.certificates.iter().filter_map(|der| Certificate::read(der)?.not_after.unix());
        let lists = self.lists.iter().filter_map(|der| RevocationList::read(der)?.next_update?.unix());
        certificates.chain(lists).min()
    }

    /// What may be told of it.
    pub fn describe(&self) -> Description {
        describe::describe(self)
    }
}

/// Reads a file that a bundle is kept in. Blocks on the disk.
///
/// # Errors
/// When it is not there, cannot be read, or has more than [`MAX_BYTES`].
#[expect(clippy::disallowed_methods, reason = "for threads that may block, as it says")]
pub fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let (file, most) = (File::open(path)?, MAX_BYTES as u64);
    // With room for all of it, and for the read that finds its end: it does not grow out of that, and leaves nothing behind.
    let length = file.metadata()?.len().min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 32));
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Whether this begins as DER and BER do: a SEQUENCE of more than 127 bytes, or of a length that comes at its end. A text may begin with
/// the same letter, `0`, but not go on like that.
pub fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x80..=0x84, ..])
}

fn within_bounds(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("is larger than {} MiB", MAX_BYTES >> 20));
    }
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(bytes)
}

/// A private key.
struct Key {
    der: Zeroizing<PrivateKeyDer<'static>>,
    signing: Arc<dyn SigningKey>,
}

/// What was found, as it was found.
#[derive(Default)]
struct Found {
    keys: Vec<Zeroizing<PrivateKeyDer<'static>>>,
    certificates: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
}

/// Reads arbitrary bytes, for fuzzing: what is taken is written in a form that reads back as the same. The first octet says what
/// they are.
pub fn fuzz(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let read = match kind % 3 {
        0 => Bundle::from_pem(data),
        // Few iterations, so that an input is not slow for the one number in it.
        1 => pkcs12::read(data, None, 5_000).and_then(judge::judge),
        _ => pkcs12::read(data, Some("pass"), 5_000).and_then(judge::judge),
    };
    match read {
        Ok(bundle) => {
            let text = bundle.to_pem();
            let again = Bundle::from_pem(&text).expect("what was written can be read");
            assert_eq!(again.kind(), bundle.kind());
            assert!(again.to_pem() == text, "it is written alike");
            assert_eq!(again.describe(), bundle.describe());
        }
        Err(reason) => assert!(!reason.is_empty() && reason.len() < 400, "{reason}"),
    }
}

#[cfg(test)]
mod tests;
