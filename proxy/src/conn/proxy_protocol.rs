//! The headers of the PROXY protocol, versions 1 and 2, as HAProxy's `send-proxy` and `send-proxy-v2` write them
//! (haproxy.org, "The PROXY protocol", sections 2.1 and 2.2). Writes to memory only.
//!
//! Where the client and the address that it connected to are of different families, the IPv4 one is mapped
//! into IPv6 (`::ffff:192.0.2.1`), as HAProxy does.

use std::{
    io::Write,
    net::{Ipv6Addr, SocketAddr},
};

/// Starts every header of version 2.
pub const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header that [`encode`] writes: version 1 over IPv6.
pub const MAX_LENGTH: usize = 107;

/// Which header a pool's members expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Text (Octavia's pool protocol PROXY, HAProxy's `send-proxy`).
    V1,
    /// Binary (Octavia's pool protocol PROXYV2, HAProxy's `send-proxy-v2`).
    V2,
}

/// Appends the header for a connection from `source` (the client) to `destination` (the address and port that it
/// connected to): at most [`MAX_LENGTH`] bytes.
pub fn encode(version: Version, source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    match version {
        Version::V1 => encode_v1(source, destination, out),
        Version::V2 => encode_v2(source, destination, out),
    }
}

/// What a header of version 2 says of a client that speaks TLS.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'a str,
    /// The application protocol that was agreed on.
    pub alpn: Option<&'a [u8]>,
    /// Its certificate.
    pub certificate: Option<Certificate<'a>>,
}

/// The certificate of such a client.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// It was shown in the session's first handshake, and not in this connection's.
    pub resumed: bool,
    /// The result of its verification, `X509_V_OK` (0) or another of OpenSSL's.
    pub verify: u32,
    /// The common name of its subject, which may be empty.
    pub common_name: Option<&'a [u8]>,
}

/// PP2_TYPE_ALPN.
const ALPN: u8 = 0x01;

/// PP2_TYPE_SSL and its sub-types, and the bits of its client field.
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const CLIENT_SSL: u8 = 1;
const CLIENT_CERT_CONN: u8 = 2;
const CLIENT_CERT_SESS: u8 = 4;

/// Appends a header of version 2 as [`encode`] does, with what is known of a client that speaks TLS, as `send-proxy-v2-ssl-cn`
/// writes it (section 2.2.6).
pub fn encode_tls(source: SocketAddr, destination: SocketAddr, tls: Tls<'_>, out: &mut Vec<u8>) {
    let header = out.len();
    encode_v2(source, destination, out);
    if let Some(alpn) = tls.alpn {
        push(out, ALPN, alpn);
    }
    let (mut client, mut verify, mut subs) = (CLIENT_SSL, 0, Vec::new());
    push(&mut subs, SSL_VERSION, tls.version.as_bytes());
    if let Some(certificate) = tls.certificate {
        client |= CLIENT_CERT_SESS | if certificate.resumed { 0 } else { CLIENT_CERT_CONN };
        verify = certificate.verify;
        let room = MAX_TLS_LENGTH - (out.len() - header + 2 * TLV + SSL_FIXED + subs.len());
        if let Some(name) = certificate.common_name.filter(|name| name.len() <= room) {
            push(&mut subs, SSL_CN, name);
        }
    }
    let mut value = vec![client];
    value.extend_from_slice(&verify.to_be_bytes());
    value.extend_from_slice(&subs);
    push(out, SSL, &value);
    let length = (out.len() - header - V2_SIGNATURE.len() - 4) as u16;
    out[header + 14..header + 16].copy_from_slice(&length.to_be_bytes());
}

