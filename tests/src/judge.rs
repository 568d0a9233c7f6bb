//! Which release of a judge is installed. A row of a test that holds for the release that it was taken from, and differs
//! in others, is skipped beside these, loudly; all other rows are judged by whatever release is there.

use std::process::Command;

/// A program or library that tests compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// `haproxy`; rows are of 2.6, Debian 12's.
    HaProxy,
    /// What `haproxy` matches regular expressions with; rows are of those before 10.43, as Debian 12 and Ubuntu 24.04
    /// have them.
    Pcre2,
    /// The program `openssl`; rows are of 3.0, as Debian 12 and Ubuntu 24.04 have it.
    OpenSsl,
}

impl Judge {
    /// Whether the release is the one that the rows hold for. Where it is not, `rows` are told as skipped, with the version.
    #[must_use]
    pub fn judges(self, rows: &str) -> bool {
        let Some(version) = self.version() else { return false };
        let is_reference = self.is_reference(&version);
        if !is_reference {
            eprintln!("SKIPPED: {rows}: {} is {version}, they are of {}", self.name(), self.reference());
        }
        is_reference
    }

    /// The version as the judge spells it; `None` when there is none.
    pub fn version(self) -> Option<String> {
        let (program, argument, before) = match self {
            Self::HaProxy => ("haproxy", "-v", "version "),
            Self::Pcre2 => ("haproxy", "-vv", "PCRE2 version : "),
            Self::OpenSsl => ("openssl", "version", "OpenSSL "),
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Some(text.split_once(before)?.1.split_whitespace().next()?.to_owned())
    }

    fn is_reference(self, version: &str) -> bool {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
        match self {
            Self::HaProxy => (major, minor) == (2, 6),
            Self::Pcre2 => (major, minor) < (10, 43),
            Self::OpenSsl => (major, minor) == (3, 0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Pcre2 => "HAProxy's PCRE2",
            Self::OpenSsl => "OpenSSL",
        }
    }

    fn reference(self) -> &'static str {
        match self {
            Self::HaProxy => "2.6",
            Self::Pcre2 => "a release before 10.43",
            Self::OpenSsl => "3.0",
        }
    }
}

/// Whether later releases of HAProxy may read one of these requests in another way than 2.6: 3.0 takes the path of an
/// absolute target without one for `/`, takes zeros in front of a length away, and refuses a WebSocket with a body.
#[must_use]
pub fn is_of_haproxy_2_6(requests: &[u8]) -> bool {
    let text = String::from_utf8_lossy(requests).to_ascii_lowercase();
    let lacks_path = |word: &str| word.strip_prefix("http://").is_some_and(|rest| !rest.contains('/'));
    let length = text.split("content-length:").nth(1).map(str::trim_start);
    text.split(' ').any(lacks_path)
        || length.is_some_and(|length| length.starts_with("00"))
        || (text.contains("websocket") && (length.is_some() || text.contains("transfer-encoding")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_old_haproxy() {
        for (text, expected) in [
            ("GET http://a HTTP/1.1\r\n\r\n", true),
            ("GET http://a?b HTTP/1.1\r\n\r\n", true),
            ("GET http://a/ HTTP/1.1\r\nA: http://b/\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 00\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\ncontent-length:3\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", false),
        ] {
            assert_eq!(is_of_haproxy_2_6(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn releases_are_told_apart() {
        for (judge, version, expected) in [
            (Judge::HaProxy, "2.6.12-1+deb12u4", true),
            (Judge::HaProxy, "2.8.5-1ubuntu3.4", false),
            (Judge::HaProxy, "3.0.11-1+deb13u5", false),
            (Judge::HaProxy, "3.4-dev3", false),
            (Judge::HaProxy, "?", false),
            (Judge::Pcre2, "10.42", true),
            (Judge::Pcre2, "10.46", false),
            (Judge::Pcre2, "11.0", false),
            (Judge::OpenSsl, "3.0.19", true),
            (Judge::OpenSsl, "3.5.9", false),
        ] {
            assert_eq!(judge.is_reference(version), expected, "{version}");
        }
    }
}
