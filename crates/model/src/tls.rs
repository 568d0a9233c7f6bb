//! TLS of listeners and pools: which certificates, versions, ciphers and protocols.
//!
//! What is here is what a document can say. Certificates, lists of authorities and of revocations are named by their
//! [`CertificateId`]; what they contain is kept beside the document. Whether it, and every cipher, can be honoured is found out
//! when the load balancer is compiled.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{ListenerId, LoadBalancer, PoolId, enums::octavia_enum};

/// The id of something that is kept beside the document: a key with its certificates, a list of authorities, or a list of
/// revocations.
///
/// A letter or digit, then at most 127 letters, digits, dots, underscores and hyphens: as good as a file's name. Octavia's
/// `*_container_ref` is a reference to a secret or container of Barbican, `https://barbican/v1/containers/<uuid>`; the last
/// segment of it is the id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateId(Arc<str>);

/// Why a text is not a [`CertificateId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the id of a certificate, or a URL that ends in it: a letter or digit, then at most 127 letters, digits and ._-"
)]
pub struct NotACertificateId;

impl CertificateId {
    /// The most bytes of an id.
    pub const MAX_LENGTH: usize = 128;

    /// The id that a reference names: the text itself, or the last segment of a URL's path.
    ///
    /// # Errors
    /// [`NotACertificateId`].
    pub fn from_reference(text: &str) -> Result<Self, NotACertificateId> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return text.parse();
        };
        let plain =
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        // A query or a fragment is no part of the path, and no reference of Octavia's has one.
        let clean = !rest.bytes().any(|b| b <= b' ' || b == 0x7f || matches!(b, b'?' | b'#'));
        let (host, path) = rest.split_once('/').ok_or(NotACertificateId)?;
        if !plain || !clean || host.is_empty() {
            return Err(NotACertificateId);
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        path.rsplit('/').next().unwrap_or_default().parse()
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CertificateId {
    type Err = NotACertificateId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if first && text.len() <= Self::MAX_LENGTH && text.bytes().all(good) {
            Ok(Self(text.into()))
        } else {
            Err(NotACertificateId)
        }
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateId({})", self.0)
    }
}

octavia_enum!(
    /// An element of `tls_versions`, from the oldest to the newest.
    #[derive(PartialOrd, Ord)]
    TlsVersion {
        /// SSL 3.0.
        Ssl3 = "SSLv3",
        /// TLS 1.0.
        Tls1 = "TLSv1",
        /// TLS 1.1.
        Tls1_1 = "TLSv1.1",
        /// TLS 1.2.
        Tls1_2 = "TLSv1.2",
        /// TLS 1.3.
        Tls1_3 = "TLSv1.3",
    }
);

octavia_enum!(
    /// An element of `alpn_protocols`, spelled as in the handshake (RFC 7301).
    AlpnProtocol {
        /// HTTP/2 over TLS.
        H2 = "h2",
        /// HTTP/1.1.
        Http11 = "http/1.1",
        /// HTTP/1.0.
        Http10 = "http/1.0",
    }
);

/// `tls_versions`, `tls_ciphers` and `alpn_protocols` of a listener or a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// `tls_versions`: at least one, in ascending order, none twice.
    pub versions: Vec<TlsVersion>,
    /// `tls_ciphers`: a list of OpenSSL's, of at most 2048 letters, digits and `-+!:@=_.`, as in the document. `None` is
    /// the default of Octavia's `[api_settings] default_listener_ciphers`, all that are good today.
    pub ciphers: Option<Box<str>>,
    /// `alpn_protocols`: in order of preference, none twice. Empty: no protocol is offered, which leaves HTTP/1.1.
    pub alpn: Vec<AlpnProtocol>,
}

