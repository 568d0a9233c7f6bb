//! `certs init`: a CA of one's own and the certificates of mutual TLS between a controller and its amphorae.
//!
//! | file | for |
//! | --- | --- |
//! | `ca.pem` | both sides: `--ca` here, `agent_server_ca` there |
//! | `ca.key` | nobody's disk but the operator's; it signs |
//! | `server-<amphora id>.pem` | the amphora's `agent_server_cert`: key and certificate in one file |
//! | `client.pem`, `client.key` | `--cert` and `--key` here |

mod authority;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::SanType;
use time::Duration;
use uuid::Uuid;

pub use self::authority::{Authority, Issued};
use crate::{
    error::{Error, Result},
    failpoint::reach,
};

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
        write(&output.path, &output.text, output.mode).map_err(|e| Error::local(output.path.display(), e))?;
    }
    Ok(outputs.into_iter().map(|o| o.path).collect())
}

fn generate(dir: &Path, request: &Request) -> Result<Vec<Output>> {
    let validity = Duration::days(i64::from(request.days));
    let ca = Authority::make(validity)?;
    let client = ca.client("amphora controller", validity)?;
    let output = |name: &str, text: String, mode| Output { path: dir.join(name), text, mode };
    let mut outputs = vec![
        output("ca.pem", ca.pem().to_owned(), 0o644),
        output("ca.key", ca.key(), 0o600),
        output("client.pem", client.certificate, 0o644),
        output("client.key", client.key, 0o600),
    ];
    for amphora in &request.amphorae {
        let name = amphora.to_string();
        let hosts = [&name].into_iter().chain(&request.hosts).map(String::as_str);
        let server = ca.server(&name, hosts, validity)?;
        outputs.push(output(&format!("server-{name}.pem"), server.both(), 0o600));
    }
    Ok(outputs)
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
///
/// # Errors
/// The system's.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    reach("file");
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    reach("file.written");
    fs::rename(&temporary, path)?;
    reach("file.done");
    Ok(())
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
