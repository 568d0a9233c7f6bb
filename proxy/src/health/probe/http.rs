//! `HTTP` and `HTTPS`: HAProxy's `option httpchk METHOD PATH HTTP/x.y` with `http-check expect rstatus`.

use std::{fmt::Write as _, net::IpAddr};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{CheckStatus, Found, connect, drain, step, tls};
use crate::{
    health::core::Target,
    model::{HttpCheck, HttpMethod, HttpVersion},
};

/// What of a response is read at most.
const MAX_HEAD: usize = 16 * 1024;
/// Header fields that are looked at; the status line comes before them.
const MAX_FIELDS: usize = 128;

pub(super) async fn plain(target: &Target, check: &HttpCheck, deadline: Instant) -> Result<Found, Found> {
    let mut stream = connect(target, deadline).await?;
    let found = ask(&mut stream, check, deadline).await;
    drain(&stream);
    found
}

pub(super) async fn over_tls(target: &Target, check: &HttpCheck, deadline: Instant) -> Result<Found, Found> {
    let stream = connect(target, deadline).await?;
    let handshake = TlsConnector::from(tls::accept_any()).connect(no_sni(target.address), stream);
    let mut stream = step(deadline, CheckStatus::L6Timeout, CheckStatus::L6Response, handshake).await?;
    let found = ask(&mut stream, check, deadline).await;
    // Best effort: the answer is in.
    let _ = tokio::time::timeout_at(deadline, stream.shutdown()).await;
    drain(stream.get_ref().0);
    found
}

/// A name that is an address is not sent as SNI (RFC 6066 section 3).
pub(super) fn no_sni(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    check: &HttpCheck,
    deadline: Instant,
) -> Result<Found, Found> {
    let request = request(check);
    let (late, failed) = (CheckStatus::L7Timeout, CheckStatus::L7Response);
    let write = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    step(deadline, late, failed, write).await?;
    let mut bytes = Vec::with_capacity(1024);
    // Where the head starts, behind interim ones.
    let mut start = 0;
    loop {
        let room = (MAX_HEAD - bytes.len()) as u64;
        let n = step(deadline, late, failed, (&mut *stream).take(room).read_buf(&mut bytes)).await?;
        let more = match n {
            0 => More::Closed,
            _ if bytes.len() >= MAX_HEAD => More::Full,
            _ => More::Open,
        };
        loop {
            match status(&bytes[start..], more) {
                Status::Interim(len) => start += len,
                Status::Partial => break,
                Status::Final(code) => return Ok(judge(check, code)),
                Status::Invalid if bytes.is_empty() => {
                    return Err(Found::because(failed, "connection closed without a response"));
                }
                Status::Invalid => return Err(Found::because(failed, "not an HTTP response")),
            }
        }
    }
}

fn judge(check: &HttpCheck, code: u16) -> Found {
    let expected = check.expected_codes.iter().any(|&(from, to)| (from..=to).contains(&code));
    let mut found = match expected {
        true => Found::new(CheckStatus::L7Ok),
        false => Found::because(CheckStatus::L7Status, "unexpected status"),
    };
    found.code = Some(code);
    found
}

/// The request, as HAProxy 2.6 sends it: with HTTP/1.0 nothing but the request line (and a length for methods that
/// have a body); with HTTP/1.1 `host` only if there is a domain name, and `connection: close`.
fn request(check: &HttpCheck) -> String {
    let version = check.version.as_str();
    let mut request = format!("{} {} HTTP/{version}\r\n", check.method, check.url_path);
    if let (HttpVersion::Http11, Some(name)) = (check.version, &check.domain_name) {
        let _ = write!(request, "host: {name}\r\n");
    }
    if matches!(check.method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch) {
        request.push_str("content-length: 0\r\n");
    }
    if check.version == HttpVersion::Http11 {
        request.push_str("connection: close\r\n");
    }
    request.push_str("\r\n");
    request
}

/// What may follow the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// Anything.
    Open,
    /// Nothing that would be read.
    Full,
    /// Nothing.
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    /// The head goes on.
    Partial,
    /// 1xx, of this length: another one follows (RFC 9110 section 15.2).
    Interim(usize),
    /// The status.
    Final(u16),
    Invalid,
}

