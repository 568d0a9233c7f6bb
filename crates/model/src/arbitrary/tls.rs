//! What encrypts: certificates, settings, and what is told of clients.

use super::*;

/// Every certificate, authority and revocation list that a made-up load balancer may name.
pub const CERTIFICATES: [&str; 6] = ["c0", "c1", "c2", "c3", "ca", "crl"];

/// The crt-list of a listener that terminates TLS, as Octavia's driver uploads it: a path for each of its certificates.
pub fn crt_list(lb: &LoadBalancer, listener: ListenerId) -> Option<String> {
    let tls = lb.listeners.iter().find(|known| known.id == listener)?.tls.as_ref()?;
    let all = std::iter::once(&tls.certificate).chain(&tls.sni_certificates);
    Some(all.map(|id| format!("/var/lib/octavia/certs/{}/{id}.pem\n", lb.id)).collect())
}

impl Generator {
    fn certificate(&mut self) -> CertificateId {
        self.named_certificate(&["c0", "c1", "c2", "c3"])
    }

    fn named_certificate(&mut self, names: &[&str]) -> CertificateId {
        match self.pick(names).parse() {
            Ok(id) => id,
            Err(_) => unreachable!("the names are ids"),
        }
    }

    fn tls_settings(&mut self) -> TlsSettings {
        let mut versions: Vec<TlsVersion> = self.list(&(1..=3), |g| g.pick(TlsVersion::ALL));
        versions.sort_unstable();
        versions.dedup();
        let mut alpn: Vec<AlpnProtocol> = Vec::new();
        for protocol in self.list(&(0..=4), |g| g.pick(AlpnProtocol::ALL)) {
            if !alpn.contains(&protocol) {
                alpn.push(protocol);
            }
        }
        let ciphers =
            self.some(|g| g.pick(&["ECDHE+AESGCM:!aNULL", "TLS_AES_128_GCM_SHA256", "HIGH:@STRENGTH"]));
        TlsSettings { versions, ciphers: ciphers.map(Into::into), alpn }
    }

    pub(super) fn listener_tls(&mut self, hsts: bool) -> ListenerTls {
        let certificate = self.certificate();
        let mut sni_certificates: Vec<CertificateId> = Vec::new();
        for id in self.list(&(0..=3), Self::certificate) {
            if id != certificate && !sni_certificates.contains(&id) {
                sni_certificates.push(id);
            }
        }
        ListenerTls {
            certificate,
            sni_certificates,
            client_authentication: self.some(|g| ClientAuthentication {
                mandatory: g.one_in(2),
                authorities: g.named_certificate(&["ca"]),
                revocations: g.some(|g| g.named_certificate(&["crl"])),
            }),
            settings: self.tls_settings(),
            hsts: match hsts {
                true => self.some(|g| Hsts {
                    max_age: g.within(0..=i32::MAX as usize) as u32,
                    include_subdomains: g.one_in(2),
                    preload: g.one_in(2),
                }),
                false => None,
            },
        }
    }

    pub(super) fn pool_tls(&mut self) -> PoolTls {
        let authorities = self.some(|g| g.named_certificate(&["ca"]));
        PoolTls {
            revocations: match authorities {
                Some(_) => self.some(|g| g.named_certificate(&["crl"])),
                None => None,
            },
            authorities,
            client_certificate: self.some(Self::certificate),
            settings: self.tls_settings(),
        }
    }

    pub(super) fn ssl_headers(&mut self) -> SslHeaders {
        SslHeaders {
            client_verify: self.one_in(2),
            client_has_cert: self.one_in(2),
            client_dn: self.one_in(2),
            client_cn: self.one_in(2),
            issuer: self.one_in(2),
            client_sha1: self.one_in(2),
            client_not_before: self.one_in(2),
            client_not_after: self.one_in(2),
        }
    }
}
