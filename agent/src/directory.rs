//! The directories that the agent makes, into which programs of other users look; and files outside its own that it replaces.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use amphora_sandbox::Account;
use nix::unistd::{Gid, Uid, fchown, geteuid};

/// Makes a directory, and those above it, where they are missing. An agent that is root lets everybody through those that it
/// makes, whatever its umask: the proxy and the VRRP daemon are users of their own. The files in them have their own modes.
///
/// # Errors
/// As the file system says.
#[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
pub fn make(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(directory)?;
    if geteuid().is_root() {
        for made in missing {
            fs::set_permissions(made, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// The first of a directory and those above it through which a program of this user does not pass, by its mode.
#[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
pub fn keeps_out(directory: &Path, account: &Account) -> Option<PathBuf> {
    let passes = |path: &Path| {
        let Ok(found) = fs::metadata(path) else { return true };
        let bit = match (found.uid() == account.uid().as_raw(), found.gid() == account.gid().as_raw()) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        found.mode() & bit != 0
    };
    let directory = directory.canonicalize().ok()?;
    directory.ancestors().find(|path| !passes(path)).map(Path::to_owned)
}

/// Replaces a file as a whole: whenever this is interrupted the old content is there, or the new one. Owner and permissions stay
/// what they were; a new file is for its owner's eyes alone. Blocks on the disk.
///
/// # Errors
/// As the file system says; the old content is there.
#[expect(clippy::disallowed_methods, reason = "who calls is a blocking thread")]
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // Where it is a link, what it points to.
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found?,
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".unfinished");
    let unfinished = directory.join(hidden);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        if let Ok(before) = fs::metadata(&path) {
            file.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
            // Who may not give files away owns what it replaces.
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
                fchown(&file, Some(Uid::from_raw(before.uid())), Some(Gid::from_raw(before.gid())))?;
            }
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn who_does_not_pass_is_kept_out_by_the_innermost_directory() {
        let top = tempfile::tempdir().unwrap();
        let [above, within] = [top.path().join("above"), top.path().join("above/within")];
        fs::create_dir_all(&within).unwrap();
        let Ok(nobody) = Account::named("nobody") else { return };
        let kept_out = |modes: [u32; 3]| {
            for (path, mode) in [top.path(), &above, &within].into_iter().zip(modes) {
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            let found = keeps_out(&within, &nobody).filter(|path| path.starts_with(top.path()));
            found.map(|path| path.strip_prefix(top.path()).unwrap().to_owned())
        };
        assert_eq!(kept_out([0o711, 0o755, 0o711]), None);
        assert_eq!(kept_out([0o711, 0o700, 0o755]).as_deref(), Some(Path::new("above")));
        assert_eq!(kept_out([0o700, 0o755, 0o750]).as_deref(), Some(Path::new("above/within")));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("a"), directory.path().join("b"));
        replace_file(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace_file(&link, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // A directory in its place makes the step fail, whoever runs the test.
        let blocked = directory.path().join(".a.unfinished");
        fs::create_dir(&blocked).unwrap();
        assert!(replace_file(&file, b"three").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }
}
