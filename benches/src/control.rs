//! Blocking clients for the control sockets of proxy and VRRP daemon and the agent's REST: one HTTP/1.1 request per connection.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use amphora_ipc::{
    proxy::{Applied, Info, Stats},
    vrrp,
};

use crate::Result;

const DEADLINE: Duration = Duration::from_secs(120);

/// The control socket of one proxy, or of one VRRP daemon.
#[derive(Clone, Debug)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// Does not connect yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Applies a document; an error tells why it was refused.
    pub fn apply(&self, document: &[u8]) -> Result<Applied> {
        Ok(serde_json::from_slice(&self.request("PUT", "/loadbalancer", document)?)?)
    }

    /// Every counter.
    pub fn stats(&self) -> Result<Stats> {
        Ok(serde_json::from_slice(&self.request("GET", "/stats", b"")?)?)
    }

    /// The process.
    pub fn info(&self) -> Result<Info> {
        Ok(serde_json::from_slice(&self.request("GET", "/info", b"")?)?)
    }

    /// How a VRRP daemon stands.
    pub fn vrrp(&self) -> Result<vrrp::Status> {
        Ok(serde_json::from_slice(&self.request("GET", "/status", b"")?)?)
    }

    /// Prometheus' text.
    pub fn metrics(&self) -> Result<Vec<u8>> {
        self.request("GET", "/metrics", b"")
    }

    fn request(&self, method: &str, target: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        exchange(&mut stream, method, target, body)
    }
}

/// One request and its whole answer; an error unless it is 200.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    stream.flush()?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let (status, body) = split(&response)?;
    if status != 200 {
        return Err(format!("{method} {target}: {status} {}", String::from_utf8_lossy(body)).into());
    }
    Ok(body.to_vec())
}

/// Status and body of a whole response with a `Content-Length`.
fn split(response: &[u8]) -> Result<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(at) = head.parse(response)? else {
        return Err("the answer is cut off".into());
    };
    let length = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length: usize =
        std::str::from_utf8(length.ok_or("the answer has no Content-Length")?.value)?.parse()?;
    let body = &response[at..];
    if body.len() != length {
        return Err(format!("the answer has {} bytes instead of {length}", body.len()).into());
    }
    Ok((head.code.unwrap_or(0), body))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn answers_are_taken_whole_or_not_at_all() {
        assert_eq!(split(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap(), (200, &b"hi"[..]));
        assert!(split(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi").is_err());
        assert!(split(b"HTTP/1.1 200 OK\r\nContent-Le").is_err());
        assert!(split(b"HTTP/1.1 200 OK\r\n\r\nhi").is_err());
    }
}
