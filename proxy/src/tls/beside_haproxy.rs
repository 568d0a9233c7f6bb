//! Handshakes with [`ServerContext`] and with HAProxy that has the same files: who gets in, with which alert who does not, and what
//! is told of who does.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use amphora_model::{CertificateId, ListenerTls, TlsVersion};
use rustls::{
    AlertDescription::{self, CertificateRequired, HandshakeFailure},
    ClientConfig, ClientConnection, Connection, Error, StreamOwned,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    server::Acceptor,
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject};

mod certificates;
mod members;
mod random;
mod served;
mod told;

use self::{
    certificates::{AnyServer, Shown, World},
    served::ClientKind,
    told::{FIELDS, RULES, told},
};

use crate::tls::{
    PeerFacts, ServerContext, TicketKeys, groups,
    testing::{Authority, Files, asking, leaf_params},
    write_field_value,
};

/// A listener of either.
struct Listening {
    name: &'static str,
    mandatory: bool,
    authorities: String,
    lists: Option<String>,
}

/// What a client has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It got in, and this was told of it.
    In(BTreeMap<String, String>),
    /// It was told why not.
    Alert(AlertDescription),
    /// It was not told why not.
    Closed,
}

/// Octavia's default, in the order of the document.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
const CIPHERSUITES: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

impl Outcome {
    /// As far as it differs from another.
    fn beside(&self, other: &Self) -> String {
        match (self, other) {
            (Self::In(told), Self::In(others)) => {
                format!(
                    "{:?}",
                    told.iter().filter(|(name, value)| others.get(*name) != Some(value)).collect::<Vec<_>>()
                )
            }
            (Self::In(told), _) => format!("takes {:?}", told.get("x-dn")),
            _ => format!("{self:?}"),
        }
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Answers each request with its own head.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let head = read_head(&mut stream).unwrap_or_default();
                let length = head.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                );
                let _ = stream.write_all(&head);
            });
        }
    });
    address
}

fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if from.read(&mut byte)? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    Ok(head)
}

fn haproxy(
    directory: &Path,
    listeners: &[Listening],
    certificates: &[(&str, String)],
) -> (Running, Vec<SocketAddr>) {
    let origin = echo();
    let mut list = String::new();
    for (at, (_, pem)) in certificates.iter().enumerate() {
        let path = directory.join(format!("certificate-{at}.pem"));
        fs::write(&path, pem).unwrap();
        list += &format!("{}\n", path.display());
    }
    fs::write(directory.join("crt-list"), list).unwrap();
    let mut text = "global\n maxconn 200\n nbthread 1\ndefaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 10s\n".to_owned();
    let mut addresses = Vec::new();
    for (at, listener) in listeners.iter().enumerate() {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let crt = directory.join("crt-list").display().to_string();
        let ca = directory.join(format!("ca-{at}"));
        fs::write(&ca, &listener.authorities).unwrap();
        let verify = if listener.mandatory { "required" } else { "optional" };
        text += &format!(
            "frontend f{at}\n bind {address} ssl crt-list {crt} ca-file {} verify {verify} ciphers {CIPHERS} ciphersuites {CIPHERSUITES} alpn h2,http/1.1,http/1.0",
            ca.display()
        );
        if let Some(lists) = &listener.lists {
            let crl = directory.join(format!("crl-{at}"));
            fs::write(&crl, lists).unwrap();
            text += &format!(" crl-file {}", crl.display());
        }
        text += "\n";
        for (name, format) in FIELDS {
            text += &format!(" http-request set-header {name} {format}\n");
        }
        for (at, (acl, ..)) in RULES.iter().enumerate() {
            text += &format!(" http-request set-header x-rule-{at} 1 if {{ {acl} }}\n");
        }
        text += " default_backend echo\n";
        addresses.push(address);
    }
    text += &format!("backend echo\n server echo {origin}\n");
    let file = directory.join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let child =
        Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    for address in &addresses {
        while TcpStream::connect(address).is_err() {
            assert!(running.0.try_wait().unwrap().is_none(), "HAProxy has ended");
            assert!(Instant::now() < deadline, "HAProxy does not listen");
            thread::sleep(Duration::from_millis(5));
        }
    }
    (running, addresses)
}

