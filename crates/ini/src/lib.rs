//! The configuration of an OpenStack service, as oslo.config reads it.
//!
//! | module | what |
//! | --- | --- |
//! | [`dialect`] | the text: sections and assignments with their places |
//! | [`sources`] | the files, `--config-file` and `--config-dir` |
//! | [`reader`] | typed options, with defaults and substitution |

pub mod dialect;
pub mod reader;
pub mod sources;
mod substitute;

use std::path::PathBuf;

use self::dialect::{IniError, Place};

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or a directory of files cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Read(PathBuf, std::io::Error),
    /// A file is not in oslo's dialect.
    #[error(transparent)]
    Syntax(IniError),
    /// One option's value is not usable.
    #[error("{at}{option}: {reason}", at = .place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    Option {
        /// Section and name, as `[section] name`.
        option: String,
        /// Where it is set, if it is.
        place: Option<Place>,
        /// What is wrong.
        reason: String,
    },
}
