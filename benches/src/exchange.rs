//! What is said on a connection, and whether the answer is the right one. No I/O.

use std::ops::Range;

/// The bytes of every body: a run of letters with a period that no buffer size divides, so that lost, doubled or
/// reordered pieces show.
const ALPHABET: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

/// The largest response head that is read.
const MAX_HEAD: usize = 16 * 1024;

/// `len` bytes of body.
pub fn body(len: usize) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(len).collect()
}

/// One question and its right answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What the client sends.
    pub request: Vec<u8>,
    /// What comes back.
    pub answer: Answer,
    /// Whether the next exchange uses the same connection. If not, the other side closes after its answer.
    pub keep_alive: bool,
}

/// What a right answer is.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An HTTP/1.1 response with this status, and a `Content-Length` body of exactly these bytes if given.
    Http {
        /// The status code.
        status: u16,
        /// The body, or `None` for any.
        body: Option<Vec<u8>>,
    },
    /// Exactly these bytes.
    Bytes(Vec<u8>),
}

impl Exchange {
    /// A GET of `len` bytes from the [backend](crate::backend).
    pub fn http(len: usize, keep_alive: bool) -> Self {
        let answer = Answer::Http { status: 200, body: Some(body(len)) };
        Self { request: get(&format!("/bytes/{len}"), "", keep_alive), answer, keep_alive }
    }

    /// A GET of `path` with header lines `headers` (each ended by CR LF) over a connection of its own, that is to be
    /// answered with `status` and, if given, `body`.
    pub fn get(path: &str, headers: &str, status: u16, body: Option<Vec<u8>>) -> Self {
        let answer = Answer::Http { status, body };
        Self { request: get(path, headers, false), answer, keep_alive: false }
    }

    /// 64 bytes each way; with `keep_alive` again and again on one connection.
    pub fn tcp(keep_alive: bool) -> Self {
        let mut request = body(64);
        request[0] = if keep_alive { b'E' } else { b'C' };
        Self { answer: Answer::Bytes(request.clone()), request, keep_alive }
    }
}

impl Exchange {
    /// The question as HTTP/2 has it.
    ///
    /// # Errors
    /// When it is no request of HTTP/1.1.
    pub fn to_http2(&self, scheme: &str) -> crate::Result<http::Request<()>> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        head.parse(&self.request)?;
        let host = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
        let host = str::from_utf8(host.ok_or("no host")?.value)?;
        let mut request = http::Request::builder()
            .method(head.method.unwrap_or_default())
            .uri(format!("{scheme}://{host}{}", head.path.unwrap_or_default()));
        for field in head.headers.iter() {
            if !["host", "connection"].contains(&field.name.to_ascii_lowercase().as_str()) {
                request = request.header(field.name, field.value);
            }
        }
        Ok(request.body(())?)
    }
}

