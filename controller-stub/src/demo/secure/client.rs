//! How the demo's clients speak TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::{Error, Result};

/// HTTP/2 in ALPN (RFC 9113, section 3.2).
pub(in crate::demo) const H2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN (RFC 7301, section 6).
pub(in crate::demo) const HTTP11: &[u8] = b"http/1.1";

/// A handshake without an end for this long failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a client does in its handshakes.
#[derive(Clone, Copy, Debug)]
pub(in crate::demo) struct Manner {
    /// Protocols of ALPN, the best first.
    pub(in crate::demo) alpn: &'static [&'static [u8]],
    /// It resumes sessions where it can.
    pub(in crate::demo) resumes: bool,
    /// It does not mind for which host a certificate is, as long as the authority has signed it.
    pub(in crate::demo) any_host: bool,
    /// TLS 1.2 and no newer.
    pub(in crate::demo) old: bool,
}

impl Default for Manner {
    /// HTTP/1.1, in a full handshake each time.
    fn default() -> Self {
        Self { alpn: &[HTTP11], resumes: false, any_host: false, old: false }
    }
}

impl Manner {
    /// The client that behaves so, and trusts `roots`.
    ///
    /// # Errors
    /// [`Error::Local`]: rustls does not take it.
    pub(in crate::demo) fn config(self, roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>> {
        let failed = |e: &dyn std::fmt::Display| Error::local("TLS", e);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = [if self.old { &TLS12 } else { &TLS13 }];
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| failed(&e))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|e| failed(&e))?;
        let mut config = if self.any_host {
            let verifier = Arc::new(AnyHost(verifier));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        if !self.resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }
}

/// Connects, and shakes hands. `None` names no host: there is no SNI then.
///
/// # Errors
/// Whatever the connection or the handshake fails for.
pub(in crate::demo) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    host: Option<&str>,
) -> io::Result<TlsStream<TcpStream>> {
    // An address is never sent as SNI (RFC 6066, section 3).
    let name = match host {
        Some(host) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    timeout(PATIENCE, async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config.clone()).connect(name, stream).await
    })
    .await?
}

/// Verifies all but the name.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is what rustls looks at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
