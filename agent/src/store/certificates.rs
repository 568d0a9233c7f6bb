//! Certificates on disk: `certificates/<id>.pem` under the base directory.
//!
//! What is staged is durable before anybody serves it, and what it replaces is kept as `.<id>.before` until the proxy has said that it
//! takes it. A process killed in between leaves both: the next start finds it [undecided](Store::undecided_certificates).

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

use amphora_model::CertificateId;
use nix::unistd::Gid;
use zeroize::Zeroizing;

use super::{Failed, SHARED, Staged, Store, is_there, remove_if_there, share};

/// The directory.
const DIRECTORY: &str = "certificates";

/// What a certificate's file is called behind its id.
const SUFFIX: &str = ".pem";

/// In front of names that are no certificate's: an id begins with a letter or digit.
const HIDDEN: &str = ".";
const BEFORE: &str = ".before";
const UNFINISHED: &str = ".unfinished";

impl Store {
    /// The ids of the certificates that are there. Clears away what a killed process left unfinished.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn certificates(&self) -> io::Result<Vec<CertificateId>> {
        let mut found = Vec::new();
        for name in self.certificate_files()? {
            if let Some(id) = hidden_id(&name, UNFINISHED) {
                // A disk that takes nothing is told of by the next change.
                let _ = fs::remove_file(self.hidden(&id, UNFINISHED));
            } else if let Some(id) = name.strip_suffix(SUFFIX).and_then(|id| id.parse().ok())
                && self.certificate(&id).is_file()
            {
                found.push(id);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Those that were staged by a process which did not live to say whether the proxy takes them.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn undecided_certificates(&self) -> io::Result<Vec<CertificateId>> {
        Ok(self.certificate_files()?.iter().filter_map(|name| hidden_id(name, BEFORE)).collect())
    }

    fn certificate_files(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(DIRECTORY)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    /// The text of a certificate.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is longer than any that is stored.
    pub fn read_certificate(&self, id: &CertificateId) -> io::Result<Zeroizing<Vec<u8>>> {
        amphora_bundle::read_file(&self.certificate(id))
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
        share(&opened, group, 0o750)?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_file() {
                share(&File::open(path)?, group, SHARED)?;
            }
        }
        Ok(())
    }

    /// Puts a certificate in its place, and keeps the one before until [`keep_certificate`](Self::keep_certificate) or
    /// [`unstage_certificate`](Self::unstage_certificate).
    ///
    /// # Errors
    /// When a step fails, with what is still to be taken back: nothing ([`Staged::Unchanged`]) unless the disk has failed at that, too.
    pub fn stage_certificate(&self, id: &CertificateId, text: &[u8]) -> Result<Staged, (io::Error, Staged)> {
        let mut left = Staged::Unchanged;
        let stage = || {
            self.make_directory()?;
            let (path, before) = (self.certificate(id), self.hidden(id, BEFORE));
            // One that cannot be read is another.
            if self.read_certificate(id).is_ok_and(|present| **present == *text) {
                return Ok(Staged::Unchanged);
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
                if self.take_certificate_back(id, staged).is_err() {
                    left = staged;
                }
                return Err(error.into());
            }
            Ok(staged)
        };
        self.changed(DIRECTORY, stage).map_err(|error| (error, left))
    }

    /// What was staged is good: what was before it goes.
    ///
    /// # Errors
    /// When that stays, or may be there again after the machine's next start, with the certificate undecided.
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
            Staged::Replaced => match fs::rename(self.hidden(id, BEFORE), self.certificate(id)) {
                // It was done before, and what failed was to make that durable.
                Err(_) if !is_there(&self.hidden(id, BEFORE))? => {}
                renamed => renamed?,
            },
            Staged::First => remove_if_there(&self.certificate(id))?,
        }
        self.sync_certificates()
    }

    /// Removes a certificate.
    ///
    /// # Errors
    /// When it is still there.
    pub fn remove_certificate(&self, id: &CertificateId) -> io::Result<()> {
        self.changed(DIRECTORY, || {
            remove_if_there(&self.hidden(id, BEFORE))?;
            // Under this name it is nobody's certificate, and can be one again.
            let (path, removed) = (self.certificate(id), self.hidden(id, UNFINISHED));
            match fs::rename(&path, &removed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.sync_certificates()?),
                renamed => renamed?,
            }
            if let Err(error) = self.sync_certificates() {
                fs::rename(&removed, &path)?;
                return Err(error.into());
            }
            // What stays goes at the next start.
            let _ = fs::remove_file(&removed);
            Ok(())
        })
    }

    pub(super) fn make_directory(&self) -> io::Result<()> {
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
                share(&file, group, SHARED)?;
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

/// The id in a hidden name that ends so.
fn hidden_id(name: &str, suffix: &str) -> Option<CertificateId> {
    name.strip_prefix(HIDDEN)?.strip_suffix(suffix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn id(text: &str) -> CertificateId {
        text.parse().unwrap()
    }

    fn texts(store: &Store) -> Vec<(String, Vec<u8>)> {
        let text = |id: CertificateId| (id.to_string(), store.read_certificate(&id).unwrap().to_vec());
        store.certificates().unwrap().into_iter().map(text).collect()
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
    fn a_killed_process_leaves_both_and_the_next_decides() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let _ = store.stage_certificate(&id("a"), b"1").unwrap();
        assert_eq!(store.undecided_certificates().unwrap(), [], "there was none before");
        for (text, decide) in [
            (b"2", Store::keep_certificate as fn(&Store, &CertificateId) -> io::Result<()>),
            (b"3", |store, id| store.unstage_certificate(id, Staged::Replaced)),
        ] {
            let _ = store.stage_certificate(&id("a"), text).unwrap();
            fs::write(directory.path().join("certificates/.b.unfinished"), b"half").unwrap();
            fs::write(directory.path().join("certificates/-no.pem"), b"of nobody").unwrap();
            let store = Store::open(directory.path()).unwrap();
            assert_eq!(store.undecided_certificates().unwrap(), [id("a")]);
            assert_eq!(texts(&store), [("a".to_owned(), text.to_vec())]);
            assert!(!directory.path().join("certificates/.b.unfinished").exists());
            decide(&store, &id("a")).unwrap();
            assert_eq!(store.undecided_certificates().unwrap(), []);
        }
        assert_eq!(texts(&store), [("a".to_owned(), b"2".to_vec())]);
    }

    #[test]
    fn one_that_is_longer_than_any_is_not_read_and_can_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let _ = store.stage_certificate(&id("a"), b"1").unwrap();
        let file = OpenOptions::new().write(true).open(directory.path().join("certificates/a.pem")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(store.read_certificate(&id("a")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(store.stage_certificate(&id("a"), b"2").unwrap(), Staged::Replaced);
        store.keep_certificate(&id("a")).unwrap();
        assert_eq!(texts(&store), [("a".to_owned(), b"2".to_vec())]);
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
