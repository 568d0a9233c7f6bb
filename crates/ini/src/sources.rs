//! The files that are read, in their order: `--config-file` and `--config-dir`, which mean what they mean to oslo.config.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{ConfigError, dialect::Ini};

/// Where a configuration is read from, each time that it is read. What is said later counts, option by option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--config-file`.
    File(PathBuf),
    /// `--config-dir`: each `*.conf` in it that does not begin with a dot, by name.
    Directory(PathBuf),
}

impl Sources {
    /// Those of a command line, in the order given.
    pub fn new(given: Vec<Source>) -> Self {
        Self(given)
    }

    /// The same; where there is no file among them, `default` is read before all else.
    pub fn with_default(mut given: Vec<Source>, default: &Path) -> Self {
        if !given.iter().any(|source| matches!(source, Source::File(_))) {
            given.insert(0, Source::File(default.to_owned()));
        }
        Self(given)
    }

    /// Reads all of them now.
    ///
    /// # Errors
    /// A file or a directory that cannot be read, or is not in the dialect; an empty directory is none.
    pub fn read(&self) -> Result<Ini, ConfigError> {
        self.read_with(None)
    }

    /// The first file, if there is one: the one that a controller may replace.
    pub fn first(&self) -> Option<&Path> {
        let files = self.0.iter().filter_map(|source| match source {
            Source::File(path) => Some(path.as_path()),
            Source::Directory(_) => None,
        });
        files.into_iter().next()
    }

    /// The same, as if the [first](Self::first) file had this text.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(&self, text: Option<&str>) -> Result<Ini, ConfigError> {
        let mut ini = Ini::default();
        let mut text = text;
        for source in &self.0 {
            match source {
                Source::File(path) => match text.take() {
                    Some(text) => add_text(&mut ini, path, text)?,
                    None => add(&mut ini, path)?,
                },
                Source::Directory(path) => {
                    let files = files_in(path).map_err(|e| ConfigError::Read(path.clone(), e))?;
                    files.iter().try_for_each(|path| add(&mut ini, path))?;
                }
            }
        }
        Ok(ini)
    }
}

#[expect(clippy::disallowed_methods, reason = "before there is a runtime, or on a blocking thread")]
fn add(ini: &mut Ini, path: &Path) -> Result<(), ConfigError> {
    let text = fs::read_to_string(path).map_err(|e| ConfigError::Read(path.to_owned(), e))?;
    add_text(ini, path, &text)
}

fn add_text(ini: &mut Ini, path: &Path, text: &str) -> Result<(), ConfigError> {
    ini.add(text, Some(&Arc::from(path))).map_err(ConfigError::Syntax)
}

/// What the shell's `*.conf` finds, sorted.
#[expect(clippy::disallowed_methods, reason = "before there is a runtime, or on a blocking thread")]
fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}
