//! Certificates, ciphers, versions and protocols of TLS: what listeners and pools have in common.

use amphora_bundle::Kind;
use serde_json::{Value, json};

use super::super::{
    attributes::{Object, Resource},
    certificates::{self, Found},
    fault::Fault,
    scope::Scope,
};

/// From the oldest to the newest.
const VERSIONS: [&str; 5] = ["SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/// Refuses references to what is not there, or is not what an amphora would take for it.
pub(super) fn are_usable(scope: &Scope<'_>, project: &str, references: &[(&str, Kind)]) -> Result<(), Fault> {
    let found: Vec<_> = references
        .iter()
        .map(|&(reference, kind)| (reference, kind, scope.certificates.what(project, reference)))
        .collect();
    let missing: Vec<_> = found
        .iter()
        .filter(|(.., found)| matches!(found, Some(Found::Missing)))
        .map(|(reference, ..)| Value::from(*reference))
        .collect();
    if !missing.is_empty() {
        return Err(not_retrieved(missing));
    }
    found.into_iter().try_for_each(|(reference, kind, found)| match found {
        Some(Found::Refused(fault)) => Err(fault.clone()),
        Some(Found::Of(other)) if *other != kind => {
            let reason = format!("it has {}, and not {}", other.phrase(), kind.phrase());
            Err(certificates::invalid(reference, &reason))
        }
        _ => Ok(()),
    })
}

/// `CertificateRetrievalException`.
fn not_retrieved(references: Vec<Value>) -> Fault {
    let shown = super::super::attributes::python(&Value::Array(references));
    Fault::new(400, format!("Could not retrieve certificate: {shown}"))
}

/// Refuses revocation lists of others than the authorities whose certificates they are to revoke.
pub(super) fn revocations_fit(
    scope: &Scope<'_>,
    project: &str,
    authorities: Option<&str>,
    lists: Option<&str>,
) -> Result<(), Fault> {
    let (Some(authorities), Some(lists)) = (authorities, lists) else { return Ok(()) };
    match scope.certificates.whose(project, authorities, lists) {
        Some(Found::Refused(fault)) => Err(fault.clone()),
        Some(Found::Missing) => Err(not_retrieved(vec![authorities.into(), lists.into()])),
        _ => Ok(()),
    }
}

/// Gives attributes that nobody has said what they are by default. Without TLS there is no default for what is of TLS.
pub(super) fn fill(scope: &Scope<'_>, resource: &Resource, object: &mut Object, is_tls: bool) {
    let nothing = [("tls_ciphers", json!(null)), ("tls_versions", json!([])), ("alpn_protocols", json!([]))];
    let unsaid: Vec<_> = nothing.into_iter().filter(|(name, _)| object.get(name).is_none()).collect();
    scope.fill(resource, object);
    for (name, nothing) in unsaid {
        if !is_tls {
            object.set(name, nothing);
        }
    }
}

/// Refuses ciphers that no text of OpenSSL has, and those that are prohibited.
pub(super) fn ciphers(scope: &Scope<'_>, object: &Object) -> Result<(), Fault> {
    let Some(text) = object.text("tls_ciphers") else { return Ok(()) };
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+!:@=_.".contains(&byte)) {
        return Err(Fault::validation(
            "Invalid characters in cipher string. Only alphanumeric, -, +, !, :, @, =, _, and . are allowed.",
        ));
    }
    let prohibited = &scope.config.api.prohibited_ciphers;
    let rejected: Vec<_> =
        text.split(':').filter(|cipher| prohibited.iter().any(|other| other == cipher)).collect();
    if rejected.is_empty() {
        return Ok(());
    }
    Err(Fault::validation(format_args!(
        "The following ciphers have been prohibited by an administrator: {}",
        rejected.join(", ")
    )))
}

/// Refuses versions and protocols that there are not, and none at all.
pub(super) fn versions_and_protocols(scope: &Scope<'_>, object: &Object) -> Result<(), Fault> {
    if object.get("tls_versions").is_some() {
        let versions = object.texts("tls_versions");
        if versions.is_empty() {
            return Err(Fault::validation(
                "Empty TLS version list. Either specify at least one TLS version or remove this parameter \
                 to use the default.",
            ));
        }
        let unknown: Vec<_> =
            versions.iter().copied().filter(|version| !VERSIONS.contains(version)).collect();
        if !unknown.is_empty() {
            return Err(Fault::validation(format_args!("Invalid TLS versions: {}", unknown.join(", "))));
        }
        if let Some(minimum) = &scope.config.api.minimum_tls_version {
            let rank = |version: &str| VERSIONS.iter().position(|other| *other == version);
            let low: Vec<_> =
                versions.iter().copied().filter(|version| rank(version) < rank(minimum)).collect();
            if !low.is_empty() {
                return Err(Fault::validation(format_args!(
                    "Requested TLS versions are less than the minimum: {} < {minimum}",
                    low.join(", ")
                )));
            }
        }
    }
    if object.get("alpn_protocols").is_some() && object.list("alpn_protocols").is_empty() {
        return Err(Fault::validation(
            "Empty ALPN protocol list. Either specify at least one ALPN protocol or remove this parameter \
             to use the default.",
        ));
    }
    Ok(())
}
