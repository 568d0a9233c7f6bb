//! What PKCS #12 is encrypted and signed with: PBES2 and PBMAC1 (RFC 8018, RFC 9579), and the schemes of RFC 7292 appendix B and C,
//! which OpenSSL before 3 and Windows still write.

use std::num::NonZeroU32;

use amphora_x509::{Reader, tag};
use aws_lc_rs::{
    cipher::{AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    digest::{self, Context},
    hmac, pbkdf2,
};
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7},
};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;
use zeroize::Zeroizing;

use super::{Mac, NOT_IN_ITS_FORM};

const WRONG_PASSWORD: &str = "is PKCS #12 with another password, or is damaged";

/// 1.2.840.113549.1.5, and one more.
const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5];
/// 1.2.840.113549.1.12.1, and one more.
const PKCS12: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1];
/// 1.2.840.113549.2, and one more.
const HMACS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2];
/// 2.16.840.1.101.3.4, and two more: AES and SHA-2.
const NIST: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4];
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
const SCRYPT: &[u8] = &[0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 11];

/// An algorithm with its parameters.
#[derive(Clone, Copy)]
pub(super) struct Algorithm<'a> {
    oid: &'a [u8],
    parameters: Reader<'a>,
}

impl<'a> Algorithm<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut inside = reader.enter(tag::SEQUENCE)?;
        let oid = inside.expect(tag::OBJECT_IDENTIFIER)?.content;
        Some(Self { oid, parameters: inside })
    }
}

/// An INTEGER that is at least 1 and fits.
pub(super) fn positive(content: &[u8]) -> Option<u32> {
    let significant = content.iter().position(|octet| *octet != 0)?;
    let octets = &content[significant..];
    if content[0] & 0x80 != 0 || octets.len() > 4 {
        return None;
    }
    Some(octets.iter().fold(0, |number, octet| number << 8 | u32::from(*octet)))
}

/// What deriving keys may still cost.
pub(super) struct Work {
    left: u32,
}

impl Work {
    pub(super) fn new(iterations: u32) -> Self {
        Self { left: iterations }
    }

    fn spend(&mut self, iterations: u32) -> Result<(), String> {
        let left = self.left.checked_sub(iterations);
        self.left = left.ok_or("is PKCS #12 whose keys take too many iterations")?;
        Ok(())
    }
}

/// A password in both its forms: UTF-8 for PKCS #5, big-endian UTF-16 with a zero at its end for PKCS #12.
pub(super) struct Password {
    utf8: Zeroizing<Vec<u8>>,
    bmp: Zeroizing<Vec<u8>>,
}

impl Password {
    pub(super) fn new(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        Self { utf8: text.as_bytes().to_vec().into(), bmp: bmp(text).into() }
    }

    /// No password at all, which some write for an empty one.
    fn none() -> Self {
        Self { utf8: Vec::new().into(), bmp: Vec::new().into() }
    }
}

fn bmp(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect()
}

#[derive(Clone, Copy)]
struct Hash {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: Option<pbkdf2::Algorithm>,
}

const SHA1_HASH: Hash = Hash {
    digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
    hmac: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    pbkdf2: Some(pbkdf2::PBKDF2_HMAC_SHA1),
};

/// SHA-2 by its last arc below 2.16.840.1.101.3.4.2.
fn sha2(arc: u8) -> Option<Hash> {
    let (digest, hmac, pbkdf2) = match arc {
        1 => (&digest::SHA256, hmac::HMAC_SHA256, Some(pbkdf2::PBKDF2_HMAC_SHA256)),
        2 => (&digest::SHA384, hmac::HMAC_SHA384, Some(pbkdf2::PBKDF2_HMAC_SHA384)),
        3 => (&digest::SHA512, hmac::HMAC_SHA512, Some(pbkdf2::PBKDF2_HMAC_SHA512)),
        4 => (&digest::SHA224, hmac::HMAC_SHA224, None),
        _ => return None,
    };
    Some(Hash { digest, hmac, pbkdf2 })
}

fn hash(oid: &[u8]) -> Option<Hash> {
    match oid.strip_prefix(NIST) {
        Some([2, arc]) => sha2(*arc),
        _ => (oid == SHA1).then_some(SHA1_HASH),
    }
}

/// `hmacWithSHA1` and its like.
fn hmac_hash(oid: &[u8]) -> Option<Hash> {
    match oid.strip_prefix(HMACS)? {
        [7] => Some(SHA1_HASH),
        [8] => sha2(4),
        [9] => sha2(1),
        [10] => sha2(2),
        [11] => sha2(3),
        _ => None,
    }
}

