#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Decodes `input` in the given cuts: the data, the length of the body, whether it ended.
fn decode(input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut decoder = ChunkedDecoder::new();
    let mut data = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        while at < end.min(input.len()) && !decoder.is_done() {
            let part = &input[at..end.min(input.len())];
            let piece = decoder.decode_data(part)?;
            data.extend_from_slice(&part[piece.data.clone()]);
            at += piece.consumed;
        }
    }
    Ok((data, at, decoder.is_done()))
}

/// Decodes in one piece, byte by byte, and without taking out the data; all must say the same.
fn all_ways(input: &[u8]) -> Result<(Vec<u8>, usize, bool), Reject> {
    let whole = decode(input, &[]);
    assert_eq!(decode(input, &(0..input.len()).collect::<Vec<_>>()), whole, "{input:?}");
    let verbatim = ChunkedDecoder::new().decode(input).map(|step| (step.consumed, step.done));
    assert_eq!(verbatim, whole.clone().map(|(_, consumed, done)| (consumed, done)), "{input:?}");
    whole
}

#[test]
fn bodies() {
    for (input, data, rest) in [
        ("0\r\n\r\n", "", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("003\r\nabc\r\n1\r\nd\r\n000\r\n\r\n", "abcd", ""),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("3;a;b=c;d=\"e\\\" ;\tf\"\r\nabc\r\n0;x\r\n\r\n", "abc", ""),
        ("1\r\na\r\n0\r\nA: b\r\nEmpty:\r\n\r\nGET", "a", "GET"),
        ("2\r\n\r\n\r\n0\r\n\r\n\r\n", "\r\n", "\r\n"),
    ] {
        let (decoded, consumed, done) = all_ways(input.as_bytes()).unwrap();
        assert_eq!(
            (decoded.as_slice(), &input[consumed..], done),
            (data.as_bytes(), rest, true),
            "{input:?}"
        );
    }
    assert_eq!(all_ways(b"3\r\nab"), Ok((b"ab".to_vec(), 5, false)));
    assert_eq!(all_ways(b""), Ok((vec![], 0, false)));
}

#[test]
fn malformed_bodies() {
    for input in [
        "\r\n0\r\n\r\n",
        "g\r\n",
        "0x3\r\nabc",
        "-3\r\nabc",
        "+3\r\nabc",
        " 3\r\nabc",
        "3 \r\nabc",
        "3\t;a\r\nabc",
        "3\nabc",
        "3\r\rabc",
        "3\rabc",
        "3;\r\nabc",
        "3; a\r\nabc",
        "3;a =b\r\nabc",
        "3;a=\r\nabc",
        "3;a=b\"\r\nabc",
        "3;a=\"b\"c\r\nabc",
        "3;a=\"b\r\nabc",
        "3;a=\"b\\\r\nabc",
        "3;a\nb\r\nabc",
        "3;a\rb\r\nabc",
        "3;a\0\r\nabc",
        "3;;a\r\nabc",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "00000000000000003\r\nabc",
        "8000000000000000\r\nabc",
        "ffffffffffffffff\r\nabc",
        "10000000000000003\r\nabc",
        "0\r\n\n",
        "0\r\n\rX",
        "0\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
        "0\r\nA: b\nB: c\r\n\r\n",
        "0\r\nA: b\rB: c\r\n\r\n",
        "0\r\nA: \0\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\ncontent-length: 3\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
        "0\r\nAuthorization: a\r\n\r\n",
        "0\r\nContent-Encoding: a\r\n\r\n",
        "0\r\nA: b\r\nCookie: a\r\n\r\n",
    ] {
        assert_eq!(all_ways(input.as_bytes()).map_err(Reject::status).map(|_| ()), Err(400), "{input:?}");
    }
}

#[test]
fn trailers_are_told_from_the_rest_however_they_are_cut() {
    for (input, data, trailers) in [
        ("0\r\n\r\n", "", ""),
        ("1\r\na\r\n0;x\r\nA: b\r\n\r\n", "a", "A: b\r\n"),
        ("0\r\nA:\r\n\r\n", "", "A:\r\n"),
        ("0\r\nGET: /admin HTTP/1.0\r\nB:\r\n\r\n", "", "GET: /admin HTTP/1.0\r\nB:\r\n"),
    ] {
        for step in 1..=input.len() {
            let mut decoder = ChunkedDecoder::new();
            let mut found = (Vec::new(), Vec::new());
            for mut part in input.as_bytes().chunks(step) {
                while !part.is_empty() {
                    let run = decoder.decode_run_of(part).unwrap();
                    found.0.extend_from_slice(&part[run.data]);
                    found.1.extend_from_slice(&part[run.trailers]);
                    part = &part[run.consumed..];
                }
            }
            assert!(decoder.is_done());
            assert_eq!(decoder.has_trailers(), !trailers.is_empty());
            assert_eq!(found, (data.into(), trailers.into()), "{step}");
        }
    }
}

#[test]
fn trailers_are_refused_by_their_name_alone() {
    let trailer = |name: &str| all_ways(format!("0\r\n{name}: b\r\n\r\n").as_bytes()).map(|(.., done)| done);
    for name in [
        "Date",
        "server",
        "Referer",
        "User-Agent",
        "Digest",
        "Content",
        "Content-Encodings",
        "Ranges",
        "Accept-Ranges",
        "If",
        "ETag",
        "!#$%&'*+-.^_`|~",
    ] {
        assert_eq!(trailer(name), Ok(true), "{name}");
    }
    for length in [1, 18, 19, 20, 22, 23, 24, 25, 26, 48, 1000] {
        assert_eq!(trailer(&"x".repeat(length)), Ok(true), "{length}");
    }
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Encoding",
        "Content-Range",
        "Max-Forwards",
        "Proxy-Authorization",
        "Expect",
        "Range",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Pragma",
        "TE",
    ] {
        assert_eq!(trailer(name).map_err(Reject::status), Err(400), "{name}");
        assert_eq!(trailer(&name.to_uppercase()).map_err(Reject::status), Err(400), "{name}");
    }
}

