//! `HTTP` and `HTTPS`: HAProxy's `option httpchk METHOD PATH HTTP/x.y` with `http-check expect rstatus`.
//!
//! An answer is read as the proxy reads those to its clients: what would be a 502 for each of them is no pass.

use amphora_model::{HttpCheck, HttpMethod, HttpVersion};

use super::outcome::{CheckStatus, Found};
use crate::{
    http::{Method, ResponseHead},
    http1::{Body, ChunkedDecoder, response_framing},
};

/// Interim responses before the final one. A target that sends more does not mean to answer.
const MAX_INTERIM: u8 = 16;

/// Appends the request, as HAProxy 2.6 sends it: with HTTP/1.0 nothing but the request line (and a length for methods
/// that have a body); with HTTP/1.1 `host` only if there is a domain name, and `connection: close`.
pub(super) fn request(check: &HttpCheck, out: &mut Vec<u8>) {
    let HttpCheck { method, url_path, version, domain_name, .. } = check;
    for part in [method.as_str(), " ", url_path, " HTTP/", version.as_str(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let (HttpVersion::Http11, Some(name)) = (version, domain_name) {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if matches!(method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    if *version == HttpVersion::Http11 {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads an answer up to the end of its head.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    head: ResponseHead,
    interim: u8,
}

impl Answer {
    /// To be used for another answer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.head.reset();
        self.interim = 0;
    }

    /// Takes what has come; `ended` when nothing will come behind it. `None` while the head goes on.
    pub(super) fn take(&mut self, check: &HttpCheck, bytes: &[u8], ended: bool) -> Option<Found> {
        let failed = |why: &'static str| Some(Found::because(CheckStatus::L7Response, why));
        self.bytes.extend_from_slice(bytes);
        loop {
            let len = match self.head.parse(&self.bytes) {
                Ok(Some(len)) => len,
                Ok(None) if !ended => return None,
                Ok(None) if self.bytes.is_empty() && self.interim == 0 => {
                    return failed("connection closed without a response");
                }
                Ok(None) => return failed("connection closed in the head of the response"),
                Err(bad) => return failed(bad.0),
            };
            let view = self.head.view(&self.bytes);
            let code = view.status();
            match response_framing(Method::of(check.method.as_str().as_bytes()), false, &view) {
                Err(bad) => return failed(bad.0),
                // A client gets the head with what has come of the body, unless that is no body.
                Ok(framing) if framing.body == Body::Chunked => {
                    return match ChunkedDecoder::new().decode(&self.bytes[len..]) {
                        Err(_) => failed("not the chunked coding"),
                        Ok(_) => Some(judge(check, code)),
                    };
                }
                Ok(framing) if !framing.interim => return Some(judge(check, code)),
                Ok(_) if self.interim == MAX_INTERIM => return failed("interim responses without end"),
                Ok(_) => {}
            }
            self.interim += 1;
            self.bytes.drain(..len);
            self.head.reset();
        }
    }
}

pub(super) fn judge(check: &HttpCheck, code: u16) -> Found {
    let expected = check.expected_codes.iter().any(|&(from, to)| (from..=to).contains(&code));
    let mut found = match expected {
        true => Found::new(CheckStatus::L7Ok),
        false => Found::because(CheckStatus::L7Status, "unexpected status"),
    };
    found.code = Some(code);
    found
}

/// Reads arbitrary bytes as an answer, for fuzzing: it makes no difference in which pieces they come, chunks apart that
/// come behind the head, and no answer passes that a client would not be given.
pub fn fuzz(data: &[u8]) {
    let check = HttpCheck {
        method: HttpMethod::Get,
        url_path: "/".into(),
        version: HttpVersion::Http11,
        domain_name: None,
        expected_codes: vec![(100, 999)],
    };
    let whole = Answer::default().take(&check, data, true).expect("an answer that has ended is judged");
    for step in [1, 7, 1 + data.len() / 3] {
        let mut answer = Answer::default();
        let early = data.chunks(step).find_map(|piece| answer.take(&check, piece, false));
        let found = early.or_else(|| answer.take(&check, b"", true));
        let found = found.expect("an answer that has ended is judged");
        if found.status == whole.status {
            assert_eq!(found.code, whole.code, "in pieces of {step}");
        } else {
            // Judged before the chunks came that are none.
            assert_eq!(whole.status, CheckStatus::L7Response, "in pieces of {step}");
            assert_eq!(framing(data), Some(Body::Chunked), "in pieces of {step}");
        }
    }
    let framed = framing(data).is_some();
    assert!(framed || whole.status == CheckStatus::L7Response, "{whole:?}");
}

/// How the body of the final response is framed, if it is.
fn framing(mut rest: &[u8]) -> Option<Body> {
    let mut head = ResponseHead::new();
    loop {
        let len = head.parse(rest).ok()??;
        let framing = response_framing(Method::Get, false, &head.view(rest)).ok()?;
        if !framing.interim {
            return Some(framing.body);
        }
        rest = &rest[len..];
        head.reset();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::http::MAX_HEAD;

    fn check(method: HttpMethod, version: HttpVersion, domain_name: Option<&str>) -> HttpCheck {
        HttpCheck {
            method,
            url_path: "/p?x=1".into(),
            version,
            domain_name: domain_name.map(Into::into),
            expected_codes: vec![(200, 200), (300, 304)],
        }
    }

    fn sent(check: &HttpCheck) -> String {
        let mut out = Vec::new();
        request(check, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_those_of_haproxy() {
        use HttpMethod::*;
        use HttpVersion::*;
        assert_eq!(sent(&check(Get, Http10, None)), "GET /p?x=1 HTTP/1.0\r\n\r\n");
        assert_eq!(sent(&check(Get, Http10, Some("www.example.com"))), "GET /p?x=1 HTTP/1.0\r\n\r\n");
        assert_eq!(
            sent(&check(Head, Http11, Some("www.example.com"))),
            "HEAD /p?x=1 HTTP/1.1\r\nhost: www.example.com\r\nconnection: close\r\n\r\n"
        );
        for (method, name) in [(Post, "POST"), (Put, "PUT"), (Patch, "PATCH")] {
            assert_eq!(
                sent(&check(method, Http11, None)),
                format!("{name} /p?x=1 HTTP/1.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            );
        }
    }

    fn read(bytes: &[u8], ended: bool) -> Option<(CheckStatus, Option<u16>)> {
        let check = check(HttpMethod::Get, HttpVersion::Http10, None);
        Answer::default().take(&check, bytes, ended).map(|found| (found.status, found.code))
    }

    #[test]
    fn a_status_is_read_from_a_whole_head() {
        const RSP: Option<(CheckStatus, Option<u16>)> = Some((CheckStatus::L7Response, None));
        let ok = Some((CheckStatus::L7Ok, Some(200)));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody", false), ok);
        assert_eq!(read(b"HTTP/1.1 200\r\n\r\n", false), ok);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b\r\n", false), None);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b\r\n", true), RSP);
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1", false), None);
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1", true), RSP);
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false), ok);
        assert_eq!(read(b"", true), RSP);
        for bad in
            [&b"garbage\r\n\r\n"[..], b"HTTP/2 200 OK\r\n\r\n", b"\x15\x03\x01 ", b"HTTP/1.1 2x0 OK\r\n"]
        {
            assert_eq!(read(bad, false), RSP, "{bad:?}");
        }
        let long = [b"HTTP/1.1 404 No\r\nA: ".to_vec(), vec![b'x'; MAX_HEAD]].concat();
        assert_eq!(read(&long, false), RSP);
    }

    #[test]
    fn chunks_that_come_with_the_head_are_read_as_for_a_client() {
        let read = |method, body: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let check = check(method, HttpVersion::Http11, None);
            Answer::default().take(&check, answer.as_bytes(), false).map(|found| found.status)
        };
        for good in ["", "2", "2\r\nok\r\n", "2;x=y\r\nok\r\n0\r\n\r\n", "0\r\n\r\nmore"] {
            assert_eq!(read(HttpMethod::Get, good), Some(CheckStatus::L7Ok), "{good:?}");
        }
        for bad in ["zz\r\n", "\r\n", "+2\r\nok", "2\nok", "2\r\nokay", "ffffffffffffffffff\r\n"] {
            assert_eq!(read(HttpMethod::Get, bad), Some(CheckStatus::L7Response), "{bad:?}");
            assert_eq!(read(HttpMethod::Head, bad), Some(CheckStatus::L7Ok), "{bad:?}");
        }
    }

    #[test]
    fn interim_responses_come_to_an_end() {
        let interim = |n| b"HTTP/1.1 100 Continue\r\n\r\n".repeat(n);
        let followed = |n| [interim(n), b"HTTP/1.1 200 OK\r\n\r\n".to_vec()].concat();
        let most = usize::from(MAX_INTERIM);
        assert_eq!(read(&followed(most), false), Some((CheckStatus::L7Ok, Some(200))));
        assert_eq!(read(&interim(most), false), None);
        assert_eq!(read(&interim(most + 1), false), Some((CheckStatus::L7Response, None)));
    }

    #[test]
    fn an_answer_is_forgotten_before_the_next_one() {
        let check = check(HttpMethod::Get, HttpVersion::Http10, None);
        let mut answer = Answer::default();
        assert_eq!(answer.take(&check, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20", false), None);
        answer.clear();
        let found = answer.take(&check, b"HTTP/1.1 200 OK\r\n\r\n", false).unwrap();
        assert_eq!(found.status, CheckStatus::L7Ok);
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
        fn pieces_make_no_difference(
            text in "HTTP/1.[01] (100|101|200|503|2x0)( [a-z é]{0,3})?\r?\n([aA]: ?[b\t\r]{0,3}\r?\n|Content-Length: [01x]{0,2}\r\n){0,3}(Transfer-Encoding: chunked\r\n)?(\r?\n)?[0-2x\r\n]{0,5}.{0,4}",
        ) {
            fuzz(text.as_bytes());
            fuzz(&[b"HTTP/1.1 103 Early\r\n\r\n", text.as_bytes()].concat());
        }
    }
}
