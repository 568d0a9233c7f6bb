//! What Octavia's controller uploads, as it came:
//!
//! | file | what |
//! | --- | --- |
//! | `certificates/uploads/<load balancer>/<name>` | certificates, keys, revocation lists and crt-lists that a text names; for the agent's eyes alone |
//! | `<load balancer>/haproxy.cfg` | the text of the load balancer that was uploaded last |
//!
//! The proxy reads none of them: what a text comes to is stored as a document, and the certificates that it names under ids
//! of their content.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use amphora_model::LoadBalancerId;

use super::{Store, UNFINISHED, remove_if_there, trouble::Failed};

/// The directory of certificates, and what its troubles go by.
const CERTIFICATES: &str = "certificates/uploads";

/// The text of a load balancer.
const TEXT: &str = "haproxy.cfg";

/// The most files of a load balancer.
const MAX_FILES: usize = 4000;

/// The most bytes that the files of a load balancer have together.
const MAX_BYTES: u64 = 32 << 20;

/// The name of a file that is uploaded: as good as a file's name here, and never a hidden one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// A name of letters, digits and `._-` that Octavia's own agent takes, too: somewhere in it is `pem`, after a letter, digit or
    /// underscore and any one character.
    pub fn new(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let good = !text.starts_with('.')
            && text.len() <= 200
            && text.chars().all(plain)
            && text.match_indices("pem").any(|(at, _)| {
                at >= 2
                    && text.as_bytes().get(at - 2).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
            });
        good.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Store {
    /// A file of a load balancer.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_upload(&self, id: LoadBalancerId, name: &FileName) -> io::Result<Option<Vec<u8>>> {
        read_if_there(&self.uploads(id).join(name.as_str()))
    }

    /// Replaces a file of a load balancer.
    ///
    /// # Errors
    /// When a step fails; the one before is kept. [`io::ErrorKind::QuotaExceeded`] when it would be too many.
    pub fn write_upload(&self, id: LoadBalancerId, name: &FileName, content: &[u8]) -> io::Result<()> {
        self.changed(CERTIFICATES, || {
            // Into which the proxy looks, but not into this one.
            self.make_directory()?;
            let directory = self.uploads(id);
            DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            let (mut files, mut bytes) = (1, content.len() as u64);
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_name() != name.as_str() {
                    files += 1;
                    bytes += entry.metadata()?.len();
                }
            }
            if files > MAX_FILES || bytes > MAX_BYTES {
                let reason =
                    format!("there are {MAX_FILES} files at most, of {} MiB together", MAX_BYTES >> 20);
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason).into());
            }
            Ok(put(&directory.join(name.as_str()), content)?)
        })
    }

    /// Removes a file of a load balancer.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove_upload(&self, id: LoadBalancerId, name: &FileName) -> io::Result<()> {
        self.changed(CERTIFICATES, || Ok(remove_if_there(&self.uploads(id).join(name.as_str()))?))
    }

    /// The text that was uploaded last, and of which load balancer it is.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_text(&self) -> io::Result<Option<(LoadBalancerId, Vec<u8>)>> {
        for entry in fs::read_dir(&self.base)? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(text) = read_if_there(&self.text(id))? {
                return Ok(Some((id, text)));
            }
        }
        Ok(None)
    }

    /// Replaces the text.
    ///
    /// # Errors
    /// When a step fails; the one before is kept.
    pub fn write_text(&self, id: LoadBalancerId, text: &[u8]) -> io::Result<()> {
        self.changed(TEXT, || {
            let path = self.text(id);
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            put(&path, text).map_err(|error| Failed { error, bytes: Some(text.len()) })?;
            Ok(self.sync()?)
        })
    }

    /// Removes the text and every file of a load balancer.
    ///
    /// # Errors
    /// When one stays; the text goes last.
    pub fn remove_text(&self, id: LoadBalancerId) -> io::Result<()> {
        self.changed(TEXT, || {
            for directory in [self.uploads(id), self.path(&id.to_string())] {
                match fs::remove_dir_all(&directory) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(self.sync()?)
        })
    }

    fn uploads(&self, id: LoadBalancerId) -> PathBuf {
        self.path(CERTIFICATES).join(id.to_string())
    }

    fn text(&self, id: LoadBalancerId) -> PathBuf {
        self.path(&id.to_string()).join(TEXT)
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Written under another name, synced, and renamed: what a killed process leaves half done is written over the next time.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let unfinished = directory.join(format!(".{name}{UNFINISHED}"));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ID: &str = "33333333-3333-4333-8333-333333333333";

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn names_are_those_that_octavia_takes() {
        for good in ["abc.pem", "a.pem.txt", "a1pem", "_xpem", "5ccc9010b56b5d34c0a9ee56861f7091a2d903a3.pem"]
        {
            assert!(FileName::new(good).is_some(), "{good}");
        }
        for wrong in
            ["", "pem", ".pem", "xpem", "abc.txt", "../a.pem", "a/b.pem", ".a.pem", "-.pem", "a b.pem"]
        {
            assert_eq!(FileName::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_uploaded_is_kept_as_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let (store, id) = (Store::open(directory.path()).unwrap(), ID.parse().unwrap());
        assert_eq!(store.read_text().unwrap(), None);
        assert_eq!(store.read_upload(id, &name("a.pem")).unwrap(), None);
        store.remove_upload(id, &name("a.pem")).unwrap();
        store.write_upload(id, &name("a.pem"), &[0, 255]).unwrap();
        store.write_upload(id, &name("a.pem"), &[1]).unwrap();
        store.write_upload(id, &name("b.pem"), b"").unwrap();
        store.write_text(id, b"global\n").unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.read_upload(id, &name("a.pem")).unwrap(), Some(vec![1]));
        assert_eq!(store.read_upload(id, &name("b.pem")).unwrap(), Some(vec![]));
        assert_eq!(store.read_text().unwrap(), Some((id, b"global\n".to_vec())));
        let mode =
            |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        let uploads = format!("certificates/uploads/{ID}");
        assert_eq!((mode(&uploads), mode(&format!("{uploads}/a.pem"))), (0o700, 0o600));
        assert_eq!(store.certificates().unwrap(), []);
        store.remove_upload(id, &name("a.pem")).unwrap();
        assert_eq!(store.read_upload(id, &name("a.pem")).unwrap(), None);
        store.remove_text(id).unwrap();
        store.remove_text(id).unwrap();
        assert_eq!(
            (store.read_text().unwrap(), store.read_upload(id, &name("b.pem")).unwrap()),
            (None, None)
        );
    }
}
