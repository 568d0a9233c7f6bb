//! `certs init`: a CA of one's own and the certificates of mutual TLS between a controller and its amphorae.
//!
//! | file | for |
//! | --- | --- |
//! | `ca.pem` | both sides: `--ca` here, `agent_server_ca` there |
//! | `ca.key` | nobody's disk but the operator's; it signs |
//! | `server-<amphora id>.pem` | the amphora's `agent_server_cert`: key and certificate in one file |
//! | `client.pem`, `client.key` | `--cert` and `--key` here |

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The longest validity, in days: what clients with a policy accept (the CA/Browser Forum's former limit).
pub const MAX_DAYS: u16 = 825;

/// What to make.
#[derive(Clone, Debug)]
pub struct Request {
    /// One server certificate for each.
    pub amphorae: Vec<Uuid>,
    /// Further names and addresses that every server certificate carries.
    pub hosts: Vec<String>,
    /// Validity from now, 1 to [`MAX_DAYS`].
    pub days: u16,
    /// Replace files that are there.
    pub force: bool,
}

/// A file and its content.
struct Output {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// Makes everything in `dir`, which is created when it is missing, and returns the paths written.
///
/// # Errors
/// [`Error::Usage`] when a file is there already and `force` is not given (then nothing is written), or a host
/// cannot be in a certificate; [`Error::Local`] when the directory cannot be written.
pub fn init(dir: &Path, request: &Request) -> Result<Vec<PathBuf>> {
    let outputs = generate(dir, request)?;
    if let Some(there) = outputs.iter().map(|o| &o.path).find(|p| !request.force && p.exists()) {
        return Err(Error::file(
            there,
            "is there already; --force replaces it, and what it signed stops working",
        ));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::local(dir.display(), e))?;
    for output in &outputs {
        write_atomically(output).map_err(|e| Error::local(output.path.display(), e))?;
    }
    Ok(outputs.into_iter().map(|o| o.path).collect())
}

fn generate(dir: &Path, request: &Request) -> Result<Vec<Output>> {
    let failed = |e: rcgen::Error| Error::local("certificates", e);
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed);

    // Two CAs of one name would make a wrong `--ca` look like a forged signature.
    let name = format!("amphora controller CA {}", &Uuid::new_v4().simple().to_string()[..8]);
    let mut ca = params(&name, request.days);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, key()?).map_err(failed)?;

    let mut client = params("amphora controller", request.days);
    client.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = key()?;
    let client = client.signed_by(&client_key, &ca).map_err(failed)?;

    let output = |name: &str, text: String, mode| Output { path: dir.join(name), text, mode };
    let mut outputs = vec![
        output("ca.pem", ca.pem(), 0o644),
        output("ca.key", ca.key().serialize_pem(), 0o600),
        output("client.pem", client.pem(), 0o644),
        output("client.key", client_key.serialize_pem(), 0o600),
    ];
    for amphora in &request.amphorae {
        let name = amphora.to_string();
        let mut server = params(&name, request.days);
        server.subject_alt_names =
            [&name].into_iter().chain(&request.hosts).map(|n| san(n)).collect::<Result<_>>()?;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = key()?;
        let server = server.signed_by(&server_key, &ca).map_err(failed)?;
        let pem = server_key.serialize_pem() + &server.pem();
        outputs.push(output(&format!("server-{name}.pem"), pem, 0o600));
    }
    Ok(outputs)
}

/// Valid from an hour ago, because clocks differ, for `days`.
fn params(common_name: &str, days: u16) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::days(i64::from(days));
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn san(host: &str) -> Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    rustls_pki_types::DnsName::try_from(host)
        .map_err(|_| ())
        .and_then(|_| host.try_into().map_err(|_| ()))
        .map(SanType::DnsName)
        .map_err(|()| Error::Usage(format!("`{host}` is neither a DNS name nor an IP address")))
}

/// A reader sees the old file or the new one, and a key is never readable by others, not even for a moment.
fn write_atomically(output: &Output) -> std::io::Result<()> {
    let temporary = output.path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(output.mode).open(&temporary)?;
    file.write_all(output.text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &output.path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn request() -> Request {
        Request { amphorae: vec![Uuid::new_v4()], hosts: vec!["127.0.0.1".into()], days: 30, force: false }
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let mut request = request();
        let written = init(&dir, &request).unwrap();
        assert_eq!(written.len(), 5);
        for path in &written {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let secret = fs::read_to_string(path).unwrap().contains("PRIVATE KEY");
            assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{}", path.display());
        }
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

        let before = fs::read(dir.join("ca.pem")).unwrap();
        assert!(init(&dir, &request).unwrap_err().to_string().contains("--force"));
        assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before);
        request.force = true;
        init(&dir, &request).unwrap();
        assert_ne!(fs::read(dir.join("ca.pem")).unwrap(), before);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 5, "no temporary file is left");
    }

    #[test]
    fn a_host_that_cannot_be_in_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request { hosts: vec!["not a name".into()], ..request() };
        assert!(init(dir.path(), &request).unwrap_err().to_string().contains("`not a name`"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
