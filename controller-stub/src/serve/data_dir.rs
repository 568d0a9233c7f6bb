//! The directory that all of a `serve` is in: whose it is, who may read it, and what is secret in it.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use nix::unistd::geteuid;

use crate::{
    certs::write,
    error::{Error, Result},
    host,
};

/// Directories of it.
const DIRECTORIES: [&str; 4] = ["authority", "certificates", "amphorae", "machines"];

/// Those of them that nobody else has to enter: programs of amphorae are other users, and pass through the others.
const CLOSED: [&str; 2] = ["authority", "certificates"];

/// Files of each amphora that nobody else is to read, where they are.
const SECRETS_OF_AMPHORAE: [&str; 2] = ["certs/server.pem", "amphora-agent.conf"];

/// Files of it that nobody else is to read, where they are.
const SECRETS: [&str; 8] = [
    "serve.db",
    "serve.db-wal",
    "serve.db-shm",
    "pair.key",
    "heartbeat.key",
    "authority/ca.key",
    "authority/next.key",
    "authority/client.pem",
];

/// Makes the directory when there is none, and looks whether it is one to rely on: who may write there is root of this host by what
/// amphorae run. Secrets that others may read are closed to them.
///
/// # Errors
/// It, or something in it, is another user's, or others may write to it.
pub(super) fn prepare(data: &Path) -> Result<()> {
    // Programs of other users pass through it to what is theirs; all that is secret has modes of its own.
    host::make_passage(data)?;
    ours(data, fs::metadata(data))?;
    for name in DIRECTORIES {
        ours(&data.join(name), fs::symlink_metadata(data.join(name)))?;
    }
    CLOSED.into_iter().chain(SECRETS).try_for_each(|name| close(&data.join(name)))?;
    for amphora in fs::read_dir(data.join("amphorae")).into_iter().flatten().flatten() {
        SECRETS_OF_AMPHORAE.into_iter().try_for_each(|name| close(&amphora.path().join(name)))?;
    }
    Ok(())
}

/// Keeps others from what is there.
fn close(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        // Beside the directories of amphorae there are files.
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(()),
        found => found,
    };
    let Some(mode) = ours(path, found)? else { return Ok(()) };
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others could read it, and can no more");
        let closed = fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
        closed.map_err(|e| Error::local(path.display(), e))?;
    }
    Ok(())
}

/// Keys of tenants that others than their owner may read, in a directory that somebody else looks after: it is his to close them.
pub(super) fn read_by_others(storage: &Path) -> Vec<PathBuf> {
    // Who may not enter it reads nothing in it.
    if fs::metadata(storage).is_ok_and(|found| found.mode() & 0o011 == 0) {
        return Vec::new();
    }
    let entries = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    // Those of a project are in a directory of its own.
    let (directories, mut files): (Vec<_>, Vec<_>) =
        entries(storage).into_iter().partition(|path| path.is_dir());
    files.extend(directories.iter().flat_map(|path| entries(path)));
    files.retain(|path| {
        let has_key = || match path.extension().and_then(|extension| extension.to_str()) {
            Some("p12") => true,
            Some("pem") => fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY")),
            _ => false,
        };
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o044 != 0) && has_key()
    });
    files.sort();
    files
}

/// The mode of what is this user's and nobody else's to change; `None` where there is nothing.
fn ours(path: &Path, found: io::Result<fs::Metadata>) -> Result<Option<u32>> {
    let found = match found {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::local(path.display(), e)),
    };
    let user = geteuid().as_raw();
    if found.uid() != user {
        let text = format!("belongs to user {}, and this is user {user}: `chown -R {user}`", found.uid());
        return Err(Error::local(path.display(), text));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 && !found.is_symlink() {
        let text = format!("others may write to it (mode {mode:o}): `chmod go-w`");
        return Err(Error::local(path.display(), text));
    }
    Ok((!found.is_symlink()).then_some(mode))
}

/// How long the lock of one that was killed may be held: whatever it was about to start holds it until it is another program.
const RELEASED: Duration = Duration::from_secs(2);

/// Whoever has it is the only `serve` of a directory. Waits for one that was killed, and blocks.
pub(super) fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let file = file.map_err(|e| Error::local(path.display(), e))?;
    let end = Instant::now() + RELEASED;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::local(data.display(), "another `serve` works here"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::local(path.display(), e)),
        }
    }
}

