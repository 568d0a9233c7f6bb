//! TLS of `listener` and `pool`. Octavia's rules are in `octavia.api.v2.controllers.listener` and `octavia.common.validate`.

use super::object::{MAX_NAME, Object};
use crate::{
    AlpnProtocol, CertificateId, ClientAuthentication, Hsts, ListenerProtocol, ListenerTls, PoolTls,
    TlsSettings, TlsVersion, excerpt,
};

/// The longest `tls_ciphers`, in characters.
const MAX_CIPHERS: usize = 2048;

/// What a listener says of TLS, and whether it may.
pub(super) fn listener(o: &mut Object<'_>, protocol: Option<ListenerProtocol>) -> Option<ListenerTls> {
    let default = certificate(o, "default_tls_container_ref");
    let mut certificates: Vec<CertificateId> = Vec::new();
    let listed = o.elements("sni_container_refs");
    o.strings("sni_container_refs", |text| {
        let id = reference(text)?;
        if certificates.contains(&id) {
            return Err(format!("is the certificate {id}, which is in the list already"));
        }
        certificates.push(id);
        Ok(())
    });
    if o.given("default_tls_container_id").is_some() {
        o.fault(
            "default_tls_container_id",
            "is no longer a field of Octavia's; default_tls_container_ref is",
        );
    }
    let named = o.given("default_tls_container_ref").is_some() || listed > 0;
    let authentication = client_authentication(o);
    let hsts = hsts(o);
    let terminated = match protocol {
        Some(ListenerProtocol::TerminatedHttps) | None => true,
        Some(ListenerProtocol::Prometheus) => named,
        Some(_) => false,
    };
    let settings = settings(o, terminated && protocol.is_some());
    if let Some(protocol) = protocol
        && protocol != ListenerProtocol::TerminatedHttps
    {
        misplaced(o, protocol, terminated);
    }
    if protocol == Some(ListenerProtocol::TerminatedHttps) && !named {
        o.fault(
            "default_tls_container_ref",
            "is required with protocol TERMINATED_HTTPS, or else sni_container_refs",
        );
    }
    if !terminated {
        return None;
    }
    let certificate = default.or_else(|| certificates.first().cloned())?;
    certificates.retain(|id| *id != certificate);
    Some(ListenerTls {
        certificate,
        sni_certificates: certificates,
        client_authentication: authentication,
        settings,
        hsts,
    })
}

/// Refuses what only a listener that terminates TLS can have. Versions, ciphers and protocols may stay: Octavia answers them for
/// any listener, with no meaning.
fn misplaced(o: &mut Object<'_>, protocol: ListenerProtocol, terminated: bool) {
    let reason = format!("needs a listener of protocol TERMINATED_HTTPS; this one is {protocol}");
    if !terminated {
        for name in ["default_tls_container_ref", "client_ca_tls_container_ref", "client_crl_container_ref"] {
            if o.given(name).is_some() {
                o.fault(name, reason.clone());
            }
        }
        if o.elements("sni_container_refs") > 0 {
            o.fault("sni_container_refs", reason.clone());
        }
        if o.get("client_authentication")
            .is_some_and(|value| matches!(value.as_str(), Some("OPTIONAL" | "MANDATORY")))
        {
            o.fault("client_authentication", reason.clone());
        }
    }
    if o.get("hsts_max_age").is_some() {
        o.fault("hsts_max_age", reason);
    }
}

fn client_authentication(o: &mut Object<'_>) -> Option<ClientAuthentication> {
    let mode = o.one_of("client_authentication", &["NONE", "OPTIONAL", "MANDATORY"]).unwrap_or("NONE");
    let authorities = certificate(o, "client_ca_tls_container_ref");
    let revocations = certificate(o, "client_crl_container_ref");
    let without = o.given("client_ca_tls_container_ref").is_none();
    if mode != "NONE" && without {
        o.fault("client_authentication", format!("{mode} needs client_ca_tls_container_ref"));
    }
    if o.given("client_crl_container_ref").is_some() && without {
        o.fault("client_crl_container_ref", "needs client_ca_tls_container_ref");
    }
    // With NONE no certificate is asked for, and nothing is verified against the authorities.
    (mode != "NONE").then_some(())?;
    Some(ClientAuthentication { mandatory: mode == "MANDATORY", authorities: authorities?, revocations })
}

