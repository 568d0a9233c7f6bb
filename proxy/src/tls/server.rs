//! What a listener terminates TLS with.

use std::{fmt, sync::Arc};

use amphora_model::{CertificateId, ListenerId, ListenerTls};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::{
        Accepted, NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    Material, Seal, TicketKeys, TlsFault, TlsRemark, authorities, certificate,
    ciphers::{self, Offer},
    groups, identity, provider,
    sni::Certificates,
    tickets::{LIFETIME, Tickets, VERIFIED_LIFETIME},
    verify::{Authorities, Purpose, handshake_schemes, verify_handshake},
};

/// TLS of a listener: HAProxy's `bind .. ssl crt-list .. ca-file .. verify .. crl-file .. ciphers .. alpn ..`.
#[derive(Clone)]
pub struct ServerContext {
    usual: Configs,
    /// For a client that would rather have ChaCha20, for want of instructions for AES.
    chacha: Configs,
    /// Whether TLS 1.3 is offered.
    newest: bool,
    identity: [u8; 32],
    admission: [u8; 32],
    remarks: Vec<TlsRemark>,
    expiry: Vec<(CertificateId, i64)>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContext").field("remarks", &self.remarks).finish_non_exhaustive()
    }
}

/// What is served with, and the same for a client whose ALPN has nothing of the listener's: it is served without, as by HAProxy.
#[derive(Clone)]
struct Configs {
    with_alpn: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
}