/// The status of a response of which these bytes have come.
fn status(bytes: &[u8], more: More) -> Status {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes);
    match (parsed, response.code) {
        // 101 ends the HTTP of the connection: nothing else follows.
        (Ok(httparse::Status::Complete(len)), Some(100 | 102..=199)) => Status::Interim(len),
        (Ok(httparse::Status::Complete(_)), Some(code)) => Status::Final(code),
        // Too long a head to judge by its end; the status line is good.
        (Err(httparse::Error::TooManyHeaders), Some(code)) => Status::Final(code),
        (Ok(_), Some(code)) if more == More::Full => Status::Final(code),
        (Ok(_), _) if more == More::Open => Status::Partial,
        _ => Status::Invalid,
    }
}

/// Reads arbitrary bytes as a response, for fuzzing: what is decided on a part of them stays decided on all.
pub fn fuzz(data: &[u8]) {
    let whole = status(data, More::Open);
    if let Status::Interim(len) = whole {
        assert!((1..=data.len()).contains(&len));
    }
    for more in [More::Full, More::Closed] {
        let last = status(data, more);
        assert!(last != Status::Partial && (whole == Status::Partial || last == whole));
    }
    let step = 1 + data.len() / 64;
    for part in (0..data.len()).step_by(step).map(|end| &data[..end]) {
        let early = status(part, More::Open);
        assert!(early == Status::Partial || early == whole, "{early:?} of {}, then {whole:?}", part.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(method: HttpMethod, version: HttpVersion, domain_name: Option<&str>) -> HttpCheck {
        HttpCheck {
            method,
            url_path: "/p?x=1".into(),
            version,
            domain_name: domain_name.map(Into::into),
            expected_codes: vec![(200, 200), (300, 304)],
        }
    }

    #[test]
    fn requests_are_those_of_haproxy() {
        use HttpMethod::*;
        use HttpVersion::*;
        assert_eq!(request(&check(Get, Http10, None)), "GET /p?x=1 HTTP/1.0\r\n\r\n");
        assert_eq!(
            request(&check(Head, Http11, Some("www.example.com"))),
            "HEAD /p?x=1 HTTP/1.1\r\nhost: www.example.com\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            request(&check(Post, Http11, None)),
            "POST /p?x=1 HTTP/1.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_status_is_read_from_a_whole_head() {
        assert_eq!(status(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody", More::Open), Status::Final(200));
        assert_eq!(status(b"HTTP/1.1 200\r\n\r\n", More::Open), Status::Final(200));
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nA: b\r\n", More::Open), Status::Partial);
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nA: b\r\n", More::Closed), Status::Invalid);
        assert_eq!(status(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1", More::Open), Status::Interim(25));
        for bad in
            [&b"garbage\r\n\r\n"[..], b"HTTP/2 200 OK\r\n\r\n", b"\x15\x03\x01", b"HTTP/1.1 2x0 OK\r\n"]
        {
            assert_eq!(status(bad, More::Open), Status::Invalid, "{bad:?}");
        }
        assert_eq!(status(b"", More::Closed), Status::Invalid);
        let long = [b"HTTP/1.1 404 No\r\nA: ".to_vec(), vec![b'x'; MAX_HEAD]].concat();
        assert_eq!(status(&long, More::Full), Status::Final(404));
        let many = [b"HTTP/1.1 404 No\r\n".to_vec(), b"A: b\r\n".repeat(MAX_FIELDS + 1)].concat();
        assert_eq!(status(&many, More::Open), Status::Final(404));
    }

    #[test]
    fn codes_are_judged_by_ranges() {
        let check = check(HttpMethod::Get, HttpVersion::Http10, None);
        for (code, status) in
            [(200, CheckStatus::L7Ok), (304, CheckStatus::L7Ok), (201, CheckStatus::L7Status)]
        {
            let found = judge(&check, code);
            assert_eq!((found.status, found.code), (status, Some(code)));
        }
    }

    proptest! {
        #[test]
        fn no_response_panics(bytes: Vec<u8>) {
            fuzz(&bytes);
        }

        #[test]
        fn what_is_decided_stays_decided(
            text in "HTTP/1.[01] (100|101|200|503|2x0)( [a-z é]{0,3})?\r?\n([aA]: ?[b\t\r]{0,3}\r?\n){0,3}(\r?\n)?.{0,4}",
        ) {
            fuzz(text.as_bytes());
        }
    }
}
