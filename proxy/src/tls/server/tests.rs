#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::net::{IpAddr, Ipv4Addr};

use amphora_model::{CertificateId, TlsSettings, TlsVersion};
use rustls::{CertificateError, SignatureAlgorithm};

use super::*;
use crate::tls::{
    ClientContext, MemberContext, PeerFacts,
    testing::{Authority, Files, Handshake, asking, handshake, leaf_params, listener_tls, only, pool_tls},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listener() -> ListenerId {
    "6a0a707c-45ef-4758-b533-e55adddba8ce".parse().unwrap()
}

fn compile(files: &Files, tls: &ListenerTls) -> ServerContext {
    ServerContext::compile(listener(), tls, files, &TicketKeys::new()).unwrap()
}

/// A client that verifies nothing.
fn client(files: &Files, certificate: Option<&CertificateId>, settings: TlsSettings) -> MemberContext {
    let tls = amphora_model::PoolTls { client_certificate: certificate.cloned(), settings, ..pool_tls() };
    ClientContext::compile(&tls, files).unwrap().member()
}

fn shake(client: &MemberContext, server: &ServerContext, sni: Option<&str>) -> Handshake {
    handshake(client.connect(HERE, sni).unwrap(), server.accept().unwrap())
}

/// The common name that a client is shown.
fn shown(client: &MemberContext, server: &ServerContext, sni: Option<&str>) -> String {
    let (client, _) = shake(client, server, sni).unwrap();
    let facts = PeerFacts::new(&client);
    String::from_utf8(facts.certificate.unwrap().common_name().to_vec()).unwrap()
}

#[test]
fn a_client_is_shown_the_certificate_for_its_name() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let default = files.put("default", authority.issue(&leaf_params("default", &["d.example"])));
    let sni = [
        files.put("exact", authority.issue(&leaf_params("exact", &["a.b.example"]))),
        files.put("wild", authority.issue(&leaf_params("wild", &["*.b.example"]))),
        files.put("upper", authority.issue(&leaf_params("upper.example", &["UPPER.example"]))),
        files.put("second", authority.issue(&leaf_params("second", &["a.b.example", "d.example"]))),
    ];
    let server = compile(&files, &ListenerTls { sni_certificates: sni.to_vec(), ..listener_tls(&default) });
    let client = client(&files, None, TlsSettings::default());
    for (sni, expected) in [
        (None, "default"),
        (Some("d.example"), "default"),
        (Some("nobody.example"), "default"),
        (Some("a.b.example"), "exact"),
        (Some("A.B.eXample"), "exact"),
        (Some("c.b.example"), "wild"),
        (Some("x.c.b.example"), "default"),
        (Some("b.example"), "default"),
        (Some("upper.EXAMPLE"), "upper.example"),
        (Some("exact"), "exact"),
    ] {
        assert_eq!(shown(&client, &server, sni), expected, "{sni:?}");
    }
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let certificate = files.put("a", authority.issue(&leaf_params("a", &["a.example"])));
    let of_client = files.put("client", authority.issue(&leaf_params("client", &[])));
    let ca = files.put("ca", authority.pem());
    let tls = asking(&certificate, true, &ca, None);
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let server = compile(&files, &tls);
        let client = client(&files, Some(&of_client), only(version));
        for resumed in [false, true, true] {
            let (_, connection) = shake(&client, &server, Some("a.example")).unwrap();
            let facts = PeerFacts::new(&connection);
            assert_eq!(facts.resumed, resumed, "{version}");
            assert_eq!(facts.version, version.as_str());
            assert_eq!(facts.sni.as_deref(), Some("a.example"));
            assert_eq!(facts.alpn.as_deref(), Some(&b"h2"[..]));
            assert_eq!(facts.certificate.unwrap().subject(), b"/CN=client");
        }
        // With another name, and on a listener that has come about anew, it begins anew.
        let (_, connection) = shake(&client, &server, Some("b.example")).unwrap();
        assert!(!PeerFacts::new(&connection).resumed);
        let (_, connection) = shake(&client, &compile(&files, &tls), Some("a.example")).unwrap();
        assert!(!PeerFacts::new(&connection).resumed);
    }
}

