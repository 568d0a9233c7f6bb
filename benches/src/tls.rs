//! Certificates and TLS configurations: an authority, certificates with keys of both kinds that it has issued, clients
//! that resume or do not, and members.

use std::{fmt, fs, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};

use crate::Result;

/// The name that all certificates are for.
pub const NAME: &str = "bench.example";

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA with P-256.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

/// The application protocols that a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
}

/// An authority and what it has issued.
pub struct Identities {
    authority: CertifiedIssuer<'static, KeyPair>,
    ecdsa: Identity,
    rsa: Identity,
}

#[derive(Debug)]
struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// The certificate and its key.
    pem: String,
}

/// What is asked for: the one suite that HAProxy, nginx and this proxy all have and would choose, and the curve that
/// OpenSSL 3.0 prefers. It has no X25519MLKEM768, so that nobody is asked for it.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    provider
}

impl Identities {
    /// New ones.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        Ok(Self {
            ecdsa: issue(&authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?,
            rsa: issue(&authority, KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)?,
            authority,
        })
    }

    fn of(&self, key: Key) -> &Identity {
        match key {
            Key::Ecdsa => &self.ecdsa,
            Key::Rsa => &self.rsa,
        }
    }

    /// A certificate with its key, as one file has them.
    pub fn pem(&self, key: Key) -> &str {
        &self.of(key).pem
    }

    /// The authority's certificate.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Another certificate with another key of ECDSA, as one file has them, and the certificate alone.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn renewed(&self) -> Result<(String, CertificateDer<'static>)> {
        let identity = issue(&self.authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        Ok((identity.pem, identity.certificate))
    }

    /// Writes `authority.pem`, `ecdsa.pem` and `rsa.pem`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let authority = self.authority();
        for (name, text) in
            [("authority", &*authority), ("ecdsa", self.pem(Key::Ecdsa)), ("rsa", self.pem(Key::Rsa))]
        {
            fs::write(directory.join(name).with_extension("pem"), text)?;
        }
        Ok(())
    }

    /// A client that checks everything, and resumes nothing.
    ///
    /// # Errors
    /// When rustls cannot do what is asked for.
    pub fn strict_client(&self, offer: Offer) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        let config = ClientConfig::builder_with_provider(provider().into())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(finish(config, offer))
    }

    /// A client for load: it looks whether the certificate is one of these, and believes the signatures, so that it has
    /// time to keep the other side busy.
    ///
    /// # Errors
    /// When rustls cannot do what is asked for.
    pub fn client(&self, offer: Offer) -> Result<Arc<ClientConfig>> {
        let known = Known([self.ecdsa.certificate.clone(), self.rsa.certificate.clone()]);
        let config = ClientConfig::builder_with_provider(provider().into())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(known))
            .with_no_client_auth();
        Ok(finish(config, offer))
    }

    /// A member that speaks HTTP/1.1.
    ///
    /// # Errors
    /// When rustls cannot use the certificate.
    pub fn member(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::try_from(self.ecdsa.key.clone())?;
        let mut config = ServerConfig::builder_with_provider(provider().into())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.ecdsa.certificate.clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config.into())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

fn issue(authority: &CertifiedIssuer<'_, KeyPair>, key: KeyPair) -> Result<Identity> {
    let mut parameters = CertificateParams::new([NAME.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, NAME);
    let certificate = parameters.signed_by(&key, authority)?;
    let pem = certificate.pem() + &key.serialize_pem();
    Ok(Identity { certificate: certificate.der().clone(), key: key.serialize_der(), pem })
}

fn finish(mut config: ClientConfig, offer: Offer) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![match offer {
        Offer::Http1 => b"http/1.1".to_vec(),
        Offer::Http2 => b"h2".to_vec(),
    }];
    config.resumption = Resumption::disabled();
    config.into()
}

/// Certificates that are accepted as they are.
#[derive(Debug)]
struct Known([CertificateDer<'static>; 2]);

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.0.iter().any(|known| known == end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("a certificate of somebody else".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
