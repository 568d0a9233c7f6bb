//! Servers whose certificate is not verified (HAProxy `verify none`): members of pools without authorities, and those that are
//! probed. Whoever sits in between could show a certificate of its own, so what they sign with is not verified either, and may be
//! of any kind.

use std::sync::LazyLock;

use rustls::{
    CipherSuite, DigitallySignedStruct, Error, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CipherSuiteCommon, CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Schemes that are offered whether or not there is code to verify them.
const UNVERIFIED: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    // rsa_pss_pss_sha256, 384 and 512 (RFC 8446 section 4.2.3): keys that are for PSS alone.
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

/// Takes any certificate, and whatever was signed.
#[derive(Debug)]
pub(crate) struct TakesAny;

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Every scheme that a server may sign with.
pub(super) fn schemes() -> Vec<SignatureScheme> {
    let mut schemes = aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes();
    schemes.retain(|scheme| !UNVERIFIED.contains(scheme));
    schemes.extend(UNVERIFIED);
    schemes
}

/// Makes the suites of TLS 1.2 take what servers sign with.
pub(crate) fn take_any_signature(provider: &mut CryptoProvider) {
    for suite in &mut provider.cipher_suites {
        if let Some((_, lenient)) = LENIENT.iter().find(|(name, _)| *name == suite.suite()) {
            *suite = SupportedCipherSuite::Tls12(lenient);
        }
    }
}

/// The suites of TLS 1.2, whose ECDSA variants also take Ed448 (RFC 8422 section 5.10).
static LENIENT: LazyLock<Vec<(CipherSuite, Tls12CipherSuite)>> = LazyLock::new(|| {
    let known = aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let of_tls12 = known.filter_map(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => Some((suite.common.suite, signed_anyhow(suite))),
        SupportedCipherSuite::Tls13(_) => None,
    });
    of_tls12.collect()
});

fn signed_anyhow(suite: &Tls12CipherSuite) -> Tls12CipherSuite {
    let mut sign = suite.sign.to_vec();
    if sign.contains(&SignatureScheme::ED25519) {
        sign.push(SignatureScheme::ED448);
    }
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit, .. } = suite.common;
    Tls12CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        prf_provider: suite.prf_provider,
        kx: suite.kx,
        sign: sign.leak(),
        aead_alg: suite.aead_alg,
    }
}