/// Verifies what signs the file, and says by which form of the password: an empty one may be none.
///
/// # Errors
/// It is another password, or the file is damaged.
pub(super) fn verify(
    mac: &Mac<'_>,
    safe: &[u8],
    password: Password,
    work: &mut Work,
) -> Result<Password, String> {
    if mac.algorithm.oid.strip_prefix(PKCS5) == Some(&[14]) {
        return verify_pbmac1(mac, safe, &password, work).map(|()| password);
    }
    let Some(hash) = hash(mac.algorithm.oid) else {
        return Err("is PKCS #12 that is signed by a hash that is not SHA-1 or SHA-2".to_owned());
    };
    let verifies = |password: &Password, work: &mut Work| {
        work.spend(mac.iterations)?;
        let size = hash.digest.output_len();
        let key = derive(hash.digest, MAC_KEY, &password.bmp, mac.salt, mac.iterations, size);
        let key = hmac::Key::new(hash.hmac, &key);
        Ok::<_, String>(hmac::verify(&key, safe, mac.digest).is_ok())
    };
    if verifies(&password, work)? {
        return Ok(password);
    }
    let none = Password::none();
    if password.utf8.is_empty() && verifies(&none, work)? {
        return Ok(none);
    }
    Err(WRONG_PASSWORD.to_owned())
}

fn verify_pbmac1(mac: &Mac<'_>, safe: &[u8], password: &Password, work: &mut Work) -> Result<(), String> {
    let parsed = || {
        let mut parameters = mac.algorithm.parameters.clone().enter(tag::SEQUENCE)?;
        let derivation = Algorithm::read(&mut parameters)?;
        let scheme = hmac_hash(Algorithm::read(&mut parameters)?.oid)?;
        Some((derivation, scheme))
    };
    let (derivation, scheme) = parsed().ok_or(NOT_IN_ITS_FORM)?;
    let key = pbkdf2_key(&derivation, password, None, work)?;
    hmac::verify(&hmac::Key::new(scheme.hmac, &key), safe, mac.digest).map_err(|_| WRONG_PASSWORD.to_owned())
}

/// Decrypts what a password protects.
///
/// # Errors
/// It is another password, the scheme is not known, or the data are damaged.
pub(super) fn decrypt(
    algorithm: &Algorithm<'_>,
    data: &[u8],
    password: &Password,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, String> {
    if algorithm.oid.strip_prefix(PKCS5) == Some(&[13]) {
        return pbes2(algorithm.parameters, data, password, work);
    }
    let Some(&[scheme]) = algorithm.oid.strip_prefix(PKCS12) else {
        return Err("is PKCS #12 that is encrypted by a scheme that is not known".to_owned());
    };
    let parsed = || {
        let mut parameters = algorithm.parameters.clone().enter(tag::SEQUENCE)?;
        let salt = parameters.expect(tag::OCTET_STRING)?.content;
        Some((salt, positive(parameters.expect(tag::INTEGER)?.content)?))
    };
    let (salt, iterations) = parsed().ok_or(NOT_IN_ITS_FORM)?;
    // pbeWithSHAAnd3-KeyTripleDES-CBC and its like, RFC 7292 appendix C.
    let size = match scheme {
        3 => 24,
        4 | 5 => 16,
        6 => 5,
        _ => return Err("is PKCS #12 that is encrypted with RC4; make it again with AES".to_owned()),
    };
    work.spend(iterations.saturating_mul(2))?;
    let derive = |purpose, size| derive(SHA1_HASH.digest, purpose, &password.bmp, salt, iterations, size);
    let (key, iv) = (derive(CIPHER_KEY, size), derive(CIPHER_IV, 8));
    match scheme {
        3 => cbc_decrypt::<Decryptor<TdesEde3>>(&key, &iv, data),
        4 => cbc_decrypt::<Decryptor<TdesEde2>>(&key, &iv, data),
        // As many bits count as the key has.
        _ => cbc_decrypt::<Decryptor<Rc2>>(&key, &iv, data),
    }
}

fn cbc_decrypt<D: BlockModeDecrypt + KeyIvInit>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, String> {
    let decryptor = D::new_from_slices(key, iv).map_err(|_| NOT_IN_ITS_FORM.to_owned())?;
    decryptor.decrypt_padded_vec::<Pkcs7>(data).map(Into::into).map_err(|_| WRONG_PASSWORD.to_owned())
}

/// PBES2 (RFC 8018 section 6.2).
fn pbes2(
    parameters: Reader<'_>,
    data: &[u8],
    password: &Password,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let parsed = || {
        let mut parameters = parameters.clone().enter(tag::SEQUENCE)?;
        let derivation = Algorithm::read(&mut parameters)?;
        let mut encryption = Algorithm::read(&mut parameters)?;
        let iv = encryption.parameters.expect(tag::OCTET_STRING)?.content;
        Some((derivation, encryption.oid, iv))
    };
    let (derivation, encryption, iv) = parsed().ok_or(NOT_IN_ITS_FORM)?;
    if encryption == DES_EDE3_CBC {
        let key = pbkdf2_key(&derivation, password, Some(24), work)?;
        return cbc_decrypt::<Decryptor<TdesEde3>>(&key, iv, data);
    }
    let (cipher, size) = match encryption.strip_prefix(NIST) {
        Some([1, 2]) => (&AES_128, 16),
        Some([1, 22]) => (&AES_192, 24),
        Some([1, 42]) => (&AES_256, 32),
        _ => {
            return Err(
                "is PKCS #12 that is encrypted by a cipher that is not known; there is AES in CBC".to_owned()
            );
        }
    };
    let key = pbkdf2_key(&derivation, password, Some(size), work)?;
    let iv: [u8; 16] = iv.try_into().map_err(|_| NOT_IN_ITS_FORM.to_owned())?;
    let decrypted = || {
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(cipher, &key).ok()?).ok()?;
        let mut data = Zeroizing::new(data.to_vec());
        let size = key.decrypt(&mut data, DecryptionContext::Iv128(iv.into())).ok()?.len();
        data.truncate(size);
        Some(data)
    };
    decrypted().ok_or_else(|| WRONG_PASSWORD.to_owned())
}

