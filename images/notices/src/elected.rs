//! Which texts of a library count: those of the licence that is elected where it offers several, and those of the C sources
//! within it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, Library, linked::Source};

/// In this order where a choice is offered, each with what the name of its file has: the shortest duties first.
const ELECTED: [(&str, &str); 5] = [
    ("MIT", "MIT"),
    ("ISC", "ISC"),
    ("BSD-3-Clause", "BSD"),
    ("BSD-2-Clause", "BSD"),
    ("Apache-2.0", "APACHE"),
];

/// Sources whose licence stands in a comment at their beginning, and in no file.
const COMMENTS: [(&str, &str); 2] =
    [("pcre2-sys", "upstream/include/pcre2.h"), ("pcre2-sys", "upstream/deps/sljit/sljit_src/sljitLir.h")];

/// Directories whose contents are not linked.
const ASIDE: [&str; 7] = ["tests", "test", "benches", "examples", "fuzz", "target", "docs"];

/// A library with its texts.
///
/// # Errors
/// It brings none: somebody has to look what to do then.
pub(crate) fn library(source: Source, directory: &Path) -> Result<Library, Error> {
    let Source { name, version, license, .. } = source;
    let licence = license.ok_or_else(|| format!("{name} {version} does not say its licence"))?;
    let told = |error: io::Error| format!("{name} {version}: {error}");
    let mut found = Vec::new();
    licence_files(directory, &mut found).map_err(told)?;
    found.sort();
    let (of_all, within): (Vec<PathBuf>, Vec<PathBuf>) =
        found.into_iter().partition(|path| path.parent() == Some(directory));
    let read = |path: &PathBuf| -> io::Result<(String, String)> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((file, String::from_utf8_lossy(&fs::read(path)?).into_owned()))
    };
    let files = of_all.iter().map(read).collect::<io::Result<Vec<_>>>().map_err(told)?;
    let mut texts = texts(&licence, files);
    if texts.is_empty() {
        return Err(format!("{name} {version} ({licence}) brings no text of its licence").into());
    }
    for path in &within {
        texts.push(read(path).map_err(told)?.1);
    }
    for (_, path) in COMMENTS.iter().filter(|(library, _)| *library == name) {
        let source = fs::read(directory.join(path)).map_err(told)?;
        let comment = comment(&String::from_utf8_lossy(&source));
        texts.push(comment.ok_or_else(|| format!("{name} {version}: {path} does not say its licence"))?);
    }
    Ok(Library { name, version, licence, texts })
}

/// The texts that count, of files by name beside a library's manifest.
pub(crate) fn texts(licence: &str, files: Vec<(String, String)>) -> Vec<String> {
    let has = |file: &str, mark: &str| file.to_uppercase().contains(mark);
    // Several at once leave no choice.
    let alternatives: Vec<&str> = if licence.contains(" AND ") || licence.contains('(') {
        Vec::new()
    } else {
        licence.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect()
    };
    let elected = ELECTED.iter().find(|(id, mark)| {
        alternatives.len() > 1 && alternatives.contains(id) && files.iter().any(|(file, _)| has(file, mark))
    });
    let counts = |file: &str| match elected {
        None => true,
        Some((_, mark)) => {
            has(file, mark) || has(file, "THIRD") || (*mark == "APACHE" && has(file, "NOTICE"))
        }
    };
    files.into_iter().filter(|(file, _)| counts(file)).map(|(_, text)| text).collect()
}

/// Files that are named as those of licences are.
fn licence_files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name().to_string_lossy().to_uppercase(), entry.file_type()?);
        if kind.is_dir() {
            if !name.starts_with('.') && !ASIDE.contains(&name.to_lowercase().as_str()) {
                licence_files(&entry.path(), found)?;
            }
        } else if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|word| name.starts_with(word))
            && !name.ends_with(".RS")
        {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// The first comment of a C source that is a licence, without its stars and rules.
fn comment(source: &str) -> Option<String> {
    let comments = source.split("/*").skip(1).filter_map(|rest| Some(rest.split_once("*/")?.0));
    let licence = comments
        .take(5)
        .find(|comment| comment.contains("Redistribution") || comment.contains("Permission"))?;
    let from = licence.find("Copyright").unwrap_or(0);
    let lines = licence[from..].lines().map(|line| line.trim_start_matches([' ', '*']).trim_end());
    Some(lines.filter(|line| !line.starts_with("---")).collect::<Vec<_>>().join("\n").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elected(licence: &str, files: &[&str]) -> Vec<String> {
        texts(licence, files.iter().map(|file| ((*file).to_owned(), (*file).to_owned())).collect())
    }

    #[test]
    fn of_several_one_is_elected() {
        let both = ["LICENSE-APACHE", "LICENSE-MIT"];
        for licence in
            ["MIT OR Apache-2.0", "Apache-2.0/MIT", "Apache-2.0 / MIT", "0BSD OR MIT OR Apache-2.0"]
        {
            assert_eq!(elected(licence, &both), ["LICENSE-MIT"], "{licence}");
        }
        assert_eq!(elected("Unlicense OR MIT", &["COPYING", "LICENSE-MIT", "UNLICENSE"]), ["LICENSE-MIT"]);
        assert_eq!(
            elected("Apache-2.0 OR BSD-3-Clause", &["LICENSE-APACHE", "LICENSE-BSD-3-Clause"]),
            ["LICENSE-BSD-3-Clause"]
        );
        assert_eq!(
            elected("Apache-2.0 OR Zlib", &["LICENSE-APACHE", "LICENSE-ZLIB", "NOTICE"]),
            ["LICENSE-APACHE", "NOTICE"]
        );
        assert_eq!(elected("Apache-2.0 OR MIT", &["LICENSE-MIT", "LICENSE-THIRD-PARTY"]).len(), 2);
    }

    #[test]
    fn where_there_is_no_choice_all_of_it_counts() {
        assert_eq!(elected("MIT", &["LICENSE"]), ["LICENSE"]);
        assert_eq!(elected("MIT OR Apache-2.0", &["LICENSE"]), ["LICENSE"]);
        assert_eq!(elected("ISC AND (Apache-2.0 OR ISC)", &["LICENSE", "LICENSE-MIT"]).len(), 2);
        assert_eq!(
            elected("(MIT OR Apache-2.0) AND Unicode-3.0", &["LICENSE-MIT", "LICENSE-UNICODE"]).len(),
            2
        );
        assert!(elected("MIT", &[]).is_empty());
    }

    #[test]
    fn a_licence_in_a_comment() {
        let source = "/*****\n*  PCRE *\n*****/\n\n/* This is a header.\n\n   Copyright (c) 2016 A\n\n-----\nRedistribution and use\n\
                      \x20   * with a point\n-----\n*/\nint main;\n";
        assert_eq!(
            comment(source).as_deref(),
            Some("Copyright (c) 2016 A\n\nRedistribution and use\nwith a point")
        );
        assert_eq!(comment("/* no licence */"), None);
    }
}