/// 32 bytes that nobody else knows, made when they are wanted first.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>> {
    let wrong = |e: &dyn std::fmt::Display| Error::local(path.display(), e);
    match fs::read_to_string(path) {
        Ok(text) => HEXLOWER.decode(text.trim().as_bytes()).map_err(|e| wrong(&e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            rand::fill(&mut bytes).map_err(|e| wrong(&e))?;
            write(path, &HEXLOWER.encode(&bytes), 0o600).map_err(|e| wrong(&e))?;
            Ok(bytes.to_vec())
        }
        Err(e) => Err(wrong(&e)),
    }
}

/// How many directories are in one that may not be there.
pub(super) fn directories(path: &Path) -> Result<usize> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().filter(|entry| entry.path().is_dir()).count()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::local(path.display(), e)),
    }
}

/// A database that is gone must not take the amphorae with it that it has named: they would be removed as nobody's.
///
/// # Errors
/// The file is not there or empty, and there are `amphorae`.
pub(super) fn keep_amphorae(database: &Path, amphorae: usize) -> Result<()> {
    let there = fs::metadata(database).is_ok_and(|found| found.len() > 0);
    if there || amphorae == 0 {
        return Ok(());
    }
    let text = format!(
        "is not there, but {amphorae} amphorae are that it has named: bring it back, or say --new-database, which removes them"
    );
    Err(Error::local(database.display(), text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_directory_has_one_serve_and_a_secret_stays() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().contains("another `serve`"));
        // One that ends meanwhile is waited for.
        let place = dir.path().to_owned();
        let next = thread::spawn(move || lock(&place));
        drop(held);
        next.join().unwrap().unwrap();
        let path = dir.path().join("key");
        let first = secret(&path).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(secret(&path).unwrap(), first);
        fs::write(&path, "x").unwrap();
        assert!(secret(&path).is_err());
    }

    #[test]
    fn what_others_may_change_is_not_relied_on() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        prepare(&data).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o711);
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        fs::create_dir(data.join("authority")).unwrap();
        let key = data.join("authority/ca.key");
        fs::write(&key, "").unwrap();
        mode(&key, 0o644);
        prepare(&data).unwrap();
        assert_eq!(
            fs::metadata(&key).unwrap().mode() & 0o777,
            0o600,
            "and is closed to those who may read it"
        );
        for path in [&key, &data.join("authority"), &data] {
            mode(path, 0o777);
            let refused = prepare(&data).unwrap_err().to_string();
            assert!(refused.contains(path.to_str().unwrap()) && refused.contains("go-w"), "{refused}");
            mode(path, 0o700);
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(&key, Some(65534), None).unwrap();
            let refused = prepare(&data).unwrap_err().to_string();
            assert!(refused.contains("belongs to user 65534"), "{refused}");
        }
    }

    #[test]
    fn what_is_secret_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("amphorae/a/certs")).unwrap();
        fs::create_dir_all(data.join("certificates/project")).unwrap();
        fs::write(data.join("amphorae/instance"), "x").unwrap();
        let open =
            ["amphorae/a/certs/server.pem", "amphorae/a/amphora-agent.conf", "certificates/project/key.pem"];
        for name in open {
            fs::write(data.join(name), "").unwrap();
            fs::set_permissions(data.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(data.join("certificates"), Permissions::from_mode(0o755)).unwrap();
        prepare(&data).unwrap();
        let mode = |name: &str| fs::metadata(data.join(name)).unwrap().mode() & 0o777;
        assert_eq!([mode(open[0]), mode(open[1]), mode("certificates")], [0o600, 0o600, 0o700]);
        assert_eq!(mode("amphorae/instance") & 0o044, 0o044, "no secret");
        // One that is somewhere else is somebody else's.
        let storage = data.join("certificates");
        assert_eq!(read_by_others(&storage), [] as [PathBuf; 0], "nobody enters it");
        fs::set_permissions(&storage, Permissions::from_mode(0o755)).unwrap();
        fs::write(storage.join("ca.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
        let key = storage.join("project/key.pem");
        fs::write(&key, "-----BEGIN PRIVATE KEY-----").unwrap();
        assert_eq!(read_by_others(&storage), [key.as_path()]);
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_by_others(&storage), [] as [PathBuf; 0]);
    }

    #[test]
    fn amphorae_outlive_a_database_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.db");
        keep_amphorae(&path, 0).unwrap();
        for text in [None, Some("")] {
            text.inspect(|text| fs::write(&path, text).unwrap());
            let refused = keep_amphorae(&path, 2).unwrap_err().to_string();
            assert!(refused.contains("serve.db") && refused.contains("--new-database"), "{refused}");
        }
        fs::write(&path, "x").unwrap();
        keep_amphorae(&path, 2).unwrap();
    }
}