fn hsts(o: &mut Object<'_>) -> Option<Hsts> {
    let max_age = o.integer("hsts_max_age", 0..=i64::from(i32::MAX));
    let include_subdomains = o.boolean("hsts_include_subdomains").unwrap_or(false);
    let preload = o.boolean("hsts_preload").unwrap_or(false);
    if o.get("hsts_max_age").is_none() {
        for (name, on) in [("hsts_include_subdomains", include_subdomains), ("hsts_preload", preload)] {
            if on {
                o.fault(name, "needs hsts_max_age");
            }
        }
    }
    Some(Hsts { max_age: u32::try_from(max_age?).ok()?, include_subdomains, preload })
}

/// What a pool says of TLS. Without `tls_enabled` its fields are read and mean nothing, as in Octavia.
pub(super) fn pool(o: &mut Object<'_>) -> Option<PoolTls> {
    let enabled = o.boolean("tls_enabled").unwrap_or(false);
    let authorities = certificate(o, "ca_tls_container_ref");
    let revocations = certificate(o, "crl_container_ref");
    let client_certificate = certificate(o, "tls_container_ref");
    if o.given("crl_container_ref").is_some() && o.given("ca_tls_container_ref").is_none() {
        o.fault("crl_container_ref", "needs ca_tls_container_ref");
    }
    let settings = settings(o, enabled);
    enabled.then_some(PoolTls { authorities, revocations, client_certificate, settings })
}

fn certificate(o: &mut Object<'_>, name: &'static str) -> Option<CertificateId> {
    o.given(name)?;
    o.parsed(name, reference)
}

fn reference(text: &str) -> Result<CertificateId, String> {
    if text.len() > MAX_NAME && text.chars().count() > MAX_NAME {
        return Err(format!("must not be longer than {MAX_NAME} characters"));
    }
    CertificateId::from_reference(text).map_err(|error| error.to_string())
}

/// `tls_versions`, `tls_ciphers`, `alpn_protocols`. Without protocols none is offered. Without versions nothing can be spoken, which is
/// refused where TLS is; elsewhere these fields mean nothing, and Octavia answers such lists.
fn settings(o: &mut Object<'_>, spoken: bool) -> TlsSettings {
    let default = TlsSettings::default();
    let mut versions = o.strings("tls_versions", |text| one_of(TlsVersion::parse, TlsVersion::ALL, text));
    versions.sort_unstable();
    versions.dedup();
    let mut alpn: Vec<AlpnProtocol> = Vec::new();
    o.strings("alpn_protocols", |text| {
        let protocol = one_of(AlpnProtocol::parse, AlpnProtocol::ALL, text)?;
        if !alpn.contains(&protocol) {
            alpn.push(protocol);
        }
        Ok(())
    });
    if spoken && o.get("tls_versions").and_then(|value| value.as_list()).is_some_and(<[_]>::is_empty) {
        o.fault("tls_versions", "must not be empty; leave it out for the default");
    }
    let ciphers = o.text("tls_ciphers", MAX_CIPHERS).filter(|text| !text.is_empty());
    if let Some(text) = ciphers
        && !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+!:@=_.".contains(&b))
    {
        o.fault("tls_ciphers", "must be an OpenSSL cipher string: letters, digits and -+!:@=_.");
    }
    TlsSettings {
        versions: if versions.is_empty() { default.versions } else { versions },
        ciphers: ciphers.map(Into::into),
        alpn: if o.get("alpn_protocols").is_none() { default.alpn } else { alpn },
    }
}

fn one_of<T: Copy + std::fmt::Display>(
    parse: impl FnOnce(&str) -> Option<T>,
    all: &[T],
    text: &str,
) -> Result<T, String> {
    parse(text).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        format!("must be one of {}; not {}", names.join(", "), excerpt(text))
    })
}