impl Default for TlsSettings {
    /// Octavia's `[api_settings]` defaults: TLS 1.2 and 1.3, its list of ciphers, `h2`, `http/1.1`, `http/1.0`.
    fn default() -> Self {
        Self {
            versions: vec![TlsVersion::Tls1_2, TlsVersion::Tls1_3],
            ciphers: None,
            alpn: AlpnProtocol::ALL.to_vec(),
        }
    }
}

/// How a listener terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// What a client is shown that names no host, or one for which no other certificate is: `default_tls_container_ref`,
    /// or else the first of `sni_container_refs`.
    pub certificate: CertificateId,
    /// `sni_container_refs`, those that are not [`certificate`](Self::certificate), none twice.
    pub sni_certificates: Vec<CertificateId>,
    /// `client_authentication`; `None` is `NONE`, where no certificate is asked for.
    pub client_authentication: Option<ClientAuthentication>,
    /// `tls_versions`, `tls_ciphers`, `alpn_protocols`.
    pub settings: TlsSettings,
    /// `hsts_*`, when `hsts_max_age` is given.
    pub hsts: Option<Hsts>,
}

/// `client_authentication` OPTIONAL or MANDATORY: HAProxy's `verify optional` and `verify required`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientAuthentication {
    /// Whether a client without a certificate is refused: MANDATORY.
    pub mandatory: bool,
    /// `client_ca_tls_container_ref`: the authorities that clients' certificates are verified against.
    pub authorities: CertificateId,
    /// `client_crl_container_ref`: what these have revoked.
    pub revocations: Option<CertificateId>,
}

/// The header `Strict-Transport-Security` of a listener's responses (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hsts {
    /// `hsts_max_age`, in seconds, at most 2^31 - 1.
    pub max_age: u32,
    /// `hsts_include_subdomains`.
    pub include_subdomains: bool,
    /// `hsts_preload`.
    pub preload: bool,
}

impl fmt::Display for Hsts {
    /// The header's value, as Octavia renders it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={};", self.max_age)?;
        if self.include_subdomains {
            f.write_str(" includeSubDomains;")?;
        }
        if self.preload {
            f.write_str(" preload;")?;
        }
        Ok(())
    }
}

/// How members of a pool are spoken to over TLS: `tls_enabled`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolTls {
    /// `ca_tls_container_ref`: the authorities that members' certificates are verified against. `None`: they are not
    /// verified (HAProxy `verify none`).
    pub authorities: Option<CertificateId>,
    /// `crl_container_ref`: what these have revoked; only with `authorities`.
    pub revocations: Option<CertificateId>,
    /// `tls_container_ref`: the certificate that members are shown.
    pub client_certificate: Option<CertificateId>,
    /// `tls_versions`, `tls_ciphers`, `alpn_protocols`.
    pub settings: TlsSettings,
}

/// What a certificate is for where it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateRole {
    /// It is shown, with its chain, and proved by its key.
    Identity,
    /// Others are verified against what is in it.
    Authorities,
    /// It says which of these are revoked.
    Revocations,
}

/// A place of a load balancer that names a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateUse<'a> {
    /// What is named.
    pub id: &'a CertificateId,
    /// What for.
    pub role: CertificateRole,
    /// By which object.
    pub user: CertificateUser,
    /// By which field of it, as in a document.
    pub field: &'static str,
}

/// What names a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateUser {
    /// A listener.
    Listener(ListenerId),
    /// A pool.
    Pool(PoolId),
}

impl CertificateUse<'_> {
    /// The JSON path of the field, with the object's id between the brackets.
    pub fn path(&self) -> String {
        match self.user {
            CertificateUser::Listener(id) => format!("loadbalancer.listeners[{id}].{}", self.field),
            CertificateUser::Pool(id) => format!("loadbalancer.pools[{id}].{}", self.field),
        }
    }
}

