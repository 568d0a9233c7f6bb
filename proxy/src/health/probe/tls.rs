//! `TLS-HELLO`: HAProxy's `option ssl-hello-chk`, and the TLS client of `HTTPS` probes.
//!
//! HAProxy greets with an SSL 3.0 hello, to which a present-day server says no more than an alert, and takes that for
//! a pass. The hello here is one of TLS 1.3 and 1.2; an alert passes all the same: there is a TLS server.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::{CheckStatus, Found, connect, drain, http::no_sni, step};
use crate::health::core::Target;

/// Sends a ClientHello; any handshake or alert record that comes back is a pass.
pub(super) async fn hello(target: &Target, deadline: Instant) -> Result<Found, Found> {
    let (late, failed) = (CheckStatus::L6Timeout, CheckStatus::L6Response);
    let mut stream = connect(target, deadline).await?;
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(accept_any(), no_sni(target.address))
        .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))?;
    client.write_tls(&mut hello).map_err(|error| Found::error(CheckStatus::SocketError, &error))?;
    step(deadline, late, failed, stream.write_all(&hello)).await?;
    let mut record = [0; 5];
    step(deadline, late, failed, stream.read_exact(&mut record)).await?;
    drain(&stream);
    match record {
        [ALERT | HANDSHAKE, 3, ..] => Ok(Found::new(CheckStatus::L6Ok)),
        _ => Err(Found::because(failed, "not a TLS record")),
    }
}

/// RFC 8446 section 5.1, `ContentType`.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// A client that takes any certificate (HAProxy `check-ssl verify none`).
pub(super) fn accept_any() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        // A hello that fits one segment: no post-quantum key share for a probe.
        provider.kx_groups =
            vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
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
        // Nothing is verified, so that old members may sign with what they have.
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}