/// The same as the proxy would do it: a connection, a handshake, an answer.
fn serve(context: ServerContext) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let context = context.clone();
            thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut acceptor = Acceptor::default();
                let accepted = loop {
                    if !acceptor.read_tls(&mut stream).is_ok_and(|n| n > 0) {
                        return;
                    }
                    match acceptor.accept() {
                        Ok(None) => {}
                        Ok(Some(accepted)) => break accepted,
                        Err((_, mut alert)) => {
                            let _ = alert.write_all(&mut stream);
                            return;
                        }
                    }
                };
                let config = context.config_for(&accepted);
                let mut connection = match accepted.into_connection(config) {
                    Ok(connection) => connection,
                    Err((_, mut alert)) => {
                        let _ = alert.write_all(&mut stream);
                        return;
                    }
                };
                while connection.is_handshaking() {
                    if connection.complete_io(&mut stream).is_err() {
                        // The alert is on its way; the other side's end is awaited, so that nothing resets it.
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        let _ = io::copy(&mut stream, &mut io::sink());
                        return;
                    }
                }
                let connection = Connection::from(connection);
                let facts = PeerFacts::new(&connection);
                let mut stream = StreamOwned::new(server(connection), stream);
                let _ = read_head(&mut stream);
                let mut body = String::new();
                for (name, value) in told(&facts) {
                    let mut field = Vec::new();
                    write_field_value(&mut field, value.as_bytes());
                    body += &format!("{name}: {}\r\n", String::from_utf8_lossy(&field));
                }
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            });
        }
    });
    address
}

fn server(connection: Connection) -> rustls::ServerConnection {
    match connection {
        Connection::Server(server) => server,
        Connection::Client(_) => unreachable!("it was accepted"),
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What a client comes to that shows this.
fn come(address: SocketAddr, version: TlsVersion, shown: Option<&Shown>, sni: Option<&str>) -> Outcome {
    let versions: &[_] = match version {
        TlsVersion::Tls1_2 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    let provider = CryptoProvider { kx_groups: groups::TO_CLIENTS.to_vec(), ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(ClientKind::All)));
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
            let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
            builder
                .with_client_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(shown.chain(), key)))))
        }
    };
    let name = match sni {
        Some(sni) => ServerName::try_from(sni.to_owned()).unwrap(),
        None => ServerName::IpAddress(address.ip().into()),
    };
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let result = (|| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        stream.flush()?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            // One side does not say when it closes.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
            Err(error) => Err(error),
        }
    })();
    match result {
        Ok(answer) => {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let fields = body.lines().filter_map(|line| line.split_once(':')).filter_map(|(name, value)| {
                let name = name.to_ascii_lowercase();
                let known = FIELDS.iter().any(|(known, _)| *known == name) || name.starts_with("x-rule-");
                let value = value.trim();
                known.then(|| (name, value.to_owned()))
            });
            Outcome::In(fields.collect())
        }
        Err(error) => {
            let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            // What was not sent for want of a reader is read all the same.
            let pending = match alert {
                Some(Error::AlertReceived(alert)) => Some(*alert),
                _ => last_alert(&mut stream),
            };
            pending.map_or(Outcome::Closed, Outcome::Alert)
        }
    }
}