#[test]
fn clients_are_asked_for_certificates() {
    let (authority, stranger) = (Authority::root("root"), Authority::root("stranger"));
    let mut files = Files::default();
    let certificate = files.put("a", authority.issue(&leaf_params("a", &[])));
    let good = files.put("good", authority.issue(&leaf_params("good", &[])));
    let bad = files.put("bad", stranger.issue(&leaf_params("bad", &[])));
    let ca = files.put("ca", authority.pem());
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        for (mandatory, shown, expected) in [
            (false, None, Ok(None)),
            (false, Some(&good), Ok(Some("/CN=good"))),
            (true, Some(&good), Ok(Some("/CN=good"))),
            (true, None, Err(Error::NoCertificatesPresented)),
            (false, Some(&bad), Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))),
        ] {
            let server = compile(&files, &asking(&certificate, mandatory, &ca, None));
            let result = shake(&client(&files, shown, only(version)), &server, None);
            let result =
                result.map(|(_, server)| PeerFacts::new(&server).certificate.map(|c| c.subject().to_vec()));
            let result = result.map_err(|(_, server)| server.unwrap());
            assert_eq!(
                result,
                expected.map(|name| name.map(|name| name.as_bytes().to_vec())),
                "{version} {mandatory}"
            );
        }
    }
}

#[test]
fn a_certificate_of_each_kind_for_one_name() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let kinds = [
        ("ecdsa", &rcgen::PKCS_ECDSA_P384_SHA384, SignatureAlgorithm::ECDSA),
        ("rsa", &rcgen::PKCS_RSA_SHA256, SignatureAlgorithm::RSA),
    ];
    let [ecdsa, rsa] = kinds.map(|(name, algorithm, _)| {
        files.put(name, authority.issue_with(&leaf_params(name, &["a.example"]), algorithm))
    });
    for order in [[&ecdsa, &rsa], [&rsa, &ecdsa]] {
        let tls = ListenerTls { sni_certificates: vec![order[1].clone()], ..listener_tls(order[0]) };
        let server = compile(&files, &tls);
        let ciphers = |list: &str| TlsSettings { ciphers: Some(list.into()), ..only(TlsVersion::Tls1_2) };
        for (settings, expected) in [
            (TlsSettings::default(), "ecdsa"),
            (ciphers("ECDHE-RSA-AES128-GCM-SHA256"), "rsa"),
            (ciphers("ECDHE-ECDSA-AES128-GCM-SHA256"), "ecdsa"),
        ] {
            assert_eq!(shown(&client(&files, None, settings), &server, Some("a.example")), expected);
        }
    }
}

#[test]
fn what_cannot_be_honoured_is_told_with_its_field() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let good = files.put("good", authority.issue(&leaf_params("good", &[])));
    let other = files.put("other", authority.pem() + &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let keyless = files.put("keyless", authority.pem());
    let ca = files.put("ca", "");
    let tls = ListenerTls {
        sni_certificates: vec![other, keyless, "missing".parse().unwrap()],
        settings: only(TlsVersion::Tls1),
        ..asking(&good, true, &ca, None)
    };
    let faults = ServerContext::compile(listener(), &tls, &files, &TicketKeys::new()).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "tls_versions: none of these can be honoured: TLSv1; there are TLSv1.2 and TLSv1.3",
            "client_ca_tls_container_ref: ca is empty",
            "sni_container_refs: other has a private key that is not that of any certificate in it",
            "sni_container_refs: keyless has no private key",
            "sni_container_refs: there is no certificate missing",
        ]
    );
}

