//! The documents on disk, under `[haproxy_amphora] base_path`:
//!
//! | file | what |
//! | --- | --- |
//! | `loadbalancer.json` | what runs, or is about to: it is written before it is applied |
//! | `loadbalancer.previous.json` | what ran before; the proxy and the agent fall back to it |
//! | `loadbalancer.older.json` | what ran before that; it becomes the previous one again when a change is taken back |
//! | `vrrp.conf`, `vrrp.previous.conf`, `vrrp.older.conf` | the same of the VRRP configuration; the daemon reads the first at its start |
//! | `vrrp.uploaded.conf` | one that was uploaded by `/1.0` and not taken up yet |
//! | `peers.json`, `peers.previous.json`, `peers.older.json` | the same of the other amphora and the key; for the agent's and the proxy's eyes alone |
//! | `stats_counters.json` | the counters that heartbeats reported so far |
//! | `interfaces.json` | the ports that are plugged |
//! | `loadbalancer.reserve` | nothing but room, for a document that is written to stop something while the disk is full |
//! | `filter.json` | what may come in by them, where a controller says it |
//! | `certificates/<id>.pem` | keys, certificates and revocation lists that documents name; for the agent's and the proxy's eyes alone |
//!
//! Every file is whole at every moment: it is written under another name, synced, and renamed into its place. A
//! process killed between any two steps, or a full disk, leaves the old document or the new one, and behind it the
//! one that ran before.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "who calls is a blocking thread, or starts the agent"
)]

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use amphora_sandbox::Account;
use nix::unistd::{Gid, fchown};

use crate::{directory, supervise::Users};

mod certificates;
mod files;
mod reserve;
mod room;
mod single;
mod trouble;

pub use self::files::{FileName, Texts};
use self::{
    reserve::Room,
    trouble::{Failed, Troubles, scarcity},
};

/// What is kept, each with the two that were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The load balancer's document.
    LoadBalancer,
    /// The VRRP configuration.
    Vrrp,
    /// The other amphora, with which session persistence is kept alike, and the key.
    Peers,
}

impl Kept {
    const ALL: [Self; 3] = [Self::LoadBalancer, Self::Vrrp, Self::Peers];

    /// The name of the file with what runs.
    pub const fn current(self) -> &'static str {
        match self {
            Self::LoadBalancer => "loadbalancer.json",
            Self::Vrrp => "vrrp.conf",
            Self::Peers => "peers.json",
        }
    }

    /// The name of what ran before.
    const fn previous(self) -> &'static str {
        match self {
            Self::LoadBalancer => "loadbalancer.previous.json",
            Self::Vrrp => "vrrp.previous.conf",
            Self::Peers => "peers.previous.json",
        }
    }

    /// The name of what ran before that.
    const fn older(self) -> &'static str {
        match self {
            Self::LoadBalancer => "loadbalancer.older.json",
            Self::Vrrp => "vrrp.older.conf",
            Self::Peers => "peers.older.json",
        }
    }
}

/// The groups that may read documents, apart from the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// The load balancer and the other amphora.
    pub proxy: Option<Gid>,
    /// The VRRP configuration.
    pub vrrp: Option<Gid>,
}

impl Readers {
    fn of(self, kept: Kept) -> Option<Gid> {
        match kept {
            Kept::LoadBalancer | Kept::Peers => self.proxy,
            Kept::Vrrp => self.vrrp,
        }
    }
}

impl From<&Users> for Readers {
    fn from(users: &Users) -> Self {
        Self { proxy: users.proxy.as_ref().map(Account::gid), vrrp: users.vrrp.as_ref().map(Account::gid) }
    }
}

/// What is shared already is left alone: a disk that takes nothing any more keeps nobody from starting.
fn share(file: &File, group: Gid, mode: u32) -> io::Result<()> {
    let present = file.metadata()?;
    if present.gid() != group.as_raw() {
        fchown(file, None, Some(group))?;
    }
    if present.mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The mode of a file that is shared.
const SHARED: u32 = 0o640;

/// The permissions of a file before it is shared; a key is for this user's eyes alone.
fn mode(name: &str) -> u32 {
    if name == Kept::Peers.current() { 0o600 } else { 0o640 }
}

/// The mark of a file that is not in its place yet.
const UNFINISHED: &str = ".unfinished";

/// The files of one amphora. Methods block.
#[derive(Debug)]
pub struct Store {
    base: PathBuf,
    readers: Readers,
    /// Held while anything is changed.
    changing: Mutex<()>,
    troubles: Troubles,
}

/// Which document: what runs, or what ran before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `loadbalancer.json`, `vrrp.conf` or `peers.json`.
    Current,
    /// `loadbalancer.previous.json`, `vrrp.previous.conf` or `peers.previous.json`.
    Previous,
}

