#![allow(clippy::unwrap_used)]
use std::{rc::Rc, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::logs::{
    field::{FIELDS, SAMPLES},
    format::{self, Format},
    record::Counts,
    termination::{Cause, Phase, RequestCookie, ResponseCookie},
};

const FRONTEND: &str = "11111111-2222-3333-4444-555555555555";
const POOL: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const MEMBER: &str = "99999999-8888-7777-6666-555555555555";

/// 2026-11-28T17:48:17.654321Z.
const ENDED: Wall = Wall(1_795_888_097_654_321);

fn record() -> Record {
    let begun = Instant::now();
    let at = |ms| Some(begun + Duration::from_millis(ms));
    let mut record = Record::new(format::Needs::default(), "192.0.2.7:51234".parse().unwrap(), begun);
    record.listener = Some("203.0.113.1:80".parse().unwrap());
    record.source = Some("10.0.0.1:40000".parse().unwrap());
    record.member_address = Some("[2001:db8::5]:8080".parse().unwrap());
    record.pool = Some(POOL.parse().unwrap());
    record.member = Some(MEMBER.parse().unwrap());
    record.keep_request(b"GET", b"/a/b?c=d", b"HTTP/1.1");
    record.status = 200;
    (record.bytes_in, record.bytes_out) = (78, 2326);
    record.marks.first_byte = at(1000);
    (record.marks.requested, record.marks.dispatched) = (at(1010), at(1010));
    (record.marks.connected, record.marks.answered) = (at(1040), at(1109));
    record.marks.ended = begun + Duration::from_millis(1119);
    record.counts = Counts { process: 7, frontend: 6, backend: 5, server: 4 };
    (record.line_number, record.number) = (255, 256);
    record
}

fn facts(certificate: Option<ClientCertificate>) -> PeerFacts {
    PeerFacts {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: Some("example.org".into()),
        alpn: Some((*b"h2").into()),
        resumed: true,
        certificate,
    }
}

/// Of `/O=ex "ample"/CN=client`.
fn certificate() -> ClientCertificate {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "ex \"ample\"");
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "client");
    let key = rcgen::KeyPair::generate().unwrap();
    ClientCertificate::new(parameters.self_signed(&key).unwrap().der().clone())
}

fn host() -> Host {
    Host { name: "amphora-1".into(), process: 4711 }
}

fn write_as(format: &str, record: &Record, protocol: Protocol, tls: bool) -> String {
    let format = Format::parse(format, protocol).unwrap();
    let frontend = Frontend::new(FRONTEND.parse().unwrap(), protocol, tls);
    let mut out = b"before ".to_vec();
    let template = Template::new(&format, frontend);
    write(&mut out, &template, record, &host(), ENDED, &mut Calendar::new(|_| 3600));
    String::from_utf8(out).unwrap()["before ".len()..].to_owned()
}

fn line(format: &str) -> String {
    write_as(format, &record(), Protocol::Http, false)
}

/// Octavia's default `user_log_format`, as it is rendered.
const OCTAVIA: &str =
    "project lb %f %ci %cp %t %{+Q}r %ST %B %U %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %b %s %Tt %tsc";

#[test]
fn octavias_default_is_written() {
    assert_eq!(
        line(OCTAVIA),
        format!(
            "project lb {FRONTEND} 192.0.2.7 51234 28/Nov/2026:18:48:16.535 \"GET /a/b?c=d HTTP/1.1\" 200 2326 78 - \
             \"\" {POOL}:{FRONTEND} {MEMBER} 1119 ----"
        )
    );
    let tcp = write_as(OCTAVIA, &record(), Protocol::Tcp, false);
    assert!(tcp.contains(".535 - - 2326 78 - \"\" "), "{tcp}");
}