/// What HAProxy says nothing of: it starts, and such clients get `handshake_failure` (OpenSSL: "no shared cipher").
#[test]
fn ciphers_that_are_for_no_key_of_a_certificate_are_remarked_on() {
    const ECDSA: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";
    const RSA: &str = "ECDHE-RSA-AES128-GCM-SHA256";
    const NEWEST: &[TlsVersion] = &[TlsVersion::Tls1_2, TlsVersion::Tls1_3];
    let authority = Authority::root("root");
    let mut files = Files::default();
    let mut put = |name: &str, algorithm, hosts: &[&str]| {
        files.put(name, authority.issue_with(&leaf_params(hosts[0], hosts), algorithm))
    };
    let (ec, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    put("ec", ec, &["a.example", "b.example"]);
    put("rsa", rsa, &["a.example"]);
    put("wild", rsa, &["*.example"]);
    put("ed", &rcgen::PKCS_ED25519, &["ed.test"]);
    put("other", ec, &["other.test"]);
    let named = |names: &[&str]| -> Vec<CertificateId> { names.iter().map(|n| n.parse().unwrap()).collect() };
    for (versions, ciphers, certificates, useless) in [
        (&NEWEST[..1], RSA, &["ec"][..], "ec"),
        (&NEWEST[..1], ECDSA, &["rsa"], "rsa"),
        (&NEWEST[..1], RSA, &["ed"], "ed"),
        (&NEWEST[..1], ECDSA, &["ed"], ""),
        (&NEWEST[..1], RSA, &["rsa"], ""),
        (NEWEST, RSA, &["ec"], "ec"),
        (&NEWEST[1..], RSA, &["ec"], ""),
        // Of its hosts one has another certificate, and one has not.
        (&NEWEST[..1], RSA, &["rsa", "ec"], "ec"),
        (&NEWEST[..1], RSA, &["rsa", "ec", "wild"], ""),
        (&NEWEST[..1], RSA, &["ec", "wild", "ed", "other"], "ec, ed, other"),
        (&NEWEST[..1], &[ECDSA, RSA].join(":"), &["ec", "rsa"], ""),
        (NEWEST, "TLS_AES_128_GCM_SHA256", &["ec", "rsa"], ""),
    ] {
        let case = format!("{versions:?} {ciphers} {certificates:?}");
        let certificates = named(certificates);
        let settings = TlsSettings {
            versions: versions.to_vec(),
            ciphers: Some(ciphers.into()),
            ..TlsSettings::default()
        };
        let tls = ListenerTls {
            sni_certificates: certificates[1..].to_vec(),
            settings,
            ..listener_tls(&certificates[0])
        };
        let server = compile(&files, &tls);
        let remarks: Vec<String> = server.remarks().iter().map(ToString::to_string).collect();
        let keys = if ciphers == RSA { "RSA" } else { "ECDSA" };
        let served = if versions == NEWEST { "is served with TLSv1.3 alone" } else { "is not served" };
        let expected =
            format!("tls_ciphers: those of TLSv1.2 are for {keys} keys: who is shown {useless} {served}");
        let expected: Vec<String> = match (useless, ciphers, versions) {
            ("", RSA, [TlsVersion::Tls1_3]) => {
                vec!["tls_ciphers: none is one of TLSv1.3, which has its default".to_owned()]
            }
            ("", ..) => Vec::new(),
            _ => vec![expected],
        };
        assert_eq!(remarks, expected, "{case}");
        if !versions.contains(&TlsVersion::Tls1_2) {
            continue;
        }
        // It is so: clients of TLS 1.2 that know everything are served but where a certificate is of no use.
        let client = client(&files, None, only(TlsVersion::Tls1_2));
        let is_served = |sni| shake(&client, &server, Some(sni)).is_ok();
        let useless: Vec<&str> = useless.split(", ").collect();
        let has = |id: &&&str| certificates.iter().any(|of| of.as_str() == **id);
        for (host, of_host) in
            [("b.example", &["wild", "ec"][..]), ("ed.test", &["ed"]), ("other.test", &["other"])]
        {
            let shown = of_host.iter().find(has).copied().unwrap_or(certificates[0].as_str());
            assert_eq!(is_served(host), !useless.contains(&shown), "{case} {host}");
        }
    }
}

#[test]
fn a_session_is_resumed_only_while_the_same_is_verified() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let certificate = files.put("a", authority.issue(&leaf_params("a", &[])));
    let mut params = leaf_params("client", &[]);
    params.serial_number = Some(rcgen::SerialNumber::from(7u64));
    let shown = files.put("client", authority.issue(&params));
    let ca = files.put("ca", authority.pem());
    let list = files.put("list", authority.list(&[], 2020, 2090));
    let keys = TicketKeys::new();
    let compile =
        |tls: &ListenerTls, files: &Files| ServerContext::compile(listener(), tls, files, &keys).unwrap();
    let asked = asking(&certificate, true, &ca, Some(&list));
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        files.put("list", authority.list(&[], 2020, 2090));
        let client = client(&files, Some(&shown), only(version));
        let resumed = |server: &ServerContext| {
            shake(&client, server, None)
                .map(|(_, server)| PeerFacts::new(&server).resumed)
                .map_err(|(_, error)| error)
        };
        assert_eq!(resumed(&compile(&asked, &files)), Ok(false));
        // A context that is made anew of the same, and one with another certificate of the server's.
        assert_eq!(resumed(&compile(&asked, &files)), Ok(true));
        files.put("a", authority.issue(&leaf_params("a", &["a.example"])));
        assert_eq!(resumed(&compile(&asked, &files)), Ok(true));
        // Nobody is asked any more, or another way.
        assert_eq!(resumed(&compile(&listener_tls(&certificate), &files)), Ok(false));
        assert_eq!(resumed(&compile(&asking(&certificate, false, &ca, Some(&list)), &files)), Ok(false));
        assert_eq!(resumed(&compile(&asked, &files)), Ok(false));
        files.put("list", authority.list(&[8], 2020, 2090));
        assert_eq!(resumed(&compile(&asked, &files)), Ok(false));
        files.put("list", authority.list(&[7], 2020, 2090));
        let revoked = Err(Some(Error::InvalidCertificate(CertificateError::Revoked)));
        assert_eq!(resumed(&compile(&asked, &files)), revoked);
    }
}
