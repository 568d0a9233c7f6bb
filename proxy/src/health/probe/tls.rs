//! `TLS-HELLO`: HAProxy's `option ssl-hello-chk`, and the TLS client of `HTTPS` probes.
//!
//! HAProxy greets with an SSL 3.0 hello, to which a present-day server says no more than an alert, and takes that for
//! a pass. The hello here is one of TLS 1.3 and 1.2; an alert passes all the same: there is a TLS server.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::{agreement, rand::SystemRandom};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, PeerMisbehaved, SignatureScheme,
    SupportedCipherSuite, Tls12CipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        ActiveKeyExchange, CipherSuiteCommon, CryptoProvider, GetRandomFailed, SharedSecret,
        SupportedKxGroup,
        aws_lc_rs::{self as rustls_aws_lc_rs, kx_group},
    },
    ffdhe_groups::FfdheGroup,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::outcome::{CheckStatus, Found};

/// A handshake to come with the target at this address.
pub(super) fn client(address: IpAddr) -> Result<ClientConnection, Found> {
    // A name that is an address is not sent as SNI (RFC 6066 section 3).
    let name = ServerName::IpAddress(address.into());
    ClientConnection::new(accept_any(), name)
        .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))
}

/// What the first bytes that answer a ClientHello mean; `None` while there are too few of them.
pub(super) fn judge_hello(bytes: &[u8], ended: bool) -> Option<Found> {
    let failed = CheckStatus::L6Response;
    match bytes {
        [ALERT | HANDSHAKE, 3, _, _, _, ..] => Some(Found::new(CheckStatus::L6Ok)),
        [_, _, _, _, _, ..] => Some(Found::because(failed, "not a TLS record")),
        _ if ended => Some(Found::because(failed, "connection closed without an answer")),
        _ => None,
    }
}

/// RFC 8446 section 5.1, `ContentType`.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// A client that takes any certificate (HAProxy `check-ssl verify none`).
pub(super) fn accept_any() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let mut provider = rustls_aws_lc_rs::default_provider();
        // A hello that fits one segment: no post-quantum key share for a probe.
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, &Secp521r1];
        for suite in &mut provider.cipher_suites {
            if let SupportedCipherSuite::Tls12(known) = *suite {
                *suite = SupportedCipherSuite::Tls12(signed_anyhow(known));
            }
        }
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
            .with_no_client_auth();
        // Each probe is to be a handshake of its own.
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        schemes.retain(|scheme| !UNVERIFIED.contains(scheme));
        // Nothing is verified, so that members may sign with what they have.
        schemes.extend(UNVERIFIED);
        schemes
    }
}

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

/// A suite of TLS 1.2 whose ECDSA variants also take Ed448 (RFC 8422 section 5.10). Made once per suite.
fn signed_anyhow(suite: &Tls12CipherSuite) -> &'static Tls12CipherSuite {
    let mut sign = suite.sign.to_vec();
    if sign.contains(&SignatureScheme::ED25519) {
        sign.push(SignatureScheme::ED448);
    }
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit, .. } = suite.common;
    Box::leak(Box::new(Tls12CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        prf_provider: suite.prf_provider,
        kx: suite.kx,
        sign: sign.leak(),
        aead_alg: suite.aead_alg,
    }))
}

/// Ephemeral ECDH on P-521, which rustls does not bring along.
#[derive(Debug)]
struct Secp521r1;

impl SupportedKxGroup for Secp521r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let random = |_| rustls::Error::from(GetRandomFailed);
        let private = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P521, &SystemRandom::new());
        let private = private.map_err(random)?;
        let public = private.compute_public_key().map_err(random)?;
        Ok(Box::new(Secp521r1Exchange { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Secp521r1Exchange {
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl ActiveKeyExchange for Secp521r1Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let wrong = rustls::Error::from(PeerMisbehaved::InvalidKeyShare);
        // Uncompressed points alone (RFC 8446 section 4.2.8.2).
        if peer.first() != Some(&4) {
            return Err(wrong);
        }
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P521, peer);
        agreement::agree_ephemeral(self.private, peer, wrong, |secret| Ok(SharedSecret::from(secret)))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }
}