#[test]
fn a_large_chunk_is_followed_to_its_end() {
    let mut decoder = ChunkedDecoder::new();
    decoder.decode(b"7fffffffffffffff\r\n").unwrap();
    assert_eq!(decoder.decode(&[b'x'; 4096]), Ok(Step { consumed: 4096, done: false }));
    assert_eq!(decoder.remaining, i64::MAX as u64 - 4096);
}

#[test]
fn overhead_is_bounded() {
    let endless = |unit: &str, times: usize| ChunkedDecoder::new().decode(unit.repeat(times).as_bytes());
    assert!(endless("1;abcdefg\r\nx\r\n", 2048).is_ok());
    assert!(endless("1;abcdefg\r\nx\r\n", 2049).is_err());
    let trailers = |field: &str, times: usize| {
        ChunkedDecoder::new().decode(format!("0\r\n{}", field.repeat(times)).as_bytes())
    };
    assert!(trailers("A: b\r\n", MAX_FIELDS).is_ok());
    assert!(trailers("A: b\r\n", MAX_FIELDS + 1).is_err());
    // Name, colon and value count, white space with the value.
    assert!(trailers(&format!("A: {}\r\n", "b".repeat(16_381)), 1).is_ok());
    assert!(trailers(&format!("A: {}\r\n", "b".repeat(16_382)), 1).is_err());
    assert!(trailers(&format!("A: {}\r\nB:\r\n", "b".repeat(16_379)), 1).is_ok());
    assert!(trailers(&format!("A: {}\r\nB:\r\n", "b".repeat(16_380)), 1).is_err());
    assert!(endless("1\r\nx\r\n", 100_000).is_ok());
}

#[test]
fn chunk_headers_are_hexadecimal() {
    for len in [0, 1, 9, 10, 15, 16, 255, 256, 0xabc, u64::MAX] {
        let mut out = Vec::new();
        write_chunk_header(&mut out, len);
        assert_eq!(out, format!("{len:x}\r\n").into_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(0usize..300, 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut input = Vec::new();
        for chunk in &chunks {
            write_chunk_header(&mut input, chunk.len() as u64);
            input.extend_from_slice(chunk);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\n");
        let length = input.len();
        input.extend_from_slice(&rest);
        let mut cuts = cuts;
        cuts.sort_unstable();
        prop_assert_eq!(decode(&input, &cuts), Ok((chunks.concat(), length, true)));
    }
}

proptest! {
    /// Runs of data and of trailers are what the plain decoder finds, in any cuts.
    #[test]
    fn runs_are_what_there_is(pieces in prop::collection::vec("[a-z]{1,9}", 0..5), lines in prop::collection::vec("x-[a-z]{1,4}: [a-z]{0,5}", 0..4), cut in 1usize..9) {
        let mut text = Vec::new();
        for piece in &pieces {
            text.extend_from_slice(format!("{:x};a=b\r\n{piece}\r\n", piece.len()).as_bytes());
        }
        text.extend_from_slice(b"0\r\n");
        let trailers: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        text.extend_from_slice(trailers.as_bytes());
        text.extend_from_slice(b"\r\nbehind");
        let mut decoder = ChunkedDecoder::new();
        let (mut data, mut found, mut at, mut done) = (Vec::new(), Vec::new(), 0, false);
        while !done {
            let part = &text[at..text.len().min(at + cut)];
            let run = decoder.decode_run_of(part).unwrap();
            data.extend_from_slice(&part[run.data]);
            found.extend_from_slice(&part[run.trailers]);
            at += run.consumed;
            done = run.done;
        }
        prop_assert_eq!(data, pieces.concat().into_bytes());
        prop_assert_eq!(found, trailers.into_bytes());
        prop_assert_eq!(&text[at..], b"behind");
    }
}
