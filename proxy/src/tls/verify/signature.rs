//! Signatures, verified by the algorithms that rustls has from aws-lc.

use std::sync::LazyLock;

pub(super) use amphora_bundle::is_signed;
use amphora_x509::{AlgorithmIdentifier, Certificate, PublicKey};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);

fn fits(algorithm: &dyn SignatureVerificationAlgorithm, key: &PublicKey<'_>) -> bool {
    algorithm.public_key_alg_id().as_ref() == key.algorithm.content
}

/// The schemes that a peer may sign its handshake with.
pub(crate) fn handshake_schemes() -> Vec<SignatureScheme> {
    ALGORITHMS.supported_schemes()
}

/// Whether the key of a certificate, of whatever version, has signed a handshake. In TLS 1.3 a scheme says the curve (RFC 8446
/// section 4.2.3), in TLS 1.2 the digest alone.
///
/// # Errors
/// It has not: the alert is `decrypt_error`.
pub(crate) fn verify_handshake(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    tls13: bool,
) -> Result<HandshakeSignatureValid, Error> {
    let wrong = || Error::from(CertificateError::BadSignature);
    let certificate = Certificate::read(certificate).ok_or_else(wrong)?;
    let unadvertised = || Error::from(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme);
    let pkcs1 = matches!(
        signed.scheme,
        SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
    );
    if tls13 && pkcs1 {
        return Err(unadvertised());
    }
    let (_, candidates) =
        ALGORITHMS.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme).ok_or_else(unadvertised)?;
    let candidates = if tls13 { &candidates[..1] } else { candidates };
    let algorithm =
        candidates.iter().find(|known| fits(**known, &certificate.public_key)).ok_or_else(wrong)?;
    algorithm
        .verify_signature(certificate.public_key.key, message, signed.signature())
        .map_err(|_| wrong())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Whether a key has the security that OpenSSL's level 2 asks for: 112 bits.
pub(super) fn is_strong(key: &PublicKey<'_>) -> bool {
    key.rsa_bits().is_none_or(|bits| bits >= 2048)
}

/// Whether what is signed is a digest that collisions are found for in less than 112 bits of work.
pub(super) fn is_weak(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    WEAK.contains(&algorithm.oid)
}

const WEAK: &[&[u8]] = &[
    // md2, md5 and sha1 WithRSAEncryption: 1.2.840.113549.1.1.{2,4,5}
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 2],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
    // sha1WithRSA of OIW, 1.3.14.3.2.29
    &[0x2b, 0x0e, 3, 2, 0x1d],
    // ecdsa-with-SHA1, 1.2.840.10045.4.1
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1],
    // dsa-with-sha1, 1.2.840.10040.4.3
    &[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3],
];
