//! The oracles of what comes from operators, clients and members beside HTTP's framing, on generated input; fuzz targets
//! run the same.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

mod oracle;

use amphora_model::arbitrary;
use amphora_proxy::logs::{Format, Protocol};
use proptest::{prelude::*, sample::Index};

/// Where a document is cut, and what is put there.
const SCRAPS: &[&str] = &[
    "",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "null",
    "true",
    "-1",
    "0",
    "1e9",
    "0.5",
    "256",
    "65536",
    "\"HTTP\"",
    "\"\\ud800\"",
    "\"(a\"",
    "\"\"",
    "{}",
    "[]",
    "\u{e9}",
    "\0",
];

/// A reader that takes quotes in names for more than characters sees a cookie where the one that strips sees none.
#[test]
fn quotes_in_names_of_cookies() {
    for value in ["x\"a=\"; SRV=m1", "x\"; SRV=m1; y\"=1", "a=b\"; SRV=m1", "$a=\"; SRV=m1"] {
        oracle::cookies(value.as_bytes());
    }
}

#[test]
fn values_of_cookies_with_line_breaks_are_more_than_one_field() {
    for value in [
        " \r\n`::",
        "a=b\r\nSet-Cookie: SRV=x",
        "SRV=x\r\nSet-Cookie: b=1\r\nCookie: SRV=m1; b=2",
        "b=1\r\nCookie: b=2; SRV=m1\r\nset-cookie: SRV=m1; b=3",
    ] {
        oracle::cookies(value.as_bytes());
    }
}

