//! The files that a program may open, by landlock(7). What the file system's permissions forbid stays forbidden.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest rights that are asked for; an older kernel gives what it has. 6 (Linux 6.12) brings signals.
const RIGHTS: ABI = ABI::V6;

/// The files that a program may open.
#[derive(Clone, Debug, Default)]
pub struct Files {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    remove_in: Vec<PathBuf>,
}

impl Files {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// This file, or what is in this directory and below, may be read. What is not there is passed over.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// The directory of this file may be read: for a file that is replaced by renaming another onto it.
    #[must_use]
    pub fn read_beside(self, file: &Path) -> Self {
        let directory = directory_of(file);
        self.read(directory)
    }

    /// Files in this directory and below may be read and written; none may be made.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// Files beside this one may be removed: for a socket that goes with the program.
    #[must_use]
    pub fn remove_beside(mut self, file: &Path) -> Self {
        self.remove_in.push(directory_of(file));
        self
    }

    /// Lets the thread open nothing else, signal nobody else, and connect to no abstract socket of others. What the kernel
    /// lacks of this.
    pub(crate) fn restrict(&self) -> Option<String> {
        match self.enforce() {
            Ok(RulesetStatus::FullyEnforced) => None,
            Ok(RulesetStatus::PartiallyEnforced) => Some(
                "the kernel's Landlock is older than ABI 6: files are restricted, signals are not".to_owned(),
            ),
            Ok(RulesetStatus::NotEnforced) => {
                Some("the kernel has no Landlock: every file that the user may open can be opened".to_owned())
            }
            Err(error) => Some(format!("files are not restricted by Landlock: {error}")),
        }
    }

    fn enforce(&self) -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(RIGHTS))?
            .scope(Scope::from_all(RIGHTS))?
            .create()?;
        ruleset = allow(ruleset, &self.read, read)?;
        ruleset = allow(ruleset, &self.write, read | AccessFs::WriteFile | AccessFs::Truncate)?;
        ruleset = allow(ruleset, &self.remove_in, AccessFs::RemoveFile.into())?;
        Ok(ruleset.restrict_self()?.ruleset)
    }
}

fn allow(
    ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    paths.iter().try_fold(ruleset, |ruleset, path| {
        // What is not there, or not this user's to look at, cannot be opened either.
        let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(RIGHTS) };
        ruleset.add_rule(PathBeneath::new(opened, access))
    })
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}