impl LoadBalancer {
    /// Every place that names a certificate: those of listeners first.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateUse<'_>> {
        use CertificateRole::{Authorities, Identity, Revocations};
        let listeners =
            self.listeners.iter().filter_map(|listener| Some((listener.id, listener.tls.as_ref()?)));
        let of_listeners = listeners.flat_map(|(id, tls)| {
            let client = tls.client_authentication.as_ref();
            let identities = tls.sni_certificates.iter().map(|id| ("sni_container_refs", Identity, id));
            std::iter::once(("default_tls_container_ref", Identity, &tls.certificate))
                .chain(identities)
                .chain(client.map(|client| ("client_ca_tls_container_ref", Authorities, &client.authorities)))
                .chain(client.and_then(|client| {
                    Some(("client_crl_container_ref", Revocations, client.revocations.as_ref()?))
                }))
                .map(move |(field, role, named)| (CertificateUser::Listener(id), field, role, named))
        });
        let pools = self.pools.iter().filter_map(|pool| Some((pool.id, pool.tls.as_ref()?)));
        let of_pools = pools.flat_map(|(id, tls)| {
            [
                ("ca_tls_container_ref", Authorities, &tls.authorities),
                ("crl_container_ref", Revocations, &tls.revocations),
                ("tls_container_ref", Identity, &tls.client_certificate),
            ]
            .into_iter()
            .filter_map(move |(field, role, named)| {
                Some((CertificateUser::Pool(id), field, role, named.as_ref()?))
            })
        });
        of_listeners.chain(of_pools).map(|(user, field, role, id)| CertificateUse { id, role, user, field })
    }

    /// The id at each of these places, in the same order.
    pub fn certificates_mut(&mut self) -> impl Iterator<Item = &mut CertificateId> {
        let listeners = self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
        let of_listeners = listeners.flat_map(|tls| {
            let client = tls.client_authentication.as_mut();
            let client =
                client.into_iter().flat_map(|ClientAuthentication { authorities, revocations, .. }| {
                    std::iter::once(authorities).chain(revocations)
                });
            std::iter::once(&mut tls.certificate).chain(&mut tls.sni_certificates).chain(client)
        });
        let pools = self.pools.iter_mut().filter_map(|pool| pool.tls.as_mut());
        let of_pools = pools.flat_map(|PoolTls { authorities, revocations, client_certificate, .. }| {
            authorities.iter_mut().chain(revocations).chain(client_certificate)
        });
        of_listeners.chain(of_pools)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn references_name_ids() {
        let id = |text: &str| CertificateId::from_reference(text).map(|id| id.to_string());
        for (reference, expected) in [
            ("a", "a"),
            ("web-2026_1.example.com", "web-2026_1.example.com"),
            ("https://barbican.example/v1/containers/6a0a707c", "6a0a707c"),
            ("http://[2001:db8::1]:9311/v1/secrets/x/", "x"),
            ("https://host/x", "x"),
        ] {
            assert_eq!(id(reference).as_deref(), Ok(expected), "{reference}");
        }
        let (long, longer) = ("a".repeat(128), "a".repeat(129));
        assert_eq!(id(&long).as_deref(), Ok(long.as_str()));
        for reference in [
            "",
            ".",
            "..",
            ".hidden",
            "-a",
            "_a",
            "a/b",
            "a b",
            "a\0",
            "é",
            "../etc/passwd",
            "https://",
            "https://host",
            "https://host/",
            "https:///x",
            "://host/x",
            "https://host/a?b",
            "https://host/a#b",
            "https://host/a b/c",
            "https://host/..",
            "https://host/a%2fb",
            &longer,
        ] {
            assert!(id(reference).is_err(), "{reference:?}");
        }
    }

    #[test]
    fn hsts_is_rendered_as_octavia_does() {
        let hsts =
            |include_subdomains, preload| Hsts { max_age: 60, include_subdomains, preload }.to_string();
        assert_eq!(hsts(false, false), "max-age=60;");
        assert_eq!(hsts(true, true), "max-age=60; includeSubDomains; preload;");
    }

    #[test]
    fn versions_are_in_order() {
        assert!(TlsVersion::ALL.is_sorted());
    }
}
