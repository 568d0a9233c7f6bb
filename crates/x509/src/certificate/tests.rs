#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{
    BasicConstraints as Constrained, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;
use crate::{RevocationList, text};

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    params.distinguished_name.push(DnType::CommonName, DnValue::BmpString("Zo\u{eb}".try_into().unwrap()));
    params.distinguished_name.push(DnType::OrganizationName, "Amphora");
    params.not_before = date_time_ymd(1990, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::Ca(Constrained::Constrained(3));
    params
}

#[test]
fn all_that_a_certificate_says() {
    let certificate = params().self_signed(&KeyPair::generate().unwrap()).unwrap();
    let read = Certificate::read(certificate.der()).unwrap();
    assert_eq!(read.version, 3);
    assert!(read.is_self_issued());
    assert_eq!(read.not_before.text, b"900101000000Z");
    assert_eq!(read.not_after.text, b"20500101000000Z");
    assert_eq!(read.public_key.algorithm.oid, oid::EC);
    assert_eq!(read.public_key.rsa_bits(), None);
    let names: Vec<_> = read.subject.attributes().collect();
    assert_eq!(names.len(), 2);
    let name = names.iter().find(|attribute| attribute.oid == oid::COMMON_NAME).unwrap();
    assert_eq!(name.value, b"\0Z\0o\0\xeb");
    assert_eq!(text(name.tag, name.value).as_deref(), Some("Zo\u{eb}"));
    let extensions = read.extensions;
    let expected = BasicConstraints { authority: true, path_length: Some(3) };
    assert_eq!(extensions.basic_constraints(), Ok(Some(expected)));
    assert_eq!(extensions.key_usage(), Ok(Some(1 | 1 << 5 | 1 << 6)));
    assert_eq!(extensions.extended_key_usage(), Ok(Some(vec![oid::CLIENT_AUTH])));
    assert!(extensions.subject_alt_names().unwrap().eq([
        GeneralName::Dns(b"a.example"),
        GeneralName::Dns(b"*.b.example"),
        GeneralName::Ip(&[192, 0, 2, 1]),
    ]));
    assert!(!extensions.has_duplicates());
    assert!(Certificate::read(&certificate.der()[..certificate.der().len() - 1]).is_none());
}

#[test]
fn an_extension_that_comes_twice_is_found_among_thousands() {
    const MANY: u64 = 5_000;
    let extension = |n: u64| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, n], vec![5, 0]);
    for (last, twice) in [(MANY, false), (0, true), (MANY - 1, true)] {
        let mut params = params();
        params.custom_extensions = (0..MANY).chain([last]).map(extension).collect();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::read(certificate.der()).unwrap();
        assert_eq!(read.extensions.has_duplicates(), twice, "{last}");
    }
}

#[test]
fn all_that_a_revocation_list_says() {
    let issuer = Issuer::new(params(), KeyPair::generate().unwrap());
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2030, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(0x80u64),
            revocation_time: date_time_ymd(2019, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap();
    let read = RevocationList::read(list.der()).unwrap();
    assert_eq!(read.version, 2);
    assert_eq!(read.this_update.unix(), Some(1_577_836_800));
    assert_eq!(read.next_update.and_then(|time| time.unix()), Some(1_893_456_000));
    let entries: Vec<_> = read.entries().collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].serial, [0, 0x80]);
    assert!(!entries[0].is_removal());
    assert!(read.extensions.authority_key_identifier().unwrap().unwrap().key.is_some());
}

#[test]
fn names_are_the_same_in_any_encoding() {
    let name = |value: DnValue| {
        let mut params = params();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, value);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::read(certificate.der()).unwrap().subject.canonical()
    };
    let plain = name(DnValue::Utf8String("some  Authority ".to_owned()));
    assert_eq!(plain, name(DnValue::PrintableString("Some authority".try_into().unwrap())));
    assert_eq!(plain, name(DnValue::BmpString(" some authority".try_into().unwrap())));
    assert_ne!(plain, name(DnValue::Utf8String("someauthority".to_owned())));
}

proptest! {
    #[test]
    fn nothing_panics(bytes: Vec<u8>, at in 0usize..600, value: u8) {
        let _ = Certificate::read(&bytes);
        let _ = RevocationList::read(&bytes);
        let _ = oid::dotted(&bytes);
        for tag in 0..=255 {
            let _ = text(tag, &bytes);
        }
        // Most bytes of a certificate decide nothing about its form: what reads on must bear them all.
        let certificate = CERTIFICATE.with(|certificate| {
            let mut changed = certificate.clone();
            let at = at % changed.len();
            changed[at] = value;
            changed
        });
        if let Some(read) = Certificate::read(&certificate) {
            let _ = (read.is_self_issued(), read.not_after.unix(), read.public_key.rsa_bits());
            let extensions = read.extensions;
            let _ = (extensions.basic_constraints(), extensions.key_usage(), extensions.extended_key_usage());
            let _ = (extensions.subject_alt_names(), extensions.authority_key_identifier());
        }
    }
}

thread_local! {
    static CERTIFICATE: Vec<u8> =
        params().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
}
