//! Paths that come from outside.

use std::fmt;

/// The longest path, and the longest name in one (`PATH_MAX` with its end, `NAME_MAX`).
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// What the kernel shows there is no place for files.
const NO_FILES: &[&str] = &["dev", "proc", "sys"];

/// An absolute path of a file: no `..`, no `.`, no empty names, not in `/dev`, `/proc` or `/sys`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// Takes a path; `//` and `/./` are `/`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(relative) = text.strip_prefix('/') else { return Err("not an absolute path".to_owned()) };
        if text.chars().any(char::is_control) {
            return Err("control characters in a path".to_owned());
        }
        let names: Vec<&str> = relative.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.is_empty() || relative.ends_with('/') || relative.ends_with("/.") {
            return Err("the path of a directory".to_owned());
        }
        if names.contains(&"..") {
            return Err("`..` in a path".to_owned());
        }
        if NO_FILES.contains(&names[0]) {
            return Err(format!("/{} is no place for files", names[0]));
        }
        let path = format!("/{}", names.join("/"));
        if path.len() > MAX_PATH || names.iter().any(|name| name.len() > MAX_NAME) {
            return Err("too long a path".to_owned());
        }
        Ok(Self(path))
    }

    /// With its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory, `/` or without a slash at its end, and the name in it.
    pub fn split(&self) -> (&str, &str) {
        match self.0.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(both) => both,
            None => ("/", &self.0),
        }
    }

    /// Whether it is somewhere below a directory, which has no slash at its end.
    pub fn is_in(&self, directory: &str) -> bool {
        self.0.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_taken() {
        for (text, path, directory, name) in [
            (
                "/etc/octavia/certs/server.pem",
                "/etc/octavia/certs/server.pem",
                "/etc/octavia/certs",
                "server.pem",
            ),
            ("/x", "/x", "/", "x"),
            ("//a/./b//c", "/a/b/c", "/a/b", "c"),
            ("/a/...", "/a/...", "/a", "..."),
            ("/devices/x", "/devices/x", "/devices", "x"),
            ("/ä b/c", "/ä b/c", "/ä b", "c"),
        ] {
            let taken = AbsolutePath::parse(text).unwrap();
            assert_eq!((taken.as_str(), taken.split()), (path, (directory, name)), "{text}");
        }
        let path = AbsolutePath::parse("/etc/octavia/x").unwrap();
        assert!(
            path.is_in("/etc/octavia")
                && path.is_in("/etc")
                && !path.is_in("/etc/oct")
                && !path.is_in("/etc/octavia/x")
        );
    }

    #[test]
    fn what_is_not() {
        for text in [
            "",
            "x",
            "./x",
            "../x",
            "/",
            "//",
            "/.",
            "/x/",
            "/x/.",
            "/..",
            "/x/../y",
            "/x/..",
            "/a\0b",
            "/a\nb",
            "/dev/sda",
            "//dev/x",
            "/./proc/sys/kernel/core_pattern",
            "/sys/x",
        ] {
            assert!(AbsolutePath::parse(text).is_err(), "{text:?}");
        }
        assert!(AbsolutePath::parse(&format!("/{}", "x".repeat(255))).is_ok());
        assert!(AbsolutePath::parse(&format!("/{}", "x".repeat(256))).is_err());
        assert!(AbsolutePath::parse(&"/x".repeat(2047)).is_ok());
        assert!(AbsolutePath::parse(&"/x".repeat(2048)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_canonical(text in "/?((\\.{0,3}|[a-z]{0,3}|dev|sys)/){0,5}(\\.{0,3}|[a-z]{0,3})") {
            if let Ok(path) = AbsolutePath::parse(&text) {
                prop_assert_eq!(AbsolutePath::parse(path.as_str()), Ok(path.clone()));
                let mut names = path.as_str()[1..].split('/');
                prop_assert!(names.all(|name| !name.is_empty() && name != "." && name != ".."));
            }
        }
    }
}
