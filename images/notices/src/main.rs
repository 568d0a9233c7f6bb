//! `amphora-notices FILE PACKAGE...`: writes the licences of the libraries that are linked into the programs of these packages,
//! as their sources have them, with everyone's copyright. Packages and images are made with it, for these licences demand that
//! the notices go where the program goes.
//!
//! * `linked`: which libraries, of cargo; where their sources are
//! * `elected`: which of their files count
//! * `written`: equal texts once, with all who wrote under them

mod elected;
mod linked;
mod written;

use std::process::ExitCode;

/// Why there are no notices.
type Error = Box<dyn std::error::Error>;

/// A library and the texts of its licences.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Library {
    name: String,
    version: String,
    /// SPDX.
    licence: String,
    texts: Vec<String>,
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let [file, packages @ ..] = arguments else {
        return Err("usage: amphora-notices FILE PACKAGE...".into());
    };
    if packages.is_empty() {
        return Err("usage: amphora-notices FILE PACKAGE...".into());
    }
    let mut libraries = linked::standard_library()?;
    for (source, directory) in linked::sources(packages)? {
        libraries.push(elected::library(source, &directory)?);
    }
    std::fs::write(file, written::notices(packages, libraries))
        .map_err(|error| format!("{file}: {error}"))?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amphora-notices: {error}");
            ExitCode::FAILURE
        }
    }
}
