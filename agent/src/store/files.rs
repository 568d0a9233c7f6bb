//! What Octavia's controller uploads, as it came:
//!
//! | file | what |
//! | --- | --- |
//! | `certificates/uploads/<load balancer>/<name>` | certificates, keys, revocation lists and crt-lists that a text names; for the agent's eyes alone |
//! | `<load balancer>/haproxy.cfg` | the text of the load balancer that was uploaded last |
//! | `<load balancer>/lvs/<listener>.conf` | the same of a listener of datagrams |
//!
//! The proxy reads none of them: what a text comes to is stored as a document, and the certificates that it names under ids
//! of their content.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use amphora_model::{ListenerId, LoadBalancerId};

use super::{
    Store, UNFINISHED, remove_if_there,
    room::{self, Bound},
    trouble::Failed,
};

/// The directory of certificates, and what its troubles go by.
const CERTIFICATES: &str = "certificates/uploads";

/// The text of a load balancer.
const TEXT: &str = "haproxy.cfg";

/// The directory of the texts of listeners of datagrams, and what their troubles go by.
const DATAGRAMS: &str = "lvs";

/// What the files in it end with.
const SUFFIX: &str = ".conf";

/// The most that the files of a load balancer may be.
const MOST: Bound = Bound { files: 4000, bytes: 32 << 20 };

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

/// The texts of a load balancer that were uploaded last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Whose they are.
    pub id: LoadBalancerId,
    /// `haproxy.cfg`.
    pub streams: Option<Vec<u8>>,
    /// One of each listener of datagrams.
    pub datagrams: Vec<(ListenerId, Vec<u8>)>,
}

