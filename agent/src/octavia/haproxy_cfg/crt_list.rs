//! A crt-list: the paths of a listener's certificates, a line each. The first is for clients that name no host of another's.

use super::tls::File;

/// The longest list, in bytes.
const MAX_LIST: usize = 1024 * 1024;

/// Reads a list.
///
/// # Errors
/// The line, from 1 (0: the list as a whole), and what is wrong there.
pub(super) fn read(list: &[u8]) -> Result<Vec<File>, (usize, &'static str)> {
    if list.len() > MAX_LIST {
        return Err((0, "is too long"));
    }
    let mut files = Vec::new();
    for (line, number) in list.split(|b| *b == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| (number, "is not UTF-8"))?;
        if text.starts_with('#') {
            return Err((number, "is a comment"));
        }
        // Behind a path HAProxy takes [options] and filters of host names.
        if text.contains(char::is_whitespace) {
            return Err((number, "has options or filters, which are not supported"));
        }
        if text.starts_with('@') || text.contains(['\\', '\'', '"', '[', ']']) {
            return Err((number, "is not the path of a certificate"));
        }
        files.push(File::parse(text).ok_or((number, "is no <directory>/<load balancer>/<name>.pem"))?);
    }
    if files.is_empty() {
        return Err((0, "names no certificate"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_alone_are_read() {
        let stems = |list: &str| {
            read(list.as_bytes()).map(|files| files.into_iter().map(|file| file.stem).collect::<Vec<_>>())
        };
        assert_eq!(stems("/c/lb/a.pem\n/c/lb/b.pem\n").unwrap(), ["a", "b"]);
        assert_eq!(stems("/c/lb/a.pem").unwrap(), ["a"]);
        let options = (2, "has options or filters, which are not supported");
        assert_eq!(stems("/c/lb/a.pem\n/c/lb/b.pem [alpn h2] x.example\n"), Err(options));
        assert_eq!(stems("/c/lb/a.pem\n/c/lb/b.pem !x.example\n"), Err(options));
        assert_eq!(stems("\n\n"), Err((0, "names no certificate")));
        assert_eq!(stems("# a\n"), Err((1, "is a comment")));
        for path in ["a.pem", "lb/a.pem", "/c/lb/a.crt", "@1", "/c/lb/a\\.pem", "/c/lb/\"a\".pem"] {
            assert!(stems(path).is_err(), "{path}");
        }
        assert_eq!(read(b"\xff"), Err((1, "is not UTF-8")));
        assert!(read(&vec![b'\n'; MAX_LIST + 1]).is_err());
    }
}
