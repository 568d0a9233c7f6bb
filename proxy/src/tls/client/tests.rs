#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use amphora_model::{ListenerId, TlsSettings, TlsVersion};
use rustls::CertificateError;

use super::*;
use crate::tls::{
    PeerFacts, ServerContext, TicketKeys,
    testing::{Authority, Files, asking, handshake, leaf_params, listener_tls, only, pool_tls},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listener() -> ListenerId {
    "6a0a707c-45ef-4758-b533-e55adddba8ce".parse().unwrap()
}

#[test]
fn hosts_are_matched_as_haproxy_does() {
    for (pattern, host, matches) in [
        ("a.example", "A.EXAMPLE", true),
        ("*.example", "a.example", true),
        ("*.example", ".example", true),
        ("*.example", "a.b.example", false),
        ("*.example", "example", false),
        ("a*.example", "ab.example", true),
        ("a*.example", "a.example", true),
        ("a*c.example", "abc.example", true),
        ("a*c.example", "ac.example", true),
        ("a*c.example", "c.example", false),
        ("*a*.example", "xax.example", false),
        ("a.*.example", "a.b.example", false),
        ("*", "a", false),
        ("", "a", false),
    ] {
        assert_eq!(is_for_host(pattern, host), matches, "{pattern} {host}");
    }
}

#[test]
fn members_are_verified_by_authorities_and_the_name_that_they_are_asked_for() {
    let (authority, stranger) = (Authority::root("root"), Authority::root("stranger"));
    let mut files = Files::default();
    let certificate = files.put("a", authority.issue(&leaf_params("cn.example", &["a.example"])));
    let ca = files.put("ca", authority.pem());
    let strange = files.put("strange", stranger.pem());
    let list = files.put("list", authority.list(&[], 2020, 2090));
    let server = ServerContext::compile(listener(), &listener_tls(&certificate), &files, &TicketKeys::new());
    let server = server.unwrap();
    let unknown = Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
    let other_name = Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName));
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        for (authorities, revocations, sni, expected) in [
            (None, None, Some("nobody"), Ok(())),
            (Some(&ca), None, None, Ok(())),
            (Some(&ca), Some(&list), Some("a.example"), Ok(())),
            (Some(&ca), None, Some("cn.example"), Ok(())),
            (Some(&ca), None, Some("b.example"), other_name.clone()),
            (Some(&strange), None, None, unknown.clone()),
        ] {
            let tls = PoolTls {
                authorities: authorities.cloned(),
                revocations: revocations.cloned(),
                settings: only(version),
                ..pool_tls()
            };
            let client = ClientContext::compile(&tls, &files).unwrap().member();
            let result = handshake(client.connect(HERE, sni).unwrap(), server.accept().unwrap());
            let result = result.map(|_| ()).map_err(|(client, _)| client.unwrap());
            assert_eq!(result, expected, "{version} {sni:?}");
        }
    }
}

#[test]
fn each_member_resumes_its_own_sessions() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let certificate = files.put("a", authority.issue(&leaf_params("a", &["a.example"])));
    let shown = files.put("shown", authority.issue(&leaf_params("shown", &[])));
    let ca = files.put("ca", authority.pem());
    let tls = PoolTls { client_certificate: Some(shown), settings: TlsSettings::default(), ..pool_tls() };
    let context = ClientContext::compile(&tls, &files).unwrap();
    let members = [context.member(), context.member()];
    let server = ServerContext::compile(
        listener(),
        &asking(&certificate, true, &ca, None),
        &files,
        &TicketKeys::new(),
    );
    let server = server.unwrap();
    for (member, resumed) in [(0, false), (1, false), (0, true), (1, true), (0, true)] {
        let client = members[member].connect(HERE, Some("a.example")).unwrap();
        let (_, server) = handshake(client, server.accept().unwrap()).unwrap();
        let facts = PeerFacts::new(&server);
        assert_eq!(facts.resumed, resumed);
        assert_eq!(facts.certificate.unwrap().subject(), b"/CN=shown");
    }
}

#[test]
fn what_is_made_of_the_same_has_the_same_identity() {
    let authority = Authority::root("root");
    let mut files = Files::default();
    let ca = files.put("ca", authority.pem());
    let shown = files.put("shown", authority.issue(&leaf_params("shown", &[])));
    let plain = pool_tls();
    let verified = PoolTls { authorities: Some(ca.clone()), ..pool_tls() };
    let known = PoolTls { client_certificate: Some(shown), ..pool_tls() };
    let older = PoolTls { settings: only(TlsVersion::Tls1_2), ..pool_tls() };
    let identity = |tls: &PoolTls, files: &Files| *ClientContext::compile(tls, files).unwrap().identity();
    let all = [&plain, &verified, &known, &older].map(|tls| identity(tls, &files));
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one));
    }
    assert_eq!(all[1], identity(&verified.clone(), &files));
    files.put(ca.as_str(), Authority::root("root").pem());
    assert_ne!(all[1], identity(&verified, &files));
}