/// What [`Store::stage`] did, and so what [`Store::unstage`] has to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Staged {
    /// The document was there already.
    Unchanged,
    /// It took the place of another, which is the previous one now.
    Replaced,
    /// It is the first.
    First,
}

impl Store {
    /// Opens a base directory, makes it when it is missing, and clears away what a killed process left half done.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(base: &Path) -> io::Result<Self> {
        directory::make(base)?;
        let names = Kept::ALL.iter().flat_map(|kept| [kept.current(), kept.previous(), kept.older()]);
        let names: Vec<_> = names.chain(single::ALL).collect();
        for entry in fs::read_dir(base)? {
            let path = entry?.path();
            let unfinished =
                |name: &&str| path.file_name().is_some_and(|n| n == format!("{name}{UNFINISHED}").as_str());
            if names.iter().any(unfinished) {
                fs::remove_file(&path)?;
            }
        }
        let readers = Readers::default();
        let store =
            Self { base: base.to_owned(), readers, changing: Mutex::new(()), troubles: Troubles::default() };
        Kept::ALL.into_iter().try_for_each(|kept| store.mend(kept))?;
        store.sync()?;
        Ok(store)
    }

    /// Lets the group of each program read its own documents, those that are there and those that come.
    ///
    /// # Errors
    /// When a file may not be given to a group.
    pub fn share_with(mut self, readers: Readers) -> io::Result<Self> {
        self.readers = readers;
        self.share_certificates(readers.proxy)?;
        for kept in Kept::ALL {
            let Some(group) = self.readers.of(kept) else { continue };
            for name in [kept.current(), kept.previous(), kept.older()] {
                match File::open(self.path(name)) {
                    Ok(file) => share(&file, group, SHARED)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self)
    }

    /// A document as it was stored.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read(&self, kept: Kept, slot: Slot) -> io::Result<Option<Vec<u8>>> {
        self.read_file(match slot {
            Slot::Current => kept.current(),
            Slot::Previous => kept.previous(),
        })
    }

    /// Makes a document the current one, and the current one the previous one.
    ///
    /// # Errors
    /// When a step fails, for one because the disk is full: the current and the previous document are those before.
    pub fn stage(&self, kept: Kept, document: &[u8]) -> io::Result<Staged> {
        self.stage_in(Room::Free, kept, document)
    }

    /// The same of a document with less in it than the current one: while the disk is full, the room that is
    /// [kept](Self::reserve) is used, or that of a document before the current one, which is no longer there then.
    ///
    /// # Errors
    /// When a step fails: the current document is the one before.
    pub fn stage_less(&self, kept: Kept, document: &[u8]) -> io::Result<Staged> {
        self.stage_in(Room::Kept, kept, document)
    }

    fn stage_in(&self, room: Room, kept: Kept, document: &[u8]) -> io::Result<Staged> {
        let before = self.read(kept, Slot::Current)?;
        if before.as_deref() == Some(document) {
            return Ok(Staged::Unchanged);
        }
        let staged = if before.is_some() { Staged::Replaced } else { Staged::First };
        self.changed(kept.current(), || self.put(kept, document, staged, room))
    }

    fn put(&self, kept: Kept, document: &[u8], staged: Staged, room: Room) -> Result<Staged, Failed> {
        self.mend(kept)?;
        let unfinished = match self.write_unfinished(kept.current(), document, true) {
            Err(full) if room == Room::Kept && is_full(&full.error) => {
                self.write_into_kept(kept, document, full)?
            }
            written => written?,
        };
        let put = || {
            if staged == Staged::Replaced {
                self.keep(kept.previous(), kept.older())?;
                self.keep(kept.current(), kept.previous())?;
            }
            fs::rename(&unfinished, self.path(kept.current()))
        };
        if let Err(error) = put() {
            let _ = fs::remove_file(&unfinished);
            // What cannot be mended now is mended before the next change, or at the next start.
            let _ = self.mend(kept);
            return Err(error.into());
        }
        if let Err(error) = self.sync() {
            self.take_back(kept, staged)?;
            return Err(error.into());
        }
        Ok(staged)
    }

    /// Takes a [`stage`](Self::stage) back: the previous document is the current one again, and the one before that
    /// the previous one.
    ///
    /// # Errors
    /// When a step fails. When it is the first, the staged document is still the current one, and the previous one
    /// behind it.
    pub fn unstage(&self, kept: Kept, staged: Staged) -> io::Result<()> {
        if staged == Staged::Unchanged {
            return Ok(());
        }
        self.changed(kept.current(), || Ok(self.take_back(kept, staged)?))
    }

    fn take_back(&self, kept: Kept, staged: Staged) -> io::Result<()> {
        match staged {
            Staged::Unchanged => return Ok(()),
            Staged::Replaced => {
                fs::rename(self.path(kept.previous()), self.path(kept.current()))?;
                self.restore_previous(kept)?;
            }
            Staged::First => fs::remove_file(self.path(kept.current()))?,
        }
        self.sync()
    }

    /// Removes a document and those before it.
    ///
    /// # Errors
    /// When one stays; the current one goes last.
    pub fn remove(&self, kept: Kept) -> io::Result<()> {
        self.changed(kept.current(), || {
            let reserve = (kept == Kept::LoadBalancer).then_some(reserve::RESERVE);
            for name in reserve.into_iter().chain([kept.older(), kept.previous(), kept.current()]) {
                remove_if_there(&self.path(name))?;
            }
            Ok(self.sync()?)
        })
    }

    /// What is wrong with the disk, in words: every file that could not be written and was not since, and too little
    /// room. A write whose bytes were not taken is tried again here, so that a disk that has room again is not called
    /// full until the next change.
    pub fn troubles(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (file, trouble) in self.troubles.all() {
            if let Some(bytes) = trouble.bytes
                && let Ok(_changing) = self.changing.try_lock()
                && let Ok(path) = self.write_unfinished(file, &vec![0; bytes], true)
            {
                let _ = fs::remove_file(path);
                self.troubles.end(file);
            } else {
                reasons.push(trouble.reason);
            }
        }
        reasons.extend(scarcity(&self.base));
        reasons
    }

    /// Changes something, alone, and remembers whether that worked.
    fn changed<T>(&self, file: &'static str, change: impl FnOnce() -> Result<T, Failed>) -> io::Result<T> {
        // It guards nothing in memory that a panic could have left half done.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match change() {
            Ok(done) => {
                self.troubles.end(file);
                Ok(done)
            }
            Err(failed) => {
                self.troubles.begin(file, &failed);
                Err(failed.error)
            }
        }
    }

    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a file under another name and renames it into its place.
    fn replace(&self, name: &str, content: &[u8], sync: bool) -> Result<(), Failed> {
        let unfinished = self.write_unfinished(name, content, sync)?;
        Ok(fs::rename(&unfinished, self.path(name)).inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn write_unfinished(&self, name: &str, content: &[u8], sync: bool) -> Result<PathBuf, Failed> {
        let path = self.path(&format!("{name}{UNFINISHED}"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(mode(name)).open(&path)?;
            if let Some(group) = Kept::ALL
                .into_iter()
                .find(|kept| kept.current() == name)
                .and_then(|kept| self.readers.of(kept))
            {
                share(&file, group, SHARED)?;
            }
            file.write_all(content)?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&path);
            return Err(Failed { error, bytes: Some(content.len()) });
        }
        Ok(path)
    }

    /// Gives the document `from` a second name `to`, in one step that replaces what had that name; no document, no
    /// such name. Nothing is copied: this needs no space.
    fn keep(&self, from: &str, to: &str) -> io::Result<()> {
        let link = self.path(&format!("{to}{UNFINISHED}"));
        remove_if_there(&link)?;
        match fs::hard_link(self.path(from), &link) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return remove_if_there(&self.path(to)),
            linked => linked?,
        }
        fs::rename(&link, self.path(to))?;
        // Renaming onto another name of the same file does nothing and leaves both.
        remove_if_there(&link)
    }

    /// Takes back a stage that ended half-way, or ends its taking back: then there is no previous document, or it is
    /// the current one under a second name.
    fn mend(&self, kept: Kept) -> io::Result<()> {
        let file = |name| match fs::metadata(self.path(name)) {
            Ok(data) => Ok(Some((data.dev(), data.ino()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        let (current, previous) = (file(kept.current())?, file(kept.previous())?);
        if current.is_some() && (previous.is_none() || previous == current) {
            self.restore_previous(kept)?;
        }
        Ok(())
    }

    /// Makes the older document the previous one; when there is none, there is no previous one either.
    fn restore_previous(&self, kept: Kept) -> io::Result<()> {
        let (older, previous) = (self.path(kept.older()), self.path(kept.previous()));
        if is_there(&older)? { fs::rename(older, previous) } else { remove_if_there(&previous) }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.base)?.sync_all()
    }
}

fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A disk that is read-only says that it is, and not that there is no such file: it is looked at first.
fn remove_if_there(path: &Path) -> io::Result<()> {
    if is_there(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Whether an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