#[test]
fn haproxys_own_formats_are_written() {
    assert_eq!(
        line(format::HTTPLOG),
        format!(
            "192.0.2.7:51234 [28/Nov/2026:18:48:17.535] {FRONTEND} {POOL}:{FRONTEND}/{MEMBER} 10/0/30/69/119 200 2326 - - \
             ---- 7/6/5/4/0 0/0 \"GET /a/b?c=d HTTP/1.1\""
        )
    );
    assert_eq!(
        write_as(format::TCPLOG, &record(), Protocol::Tcp, true),
        format!(
            "192.0.2.7:51234 [28/Nov/2026:18:48:16.535] {FRONTEND}~ {POOL}:{FRONTEND}/{MEMBER} 0/30/1119 2326 -- \
             7/6/5/4/0 0/0"
        )
    );
    assert_eq!(
        line(format::HTTPLOG_CLF),
        format!(
            "192.0.2.7 - - [28/Nov/2026:17:48:17 +0000] \"GET /a/b?c=d HTTP/1.1\" 200 2326 \"\" \"\" 51234 535 \
             \"{FRONTEND}\" \"{POOL}:{FRONTEND}\" \"{MEMBER}\" 10 0 30 69 119 ---- 7 6 5 4 0 0 0 \"\" \"\" "
        )
    );
}

#[test]
fn each_variable_is_what_it_says() {
    for (format, expected) in [
        ("%H %{+Q}H", "amphora-1 \"amphora-1\""),
        ("%HM %HP %HPO %HQ %HU %HV", "GET /a/b /a/b ?c=d /a/b?c=d HTTP/1.1"),
        ("%ID %{+Q}CC %{-M}CS.", "- \"\" ."),
        ("%T|%Tl|%t", "28/Nov/2026:17:48:16 +0000|28/Nov/2026:18:48:16 +0100|28/Nov/2026:18:48:16.535"),
        ("%tr|%trg|%trl", "28/Nov/2026:18:48:17.535|28/Nov/2026:17:48:17 +0000|28/Nov/2026:18:48:17 +0100"),
        ("%Ts.%ms %{+X}Ts %{+X}ms", "1795888096.535 6B0B13E0 217"),
        ("%Th/%Ti/%TR/%Tq/%Tw/%Tc/%Tr/%Td/%Ta/%Tt/%Tu", "0/1000/10/1010/0/30/69/10/119/1119/119"),
        ("%bi:%bp %fi:%fp %si:%sp", "10.0.0.1:40000 203.0.113.1:80 2001:db8::5:8080"),
        ("%{+X}ci:%{+X}cp %{+X}si", "C0000207:C822 20010DB8000000000000000000000005"),
        ("%{+Q}ci %{+Q}cp", "\"192.0.2.7\" 51234"),
        ("%lc %rt %pid %{+X}lc %{+X}rt %{+X}pid", "255 256 4711 00FF 0100 1267"),
        ("%rc %sq %bq", "0 0 0"),
        ("%hr%hrl%hs%hsl.", "."),
        ("%sslv %sslc %[ssl_fc] %[ssl_fc_is_resumed] %[ssl_c_used]", "- - 0 0 -"),
        ("%[src]:%[src_port] %[dst]:%[dst_port]", "192.0.2.7:51234 203.0.113.1:80"),
        ("%[capture.req.method] %[capture.req.uri] %{+Q}[capture.req.ver]", "GET /a/b?c=d \"HTTP/1.1\""),
        ("%%%ST%%  a   %hr b ", "%200% a b "),
        ("%\"%ST%\"", "\"200\""),
    ] {
        assert_eq!(line(format), expected, "{format}");
    }
}

#[test]
fn a_request_that_was_none_is_named_so() {
    let mut record = Record::new(format::Needs::default(), "[::1]:5".parse().unwrap(), Instant::now());
    record.status = 400;
    record.termination.set(Cause::ClientGone, Phase::Request);
    let text = write_as("%ci %{+Q}r %HM %HP %HPO %HQ %HU %HV %b %s %si %tsc", &record, Protocol::Http, false);
    let bad = "<BADREQ>";
    assert_eq!(text, format!("::1 \"{bad}\" {bad} {bad} {bad} {bad} {bad} {bad} {FRONTEND} <NOSRV> - CR--"));
    assert_eq!(
        write_as("%TR/%Tw/%Tc/%Tr/%Td/%Ta/%Tt %ST", &record, Protocol::Http, false),
        "-1/-1/-1/-1/-1/0/0 400"
    );
}