/// PBKDF2 (RFC 8018 section 5.2). `size` is what the cipher needs; without it the parameters must say.
fn pbkdf2_key(
    derivation: &Algorithm<'_>,
    password: &Password,
    size: Option<usize>,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, String> {
    match derivation.oid.strip_prefix(PKCS5) {
        Some([12]) => {}
        _ if derivation.oid == SCRYPT => {
            return Err("is PKCS #12 whose keys are made with scrypt; there is PBKDF2".to_owned());
        }
        _ => return Err(NOT_IN_ITS_FORM.to_owned()),
    }
    let parsed = || {
        let mut parameters = derivation.parameters.clone().enter(tag::SEQUENCE)?;
        let salt = parameters.expect(tag::OCTET_STRING)?.content;
        let iterations = positive(parameters.expect(tag::INTEGER)?.content)?;
        let told = match parameters.optional(tag::INTEGER) {
            None => None,
            Some(number) => Some(positive(number.content)? as usize),
        };
        let hash = match parameters.is_empty() {
            true => SHA1_HASH,
            false => hmac_hash(Algorithm::read(&mut parameters)?.oid)?,
        };
        let size = match (size, told) {
            (Some(size), None) => size,
            (Some(size), Some(told)) => (size == told).then_some(size)?,
            (None, told) => told.filter(|size| *size <= 64)?,
        };
        Some((salt, NonZeroU32::new(iterations)?, size, hash.pbkdf2?))
    };
    let (salt, iterations, size, algorithm) = parsed().ok_or(NOT_IN_ITS_FORM)?;
    work.spend(iterations.get())?;
    let mut key = Zeroizing::new(vec![0; size]);
    pbkdf2::derive(algorithm, iterations, salt, &password.utf8, &mut key);
    Ok(key)
}

/// What is derived, RFC 7292 appendix B.3.
const CIPHER_KEY: u8 = 1;
const CIPHER_IV: u8 = 2;
const MAC_KEY: u8 = 3;

/// RFC 7292 appendix B.2.
fn derive(
    algorithm: &'static digest::Algorithm,
    purpose: u8,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    size: usize,
) -> Zeroizing<Vec<u8>> {
    let block = algorithm.block_len();
    let filled = |text: &[u8]| text.len().div_ceil(block) * block;
    let mut input = Zeroizing::new(Vec::with_capacity(filled(salt) + filled(password)));
    for text in [salt, password] {
        input.extend(text.iter().copied().cycle().take(filled(text)));
    }
    let mut output = Zeroizing::new(Vec::with_capacity(size + algorithm.output_len()));
    while output.len() < size {
        let mut context = Context::new(algorithm);
        context.update(&vec![purpose; block]);
        context.update(&input);
        let mut hashed = context.finish();
        for _ in 1..iterations {
            hashed = digest::digest(algorithm, hashed.as_ref());
        }
        output.extend_from_slice(hashed.as_ref());
        let addend: Vec<u8> = hashed.as_ref().iter().copied().cycle().take(block).collect();
        for chunk in input.chunks_mut(block) {
            let mut carry = 1;
            for (octet, addend) in chunk.iter_mut().zip(&addend).rev() {
                let sum = u16::from(*octet) + u16::from(*addend) + carry;
                *octet = sum as u8;
                carry = sum >> 8;
            }
        }
    }
    output.truncate(size);
    output
}
