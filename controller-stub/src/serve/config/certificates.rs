//! `[certificates]`.

use std::{path::PathBuf, time::Duration};

use amphora_ini::{
    ConfigError,
    reader::{Reader, boolean, error, path},
};

use super::span;

/// `[certificates]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// `ca_certificate` and `ca_private_key`; without them they are made at the first start.
    pub ca: Option<(PathBuf, PathBuf)>,
    /// `cert_validity_time` of what the CA issues.
    pub validity: Duration,
    /// `ca_validity_time` of a CA that is made here.
    pub ca_validity: Duration,
    /// `storage_path`: tenants' certificates, as Octavia's `local_cert_manager` has them; without it `certificates` in the data directory.
    pub storage_path: Option<PathBuf>,
    /// `shared_storage`: whether a certificate that is in no project's directory is everybody's; without it, where nobody is asked who he is.
    pub shared: Option<bool>,
}

pub(super) fn read(read: &Reader<'_>) -> Result<Certificates, ConfigError> {
    const SECTION: &str = "certificates";
    let certificate = read.optional(SECTION, "ca_certificate", path)?;
    let key = read.optional(SECTION, "ca_private_key", path)?;
    let ca = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let missing = if certificate.is_some() { "ca_private_key" } else { "ca_certificate" };
            return Err(error(SECTION, missing, None, "belongs to the other: both, or none".to_owned()));
        }
    };
    Ok(Certificates {
        ca,
        validity: read.required(SECTION, "cert_validity_time", span(2))?,
        ca_validity: read.required(SECTION, "ca_validity_time", span(2))?,
        storage_path: read.optional(SECTION, "storage_path", path)?,
        shared: read.optional(SECTION, "shared_storage", boolean)?,
    })
}