#[test]
fn targets_have_their_paths_as_in_haproxy() {
    for (target, expected) in [
        ("/", "/ /  /"),
        ("/a?b?c", "/a /a ?b?c /a?b?c"),
        ("http://example.org/a?b", "http://example.org/a /a ?b http://example.org/a?b"),
        ("http://example.org", "http://example.org  http://example.org"),
        ("http://example.org?a", "http://example.org  ?a http://example.org?a"),
        ("*", "*  *"),
        ("/\u{e9}\"#]", "/#C3#A9#22#23] /#C3#A9#22#23]  /#C3#A9#22#23]"),
    ] {
        let mut record = record();
        record.keep_request(b"GET", target.as_bytes(), b"HTTP/1.0");
        // The space between two variables is not left out when the one before it is empty.
        let text = write_as("%HP %HPO %HQ %HU", &record, Protocol::Http, false);
        let squeezed = expected.to_owned();
        let expected: Vec<_> = squeezed.split(' ').collect();
        assert_eq!(text.split(' ').collect::<String>(), expected.concat(), "{target}");
    }
    let mut record = record();
    record.keep_request(b"GET", "/\"]\\".as_bytes(), b"HTTP/1.0");
    assert_eq!(write_as("%{+Q,+E}r", &record, Protocol::Http, false), r#""GET /#22\]\\ HTTP/1.0""#);
}

#[test]
fn retries_states_and_tls_are_told() {
    let mut record = record();
    (record.retries, record.redispatched) = (3, true);
    record.termination.set(Cause::ServerLate, Phase::Headers);
    record.termination.request_cookie = RequestCookie::Down;
    record.termination.response_cookie = ResponseCookie::Inserted;
    record.tls = Some(Rc::new(facts(Some(certificate()))));
    let text = write_as(
        "%rc %ts %tsc %ft %sslv %sslc %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %{+E}[ssl_c_s_dn] %[ssl_c_s_dn(CN)] \
         %[ssl_c_s_dn(ou)] %[ssl_c_used] %[ssl_fc] %[ssl_fc_sni] %[ssl_fc_alpn] \
         %[ssl_fc_is_resumed] %[ssl_fc_protocol] %{+Q}ft",
        &record,
        Protocol::Http,
        true,
    );
    assert_eq!(
        text,
        format!(
            "+3 sH sHDI {FRONTEND}~ TLSv1.3 TLS_AES_128_GCM_SHA256 0 \"/O=ex \"ample\"/CN=client\" \
             /O=ex \\\"ample\\\"/CN=client client - 1 1 example.org h2 1 TLSv1.3 \"{FRONTEND}~\""
        )
    );
}

#[test]
fn what_does_not_fit_is_cut_off_as_haproxy_does() {
    let mut record = record();
    record.keep_request(b"GET", &[b'a'; 3000], b"HTTP/1.1");
    assert_eq!(record.request().unwrap().len(), 1023);
    let text = write_as("%{+Q}r %ST", &record, Protocol::Http, false);
    // A quotation mark and all that fits behind it.
    assert_eq!(text.len(), 1023);
    assert!(text.starts_with("\"GET aaa") && text.ends_with('a'));
    // A string in quotation marks is there whole or not at all.
    let padding = "x".repeat(1000);
    assert_eq!(write_as(&format!("{padding}%{{+Q}}s"), &record, Protocol::Http, false), padding);
    assert_eq!(write_as(&format!("{padding}%s"), &record, Protocol::Http, false).len(), 1023);
    // So is a number or a date.
    let padding = "x".repeat(1021);
    assert_eq!(write_as(&format!("{padding}%ST"), &record, Protocol::Http, false), padding);
    let padding = "x".repeat(2000);
    assert_eq!(write_as(&format!("{padding}%ST"), &record, Protocol::Http, false).len(), 1023);
}

#[test]
fn the_next_request_has_nothing_of_the_one_before() {
    let mut record = record();
    record.termination.set(Cause::ClientGone, Phase::Data);
    record.again(format::Needs::default(), record.client, Instant::now());
    assert_eq!(
        write_as("%ci %fi %r %ST %B %U %b %s %si %bi %ts %rc", &record, Protocol::Http, false),
        format!("192.0.2.7 - <BADREQ> 0 0 0 {FRONTEND} <NOSRV> - - -- 0")
    );
}

#[test]
fn what_is_captured_of_a_request_is_haproxys() {
    let long = [b"/".as_slice(), &[b'x'; 2000]].concat();
    for (target, version, expected) in [
        (b"/a?b".as_slice(), "HTTP/1.0", "/a?b HTTP/1.0"),
        (b"http://a.example/x?y", "HTTP/1.1", "/x?y HTTP/1.1"),
        (b"https://a.example/x?y", "HTTP/2.0", "/x?y HTTP/1.1"),
        (b"http://a.example", "HTTP/1.1", "- HTTP/1.1"),
        (b"https://a.example", "HTTP/2.0", "- HTTP/1.1"),
        (b"*", "HTTP/1.1", "- HTTP/1.1"),
        (b"a.example:443", "HTTP/1.1", "- HTTP/1.1"),
    ] {
        let mut record = record();
        record.keep_request(b"GET", target, version.as_bytes());
        let text = write_as("%[capture.req.uri] %[capture.req.ver]", &record, Protocol::Http, false);
        assert_eq!(text, expected, "{target:?}");
    }
    // The version is known of a line that was cut off.
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut record = record();
        record.keep_request(b"GET", &long, version.as_bytes());
        assert_eq!(
            write_as("%[capture.req.ver] %HV", &record, Protocol::Http, false),
            format!("{version} HTTP/0.9")
        );
    }
    let mut unrouted = record();
    unrouted.pool = None;
    assert_eq!(write_as("%[be_name]", &unrouted, Protocol::Http, false), FRONTEND);
    unrouted.marks.requested = None;
    let text = write_as("%b %[be_name] %{+Q}[be_name]", &unrouted, Protocol::Http, false);
    assert_eq!(text, format!("{FRONTEND} - \"\""));
}