/// The alert behind a write that failed.
fn last_alert(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> Option<AlertDescription> {
    let error = stream.read(&mut [0; 1]).err()?;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

fn ours(files: &mut Files, listeners: &[Listening], certificates: &[(&str, String)]) -> Vec<SocketAddr> {
    let ids: Vec<CertificateId> =
        certificates.iter().enumerate().map(|(at, (_, pem))| files.put(&format!("c{at}"), pem)).collect();
    let keys = TicketKeys::new();
    let compile = |(at, listener): (usize, &Listening)| {
        let ca = files.put(&format!("ca-{at}"), &listener.authorities);
        let crl = listener.lists.as_ref().map(|lists| files.put(&format!("crl-{at}"), lists));
        let tls = ListenerTls {
            sni_certificates: ids[1..].to_vec(),
            ..asking(&ids[0], listener.mandatory, &ca, crl.as_ref())
        };
        let id = "6a0a707c-45ef-4758-b533-e55adddba8ce".parse().unwrap();
        serve(ServerContext::compile(id, &tls, files, &keys).unwrap())
    };
    listeners.iter().enumerate().map(compile).collect()
}

const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls1_2, TlsVersion::Tls1_3];

fn is_there() -> bool {
    let there = ["haproxy", "openssl"].iter().all(|program| Command::new(program).arg("-v").output().is_ok());
    if !there {
        println!("SKIPPED: there is no haproxy, or no openssl");
    }
    there
}

#[test]
fn who_gets_in_and_what_is_told_of_them() {
    if !is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(directory.path());
    let root = world.root.pem();
    let listening = |name, mandatory, authorities: &[&str], lists: Option<Vec<String>>| Listening {
        name,
        mandatory,
        authorities: authorities.concat(),
        lists: lists.map(|lists| lists.concat()),
    };
    let (stranger, v1, old, middle) =
        (world.stranger.pem(), world.v1_root.clone(), world.old_root.pem(), world.middle.pem());
    let self_signed = world.shown.iter().find(|shown| shown.name == "self-signed").unwrap().pem();
    let of = |authority: &Authority, revoked: &[u64], from, until| authority.list(revoked, from, until);
    let good = || of(&world.root, &[7], 2020, 2090);
    let listeners = [
        listening("required", true, &[&root], None),
        listening("optional", false, &[&root, &old, &v1], None),
        listening("middle alone", true, &[&middle], None),
        listening("middle and root", true, &[&middle, &stranger, &root], None),
        listening("a leaf as authority", true, &[&root, &self_signed], None),
        listening("list", true, &[&root, &old], Some(vec![good()])),
        listening("lists of both", true, &[&root], Some(vec![good(), of(&world.middle, &[9], 2020, 2090)])),
        listening(
            "lists, none revoked",
            true,
            &[&root],
            Some(vec![of(&world.root, &[], 2020, 2090), of(&world.middle, &[], 2020, 2090)]),
        ),
        listening("list of middle alone", true, &[&root], Some(vec![of(&world.middle, &[], 2020, 2090)])),
        listening("list expired", true, &[&root], Some(vec![of(&world.root, &[], 2020, 2024)])),
        listening("list to come", true, &[&root], Some(vec![of(&world.root, &[], 2088, 2090)])),
        listening(
            "list expired and good",
            true,
            &[&root],
            Some(vec![of(&world.root, &[200], 2020, 2024), good()]),
        ),
        listening("list of a mimic", true, &[&root], Some(vec![of(&world.mimic, &[], 2020, 2090)])),
        listening("list of a stranger", true, &[&root], Some(vec![of(&world.stranger, &[], 2020, 2090)])),
    ];
    let certificates = [("server", world.root.issue(&leaf_params("server", &["a.example"])))];
    let (_running, theirs) = haproxy(directory.path(), &listeners, &certificates);
    let ours = ours(&mut Files::default(), &listeners, &certificates);
    let (mut cases, mut taken) = (0, 0);
    let mut differences = Vec::new();
    for (at, listener) in listeners.iter().enumerate() {
        // Lists change nothing about most.
        let all = listener.lists.is_none() && at < 2;
        let some = |shown: &&Shown| all || shown.is_of_interest();
        for shown in std::iter::once(None).chain(world.shown.iter().filter(some).map(Some)) {
            for version in VERSIONS {
                let what = (listener.name, version.as_str(), shown.map_or("nothing", |shown| &shown.name));
                let theirs = come(theirs[at], version, shown, Some("a.example"));
                let ours = come(ours[at], version, shown, Some("a.example"));
                cases += 1;
                taken += usize::from(matches!(theirs, Outcome::In(_)));
                // What rustls says in TLS 1.2 to who shows nothing; OpenSSL says so in TLS 1.3 alone.
                let missing = (Outcome::Alert(HandshakeFailure), Outcome::Alert(CertificateRequired));
                if theirs != ours && (theirs.clone(), ours.clone()) != missing {
                    let (theirs, ours) = (theirs.beside(&ours), ours.beside(&theirs));
                    differences.push(format!("{what:?}:\n  HAProxy {theirs}\n  here    {ours}"));
                }
            }
        }
    }
    println!("{cases} handshakes, {taken} taken by HAProxy, {} differences", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
