//! What members are spoken to with.

use std::{fmt, net::IpAddr, sync::Arc};

use amphora_model::PoolTls;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, Tls12Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    Material, Seal, TlsFault, TlsRemark, VerifyError, authorities, certificate, ciphers, groups, identity,
    provider,
    sessions::Sessions,
    unverified,
    verify::{Authorities, Purpose, handshake_schemes, verify_handshake},
};

/// TLS of a pool's members: HAProxy's `server .. ssl crt .. ca-file .. crl-file .. verify .. sni ssl_fc_sni ciphers .. alpn ..`.
#[derive(Clone)]
pub struct ClientContext {
    config: Arc<ClientConfig>,
    identity: [u8; 32],
    remarks: Vec<TlsRemark>,
}

impl fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientContext").field("remarks", &self.remarks).finish_non_exhaustive()
    }
}

impl ClientContext {
    /// From a pool's fields and the material that they name.
    ///
    /// # Errors
    /// What cannot be honoured, each with its field.
    pub fn compile(tls: &PoolTls, material: &dyn Material) -> Result<Self, Vec<TlsFault>> {
        let mut faults = Vec::new();
        let mut note = |fault: TlsFault| faults.push(fault);
        let offer =
            ciphers::offer(&tls.settings).map_err(|(field, reason)| note(TlsFault::new(field, reason))).ok();
        let mut seal = Seal::new("pool");
        seal.add(format!("{:?}", tls.settings).as_bytes());
        let authorities = tls.authorities.as_ref().map(|id| {
            let revocations = tls.revocations.as_ref().map(|id| ("crl_container_ref", id));
            authorities(material, ("ca_tls_container_ref", id), revocations, &mut seal)
                .map_err(&mut note)
                .ok()
        });
        let certificate = tls.client_certificate.as_ref().map(|id| {
            seal.add(b"certificate");
            certificate(material, ("tls_container_ref", id), &mut seal).map_err(&mut note).ok()
        });
        let (Some(offer), true) = (offer, faults.is_empty()) else { return Err(faults) };

        let mut provider = provider(&offer, groups::TO_MEMBERS);
        let verifier: Arc<dyn ServerCertVerifier> = match authorities.flatten() {
            Some(authorities) => Arc::new(ServerVerifier(authorities)),
            None => {
                unverified::take_any_signature(&mut provider);
                Arc::new(unverified::TakesAny)
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&offer.versions)
            .map_err(|error| vec![TlsFault::new("tls_versions", error.to_string())])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate.flatten() {
            None => builder.with_no_client_auth(),
            Some(key) => builder.with_client_cert_resolver(Arc::new(AlwaysThis(key))),
        };
        config.alpn_protocols = tls.settings.alpn.iter().map(|name| name.as_str().into()).collect();
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), identity: seal.finish(), remarks: offer.remarks })
    }

    /// The context for one member, which resumes its own sessions.
    pub fn member(&self) -> MemberContext {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(Arc::new(Sessions::new()))
            .tls12_resumption(Tls12Resumption::SessionIdOrTickets);
        MemberContext { config: Arc::new(config) }
    }

    /// Equal for contexts that are made of the same: a connection of one may carry what is for the other.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// What the document asks for that is left out, for the status.
    pub fn remarks(&self) -> &[TlsRemark] {
        &self.remarks
    }
}

/// TLS of one member.
#[derive(Clone)]
pub struct MemberContext {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for MemberContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemberContext")
    }
}

impl MemberContext {
    /// A connection with the member at this address for a client that has named `sni`: the member is asked for the same name
    /// (HAProxy `sni ssl_fc_sni`), and with authorities its certificate must be for it. Without a name none is sent, and any that
    /// the authorities have signed is taken.
    ///
    /// # Errors
    /// None that could come about.
    #[cfg(test)]
    pub(super) fn connect(
        &self,
        address: IpAddr,
        sni: Option<&str>,
    ) -> Result<rustls::ClientConnection, Error> {
        rustls::ClientConnection::new(Arc::clone(&self.config), Self::name(address, sni))
    }

    /// What connections are made with.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name for rustls: that of an address is not sent (RFC 6066 section 3).
    pub fn name(address: IpAddr, sni: Option<&str>) -> ServerName<'static> {
        let named = sni.and_then(|sni| ServerName::try_from(sni.to_owned()).ok());
        named
            .filter(|name| matches!(name, ServerName::DnsName(_)))
            .unwrap_or(ServerName::IpAddress(address.into()))
    }
}

/// Shows a certificate to whoever asks for one, whatever authorities it names, as OpenSSL does.
#[derive(Debug)]
struct AlwaysThis(Arc<CertifiedKey>);

impl ResolvesClientCert for AlwaysThis {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// `verify required` with a `ca-file`.
#[derive(Debug)]
struct ServerVerifier(Authorities);

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify(end_entity, intermediates, Purpose::Server, now)?;
        if let ServerName::DnsName(name) = name {
            let hosts = identity::hosts(end_entity);
            if !hosts.iter().any(|pattern| is_for_host(pattern, name.as_ref())) {
                return Err(VerifyError::HostnameMismatch.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_schemes()
    }
}

/// `ssl_sock_srv_hostcheck` of HAProxy: one `*` within the first label stands for any part of it (RFC 6125
/// section 6.4.3).
fn is_for_host(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some((first, rest)), Some((label, domain))) = (pattern.split_once('.'), host.split_once('.')) else {
        return false;
    };
    let Some((before, after)) = first.split_once('*').filter(|(_, after)| !after.contains('*')) else {
        return false;
    };
    let begins = |text: &str, with: &str| {
        text.get(..with.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    let ends = |text: &str, with: &str| {
        let start = text.len().checked_sub(with.len());
        start.and_then(|start| text.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(with))
    };
    rest.eq_ignore_ascii_case(domain)
        && label.len() + 1 >= first.len()
        && begins(label, before)
        && ends(label, after)
}

#[cfg(test)]
mod tests;