/// Whether each of many formats is one, as `haproxy -c` says and as we do. HAProxy ignores flags that it does not know, and
/// formats with these are left out.
#[test]
fn formats_are_accepted_as_by_haproxy() {
    const TOKENS: &[&str] = &[
        "%",
        "%%",
        "%{+Q}",
        "%{-M,+X}",
        "%{",
        "}",
        "[",
        "]",
        " ",
        "a",
        "9",
        "-",
        "\"",
        "\\",
        ":",
        "%ci",
        "%r",
        "%{+Q}r",
        "%tsc",
        "%foo",
        "%o",
        "%{+E}o",
        "%[src]",
        "%{+Q}[ssl_c_s_dn]",
        "%[ssl_c_s_dn(cn)]",
        "%[ssl_c_sha1,hex]",
        "%[src",
        "%HPO",
        "T",
    ];
    let variables = amphora_proxy::logs::field::FIELDS.iter().map(|(name, _)| format!("%{name}"));
    let samples = amphora_proxy::logs::field::SAMPLES.iter().map(|(name, _)| format!("%[{name}]"));
    let mut formats: Vec<String> = variables.chain(samples).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for _ in 0..2000 {
        let length = 1 + random(6);
        formats.push((0..length).map(|_| TOKENS[random(TOKENS.len())]).collect());
    }
    // HAProxy takes an empty word for none.
    formats.retain(|format| !format.trim().is_empty());
    let mut config = String::new();
    let mut lines = Vec::new();
    for (n, format) in formats.iter().enumerate() {
        let quoted = format.replace('\\', "\\\\").replace('"', "\\\"");
        config += &format!(
            "frontend f{n}\n mode http\n timeout client 1s\n bind 127.0.0.1:{}\n log-format \"{quoted}\"\n",
            1024 + n
        );
        lines.push(5 * n + 5);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, config.as_bytes()).unwrap();
    let checked = std::process::Command::new("haproxy").arg("-c").arg("-f").arg(file.path()).output();
    let Ok(checked) = checked else {
        eprintln!("SKIPPED: there is no haproxy to compare with");
        return;
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    let refused: std::collections::HashSet<usize> = said
        .lines()
        .filter(|line| line.contains("ALERT"))
        .filter_map(|line| line.split_once(":").and_then(|_| line.rsplit_once("]").map(|(front, _)| front)))
        .filter_map(|front| front.split(']').find_map(|part| part.rsplit_once(':')?.1.parse().ok()))
        .collect();
    let mut accepted = 0;
    for (format, line) in formats.iter().zip(lines) {
        let ours = Format::parse(format, Protocol::Http);
        if ours.as_ref().is_err_and(|error| error.reason.contains(" flag ")) {
            continue;
        }
        assert_eq!(ours.is_err(), refused.contains(&line), "{format:?}: {ours:?}");
        accepted += usize::from(ours.is_ok());
    }
    assert!(accepted > 500 && accepted < formats.len() - 500, "{accepted} of {}", formats.len());
    println!("{} formats, {accepted} accepted, as by HAProxy", formats.len());
}

proptest! {
    #[test]
    fn documents_spoiled_as_text(seed: u64, at: Index, len in 0usize..12, scrap in prop::sample::select(SCRAPS)) {
        let mut text = arbitrary::load_balancer(seed).to_json().to_string().into_bytes();
        prop_assert!(oracle::document(&text));
        let from = at.index(text.len());
        let to = text.len().min(from + len);
        text.splice(from..to, scrap.bytes());
        oracle::document(&text);
    }

    #[test]
    fn member_updates(
        text in "\\{\"member\": ?\\{(\"(weight|admin_state_up|name)\": ?(true|null|-?[0-9]{1,3}|0\\.5|\"1\")[,}]?){0,3}\\}{0,2}",
    ) {
        oracle::member_update(text.as_bytes());
    }

    #[test]
    fn l7_rules(
        rules in "([pfhdc][=^$*~]!?(a:|b:)?([ab/.]|\\\\.|[(|)*+?]|\\[[ab^]{1,3}\\]){0,8}\n){0,6}\n",
        request in "(GET /[ab/.?]{0,6} HTTP/1.1\r\nHost: [ab.]{1,3}\r\n)?((a|b|Cookie): ?(a|b|a=|;|,|\"| ){0,6}\r\n){0,3}\r\n",
    ) {
        oracle::l7(&[rules.as_bytes(), request.as_bytes()].concat());
    }

    #[test]
    fn cookies(value in "(SRV|SRV=|b=|b|a|\\$P|=|;|; |,|\"|\\\\| |\t|=m1){0,16}", noise: Vec<u8>) {
        oracle::cookies(value.as_bytes());
        oracle::cookies(&noise);
    }

    #[test]
    fn log_formats(format in "(%|%%|\\{\\+Q\\}|ci|HU| |\\[src\\]|[a-z]|\"){0,24}", target: Vec<u8>, noise: Vec<u8>) {
        oracle::log_format(&[format.as_bytes(), b"\n", &target].concat());
        oracle::log_format(&noise);
    }

    #[test]
    fn peers(
        hello in prop::option::of((any::<(u8, u8)>(), prop::array::uniform32(any::<u8>()))),
        frames in prop::collection::vec((0u8..9, prop::collection::vec(any::<u8>(), 0..80)), 0..4),
    ) {
        let mut bytes = Vec::new();
        if let Some((versions, nonce)) = hello {
            bytes.extend([0, 59, 1]);
            bytes.extend(b"AMPHPEER");
            bytes.extend([versions.0 % 3, versions.1 % 3]);
            bytes.extend([9; 16]);
            bytes.extend(nonce);
        }
        for (kind, rest) in frames {
            bytes.extend((rest.len() as u16 + 1).to_be_bytes());
            bytes.push(kind);
            bytes.extend(&rest);
            oracle::peers(&[&[kind][..], &rest].concat());
        }
        oracle::peers(&bytes);
    }

    #[test]
    fn proxy_headers(addresses in prop::collection::vec(any::<u8>(), 37)) {
        oracle::proxy_header(&addresses);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn frames_of_http2(
        records in prop::collection::vec(
            (0u8..13, prop::sample::select(&[0u8, 1, 4, 5, 8, 0x24, 0xff][..]), 0u8..12, prop::collection::vec(any::<u8>(), 0..60)),
            0..30,
        ),
        get: bool,
    ) {
        let mut data = Vec::new();
        for (n, (kind, flags, stream, mut payload)) in records.into_iter().enumerate() {
            let stream = if kind == 1 && get { 1 + 2 * n as u8 } else { stream };
            if kind == 1 && get {
                payload.splice(0..0, [0x82, 0x86, 0x84, 0x01, 0x01, b'a']);
                payload.truncate(6 + payload.len() % 3 * 8);
            }
            data.extend([kind, flags, stream, payload.len() as u8]);
            data.extend(payload);
        }
        oracle::http2_server(&data);
    }

    #[test]
    fn header_blocks_are_decoded_within_bounds(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let mut data = Vec::new();
        for block in blocks {
            data.extend((block.len() as u16).to_be_bytes());
            data.extend(block);
        }
        oracle::hpack(&data);
    }
}

/// A hello of HTTP/1.1 over TLS 1.3 for a.b.example, without the head of its record and its message.
fn hello() -> Vec<u8> {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    let config = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let mut config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut session = ClientConnection::new(config.into(), "a.b.example".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes.split_off(9)
}

proptest! {
    #[test]
    fn any_hello(first: u8, changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), behind: Vec<u8>, cut in 0usize..2000) {
        let mut hello = hello();
        for (at, value) in changes {
            let at = at.index(hello.len());
            hello[at] = value;
        }
        if cut < hello.len() {
            hello.truncate(cut);
        }
        oracle::tls_hello(&[&[first | 0x80], &hello[..]].concat());
        let length = hello.len() as u16;
        let record = [&[22, 3, 1][..], &(length + 4).to_be_bytes(), &[1, 0], &length.to_be_bytes(), &hello, &behind].concat();
        oracle::tls_hello(&[&[first & 0x7f], &record[..]].concat());
    }
}
