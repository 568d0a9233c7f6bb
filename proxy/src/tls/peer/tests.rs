#![allow(clippy::unwrap_used)]

use rcgen::{DnType, DnValue};
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::tls::testing::{Authority, leaf_params};

#[test]
fn texts_are_those_of_haproxy() {
    let mut params = leaf_params("first", &[]);
    params.distinguished_name.push(DnType::CountryName, "DE");
    params.distinguished_name.push(DnType::OrganizationName, "a/b=c, \"d\"");
    params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "x");
    params.distinguished_name.push(DnType::LocalityName, DnValue::Utf8String("Z\u{fc}rich".to_owned()));
    params.not_after = rcgen::date_time_ymd(2055, 1, 2);
    let shown = Authority::root("the root").issue(&params);
    let certificate = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
    let certificate = ClientCertificate::new(certificate);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(text(certificate.subject()), "/CN=first/C=DE/O=a/b=c, \"d\"/1.2.3.4=x/L=Z\u{fc}rich");
    assert_eq!(text(certificate.issuer()), "/CN=the root");
    assert_eq!(text(certificate.common_name()), "first");
    assert_eq!(certificate.subject_field("o"), Some(&b"a/b=c, \"d\""[..]));
    assert_eq!(certificate.subject_field("1.2.3.4"), Some(&b"x"[..]));
    assert_eq!(certificate.subject_field("OU"), None);
    assert_eq!(text(certificate.not_before()), "200101000000Z");
    assert_eq!(text(certificate.not_after()), "550102000000Z");
    assert_eq!(certificate.sha1().len(), 40);
    // Names in UTF-16 are told as they are, and as a field's value.
    params.distinguished_name.push(DnType::CommonName, DnValue::BmpString("ab".try_into().unwrap()));
    let shown = Authority::root("root").issue(&params);
    let certificate = ClientCertificate::new(CertificateDer::from_pem_slice(shown.as_bytes()).unwrap());
    assert_eq!(certificate.common_name(), b"\0a\0b");
    let mut value = Vec::new();
    crate::tls::write_field_value(&mut value, certificate.common_name());
    assert_eq!(value, b"%00a%00b");
}