impl ServerContext {
    /// From a listener's fields and the material that they name. Tickets are made with `keys`.
    ///
    /// # Errors
    /// What cannot be honoured, each with its field.
    pub fn compile(
        listener: ListenerId,
        tls: &ListenerTls,
        material: &dyn Material,
        keys: &Arc<TicketKeys>,
    ) -> Result<Self, Vec<TlsFault>> {
        let mut faults = Vec::new();
        let mut note = |fault: TlsFault| faults.push(fault);
        let offer =
            ciphers::offer(&tls.settings).map_err(|(field, reason)| note(TlsFault::new(field, reason))).ok();

        // What a ticket holds for: who clients are, as it was found out when the session began.
        let mut seal = Seal::new("client authentication");
        seal.add(listener.to_string().as_bytes());
        let client_authentication = tls.client_authentication.as_ref().map(|wanted| {
            seal.add(if wanted.mandatory { b"mandatory" } else { b"optional" });
            let revocations = wanted.revocations.as_ref().map(|id| ("client_crl_container_ref", id));
            let ca = ("client_ca_tls_container_ref", &wanted.authorities);
            Some((
                wanted.mandatory,
                authorities(material, ca, revocations, &mut seal).map_err(&mut note).ok()?,
            ))
        });
        let scope = seal.finish();
        let mut seal = Seal::new("admission");
        seal.add(&scope);
        seal.add(format!("{:?}", tls.settings).as_bytes());
        let admission = seal.finish();

        let mut seal = Seal::new("listener");
        seal.add(&scope);
        seal.add(format!("{:?}", tls.settings).as_bytes());
        let default = ("default_tls_container_ref", &tls.certificate);
        let named = || {
            std::iter::once(default).chain(tls.sni_certificates.iter().map(|id| ("sni_container_refs", id)))
        };
        let identities: Vec<_> = named()
            .filter_map(|named| certificate(material, named, &mut seal).map_err(&mut note).ok())
            .collect();
        let (Some(offer), true, Some((default, others))) =
            (offer, faults.is_empty(), identities.split_first())
        else {
            return Err(faults);
        };

        let (verifier, lifetime) = match client_authentication.flatten() {
            None => (WebPkiClientVerifier::no_client_auth(), LIFETIME),
            Some((mandatory, authorities)) => {
                let verifier: Arc<dyn ClientCertVerifier> =
                    Arc::new(ClientVerifier::new(authorities, mandatory));
                (verifier, VERIFIED_LIFETIME)
            }
        };
        let certificates = Arc::new(Certificates::new(Arc::clone(default), others, &offer.suites));
        let unusable = certificates.without_suite();
        let unusable = named()
            .zip(&identities)
            .filter(|(_, key)| unusable.contains(&Arc::as_ptr(key)))
            .map(|((_, id), _)| id);
        let mut expiry: Vec<(CertificateId, i64)> = Vec::new();
        for ((_, id), key) in named().zip(&identities) {
            if let Some(until) = identity::expiry(key)
                && !expiry.iter().any(|(known, _)| known == id)
            {
                expiry.push((id.clone(), until));
            }
        }
        let mut remarks = offer.remarks.clone();
        remarks.extend(ciphers::of_no_use(unusable, &offer));
        let tickets = Arc::new(Tickets::new(Arc::clone(keys), scope, lifetime));
        let configs = |offer: &Offer| -> Result<Configs, Vec<TlsFault>> {
            let provider = Arc::new(provider(offer, groups::TO_CLIENTS));
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&offer.versions)
                .map_err(|error| vec![TlsFault::new("tls_versions", error.to_string())])?
                .with_client_cert_verifier(Arc::clone(&verifier))
                .with_cert_resolver(certificates.clone());
            config.ignore_client_order = true;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.ticketer = tickets.clone();
            // Not what is taken: with tickets that nobody here remembers, rustls neither offers nor takes any.
            config.max_early_data_size = MOST_REJECTED_EARLY_DATA;
            let without_alpn = Arc::new(config.clone());
            config.alpn_protocols = tls.settings.alpn.iter().map(|name| name.as_str().into()).collect();
            Ok(Configs { with_alpn: Arc::new(config), without_alpn })
        };
        let usual = configs(&offer)?;
        let mut suites = offer.suites.clone();
        suites.sort_by_key(|suite| !is_chacha(&suite.suite()));
        let chacha =
            if suites == offer.suites { usual.clone() } else { configs(&Offer { suites, ..offer.clone() })? };
        let newest = offer.versions.contains(&&TLS13);
        Ok(Self { usual, chacha, newest, identity: seal.finish(), admission, remarks, expiry, verifier })
    }

    /// A connection with a client that has not said anything yet.
    ///
    /// A client whose ALPN has no protocol of the listener's is refused then, as RFC 7301 section 3.2 says; to serve it as
    /// HAProxy does, read its hello with a [`rustls::server::Acceptor`] and ask [`config_for`](Self::config_for).
    ///
    /// # Errors
    /// None that could come about.
    #[cfg(test)]
    pub(super) fn accept(&self) -> Result<rustls::ServerConnection, Error> {
        rustls::ServerConnection::new(Arc::clone(&self.usual.with_alpn))
    }

    /// What a client is served with that has said this. The listener's order of suites decides, but for a client that puts
    /// ChaCha20 first, as with OpenSSL's `SSL_OP_PRIORITIZE_CHACHA`, which HAProxy sets.
    pub fn config_for(&self, hello: &Accepted) -> Arc<ServerConfig> {
        let hello = hello.client_hello();
        let first = hello.cipher_suites().iter().find(|suite| !is_no_suite(suite));
        let configs = if first.is_some_and(is_chacha) { &self.chacha } else { &self.usual };
        let ours = |theirs: &[u8]| configs.with_alpn.alpn_protocols.iter().any(|ours| ours == theirs);
        let agreed = hello.alpn().is_none_or(|mut offered| offered.any(ours));
        Arc::clone(if agreed { &configs.with_alpn } else { &configs.without_alpn })
    }

    /// Whether a client that has said this must not be served with TLS 1.2: it says that it tries less than it knows because more
    /// has failed (RFC 7507), which somebody in between may have seen to.
    pub fn is_fallback(&self, hello: &Accepted) -> bool {
        self.newest && hello.client_hello().cipher_suites().iter().any(|suite| u16::from(*suite) == FALLBACK)
    }

    /// What a client is known by that shows this chain, the own certificate first; `None` if it is not asked for one, whatever it has.
    ///
    /// # Errors
    /// Why the handshake with it fails.
    pub fn admits<'a>(
        &self,
        chain: &'a [CertificateDer<'a>],
        now: UnixTime,
    ) -> Result<Option<&'a CertificateDer<'a>>, String> {
        if !self.verifier.offer_client_auth() {
            return Ok(None);
        }
        let Some((leaf, others)) = chain.split_first() else {
            return match self.verifier.client_auth_mandatory() {
                true => Err("the client shows no certificate, and has to".to_owned()),
                false => Ok(None),
            };
        };
        match self.verifier.verify_client_cert(leaf, others, now) {
            Ok(_) => Ok(Some(leaf)),
            Err(error) => Err(format!("the client's certificate is not taken: {error}")),
        }
    }

    /// Equal for contexts that take the same clients: of all that they are made of, what is not shown to clients.
    pub fn admission(&self) -> &[u8; 32] {
        &self.admission
    }

    /// Equal for contexts that are made of the same.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Until when what clients are shown is good, by the ids that the document names it by: when the first of each chain expires, in
    /// seconds since 1970.
    pub fn expiry(&self) -> &[(CertificateId, i64)] {
        &self.expiry
    }

    /// What the document asks for that is left out, for the status.
    pub fn remarks(&self) -> &[TlsRemark] {
        &self.remarks
    }
}