proptest! {
    /// Whatever is in it, a line is one line of printable text, unless its format, a certificate or `capture.req.uri` says
    /// otherwise, and no longer than it may be.
    #[test]
    fn a_line_is_printable_and_bounded(
        pieces in proptest::collection::vec((0..FIELDS.len() + SAMPLES.len(), any::<[bool; 4]>(), 0..40usize), 0..40),
        target in proptest::collection::vec(any::<u8>().prop_filter("a target has none", |b| *b != b' '), 0..2000),
        status in any::<u16>(),
        sizes in any::<(u64, u64)>(),
        tls in any::<bool>(),
    ) {
        let mut format = String::new();
        for (which, flags, text) in pieces {
            format += "%{";
            for (set, flag) in flags.into_iter().zip(["Q", "X", "E", "M"]) {
                format += &format!("{}{flag},", if set { "+" } else { "-" });
            }
            format.pop();
            format += "}";
            format += &match FIELDS.get(which) {
                Some((name, _)) => (*name).to_owned(),
                None => format!("[{}]", SAMPLES[which - FIELDS.len()].0.replace("uri", "ver")),
            };
            format += &format!(" {}", "-".repeat(text));
        }
        let mut record = record();
        record.keep_request(b"GET", &target, b"HTTP/1.1");
        (record.status, record.bytes_in, record.bytes_out) = (status.into(), sizes.0 >> 1, sizes.1 >> 1);
        record.tls = tls.then(|| Rc::new(facts(None)));
        let Ok(parsed) = Format::parse(&format, Protocol::Http) else {
            prop_assert!(format.len() > format::MAX_FORMAT);
            return Ok(());
        };
        let frontend = Frontend::new(FRONTEND.parse().unwrap(), Protocol::Http, tls);
        let mut out = Vec::new();
        let template = Template::new(&parsed, frontend);
        write(&mut out, &template, &record, &host(), ENDED, &mut Calendar::new(|_| 0));
        prop_assert!(out.len() < MAX_LINE);
        prop_assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte)));
    }
}
