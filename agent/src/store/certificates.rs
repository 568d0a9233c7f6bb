//! Certificates on disk: `certificates/<id>.pem` under the base directory.
//!
//! A file that is replaced is kept as `.<id>.before` until what replaced it is known to be good; a process killed in between
//! leaves that, and the next start takes it back.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

use amphora_model::CertificateId;
use nix::unistd::{Gid, fchown};

use super::{Failed, Staged, Store, remove_if_there, share};

/// The directory.
const DIRECTORY: &str = "certificates";

/// What a certificate's file is called behind its id.
const SUFFIX: &str = ".pem";

/// In front of names that are no certificate's: an id begins with a letter or digit.
const HIDDEN: &str = ".";
const BEFORE: &str = ".before";
const UNFINISHED: &str = ".unfinished";

impl Store {
    /// Every certificate that is there, with its text. Takes back what a killed process left half done.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn certificates(&self) -> io::Result<Vec<(CertificateId, Vec<u8>)>> {
        let directory = self.path(DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let hidden = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix(HIDDEN));
            let Some(hidden) = hidden else { continue };
            let id = |suffix| hidden.strip_suffix(suffix).and_then(|id| id.parse::<CertificateId>().ok());
            if let Some(id) = id(BEFORE) {
                fs::rename(&path, self.certificate(&id))?;
            } else if id(UNFINISHED).is_some() {
                fs::remove_file(&path)?;
            }
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let id = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(id) = id.and_then(|id| id.parse().ok())
                && path.is_file()
            {
                found.push((id, fs::read(&path)?));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Lets this group read the certificates that are there. The directory may be anybody's making: a tmpfs has the mode of its
    /// mount.
    pub(super) fn share_certificates(&self, group: Option<Gid>) -> io::Result<()> {
        let (directory, Some(group)) = (self.path(DIRECTORY), group) else { return Ok(()) };
        // By the descriptor: the unit's filter of system calls permits no other way.
        let opened = match File::open(&directory) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fchown(&opened, None, Some(group))?;
        opened.set_permissions(Permissions::from_mode(0o750))?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_file() {
                share(&File::open(path)?, group)?;
            }
        }
        Ok(())
    }

    /// Puts a certificate in its place, and keeps the one before until [`keep_certificate`](Self::keep_certificate) or
    /// [`unstage_certificate`](Self::unstage_certificate).
    ///
    /// # Errors
    /// When a step fails: what was there is there.
    pub fn stage_certificate(&self, id: &CertificateId, text: &[u8]) -> io::Result<Staged> {
        self.changed(DIRECTORY, || {
            self.make_directory()?;
            let (path, before) = (self.certificate(id), self.hidden(id, BEFORE));
            match fs::read(&path) {
                Ok(present) if present == text => return Ok(Staged::Unchanged),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let unfinished = self.write_certificate(id, text)?;
            let put = || {
                remove_if_there(&before)?;
                let staged = match fs::hard_link(&path, &before) {
                    Ok(()) => Staged::Replaced,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Staged::First,
                    Err(error) => return Err(error),
                };
                fs::rename(&unfinished, &path)?;
                Ok(staged)
            };
            let staged = match put() {
                Ok(staged) => staged,
                Err(error) => {
                    let _ = fs::remove_file(&unfinished);
                    let _ = fs::remove_file(&before);
                    return Err(error.into());
                }
            };
            if let Err(error) = self.sync_certificates() {
                self.take_certificate_back(id, staged)?;
                return Err(error.into());
            }
            Ok(staged)
        })
    }

    /// What was staged is good: what was before it goes.
    ///
    /// # Errors
    /// When that stays; then it would be back after a restart.
    pub fn keep_certificate(&self, id: &CertificateId) -> io::Result<()> {
        self.changed(DIRECTORY, || {
            remove_if_there(&self.hidden(id, BEFORE))?;
            Ok(self.sync_certificates()?)
        })
    }

    /// Takes a [`stage_certificate`](Self::stage_certificate) back.
    ///
    /// # Errors
    /// When a step fails.
    pub fn unstage_certificate(&self, id: &CertificateId, staged: Staged) -> io::Result<()> {
        self.changed(DIRECTORY, || Ok(self.take_certificate_back(id, staged)?))
    }

    fn take_certificate_back(&self, id: &CertificateId, staged: Staged) -> io::Result<()> {
        match staged {
            Staged::Unchanged => return Ok(()),
            Staged::Replaced => fs::rename(self.hidden(id, BEFORE), self.certificate(id))?,
            Staged::First => remove_if_there(&self.certificate(id))?,
        }
        self.sync_certificates()
    }

    /// Removes a certificate; whether there was one.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove_certificate(&self, id: &CertificateId) -> io::Result<()> {
        self.changed(DIRECTORY, || {
            remove_if_there(&self.hidden(id, BEFORE))?;
            remove_if_there(&self.certificate(id))?;
            Ok(self.sync_certificates()?)
        })
    }

