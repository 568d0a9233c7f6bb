//! The authority of `serve`, what it issues, and the tenants' certificates.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustls::ClientConfig;

use crate::{
    certs::{Authority, Issued, write},
    client::{Credential, TlsOptions},
    error::{Error, Result},
};

/// How long an authority that is made here lasts: longer than what it issues by far.
const AUTHORITY: time::Duration = time::Duration::days(3650);

/// The longest file of a tenant's certificate that is read, in bytes: what an amphora takes.
const MAX_FILE: u64 = 4 << 20;

/// The authority, and where certificates are.
#[derive(Debug)]
pub struct Certificates {
    authority: Authority,
    dir: PathBuf,
    storage: PathBuf,
    validity: time::Duration,
}

impl Certificates {
    /// Opens `dir`; the authority is made when there is none, unless `ca` says certificate and key. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or written, or what is in it cannot be used.
    pub fn open(
        dir: &Path,
        ca: Option<(&Path, &Path)>,
        validity: Duration,
        storage: Option<&Path>,
    ) -> Result<Self> {
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(dir).map_err(|e| Error::local(dir.display(), e))?;
        let storage = storage.map_or_else(|| dir.join("tenants"), Path::to_path_buf);
        make(&storage).map_err(|e| Error::local(storage.display(), e))?;
        let own = (dir.join("ca.pem"), dir.join("ca.key"));
        let (certificate, key) = ca.unwrap_or((&own.0, &own.1));
        if ca.is_none() && !certificate.exists() {
            // The certificate is written last: where it is, the key is.
            let authority = Authority::make(AUTHORITY)?;
            write(key, &authority.key(), 0o600).map_err(|e| Error::local(key.display(), e))?;
            write(certificate, authority.pem(), 0o644).map_err(|e| Error::local(certificate.display(), e))?;
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| Error::local(path.display(), e));
        let authority = Authority::read(&read(certificate)?, &read(key)?)
            .map_err(|reason| Error::local(certificate.display(), reason))?;
        let validity = time::Duration::try_from(validity).unwrap_or(time::Duration::MAX).min(AUTHORITY);
        Ok(Self { authority, dir: dir.to_owned(), storage, validity })
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> &str {
        self.authority.pem()
    }

    /// How long is valid what is issued now, in milliseconds.
    pub fn validity_ms(&self) -> i64 {
        i64::try_from(self.validity.whole_milliseconds()).unwrap_or(i64::MAX)
    }

    /// A server certificate for an amphora, which its id names.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn issue(&self, amphora: &str) -> Result<Issued> {
        self.authority.server(amphora, [amphora], self.validity)
    }

    /// What a client of amphorae needs, with a new certificate of the controller's. Blocks.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let client = self.authority.client("amphora controller", self.validity)?;
        let [ca, certificate] = ["client-ca.pem", "client.pem"].map(|name| self.dir.join(name));
        write(&ca, self.authority.pem(), 0o644).map_err(|e| Error::local(ca.display(), e))?;
        write(&certificate, &client.both(), 0o600).map_err(|e| Error::local(certificate.display(), e))?;
        TlsOptions { ca: Some(ca), cert: Some(certificate), ..TlsOptions::default() }.client_config()
    }

    /// The tenants' certificate of a name: the last part of what a listener or a pool names. Blocks.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn tenant(&self, name: &str) -> Result<Credential> {
        let unknown = || Error::NotDone(format!("there is no certificate {name}"));
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(unknown());
        }
        let read = |extension: &str| -> Result<Option<Bytes>> {
            let path = self.storage.join(format!("{name}.{extension}"));
            match fs::metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::local(path.display(), e)),
                Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE => {
                    return Err(Error::local(path.display(), format!("no file of at most {MAX_FILE} bytes")));
                }
                Ok(_) => {}
            }
            fs::read(&path).map(|bytes| Some(bytes.into())).map_err(|e| Error::local(path.display(), e))
        };
        if let Some(pem) = read("pem")? {
            return Ok(Credential::Pem(pem));
        }
        match read("p12")? {
            Some(der) => Ok(Credential::Pkcs12 { der, password: None }),
            None => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certificates");
        let open = || Certificates::open(&dir, None, DAY, None).unwrap();
        let first = open();
        assert_eq!(open().authority(), first.authority());
        assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        first.client().unwrap();
        let issued = first.issue("11111111-2222-3333-4444-555555555555").unwrap();
        let left = issued.not_after - time::OffsetDateTime::now_utc();
        assert!(left <= time::Duration::DAY && left > time::Duration::hours(23));
    }

    #[test]
    fn another_authority_is_used_where_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let other = Certificates::open(&dir.path().join("other"), None, DAY, None).unwrap();
        let (pem, key) = (dir.path().join("other/ca.pem"), dir.path().join("other/ca.key"));
        let this = Certificates::open(&dir.path().join("this"), Some((&pem, &key)), DAY, None).unwrap();
        assert_eq!(this.authority(), other.authority());
        assert!(Certificates::open(&dir.path().join("this"), Some((&pem, &pem)), DAY, None).is_err());
    }

    #[test]
    fn tenants_certificates_are_files_of_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("storage");
        let this = Certificates::open(&dir.path().join("certificates"), None, DAY, Some(&storage)).unwrap();
        fs::write(storage.join("a.pem"), "A").unwrap();
        fs::write(storage.join("b.p12"), "B").unwrap();
        fs::write(dir.path().join("c.pem"), "C").unwrap();
        assert!(matches!(this.tenant("a").unwrap(), Credential::Pem(text) if text == "A"));
        assert!(matches!(this.tenant("b").unwrap(), Credential::Pkcs12 { .. }));
        for none in ["c", "../c", "", ".", "a/b"] {
            assert!(this.tenant(none).is_err(), "{none}");
        }
    }
}