/// A type, a length, a value: those of a header that has a bound are far shorter than the length can say.
fn push(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// What precedes each value, and the values of PP2_TYPE_SSL.
const TLV: usize = 3;
const SSL_FIXED: usize = 5;

/// The longest header of a client that speaks TLS: HAProxy's buffer (`tune.bufsize`). A common name that it has no room for is left
/// out.
const MAX_TLS_LENGTH: usize = 16 * 1024;

/// Appends the header of a connection that is made on nobody's behalf, a health check's: version 2, command LOCAL,
/// without addresses (section 2.2), as HAProxy's checks send it.
pub fn encode_local(out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    out.extend_from_slice(&[0x20, 0, 0, 0]);
}

fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let ports = (source.port(), destination.port());
    let written = match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            write!(out, "PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), ports.0, ports.1)
        }
        _ => {
            let (from, to) = (mapped(source), mapped(destination));
            write!(out, "PROXY TCP6 {from} {to} {} {}\r\n", ports.0, ports.1)
        }
    };
    written.expect("writing to a Vec cannot fail");
}

fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    // Version 2, command PROXY; then family and transport (STREAM), and the length of the address block.
    match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
        }
        _ => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&mapped(source).octets());
            out.extend_from_slice(&mapped(destination).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

fn mapped(address: SocketAddr) -> Ipv6Addr {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
        panic,
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn header(version: Version, source: &str, destination: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(version, source.parse().unwrap(), destination.parse().unwrap(), &mut out);
        out
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// Captured from HAProxy 2.6.12, `send-proxy`; the mixed ones by means of `set-dst`.
    #[test]
    fn version_1_is_haproxys() {
        for (source, destination, expected) in [
            ("127.0.0.1:52696", "127.0.0.1:49013", "PROXY TCP4 127.0.0.1 127.0.0.1 52696 49013\r\n"),
            ("[::1]:35212", "[::1]:32993", "PROXY TCP6 ::1 ::1 35212 32993\r\n"),
            ("127.0.0.1:33830", "[fd00::1]:36205", "PROXY TCP6 ::ffff:127.0.0.1 fd00::1 33830 36205\r\n"),
            ("[::1]:39970", "10.9.9.9:36205", "PROXY TCP6 ::1 ::ffff:10.9.9.9 39970 36205\r\n"),
        ] {
            assert_eq!(String::from_utf8(header(Version::V1, source, destination)).unwrap(), expected);
        }
    }

    /// Captured from HAProxy 2.6.12, `send-proxy-v2`; the mixed ones by means of `set-dst`.
    #[test]
    fn version_2_is_haproxys() {
        for (source, destination, expected) in [
            ("127.0.0.1:46532", "127.0.0.1:38179", "2111000c7f0000017f000001b5c49523"),
            (
                "[::1]:52924",
                "[::1]:54669",
                "212100240000000000000000000000000000000100000000000000000000000000000001cebcd58d",
            ),
            (
                "127.0.0.1:36046",
                "[fd00::1]:33273",
                "2121002400000000000000000000ffff7f000001fd0000000000000000000000000000018cce81f9",
            ),
            (
                "[::1]:59038",
                "10.9.9.9:33273",
                "212100240000000000000000000000000000000100000000000000000000ffff0a090909e69e81f9",
            ),
        ] {
            let expected = [hex("0d0a0d0a000d0a515549540a"), hex(expected)];
            assert_eq!(header(Version::V2, source, destination), expected.concat());
        }
    }

    #[test]
    fn a_client_that_speaks_tls_is_described() {
        let (source, destination) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:443".parse().unwrap());
        let written = |certificate| {
            let mut out = Vec::new();
            encode_tls(source, destination, Tls { version: "TLSv1.3", alpn: None, certificate }, &mut out);
            out[12..].to_vec()
        };
        let addresses = "c0000201c0000202000101bb";
        let without = hex(&format!("2111001e{addresses}20000f0100000000210007"));
        assert_eq!(written(None)[..without.len()], without);
        assert_eq!(written(None)[2..4], [0, 12 + 3 + 5 + 3 + 7]);
        let certificate = Certificate { resumed: false, verify: 0, common_name: Some(b"me") };
        let expected = [
            hex(&format!("21110023{addresses}2000140700000000210007")),
            b"TLSv1.3".to_vec(),
            hex("2200026d65"),
        ];
        assert_eq!(written(Some(certificate)), expected.concat());
        let resumed = Certificate { resumed: true, ..certificate };
        assert_eq!(written(Some(resumed))[4 + 12 + 3], 5);
        let named = |name| written(Some(Certificate { common_name: name, ..certificate })).len();
        let (nameless, longest) = (named(None), vec![b'a'; 16 * 1024 - 12 - named(Some(b""))]);
        assert_eq!(named(Some(b"")), nameless + 3);
        assert_eq!(named(Some(&longest)), 16 * 1024 - 12);
        assert_eq!(named(Some(&[&longest[..], b"a"].concat())), nameless);
    }

    /// Captured from HAProxy 2.6.12, `send-proxy-v2-ssl-cn`.
    #[test]
    fn the_protocol_that_was_agreed_on_comes_first() {
        let (source, destination) = ("10.7.0.3:1".parse().unwrap(), "10.9.0.1:28".parse().unwrap());
        let tls = Tls { version: "TLSv1.2", alpn: Some(b"http/1.1"), certificate: None };
        let mut out = Vec::new();
        encode_tls(source, destination, tls, &mut out);
        let expected = "2111 0029 0a070003 0a090001 0001 001c 010008 687474702f312e31 20000f 01 00000000 210007 544c5376312e32";
        assert_eq!(out[12..], hex(&expected.replace(' ', "")));
    }

    #[test]
    fn no_header_is_longer_than_the_bound() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert!(header(Version::V1, longest, longest).len() <= MAX_LENGTH);
        assert!(header(Version::V2, longest, longest).len() <= MAX_LENGTH);
    }

    /// The same comparison against the HAProxy that is installed.
    #[test]
    fn haproxy_itself_agrees() {
        let installed =
            Command::new("haproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if installed.is_err() {
            eprintln!("SKIPPED: haproxy is not installed");
            return;
        }
        let member = TcpListener::bind("127.0.0.1:0").unwrap();
        let cases = [
            ("127.0.0.1", Version::V1),
            ("127.0.0.1", Version::V2),
            ("::1", Version::V1),
            ("::1", Version::V2),
        ];
        let mut config =
            String::from("defaults\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n");
        // Held until all are chosen, so that no port is chosen twice.
        let probes: Vec<TcpListener> =
            cases.iter().map(|(host, _)| TcpListener::bind((*host, 0)).unwrap()).collect();
        let addresses: Vec<SocketAddr> = cases
            .into_iter()
            .enumerate()
            .map(|(n, (host, version))| {
                let probe = probes[n].local_addr().unwrap();
                let option = if version == Version::V1 { "send-proxy" } else { "send-proxy-v2" };
                let (port, member) = (probe.port(), member.local_addr().unwrap());
                config += &format!("listen l{n}\n bind {host}:{port}\n server m {member} {option}\n");
                probe
            })
            .collect();
        drop(probes);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let mut haproxy = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(file.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();

        let outcome = panic::catch_unwind(|| {
            for ((_, version), address) in cases.into_iter().zip(addresses) {
                let client = connect(address);
                let mut expected = Vec::new();
                encode(version, client.local_addr().unwrap(), address, &mut expected);
                let (mut accepted, _) = member.accept().unwrap();
                accepted.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut got = vec![0; expected.len()];
                accepted.read_exact(&mut got).unwrap();
                assert_eq!(got, expected, "{version:?} {address}");
            }
        });
        haproxy.kill().unwrap();
        haproxy.wait().unwrap();
        outcome.unwrap();
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Connects as soon as somebody listens.
    fn connect(address: SocketAddr) -> TcpStream {
        let start = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => return stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{address}: {error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