    fn make_directory(&self) -> io::Result<()> {
        let directory = self.path(DIRECTORY);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        // One that the proxy may not read would stay so: the next certificate would find it there.
        self.share_certificates(self.readers.proxy).and_then(|()| self.sync()).inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })
    }

    fn write_certificate(&self, id: &CertificateId, text: &[u8]) -> Result<PathBuf, Failed> {
        let path = self.hidden(id, UNFINISHED);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            if let Some(group) = self.readers.proxy {
                share(&file, group)?;
            }
            file.write_all(text)?;
            file.sync_all()
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&path);
            // How many bytes is not tried again: the trial would stand in another directory, which may be another disk.
            return Err(error.into());
        }
        Ok(path)
    }

    fn certificate(&self, id: &CertificateId) -> PathBuf {
        self.path(DIRECTORY).join(format!("{id}{SUFFIX}"))
    }

    fn hidden(&self, id: &CertificateId, suffix: &str) -> PathBuf {
        self.path(DIRECTORY).join(format!("{HIDDEN}{id}{suffix}"))
    }

    fn sync_certificates(&self) -> io::Result<()> {
        File::open(self.path(DIRECTORY))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(text: &str) -> CertificateId {
        text.parse().unwrap()
    }

    fn texts(store: &Store) -> Vec<(String, Vec<u8>)> {
        store.certificates().unwrap().into_iter().map(|(id, text)| (id.to_string(), text)).collect()
    }

    #[test]
    fn what_is_staged_is_kept_or_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert!(texts(&store).is_empty());
        assert_eq!(store.stage_certificate(&id("a"), b"1").unwrap(), Staged::First);
        assert_eq!(store.stage_certificate(&id("a"), b"1").unwrap(), Staged::Unchanged);
        assert_eq!(store.stage_certificate(&id("a"), b"2").unwrap(), Staged::Replaced);
        store.unstage_certificate(&id("a"), Staged::Replaced).unwrap();
        assert_eq!(texts(&store), [("a".to_owned(), b"1".to_vec())]);
        let staged = store.stage_certificate(&id("a"), b"2").unwrap();
        store.keep_certificate(&id("a")).unwrap();
        assert_eq!((texts(&store), staged), (vec![("a".to_owned(), b"2".to_vec())], Staged::Replaced));
        let staged = store.stage_certificate(&id("b.before"), b"3").unwrap();
        store.unstage_certificate(&id("b.before"), staged).unwrap();
        store.remove_certificate(&id("a")).unwrap();
        assert!(texts(&store).is_empty());
        assert_eq!(fs::read_dir(directory.path().join(DIRECTORY)).unwrap().count(), 0);
    }

    #[test]
    fn a_killed_process_leaves_what_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let _ = store.stage_certificate(&id("a"), b"1").unwrap();
        store.keep_certificate(&id("a")).unwrap();
        let _ = store.stage_certificate(&id("a"), b"2").unwrap();
        fs::write(directory.path().join("certificates/.b.unfinished"), b"half").unwrap();
        fs::write(directory.path().join("certificates/-no.pem"), b"of nobody").unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(texts(&store), [("a".to_owned(), b"1".to_vec())]);
        assert!(!directory.path().join("certificates/.b.unfinished").exists());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        std::os::unix::fs::symlink(DIRECTORY, directory.path().join(DIRECTORY)).unwrap();
        assert!(store.certificates().is_err());
        let readers = super::super::Readers { proxy: Some(nix::unistd::getgid()), vrrp: None };
        assert!(store.share_with(readers).is_err());
    }

    #[test]
    fn nobody_else_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let _ = store.stage_certificate(&id("a"), b"1").unwrap();
        let mode =
            |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("certificates"), mode("certificates/a.pem")), (0o700, 0o600));
        // The proxy's group, and nobody beyond.
        let readers = super::super::Readers { proxy: Some(nix::unistd::getgid()), vrrp: None };
        let store = store.share_with(readers).unwrap();
        assert_eq!((mode("certificates"), mode("certificates/a.pem")), (0o750, 0o640));
        let _ = store.stage_certificate(&id("b"), b"2").unwrap();
        assert_eq!(mode("certificates/b.pem"), 0o640);
    }
}
