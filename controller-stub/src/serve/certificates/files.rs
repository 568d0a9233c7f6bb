//! Authorities as files: `ca.pem` and `ca.key` issue, `next.pem` and `next.key` are to follow, `previous.pem` has issued.

use std::{fs, io, path::Path};

use amphora_x509::Certificate;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use super::Authorities;
use crate::{
    certs::{Authority, write},
    error::{Error, Result},
    failpoint::reach,
};

/// Makes an authority. Its certificate is written last: where that is, the key is.
pub(super) fn make(dir: &Path, name: &str, validity: Duration) -> Result<()> {
    let authority = Authority::make(validity)?;
    let [key, certificate] = ["key", "pem"].map(|kind| dir.join(format!("{name}.{kind}")));
    write(&key, &authority.key(), 0o600).map_err(|e| Error::local(key.display(), e))?;
    write(&certificate, authority.pem(), 0o644).map_err(|e| Error::local(certificate.display(), e))
}

/// Reads them; `own` when others than that which issues are here.
pub(super) fn read(dir: &Path, certificate: &Path, key: &Path, own: bool) -> Result<Authorities> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| Error::local(path.display(), e));
    let optional = |name: &str| -> Result<Option<String>> {
        let path = dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) if own => Ok(Some(text)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::local(path.display(), e)),
        }
    };
    let pem = read(certificate)?;
    let issuer =
        Authority::read(&pem, &read(key)?).map_err(|reason| Error::local(certificate.display(), reason))?;
    let ends = ends(&pem).ok_or_else(|| Error::local(certificate.display(), "not an X.509 certificate"))?;
    Ok(Authorities { issuer, ends, next: optional("next.pem")?, previous: optional("previous.pem")? })
}

fn ends(pem: &str) -> Option<OffsetDateTime> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    OffsetDateTime::from_unix_timestamp(Certificate::read(&der)?.not_after.unix()?).ok()
}

/// The next one issues. Key and certificate are two files: [`recover`] finds where it was killed.
pub(super) fn promote(dir: &Path) -> Result<()> {
    let pem = dir.join("ca.pem");
    let present = fs::read_to_string(&pem).map_err(|e| Error::local(pem.display(), e))?;
    let previous = dir.join("previous.pem");
    write(&previous, &present, 0o644).map_err(|e| Error::local(previous.display(), e))?;
    reach("authority.previous");
    rename(dir, "next.key", "ca.key")?;
    reach("authority.key");
    rename(dir, "next.pem", "ca.pem")?;
    reach("authority.done");
    Ok(())
}

/// Nobody trusts the previous one any more.
pub(super) fn forget(dir: &Path) -> Result<()> {
    let path = dir.join("previous.pem");
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::local(path.display(), e)),
        _ => Ok(()),
    }
}

/// Brings to an end what was begun.
pub(super) fn recover(dir: &Path) -> Result<()> {
    let there = |name: &str| dir.join(name).exists();
    if there("next.pem") && !there("next.key") {
        rename(dir, "next.pem", "ca.pem")?;
    }
    let same = |one: &str, other: &str| {
        fs::read(dir.join(one)).is_ok_and(|one| fs::read(dir.join(other)).is_ok_and(|other| one == other))
    };
    if same("previous.pem", "ca.pem") { forget(dir) } else { Ok(()) }
}

fn rename(dir: &Path, from: &str, to: &str) -> Result<()> {
    let (from, to) = (dir.join(from), dir.join(to));
    fs::rename(&from, &to).map_err(|e| Error::local(from.display(), e))
}
