//! With which certificate, suite and protocol clients are served.

use super::*;

/// The common name of the certificate that a client is shown which takes these suites and signature schemes.
fn shown_to(address: SocketAddr, version: TlsVersion, sni: Option<&str>, kind: ClientKind) -> String {
    let mut provider =
        CryptoProvider { kx_groups: groups::TO_CLIENTS.to_vec(), ..aws_lc_rs::default_provider() };
    let ecdsa = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).contains("ECDSA");
    let rsa = |suite: &rustls::SupportedCipherSuite| {
        format!("{:?}", suite.suite()).contains("RSA") && !ecdsa(suite)
    };
    match kind {
        ClientKind::All | ClientKind::RsaSchemes | ClientKind::EcdsaSchemes => {}
        ClientKind::RsaSuites => provider.cipher_suites.retain(|suite| !ecdsa(suite)),
        ClientKind::EcdsaSuites => provider.cipher_suites.retain(|suite| !rsa(suite)),
    }
    let versions: &[_] = match version {
        TlsVersion::Tls1_2 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(kind)))
        .with_no_client_auth();
    let name = match sni {
        Some(sni) => ServerName::try_from(sni.to_owned()).unwrap(),
        None => ServerName::IpAddress(address.ip().into()),
    };
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            return error.to_string();
        }
    }
    let leaf = connection.peer_certificates().unwrap()[0].clone().into_owned();
    let certificate = crate::tls::ClientCertificate::new(leaf);
    String::from_utf8_lossy(certificate.common_name()).into_owned()
}

/// What a client can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    All,
    RsaSuites,
    EcdsaSuites,
    RsaSchemes,
    EcdsaSchemes,
}

#[test]
fn who_is_shown_which_certificate() {
    if !is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = Authority::root("Root A");
    let (ecdsa, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    let issue =
        |name, hosts: &[&str], algorithm| (name, root.issue_with(&leaf_params(name, hosts), algorithm));
    // OpenSSL does not read keys that have their public half with them (RFC 5958), as rcgen writes these.
    let key = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().unwrap().stdout;
    let key = String::from_utf8(key).unwrap();
    let signed =
        leaf_params("ed", &["ed.example"]).signed_by(&rcgen::KeyPair::from_pem(&key).unwrap(), &root.issuer);
    let ed25519 = signed.unwrap().pem() + &key;
    let certificates = [
        issue("default.example", &["d.example"], ecdsa),
        issue("exact", &["a.b.example", "both.example"], rsa),
        issue("wild", &["*.b.example", "*.example"], ecdsa),
        issue("wild-rsa", &["*.c.example", "*.b.example"], rsa),
        issue("both-ecdsa", &["BOTH.example", "a.c.example"], ecdsa),
        issue("later", &["d.example", "a.b.example", "both.example"], rsa),
        ("ed", ed25519),
        issue("cn.example", &[], ecdsa),
        issue("*.cn.example", &["other.example"], ecdsa),
        issue("host_with_underscore.example", &[], rsa),
    ];
    let listener = Listening { name: "names", mandatory: false, authorities: root.pem(), lists: None };
    let listeners = [listener];
    let (_running, theirs) = haproxy(directory.path(), &listeners, &certificates);
    let ours = ours(&mut Files::default(), &listeners, &certificates);
    let names = [
        None,
        Some("d.example"),
        Some("D.EXAMPLE"),
        Some("d.example."),
        Some("default.example"),
        Some("a.b.example"),
        Some("A.b.eXAMPLE"),
        Some("x.b.example"),
        Some("x.y.b.example"),
        Some("b.example"),
        Some("example"),
        Some("both.example"),
        Some("a.c.example"),
        Some("z.c.example"),
        Some("ed.example"),
        Some("cn.example"),
        Some("x.cn.example"),
        Some("other.example"),
        Some("exact"),
        Some("nobody.test"),
        Some("host_with_underscore.example"),
        Some("xn--bcher-kva.example"),
    ];
    let kinds = [
        ClientKind::All,
        ClientKind::RsaSuites,
        ClientKind::EcdsaSuites,
        ClientKind::RsaSchemes,
        ClientKind::EcdsaSchemes,
    ];
    let (mut cases, mut differences) = (0, Vec::new());
    for sni in names {
        for version in VERSIONS {
            for kind in kinds {
                let theirs = shown_to(theirs[0], version, sni, kind);
                let ours = shown_to(ours[0], version, sni, kind);
                cases += 1;
                if theirs != ours {
                    differences.push(format!("{sni:?} {version} {kind:?}: HAProxy {theirs}, here {ours}"));
                }
            }
        }
    }
    println!("{cases} handshakes, {} differences", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is agreed with a client that offers these suites in this order, and these protocols: suite and protocol, or the alert.
fn agreed(
    address: SocketAddr,
    version: &'static rustls::SupportedProtocolVersion,
    suites: &[usize],
    alpn: &[&str],
) -> String {
    let all = aws_lc_rs::ALL_CIPHER_SUITES;
    let cipher_suites = suites.iter().map(|at| all[*at]).collect();
    let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
    let Ok(builder) = ClientConfig::builder_with_provider(provider.into()).with_protocol_versions(&[version])
    else {
        return "no suite of this version".to_owned();
    };
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(ClientKind::All)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::IpAddress(address.ip().into());
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            return error.to_string();
        }
    }
    let alpn = connection.alpn_protocol().map(String::from_utf8_lossy);
    format!("{:?} {alpn:?}", connection.negotiated_cipher_suite().unwrap().suite())
}

#[test]
fn which_suite_and_protocol_are_agreed() {
    if !is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = Authority::root("Root A");
    let listener = Listening { name: "suites", mandatory: false, authorities: root.pem(), lists: None };
    let (mut cases, mut differences) = (0, Vec::new());
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
        let certificates = [("server", root.issue_with(&leaf_params("server", &["a.example"]), algorithm))];
        let listeners = std::slice::from_ref(&listener);
        let (_running, theirs) = haproxy(directory.path(), listeners, &certificates);
        let ours = ours(&mut Files::default(), listeners, &certificates);
        // Of TLS 1.3 there are 0 to 2, below for ECDSA 3 to 5, for RSA 6 to 8; ChaCha20 is the last of each.
        let orders: &[&[usize]] = &[
            &[0, 1, 2, 3, 4, 5, 6, 7, 8],
            &[8, 7, 6, 5, 4, 3, 2, 1, 0],
            &[2, 5, 8, 0, 3, 6, 1, 4, 7],
            &[1, 2, 0, 4, 5, 3, 7, 8, 6],
            &[5, 3, 4, 8, 6, 7],
            &[0, 5, 8],
            &[3, 6],
            &[2],
        ];
        let protocols: &[&[&str]] = &[
            &[],
            &["h2", "http/1.1"],
            &["http/1.1", "h2"],
            &["http/1.0"],
            &["spdy/3"],
            &["spdy/3", "http/1.1"],
        ];
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for suites in orders {
                for alpn in protocols {
                    let theirs = agreed(theirs[0], version, suites, alpn);
                    let ours = agreed(ours[0], version, suites, alpn);
                    cases += 1;
                    if theirs != ours {
                        differences
                            .push(format!("{version:?} {suites:?} {alpn:?}: HAProxy {theirs}, here {ours}"));
                    }
                }
            }
        }
    }
    println!("{cases} handshakes, {} differences", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
