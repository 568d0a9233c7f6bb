//! The documents on disk, under `[haproxy_amphora] base_path`:
//!
//! | file | what |
//! | --- | --- |
//! | `loadbalancer.json` | what runs, or is about to: it is written before it is applied |
//! | `loadbalancer.previous.json` | what ran before; the proxy and the agent fall back to it |
//! | `stats_counters.json` | the counters that heartbeats reported so far |
//!
//! Every file is whole at every moment: it is written under another name, synced, and renamed into its place. A
//! process killed between any two steps, or a full disk, leaves the old document or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What runs.
const CURRENT: &str = "loadbalancer.json";

/// What ran before.
const PREVIOUS: &str = "loadbalancer.previous.json";

/// The counters that heartbeats reported.
const COUNTERS: &str = "stats_counters.json";

/// The mark of a file that is not in its place yet.
const UNFINISHED: &str = ".unfinished";

/// The files of one amphora. Methods block; one at a time may change anything.
#[derive(Debug)]
pub struct Store {
    base: PathBuf,
}

/// Which document: what runs, or what ran before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `loadbalancer.json`.
    Current,
    /// `loadbalancer.previous.json`.
    Previous,
}

impl Slot {
    fn name(self) -> &'static str {
        match self {
            Self::Current => CURRENT,
            Self::Previous => PREVIOUS,
        }
    }
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
        fs::create_dir_all(base)?;
        for entry in fs::read_dir(base)? {
            let path = entry?.path();
            let unfinished =
                |name: &str| path.file_name().is_some_and(|n| n == format!("{name}{UNFINISHED}").as_str());
            if [CURRENT, PREVIOUS, COUNTERS].into_iter().any(unfinished) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { base: base.to_owned() })
    }

    /// A document as it was stored.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read(&self, slot: Slot) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(slot.name())) {
            Ok(document) => Ok(Some(document)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a document the current one, and the current one the previous one.
    ///
    /// # Errors
    /// When a step fails, for one because the disk is full: the current document is the one before.
    pub fn stage(&self, document: &[u8]) -> io::Result<Staged> {
        let before = self.read(Slot::Current)?;
        if before.as_deref() == Some(document) {
            return Ok(Staged::Unchanged);
        }
        let unfinished = self.write_unfinished(CURRENT, document, true)?;
        let staged = if before.is_some() {
            self.keep_previous().map(|()| Staged::Replaced)
        } else {
            Ok(Staged::First)
        };
        let staged = staged.and_then(|staged| fs::rename(&unfinished, self.path(CURRENT)).map(|()| staged));
        if staged.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        let staged = staged?;
        if let Err(error) = self.sync() {
            self.unstage(staged)?;
            return Err(error);
        }
        Ok(staged)
    }

    /// Takes a [`stage`](Self::stage) back: the previous document is the current one again.
    ///
    /// # Errors
    /// When a step fails; the staged document is still the current one then, and the previous one behind it.
    pub fn unstage(&self, staged: Staged) -> io::Result<()> {
        match staged {
            Staged::Unchanged => return Ok(()),
            Staged::Replaced => fs::rename(self.path(PREVIOUS), self.path(CURRENT))?,
            Staged::First => fs::remove_file(self.path(CURRENT))?,
        }
        self.sync()
    }

    /// Removes every document.
    ///
    /// # Errors
    /// When one stays; the current one goes last.
    pub fn remove(&self) -> io::Result<()> {
        for name in [PREVIOUS, CURRENT] {
            match fs::remove_file(self.path(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.sync()
    }

    /// The counters that heartbeats reported so far.
    ///
    /// # Errors
    /// When they are there but cannot be read.
    pub fn read_counters(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(COUNTERS)) {
            Ok(counters) => Ok(Some(counters)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces the counters. They are not synced to the disk: the proxy's counters die with the machine as well.
    ///
    /// # Errors
    /// When a step fails; the ones before are kept.
    pub fn write_counters(&self, counters: &[u8]) -> io::Result<()> {
        let unfinished = self.write_unfinished(COUNTERS, counters, false)?;
        fs::rename(&unfinished, self.path(COUNTERS)).inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn write_unfinished(&self, name: &str, content: &[u8], sync: bool) -> io::Result<PathBuf> {
        let path = self.path(&format!("{name}{UNFINISHED}"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
            file.write_all(content)?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        Ok(path)
    }

    /// Gives the current document a second name, which takes the place of the previous one in one step. Nothing is
    /// copied: this needs no space.
    fn keep_previous(&self) -> io::Result<()> {
        let link = self.path(&format!("{PREVIOUS}{UNFINISHED}"));
        match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::hard_link(self.path(CURRENT), &link)?;
        fs::rename(&link, self.path(PREVIOUS))?;
        // Renaming onto another name of the same file does nothing and leaves both.
        match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.base)?.sync_all()
    }
}

/// Whether an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        base: PathBuf,
        store: Store,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("octavia");
        let store = Store::open(&base).unwrap();
        Fixture { _dir: dir, base, store }
    }

    impl Fixture {
        fn documents(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
            (self.store.read(Slot::Current).unwrap(), self.store.read(Slot::Previous).unwrap())
        }

        fn files(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.base)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn documents_move_down_and_back_up() {
        let f = fixture();
        assert_eq!(f.documents(), (None, None));
        assert_eq!(f.store.stage(b"a").unwrap(), Staged::First);
        assert_eq!(f.store.stage(b"a").unwrap(), Staged::Unchanged);
        assert_eq!(f.documents(), (bytes("a"), None));
        assert_eq!(f.store.stage(b"b").unwrap(), Staged::Replaced);
        let staged = f.store.stage(b"c").unwrap();
        assert_eq!(f.documents(), (bytes("c"), bytes("b")));
        f.store.unstage(staged).unwrap();
        assert_eq!(f.documents(), (bytes("b"), None));
        f.store.remove().unwrap();
        assert_eq!(f.files(), [""; 0]);
    }

    #[test]
    fn a_refused_first_document_leaves_none() {
        let f = fixture();
        let staged = f.store.stage(b"a").unwrap();
        f.store.unstage(staged).unwrap();
        assert_eq!(f.documents(), (None, None));
    }

    /// Every state of the directory in which a killed process can leave it, made by hand.
    #[test]
    fn a_kill_between_any_two_steps_leaves_a_whole_document() {
        type Kill = fn(&Path);
        let kills: [(&str, Kill); 4] = [
            ("while writing", |base| fs::write(base.join("loadbalancer.json.unfinished"), b"ne").unwrap()),
            ("before the previous is linked", |base| {
                fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
            }),
            ("before the previous is renamed", |base| {
                fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
                fs::hard_link(base.join(CURRENT), base.join("loadbalancer.previous.json.unfinished"))
                    .unwrap();
            }),
            ("before the current is renamed", |base| {
                fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
                let link = base.join("loadbalancer.previous.json.unfinished");
                fs::hard_link(base.join(CURRENT), &link).unwrap();
                fs::rename(&link, base.join(PREVIOUS)).unwrap();
            }),
        ];
        for (when, kill) in kills {
            let f = fixture();
            let _ = f.store.stage(b"oldest").unwrap();
            let _ = f.store.stage(b"old").unwrap();
            kill(&f.base);
            let store = Store::open(&f.base).unwrap();
            assert_eq!(store.read(Slot::Current).unwrap(), bytes("old"), "{when}");
            assert!(!f.files().iter().any(|name| name.ends_with(UNFINISHED)), "{when}");
            assert_eq!(store.stage(b"next").unwrap(), Staged::Replaced, "{when}");
            assert_eq!(f.documents(), (bytes("next"), bytes("old")), "{when}");
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_document_before() {
        let f = fixture();
        let _ = f.store.stage(b"old").unwrap();
        // A directory in its place makes the step fail, whoever runs the test.
        let blocked = f.base.join("loadbalancer.json.unfinished");
        fs::create_dir(&blocked).unwrap();
        assert!(f.store.stage(b"new").is_err());
        fs::remove_dir(&blocked).unwrap();
        fs::create_dir(f.base.join(PREVIOUS)).unwrap();
        assert!(f.store.stage(b"new").is_err());
        fs::remove_dir(f.base.join(PREVIOUS)).unwrap();
        assert_eq!(f.documents(), (bytes("old"), None));
        assert!(!f.files().contains(&"loadbalancer.json.unfinished".to_owned()));
    }

    #[test]
    fn counters_are_replaced_whole() {
        let f = fixture();
        assert_eq!(f.store.read_counters().unwrap(), None);
        f.store.write_counters(b"{}").unwrap();
        f.store.write_counters(b"[]").unwrap();
        assert_eq!(f.store.read_counters().unwrap(), bytes("[]"));
        assert_eq!(f.files(), [COUNTERS]);
    }

    const WRITER: &str = "AMPHORA_TEST_STORE_WRITER";

    /// The body of the process that the next test kills; nothing when it is run as a test.
    #[test]
    fn writes_until_killed() {
        let Some(base) = std::env::var_os(WRITER) else { return };
        let store = Store::open(Path::new(&base)).unwrap();
        for round in 0u64.. {
            let staged = store.stage(&document(round)).unwrap();
            if round % 3 == 0 {
                store.unstage(staged).unwrap();
            }
        }
    }

    /// Its number, so often that a torn one shows.
    fn document(round: u64) -> Vec<u8> {
        round.to_le_bytes().repeat(2000)
    }

    #[test]
    fn a_process_killed_at_any_moment_leaves_whole_documents() {
        let f = fixture();
        let mut found = 0;
        for round in 0u64..40 {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::tests::writes_until_killed"])
                .env(WRITER, &f.base)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_micros(3000 + 977 * round));
            writer.kill().unwrap();
            writer.wait().unwrap();
            for slot in [Slot::Current, Slot::Previous] {
                let Some(stored) = f.store.read(slot).unwrap() else { continue };
                let number: [u8; 8] = stored[..8].try_into().unwrap();
                assert!(stored == document(u64::from_le_bytes(number)), "{slot:?} is torn");
                found += 1;
            }
        }
        assert!(found > 0, "no writer got so far");
    }
}
