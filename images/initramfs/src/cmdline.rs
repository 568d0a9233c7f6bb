//! The kernel's command line, as far as the initramfs follows it (Documentation/admin-guide/kernel-parameters).

use std::fmt;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Label of the root file system.
    pub label: String,
    /// Mount the root writable from the start (`rw`), which leaves nothing to remount.
    pub writable: bool,
    /// Path of the init in the root.
    pub init: String,
}

/// Why a command line cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// No `root=`.
    NoRoot,
    /// `root=` is something else than `LABEL=` and 1 to 16 bytes.
    Root(String),
    /// `init=` is not an absolute path.
    Init(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoRoot => f.write_str("the kernel's command line has no root="),
            Fault::Root(value) => {
                write!(f, "root={value}: only root=LABEL= with 1 to 16 bytes is known here")
            }
            Fault::Init(value) => write!(f, "init={value}: not an absolute path"),
        }
    }
}

impl Boot {
    /// Reads a command line. The last of several values counts, as with the kernel; what concerns others is left to them.
    ///
    /// # Errors
    /// A root that is not told by label, or none; an init that is no absolute path.
    pub fn parse(line: &str) -> Result<Self, Fault> {
        let (mut root, mut init, mut writable) = (None, "/sbin/init".to_owned(), false);
        for word in words(line) {
            match word.split_once('=') {
                // What comes after is for init.
                None if word == "--" => break,
                None if word == "rw" => writable = true,
                None if word == "ro" => writable = false,
                Some(("root", value)) => root = Some(value.to_owned()),
                Some(("init", value)) => value.clone_into(&mut init),
                _ => {}
            }
        }
        let root = root.ok_or(Fault::NoRoot)?;
        let label = match root.strip_prefix("LABEL=") {
            Some(label) if (1..=16).contains(&label.len()) => label.to_owned(),
            _ => return Err(Fault::Root(root)),
        };
        if !init.starts_with('/') || init.contains('\0') {
            return Err(Fault::Init(init));
        }
        Ok(Self { label, writable, init })
    }
}

/// Words apart by white space, except within double quotes, which are dropped: the kernel's `next_arg`.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_ascii_whitespace() && !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boot(label: &str, writable: bool, init: &str) -> Boot {
        Boot { label: label.to_owned(), writable, init: init.to_owned() }
    }

    #[test]
    fn the_last_value_counts_and_the_rest_is_left_to_others() {
        let line =
            "BOOT_IMAGE=/vmlinuz root=LABEL=a ro root=LABEL=amphora-root rw console=ttyS0,115200 quiet\n";
        assert_eq!(Boot::parse(line), Ok(boot("amphora-root", true, "/sbin/init")));
        assert_eq!(Boot::parse("rw root=LABEL=x ro"), Ok(boot("x", false, "/sbin/init")));
        assert_eq!(
            Boot::parse("root=LABEL=x init=/bin/true -- rw root=LABEL=y"),
            Ok(boot("x", false, "/bin/true"))
        );
    }

    #[test]
    fn quotes_keep_white_space_together() {
        assert_eq!(
            Boot::parse("root=\"LABEL=my root\" x=\"a rw b\""),
            Ok(boot("my root", false, "/sbin/init"))
        );
        assert_eq!(Boot::parse("\"root=LABEL=my root\"\trw"), Ok(boot("my root", true, "/sbin/init")));
    }

    #[test]
    fn a_root_that_is_not_told_by_label_is_refused() {
        assert_eq!(Boot::parse("quiet"), Err(Fault::NoRoot));
        for root in ["/dev/vda1", "UUID=0", "LABEL=", "LABEL=12345678901234567", ""] {
            assert_eq!(Boot::parse(&format!("root={root}")), Err(Fault::Root(root.to_owned())), "{root}");
        }
        assert_eq!(Boot::parse("root=LABEL=a init=bin/sh"), Err(Fault::Init("bin/sh".to_owned())));
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in any::<String>()) {
            if let Ok(boot) = Boot::parse(&line) {
                prop_assert!((1..=16).contains(&boot.label.len()) && boot.init.starts_with('/'));
            }
        }
    }
}