impl Store {
    /// A file of a load balancer.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_upload(&self, id: LoadBalancerId, name: &FileName) -> io::Result<Option<Vec<u8>>> {
        read_if_there(&self.uploads(id).join(name.as_str()))
    }

    /// Replaces a file of a load balancer. Where it would be one too many, old ones that its text does not name go.
    ///
    /// # Errors
    /// When a step fails; the one before is kept. [`io::ErrorKind::QuotaExceeded`] when the text names too many.
    pub fn write_upload(&self, id: LoadBalancerId, name: &FileName, content: &[u8]) -> io::Result<()> {
        self.changed(CERTIFICATES, || {
            // Into which the proxy looks, but not into this one.
            self.make_directory()?;
            let directory = self.uploads(id);
            DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            let text = self.read_text(id)?;
            room::make(&directory, name.as_str(), content.len() as u64, text.as_deref(), MOST)?;
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

    /// All texts that were uploaded last.
    ///
    /// # Errors
    /// When one is there but cannot be read.
    pub fn read_texts(&self) -> io::Result<Option<Texts>> {
        for entry in fs::read_dir(&self.base)? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let streams = self.read_text(id)?;
            let mut datagrams = Vec::new();
            for listener in self.listeners(id)? {
                datagrams.extend(self.read_datagrams(id, listener)?.map(|text| (listener, text)));
            }
            if streams.is_some() || !datagrams.is_empty() {
                return Ok(Some(Texts { id, streams, datagrams }));
            }
        }
        Ok(None)
    }

    fn listeners(&self, id: LoadBalancerId) -> io::Result<Vec<ListenerId>> {
        let entries = match fs::read_dir(self.path(&id.to_string()).join(DATAGRAMS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut listeners = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            listeners.extend(stem.and_then(|stem| stem.parse::<ListenerId>().ok()));
        }
        Ok(listeners)
    }

    /// The text of the load balancer.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_text(&self, id: LoadBalancerId) -> io::Result<Option<Vec<u8>>> {
        read_if_there(&self.text(id))
    }

    /// The text of a listener of datagrams.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_datagrams(&self, id: LoadBalancerId, listener: ListenerId) -> io::Result<Option<Vec<u8>>> {
        read_if_there(&self.datagrams(id, listener))
    }

    /// Replaces the text.
    ///
    /// # Errors
    /// When a step fails; the one before is kept.
    pub fn write_text(&self, id: LoadBalancerId, text: &[u8]) -> io::Result<()> {
        self.write(TEXT, &self.text(id), text)
    }

    /// Replaces the text of a listener of datagrams.
    ///
    /// # Errors
    /// When a step fails; the one before is kept.
    pub fn write_datagrams(&self, id: LoadBalancerId, listener: ListenerId, text: &[u8]) -> io::Result<()> {
        self.write(DATAGRAMS, &self.datagrams(id, listener), text)
    }

    fn write(&self, what: &'static str, path: &Path, text: &[u8]) -> io::Result<()> {
        self.changed(what, || {
            // Each call of fsync(2) may wait for all that others write: the directory's own is for a new one.
            if let Some(directory) = path.parent().filter(|directory| !directory.is_dir()) {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                let above = directory.parent().map_or(Ok(()), |above| File::open(above)?.sync_all());
                if let Err(error) = above.and_then(|()| self.sync()) {
                    let _ = fs::remove_dir(directory);
                    return Err(error.into());
                }
            }
            put(path, text).map_err(|error| Failed { error, bytes: Some(text.len()) })
        })
    }

    /// Removes the text and every file of a load balancer, but for the texts of listeners of datagrams.
    ///
    /// # Errors
    /// When one stays; the text goes last.
    pub fn remove_text(&self, id: LoadBalancerId) -> io::Result<()> {
        self.changed(TEXT, || {
            match fs::remove_dir_all(self.uploads(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            Ok(self.remove_file(&self.text(id), 1)?)
        })
    }

    /// Removes the text of a listener of datagrams.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove_datagrams(&self, id: LoadBalancerId, listener: ListenerId) -> io::Result<()> {
        self.changed(DATAGRAMS, || Ok(self.remove_file(&self.datagrams(id, listener), 2)?))
    }

    /// Removes a file, what was half done of it, and so many directories above it that are empty then.
    fn remove_file(&self, path: &Path, directories: usize) -> io::Result<()> {
        remove_if_there(path)?;
        if let Some(unfinished) = unfinished(path) {
            remove_if_there(&unfinished)?;
        }
        for directory in path.ancestors().skip(1).take(directories) {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync()
    }

    fn uploads(&self, id: LoadBalancerId) -> PathBuf {
        self.path(CERTIFICATES).join(id.to_string())
    }

    fn text(&self, id: LoadBalancerId) -> PathBuf {
        self.path(&id.to_string()).join(TEXT)
    }

    fn datagrams(&self, id: LoadBalancerId, listener: ListenerId) -> PathBuf {
        self.path(&id.to_string()).join(DATAGRAMS).join(format!("{listener}{SUFFIX}"))
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a file is before it is whole.
fn unfinished(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}{UNFINISHED}")))
}

/// Written under another name, synced, and renamed: what a killed process leaves half done is written over the next time.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(unfinished)) = (path.parent(), unfinished(path)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
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
        assert_eq!(store.read_texts().unwrap(), None);
        assert_eq!(store.read_upload(id, &name("a.pem")).unwrap(), None);
        store.remove_upload(id, &name("a.pem")).unwrap();
        store.write_upload(id, &name("a.pem"), &[0, 255]).unwrap();
        store.write_upload(id, &name("a.pem"), &[1]).unwrap();
        store.write_upload(id, &name("b.pem"), b"").unwrap();
        store.write_text(id, b"global\n").unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.read_upload(id, &name("a.pem")).unwrap(), Some(vec![1]));
        assert_eq!(store.read_upload(id, &name("b.pem")).unwrap(), Some(vec![]));
        let texts = Texts { id, streams: Some(b"global\n".to_vec()), datagrams: Vec::new() };
        assert_eq!(store.read_texts().unwrap(), Some(texts));
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
            (store.read_text(id).unwrap(), store.read_upload(id, &name("b.pem")).unwrap()),
            (None, None)
        );
    }

    #[test]
    fn texts_of_listeners_stay_when_that_of_the_load_balancer_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (store, id): (_, LoadBalancerId) = (Store::open(directory.path()).unwrap(), ID.parse().unwrap());
        let listener: ListenerId = "55555555-5555-4555-8555-555555555555".parse().unwrap();
        store.write_text(id, b"global\n").unwrap();
        store.write_datagrams(id, listener, b"a").unwrap();
        store.write_datagrams(id, listener, b"b").unwrap();
        fs::write(directory.path().join(ID).join("lvs/.x.conf.unfinished"), "").unwrap();
        assert_eq!(store.read_datagrams(id, listener).unwrap(), Some(b"b".to_vec()));
        store.remove_text(id).unwrap();
        let texts = Texts { id, streams: None, datagrams: vec![(listener, b"b".to_vec())] };
        assert_eq!(store.read_texts().unwrap(), Some(texts));
        fs::remove_file(directory.path().join(ID).join("lvs/.x.conf.unfinished")).unwrap();
        store.remove_datagrams(id, listener).unwrap();
        store.remove_datagrams(id, listener).unwrap();
        assert_eq!(store.read_texts().unwrap(), None);
        assert!(!directory.path().join(ID).exists());
    }
}