fn is_chacha(suite: &CipherSuite) -> bool {
    // Of TLS 1.2 with ECDHE and with DHE, and of TLS 1.3.
    matches!(u16::from(*suite), 0xcca8..=0xccaa | 0x1303)
}

/// `TLS_FALLBACK_SCSV` (RFC 7507).
const FALLBACK: u16 = 0x5600;

/// Whether it is but said for another purpose: GREASE (RFC 8701), and signaling values (RFC 5746, RFC 7507).
fn is_no_suite(suite: &CipherSuite) -> bool {
    let [high, low] = u16::from(*suite).to_be_bytes();
    (high == low && high & 0x0f == 0x0a) || matches!((high, low), (0x00, 0xff) | (0x56, 0x00))
}

/// Early data that a client may send for nothing, in octets of ciphertext, and be served all the same (RFC 8446 section 4.2.10): one
/// that was here before, when somebody who takes early data had the address, has a ticket that is good for 16 KiB of it with
/// OpenSSL's default. HAProxy passes over as much.
const MOST_REJECTED_EARLY_DATA: u32 = 32 * 1024;

/// `verify optional` and `verify required`.
#[derive(Debug)]
struct ClientVerifier {
    authorities: Authorities,
    mandatory: bool,
    /// Whose certificates clients are told to choose from.
    subjects: Vec<DistinguishedName>,
}

/// Names of authorities that are sent to clients: what they take is limited.
const MAX_SUBJECTS: usize = 32 * 1024;

impl ClientVerifier {
    fn new(authorities: Authorities, mandatory: bool) -> Self {
        let mut subjects: Vec<DistinguishedName> = Vec::new();
        for certificate in authorities.certificates() {
            let subject = DistinguishedName::in_sequence(certificate.subject.content());
            if !subjects.iter().any(|known| known.as_ref() == subject.as_ref()) {
                subjects.push(subject);
            }
        }
        // With none, clients choose by themselves.
        if subjects.iter().map(|subject| subject.as_ref().len() + 2).sum::<usize>() > MAX_SUBJECTS {
            subjects.clear();
        }
        Self { authorities, mandatory, subjects }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.authorities.verify(end_entity, intermediates, Purpose::Client, now)?;
        Ok(ClientCertVerified::assertion())
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

#[cfg(test)]
mod tests;
