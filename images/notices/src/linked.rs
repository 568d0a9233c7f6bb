//! What is linked, and where its sources are.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{Error, Library};

/// What cargo says of a package.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX; some older ones have `/` for `OR`.
    pub(crate) license: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Source>,
}

/// Everything that the programs contain but ourselves: no macros, nothing that only builds or tests them. As if they were
/// built together, as they are.
pub(crate) fn sources(packages: &[String]) -> Result<Vec<(Source, PathBuf)>, Error> {
    let mut tree = vec!["tree", "--locked", "--prefix", "none", "--format", "{p}"];
    tree.extend(["--edges", "no-dev,no-build,no-proc-macro"]);
    packages.iter().for_each(|package| tree.extend(["--package", package]));
    let linked = names(&cargo(&tree)?);
    let host = output("rustc", &["-vV"])?;
    let host =
        host.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not say its host")?;
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", host])?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let mut known: BTreeMap<(String, String), Source> =
        metadata.packages.into_iter().map(|p| ((p.name.clone(), p.version.clone()), p)).collect();
    let found = linked.into_iter().map(|id| {
        let source = known.remove(&id).ok_or_else(|| format!("cargo has no {} {}", id.0, id.1))?;
        let directory =
            source.manifest_path.parent().map(Path::to_owned).ok_or("a package without directory")?;
        Ok((source, directory))
    });
    found.collect()
}

/// Names and versions in lines like `bytes v1.12.2`, but of our own: `amphora-ipc v0.1.0 (/path)`. A package that came before
/// has ` (*)` behind it.
fn names(tree: &str) -> BTreeSet<(String, String)> {
    let name = |line: &str| {
        let (name, rest) = line.strip_suffix(" (*)").unwrap_or(line).split_once(" v")?;
        (!rest.contains(' ')).then(|| (name.to_owned(), rest.to_owned()))
    };
    tree.lines().filter_map(name).collect()
}

fn cargo(arguments: &[&str]) -> Result<String, Error> {
    output(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()), arguments)
}

fn output(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let run =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if !run.status.success() {
        return Err(
            format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&run.stderr)).into()
        );
    }
    Ok(String::from_utf8(run.stdout)?)
}

/// Of the libraries that Rust's own takes along, those that are in programs for Linux.
const WITHIN: [&str; 6] = ["cfg-if", "foldhash", "gimli", "hashbrown", "libc", "rustc-demangle"];

/// Rust's standard library, and what it contains. What the toolchain brings no notices of is Rust's alone.
pub(crate) fn standard_library() -> Result<Vec<Library>, Error> {
    let version = output("rustc", &["--version"])?;
    let version = version.split(' ').nth(1).ok_or("rustc does not say its version")?;
    let rust = "Copyright (c) The Rust Project Developers (see https://thanks.rust-lang.org)";
    let mut libraries = vec![Library {
        name: "Rust's standard library".into(),
        version: version.to_owned(),
        licence: "MIT OR Apache-2.0".into(),
        texts: vec![format!("{rust}\n\n{}", include_str!("mit.txt"))],
    }];
    let root = output("rustc", &["--print", "sysroot"])?;
    let page = Path::new(root.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    match fs::read_to_string(&page) {
        Ok(page) => libraries.extend(within(&page)),
        Err(error) => eprintln!(
            "notices: WITHOUT the licences of what Rust's standard library brings along: {}: {error}; `rustup component add rust-docs` has it",
            page.display()
        ),
    }
    Ok(libraries)
}

/// Those of the page that Rust brings along.
fn within(page: &str) -> Vec<Library> {
    let mut libraries = Vec::new();
    for part in page.split("<h3>📦 ").skip(1) {
        let Some((name, version)) = part.split("</h3>").next().and_then(|id| id.rsplit_once('-')) else {
            continue;
        };
        if !WITHIN.contains(&name) {
            continue;
        }
        let licence = between(part, "<b>License:</b> ", "</p>").unwrap_or_default();
        let files: Vec<(String, String)> = part
            .split("<summary><code>")
            .skip(1)
            .filter_map(|file| {
                Some((file.split("</code>").next()?.to_owned(), between(file, "<pre>", "</pre>")?))
            })
            .collect();
        let texts = crate::elected::texts(&licence, files);
        libraries.push(Library {
            name: format!("{name} (in Rust's standard library)"),
            version: version.into(),
            licence,
            texts,
        });
    }
    libraries
}

/// What stands between two marks, without the references that HTML makes of some characters.
fn between(text: &str, start: &str, end: &str) -> Option<String> {
    let inner = text.split_once(start)?.1.split_once(end)?.0;
    let references = [
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&lt;", "<"),
        ("&#62;", ">"),
        ("&gt;", ">"),
    ];
    let plain = references.iter().fold(inner.to_owned(), |text, (from, to)| text.replace(from, to));
    Some(plain.replace("&#38;", "&").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_lists_but_ourselves() {
        let tree = "amphora-agent v0.1.0 (/src/agent)\nbytes v1.12.2\n\nbytes v1.12.2 (*)\nderanged v0.5.9\n\
                    amphora-ipc v0.1.0 (/src/crates/ipc) (*)\n";
        let id = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(names(tree), [id("bytes", "1.12.2"), id("deranged", "0.5.9")].into());
    }

    #[test]
    fn what_the_standard_library_contains() {
        let page = "<h3>📦 hashbrown-0.16.1</h3><p><b>License:</b> MIT OR Apache-2.0</p><details>\
                    <summary><code>LICENSE-APACHE</code></summary><pre>Apache</pre></details><details>\
                    <summary><code>LICENSE-MIT</code></summary><pre>Copyright (c) A &#60;a@b&#62; &amp; co</pre></details>\
                    <h3>📦 windows-sys-0.60.2</h3><p><b>License:</b> MIT</p>";
        let found = within(page);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].version.as_str()),
            ("hashbrown (in Rust's standard library)", "0.16.1")
        );
        assert_eq!(found[0].texts, ["Copyright (c) A <a@b> & co"]);
    }

    #[test]
    fn the_programs_contain_what_they_are_made_of() {
        let packages = ["amphora-agent", "amphora-proxy"].map(str::to_owned);
        let found: Vec<String> =
            sources(&packages).expect("cargo").into_iter().map(|(source, _)| source.name).collect();
        for name in ["tokio", "rustls", "aws-lc-sys", "pcre2-sys", "libmimalloc-sys"] {
            assert!(found.iter().any(|found| found == name), "{name} in {found:?}");
        }
        for name in ["serde_derive", "cc", "proptest", "amphora-ipc"] {
            assert!(!found.iter().any(|found| found == name), "{name} in {found:?}");
        }
    }
}
