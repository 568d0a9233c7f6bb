//! Room for one more uploaded file. Octavia names certificates and revocation lists by their content and deletes those of a
//! listener that goes alone, so that each that is renewed leaves one behind.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The most that the files of a load balancer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// How many.
    pub(super) files: usize,
    /// Together.
    pub(super) bytes: u64,
}

struct Uploaded {
    path: PathBuf,
    name: String,
    bytes: u64,
    changed: SystemTime,
}

/// Makes room in a directory for a file of this name and length: where it would be too many, those go first that neither
/// the text names nor a list of certificates that it names, the oldest before the others.
///
/// # Errors
/// [`io::ErrorKind::QuotaExceeded`] when there is no room still, and when the directory cannot be read. A file that cannot be
/// removed stays.
pub(super) fn make(
    directory: &Path,
    name: &str,
    length: u64,
    text: Option<&[u8]>,
    most: Bound,
) -> io::Result<()> {
    let mut uploaded = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Its name is UTF-8, or it is none of ours and counts all the same.
        let named = entry.file_name().to_string_lossy().into_owned();
        if named != name {
            let about = entry.metadata()?;
            let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            uploaded.push(Uploaded { path: entry.path(), name: named, bytes: about.len(), changed });
        }
    }
    let fits = |files: usize, bytes: u64| files < most.files && bytes.saturating_add(length) <= most.bytes;
    let (mut files, mut bytes) = (uploaded.len(), uploaded.iter().map(|file| file.bytes).sum());
    if fits(files, bytes) {
        return Ok(());
    }
    let named = named(text.unwrap_or_default(), &uploaded);
    uploaded.retain(|file| !named.contains(&file.name));
    uploaded.sort_by_key(|file| file.changed);
    for file in &uploaded {
        fs::remove_file(&file.path)?;
        tracing::info!(file = file.name, "an uploaded file that no text names any more made room");
        (files, bytes) = (files - 1, bytes - file.bytes);
        if fits(files, bytes) {
            return Ok(());
        }
    }
    let reason = format!(
        "there are {} files at most that a text names, of {} MiB together",
        most.files,
        most.bytes >> 20
    );
    Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason))
}

/// The names of files that are words of the text, or of a file that is. What looks like one and is none is kept, too.
fn named(text: &[u8], uploaded: &[Uploaded]) -> HashSet<String> {
    let there: HashSet<&str> = uploaded.iter().map(|file| file.name.as_str()).collect();
    let mut named = HashSet::new();
    let mut lists = Vec::new();
    let mut look = |text: &[u8], found: &mut Vec<String>| {
        for word in words(text).filter(|word| there.contains(word)) {
            if named.insert(word.to_owned()) {
                found.push(word.to_owned());
            }
        }
    };
    look(text, &mut lists);
    let mut ignored = Vec::new();
    for file in uploaded.iter().filter(|file| lists.contains(&file.name)) {
        look(&fs::read(&file.path).unwrap_or_default(), &mut ignored);
    }
    named
}

/// All that could be a file's name.
fn words(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'_' | b'-'))
        .filter_map(|word| std::str::from_utf8(word).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    const MOST: Bound = Bound { files: 5, bytes: 100 };

    /// The files of these names and contents, each a second younger than the one before.
    fn uploaded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (second, (name, content)) in files.iter().enumerate() {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
            fs::File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
        }
        directory
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const TEXT: &[u8] =
        b"bind 10.0.0.1:443 ssl crt-list /var/lib/octavia/certs/lb/list.pem ca-file /var/lib/octavia/certs/lb/ca.pem\n";

    #[test]
    fn what_no_text_names_goes_first_and_the_oldest_before_others() {
        let files = [
            ("ca.pem", "x"),
            ("old.pem", "x"),
            ("in-the-list.pem", "ca.pem older.pem"),
            ("new.pem", "x"),
            ("list.pem", "/certs/lb/in-the-list.pem\n"),
        ];
        let directory = uploaded(&files);
        // One that is replaced takes no room.
        make(directory.path(), "old.pem", 50, Some(TEXT), MOST).unwrap();
        assert_eq!(names(&directory).len(), 5);
        make(directory.path(), "next.pem", 1, Some(TEXT), MOST).unwrap();
        assert_eq!(names(&directory), ["ca.pem", "in-the-list.pem", "list.pem", "new.pem"]);
        // By their length.
        make(directory.path(), "next.pem", 57, Some(TEXT), MOST).unwrap();
        assert_eq!(names(&directory), ["ca.pem", "in-the-list.pem", "list.pem"]);
        let refused = make(directory.path(), "next.pem", 58, Some(TEXT), MOST).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(names(&directory), ["ca.pem", "in-the-list.pem", "list.pem"]);
    }

    #[test]
    fn without_a_text_the_oldest_goes() {
        let directory =
            uploaded(&[("b.pem", ""), ("a.pem", ""), ("c.pem", ""), ("d.pem", ""), ("e.pem", "")]);
        make(directory.path(), "next.pem", 1, None, MOST).unwrap();
        assert_eq!(names(&directory), ["a.pem", "c.pem", "d.pem", "e.pem"]);
    }
}
