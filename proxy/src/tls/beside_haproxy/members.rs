//! Members' certificates, verified by HAProxy and by [`ClientContext`].

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use amphora_model::PoolTls;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Running, free_port, is_there, read_head};
use crate::tls::{
    ClientContext,
    testing::{Authority, Files, authority_params, leaf_params, pool_tls},
};

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A member with this certificate, which answers every request.
fn member(pem: &str) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let config = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))));
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || {
                let mut stream = StreamOwned::new(connection, stream);
                if read_head(&mut stream).is_ok_and(|head| !head.is_empty()) {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
        }
    });
    address
}

fn changed(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

#[test]
fn which_members_are_spoken_to() {
    if !is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (root, stranger) = (Authority::root("Root A"), Authority::root("Stranger"));
    let middle = root.below("Middle");
    let hosts = ["a.example", "*.b.example", "p*x.c.example"];
    let plain = || leaf_params("cn.example", &hosts);
    let for_one = |purpose| changed(plain(), |p| p.extended_key_usages = vec![purpose]);
    let used_for = |usage| changed(plain(), |p| p.key_usages = vec![usage]);
    let key = KeyPair::generate().unwrap();
    let own = plain().self_signed(&key).unwrap().pem() + &key.serialize_pem();
    let expired_root =
        Authority::with(changed(authority_params("Old"), |p| p.not_after = date_time_ymd(2024, 1, 1)), None);
    let members = [
        ("plain", root.issue(&plain())),
        ("rsa", root.issue_with(&plain(), &rcgen::PKCS_RSA_SHA256)),
        ("ed25519", root.issue_with(&plain(), &rcgen::PKCS_ED25519)),
        ("no names", root.issue(&leaf_params("cn.example", &[]))),
        ("wildcard name", root.issue(&leaf_params("*.cn.example", &[]))),
        ("expired", root.issue(&changed(plain(), |p| p.not_after = date_time_ymd(2024, 1, 1)))),
        ("not yet", root.issue(&changed(plain(), |p| p.not_before = date_time_ymd(2090, 1, 1)))),
        ("for clients", root.issue(&for_one(ExtendedKeyUsagePurpose::ClientAuth))),
        ("for servers", root.issue(&for_one(ExtendedKeyUsagePurpose::ServerAuth))),
        ("enciphers", root.issue(&used_for(KeyUsagePurpose::KeyEncipherment))),
        ("signs certificates", root.issue(&used_for(KeyUsagePurpose::KeyCertSign))),
        ("serial 7", root.issue(&changed(plain(), |p| p.serial_number = Some(SerialNumber::from(7u64))))),
        ("below middle", middle.issue(&plain()) + &middle.pem()),
        ("below middle alone", middle.issue(&plain())),
        ("stranger's", stranger.issue(&plain())),
        ("self-signed", own.clone()),
        ("old root's", expired_root.issue(&plain())),
    ];
    let list = root.list(&[7], 2020, 2090);
    // Without authorities any certificate is good.
    let pools = [
        ("none", None, None),
        ("root", Some(root.pem() + &expired_root.pem()), None),
        ("itself", Some(own.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned()), None),
        ("list", Some(root.pem()), Some(list)),
    ];
    let names = [
        None,
        Some("a.example"),
        Some("A.EXAMPLE"),
        Some("x.b.example"),
        Some("x.y.b.example"),
        Some("b.example"),
        Some("pqx.c.example"),
        Some("px.c.example"),
        Some("q.c.example"),
        Some("cn.example"),
        Some("x.cn.example"),
        Some("nobody.example"),
    ];

    let mut files = Files::default();
    let port = free_port();
    let mut text = format!(
        "global\n maxconn 200\n nbthread 1\ndefaults\n mode http\n retries 0\n timeout client 10s\n timeout server 10s\n \
         timeout connect 10s\nfrontend f\n bind 127.0.0.1:{port}\n use_backend %[path,field(2,/)]\n"
    );
    let mut cases = Vec::new();
    for (pool, (pool_name, authorities, lists)) in pools.iter().enumerate() {
        let mut tls = pool_tls();
        let mut verify = " verify none".to_owned();
        if let Some(authorities) = authorities {
            tls = PoolTls { authorities: Some(files.put(&format!("ca{pool}"), authorities)), ..tls };
            let file = directory.path().join(format!("ca{pool}"));
            fs::write(&file, authorities).unwrap();
            verify = format!(" verify required ca-file {}", file.display());
        }
        if let Some(lists) = lists {
            tls = PoolTls { revocations: Some(files.put(&format!("crl{pool}"), lists)), ..tls };
            let file = directory.path().join(format!("crl{pool}"));
            fs::write(&file, lists).unwrap();
            verify += &format!(" crl-file {}", file.display());
        }
        let context = ClientContext::compile(&tls, &files).unwrap().member();
        for (at, (member_name, _)) in members.iter().enumerate() {
            for sni in names.iter().filter(|sni| at < 5 || sni.is_none_or(|sni| sni == "a.example")) {
                let backend = format!("b{}", cases.len());
                let name = sni.map_or(String::new(), |sni| format!(" sni str({sni})"));
                text += &format!("backend {backend}\n server s MEMBER{at}. ssl{verify}{name}\n");
                cases.push((
                    backend,
                    context.clone(),
                    at,
                    *sni,
                    format!("{pool_name}, {member_name}, {sni:?}"),
                ));
            }
        }
    }
    let addresses: Vec<SocketAddr> = members.iter().map(|(_, pem)| member(pem)).collect();
    for (at, address) in addresses.iter().enumerate() {
        text = text.replace(&format!("MEMBER{at}. "), &format!("{address} "));
    }
    let file = directory.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let child =
        Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    let connect = || TcpStream::connect(("127.0.0.1", port));
    while connect().is_err() {
        assert!(running.0.try_wait().unwrap().is_none(), "HAProxy has ended");
        assert!(Instant::now() < deadline, "HAProxy does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    let (mut taken, mut differences) = (0, Vec::new());
    for (backend, context, at, sni, what) in &cases {
        let mut stream = connect().unwrap();
        write!(stream, "GET /{backend} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let theirs = answer.starts_with("HTTP/1.1 200");
        let ours = shake(context.connect(addresses[*at].ip(), *sni).unwrap(), addresses[*at]);
        taken += usize::from(theirs);
        if theirs != ours.is_ok() {
            differences.push(format!("{what}: HAProxy {theirs}, here {ours:?}"));
        }
    }
    println!("{} handshakes, {taken} taken by HAProxy, {} differences", cases.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn shake(mut connection: ClientConnection, address: SocketAddr) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(())
}