fn get(path: &str, headers: &str, keep_alive: bool) -> Vec<u8> {
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: amphora-benches/1\r\nAccept: */*\r\n{headers}{close}\r\n"
    )
    .into_bytes()
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// The connection could not be made.
    Connect,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer was complete.
    Closed,
    /// Another status than the expected one.
    Status,
    /// The answer is no HTTP, has no `Content-Length`, or is followed by bytes that nobody asked for.
    Framing,
    /// Wrong bytes or a wrong length.
    Body,
    /// No answer in time.
    Timeout,
}

/// How an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are to come.
    Partial,
    /// Complete and right. With `close`, it announced that the connection will be closed.
    Complete {
        /// The response had `Connection: close`.
        close: bool,
    },
}

/// Reads answers, one after the other.
#[derive(Debug, Default)]
pub struct AnswerReader {
    head: Vec<u8>,
    /// Within a body: what of it is still to come, and whether the connection closes after it.
    body: Option<(Range<usize>, bool)>,
    status: u16,
}

impl AnswerReader {
    /// Takes what came. After [`Progress::Complete`] it is ready for the next answer.
    pub fn feed(&mut self, answer: &Answer, bytes: &[u8]) -> Result<Progress, Failure> {
        match answer {
            Answer::Bytes(expected) => {
                let (range, _) = self.body.get_or_insert((0..expected.len(), false));
                let progress = advance(range, Some(expected), bytes)?;
                self.finish(progress, false)
            }
            Answer::Http { status, body } => self.feed_http(*status, body.as_deref(), bytes),
        }
    }

    fn feed_http(&mut self, status: u16, expected: Option<&[u8]>, bytes: &[u8]) -> Result<Progress, Failure> {
        if let Some((range, close)) = &mut self.body {
            let close = *close;
            let progress = advance(range, expected, bytes)?;
            return self.finish(progress, close);
        }
        // The whole head in one piece is the rule; only a split one is copied together.
        if self.head.is_empty() {
            match parse_head(bytes)? {
                None => self.head.extend_from_slice(bytes),
                Some(head) => return self.begin_body(head, status, expected, bytes),
            }
        } else {
            self.head.extend_from_slice(bytes);
            if let Some(head) = parse_head(&self.head)? {
                let joined = std::mem::take(&mut self.head);
                return self.begin_body(head, status, expected, &joined);
            }
        }
        if self.head.len() > MAX_HEAD { Err(Failure::Framing) } else { Ok(Progress::Partial) }
    }

    fn begin_body(
        &mut self,
        head: Head,
        status: u16,
        expected: Option<&[u8]>,
        bytes: &[u8],
    ) -> Result<Progress, Failure> {
        self.status = head.status;
        if head.status != status {
            return Err(Failure::Status);
        }
        let length = head.content_length.ok_or(Failure::Framing)?;
        if expected.is_some_and(|e| e.len() != length) {
            return Err(Failure::Body);
        }
        let mut range = 0..length;
        let progress = advance(&mut range, expected, &bytes[head.len..])?;
        self.body = Some((range, head.close));
        self.finish(progress, head.close)
    }

    fn finish(&mut self, complete: bool, close: bool) -> Result<Progress, Failure> {
        if !complete {
            return Ok(Progress::Partial);
        }
        self.body = None;
        Ok(Progress::Complete { close })
    }

    /// The status of the last response head, also of one that failed; 0 before the first.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// Checks `bytes` against the part of the body that is to come; true when it is complete.
fn advance(range: &mut Range<usize>, expected: Option<&[u8]>, bytes: &[u8]) -> Result<bool, Failure> {
    if bytes.len() > range.len() {
        return Err(Failure::Framing);
    }
    if expected.is_some_and(|e| e[range.start..range.start + bytes.len()] != *bytes) {
        return Err(Failure::Body);
    }
    range.start += bytes.len();
    Ok(range.start == range.end)
}

struct Head {
    len: usize,
    status: u16,
    content_length: Option<usize>,
    close: bool,
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes).map_err(|_| Failure::Framing)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let mut head = Head { len, status: response.code.unwrap_or(0), content_length: None, close: false };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).ok().and_then(|v| v.parse().ok());
            head.content_length = Some(value.ok_or(Failure::Framing)?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(len: usize) -> Answer {
        Answer::Http { status: 200, body: Some(body(len)) }
    }

    fn response(len: usize) -> Vec<u8> {
        let mut r = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
        r.extend(body(len));
        r
    }

    #[test]
    fn a_right_answer_in_pieces_of_every_size() {
        let bytes = response(300);
        for size in 1..bytes.len() {
            let mut reader = AnswerReader::default();
            let mut last = Progress::Partial;
            for piece in bytes.chunks(size) {
                assert_eq!(last, Progress::Partial);
                last = reader.feed(&answer(300), piece).unwrap();
            }
            assert_eq!(last, Progress::Complete { close: false });
        }
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let feed = |bytes: &[u8]| AnswerReader::default().feed(&answer(3), bytes);
        assert_eq!(feed(b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nabc"), Err(Failure::Status));
        assert_eq!(feed(b"HTTP/1.1 200 OK\r\n\r\nabc"), Err(Failure::Framing));
        assert_eq!(feed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd"), Err(Failure::Framing));
        assert_eq!(feed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabd"), Err(Failure::Body));
        assert_eq!(feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Err(Failure::Body));
        assert_eq!(feed(b"garbage\r\n\r\n"), Err(Failure::Framing));
        assert_eq!(
            feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nConnection: close\r\n\r\nabc"),
            Ok(Progress::Complete { close: true })
        );
    }

    #[test]
    fn plain_bytes() {
        let exchange = Exchange::tcp(true);
        let mut reader = AnswerReader::default();
        assert_eq!(reader.feed(&exchange.answer, &exchange.request[..10]), Ok(Progress::Partial));
        assert_eq!(
            reader.feed(&exchange.answer, &exchange.request[10..]),
            Ok(Progress::Complete { close: false })
        );
        assert_eq!(reader.feed(&exchange.answer, b"x"), Err(Failure::Body));
    }
}
