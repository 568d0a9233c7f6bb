//! Where it all comes from: the files of a drive, or the metadata service, which has the same under the same names.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};

use crate::plan::Source;

/// The files of a drive.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// `path` is the drive's top.
    ///
    /// # Errors
    /// When there is no `openstack` in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(&path.join("openstack"), flags, Mode::empty())?))
    }
}

impl Directory {
    fn walk(&self, path: &str) -> nix::Result<OwnedFd> {
        let stay = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut names = path.split('/').peekable();
        let mut above: Option<OwnedFd> = None;
        while let Some(name) = names.next().filter(|name| *name != "..") {
            let flags = match names.peek() {
                Some(_) => OFlag::O_PATH | OFlag::O_DIRECTORY,
                None => OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            };
            let opened = openat(above.as_ref().unwrap_or(&self.0), name, flags | stay, Mode::empty())?;
            if names.peek().is_none() {
                return Ok(opened);
            }
            above = Some(opened);
        }
        Err(nix::Error::EXDEV)
    }
}

impl Source for Directory {
    /// No link is followed, for it might lead out of the drive.
    fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match self.walk(path) {
            Ok(file) => File::from(file),
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(nix::Error::ELOOP | nix::Error::ENOTDIR | nix::Error::EXDEV) => return Err(not_a_file()),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(not_a_file());
        }
        bounded(file, most).map(Some)
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a file")
}

fn too_large(most: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes"))
}

fn bounded(from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut content)?;
    if content.len() > most {
        return Err(too_large(most));
    }
    Ok(content)
}

/// The metadata service.
#[derive(Clone, Copy, Debug)]
pub struct Service(SocketAddr);

/// How long it may take to answer a connection, and a request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most of an answer's head.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

impl Default for Service {
    /// Where every cloud has it.
    fn default() -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80))
    }
}

impl Service {
    /// `http://ADDRESS[:PORT]`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(url: &str) -> Result<Self, String> {
        let authority =
            url.strip_prefix("http://").ok_or("only http:// is known here")?.trim_end_matches('/');
        let address = authority.parse().or_else(|_| {
            let host =
                authority.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(authority);
            host.parse::<IpAddr>().map(|host| SocketAddr::new(host, 80))
        });
        address.map(Self).map_err(|_| format!("not http://ADDRESS or http://ADDRESS:PORT: {url}"))
    }
}

impl Source for Service {
    /// In HTTP/1.0, so that the answer ends with the connection.
    fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut stream = TcpStream::connect_timeout(&self.0, CONNECT_TIMEOUT)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let request = format!(
            "GET /openstack/{path} HTTP/1.0\r\nHost: {}\r\nUser-Agent: amphora-first-boot\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.0
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = [0; 8192];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut chunk)? {
                0 => break,
                length => answer.extend_from_slice(&chunk[..length]),
            }
            if answer.len() > most + MAX_HEAD {
                return Err(too_large(most));
            }
        }
        response(&answer, most)
    }
}

/// A whole answer; `None` for 404.
fn response(answer: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let body = match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => &answer[length..],
        Ok(httparse::Status::Partial) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) => return Err(io::Error::other(format!("not HTTP: {error}"))),
    };
    match head.code {
        Some(200) => {}
        Some(404) => return Ok(None),
        code => return Err(io::Error::other(format!("status {}", code.unwrap_or_default()))),
    }
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding")
            || header.name.eq_ignore_ascii_case("content-encoding")
        {
            return Err(io::Error::other(format!("{} in an answer to HTTP/1.0", header.name)));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length =
                std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<usize>().ok());
            if length != Some(body.len()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    if body.len() > most {
        return Err(too_large(most));
    }
    Ok(Some(body.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, net::TcpListener, os::unix::fs::symlink, thread};

    use super::*;

    #[test]
    fn a_drives_files_are_read_within_it() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        assert!(Directory::open(top).is_err());
        fs::create_dir_all(top.join("openstack/latest")).unwrap();
        fs::write(top.join("openstack/latest/a"), "abc").unwrap();
        fs::write(top.join("outside"), "x").unwrap();
        symlink("a", top.join("openstack/latest/b")).unwrap();
        symlink("latest", top.join("openstack/l")).unwrap();
        symlink("../outside", top.join("openstack/c")).unwrap();
        symlink("/etc/passwd", top.join("openstack/d")).unwrap();
        let mut drive = Directory::open(top).unwrap();
        assert_eq!(drive.read("latest/a", 3).unwrap().unwrap(), b"abc");
        assert!(drive.read("latest/b", 3).is_err() && drive.read("l/a", 3).is_err());
        assert!(drive.read("latest/a", 2).unwrap_err().to_string().contains("more than 2 bytes"));
        assert!(drive.read("latest/none", 3).unwrap().is_none());
        assert!(drive.read("latest", 3).is_err());
        assert!(
            drive.read("c", 3).is_err()
                && drive.read("d", 9999).is_err()
                && drive.read("../outside", 3).is_err()
        );
    }

    #[test]
    fn answers_of_the_service() {
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\n\r\nabc", Some(Some("abc"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Some(Some("abc"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some(Some(""))),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", Some(None)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
            ("HTTP/1.1 500 No\r\n\r\nabc", None),
            ("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", None),
            ("HTTP/1.0 200 OK\r\n\r\nabcdef", None),
            ("HTTP/1.0 200 OK\r\nA", None),
            ("SSH-2.0\r\n\r\n", None),
            ("", None),
        ] {
            let read = response(answer.as_bytes(), 5).ok();
            let read = read.map(|body| body.map(|body| String::from_utf8(body).unwrap()));
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_request_names_the_file() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut service = Service::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{}").unwrap();
            String::from_utf8(request).unwrap()
        });
        assert_eq!(service.read("latest/meta_data.json", 9).unwrap().unwrap(), b"{}");
        assert!(server.join().unwrap().starts_with("GET /openstack/latest/meta_data.json HTTP/1.0\r\n"));
        assert!(service.read("latest/meta_data.json", 9).is_err());
        for (url, address) in [
            ("http://169.254.169.254", "169.254.169.254:80"),
            ("http://[fe80::1]", "[fe80::1]:80"),
            ("http://[::1]:8", "[::1]:8"),
        ] {
            assert_eq!(Service::parse(url).unwrap().0.to_string(), address);
        }
        assert!(Service::parse("https://169.254.169.254").is_err() && Service::parse("http://name").is_err());
        assert_eq!(Service::default().0.to_string(), "169.254.169.254:80");
    }
}
