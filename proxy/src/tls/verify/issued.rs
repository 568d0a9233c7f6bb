//! Who may have issued a certificate: `ossl_x509_likely_issued` of OpenSSL, which looks at no signature.

use amphora_x509::{AlgorithmIdentifier, Certificate, Reader, oid, tag};

use super::names;

/// Whether a certificate, whose subject is the issuer of another, may have issued that one: the other names its key, and is signed
/// with a key of its kind.
pub(super) fn may_have_issued(issuer: &Certificate<'_>, certificate: &Certificate<'_>) -> bool {
    names_key(certificate, issuer)
        && keys_that_sign(&certificate.inner_algorithm).contains(&issuer.public_key.algorithm.oid)
        && is_well_formed(issuer)
}

/// Whether the `authorityKeyIdentifier` of one, if any, is that of the other (X509_check_akid).
fn names_key(one: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    let Ok(Some(named)) = one.extensions.authority_key_identifier() else { return true };
    let key = issuer.extensions.subject_key_identifier().ok().flatten();
    let same_key = named.key.zip(key).is_none_or(|(named, key)| named == key);
    let same_serial = named.serial.is_none_or(|serial| serial == issuer.serial);
    let same_name = named.issuer.is_none_or(|name| name.canonical() == issuer.issuer.canonical());
    same_key && same_serial && same_name
}

/// Whether a certificate whose issuer has its own name may have signed itself: `EXFLAG_SS`.
pub(super) fn may_have_signed_itself(certificate: &Certificate<'_>) -> bool {
    names_key(certificate, certificate)
        && keys_that_sign(&certificate.inner_algorithm).contains(&certificate.public_key.algorithm.oid)
}

/// The kinds of keys that make signatures of a kind (OBJ_find_sigid_algs(3)); none for one that is not known.
fn keys_that_sign(algorithm: &AlgorithmIdentifier<'_>) -> &'static [&'static [u8]] {
    /// 1.2.840.113549.1.1, and one more.
    const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    /// 1.2.840.10045.4, and one or two more.
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
    /// 2.16.840.1.101.3.4.3, and one more.
    const NIST: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3];
    const DSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3];
    const OIW_RSA_SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1d];
    let kind = algorithm.oid;
    match (kind.strip_prefix(PKCS1), kind.strip_prefix(ECDSA), kind.strip_prefix(NIST)) {
        (Some([10]), ..) => &[oid::RSA, oid::RSA_PSS],
        (Some([2..=5 | 11..=16]), ..) | (.., Some([13..=16])) => &[oid::RSA],
        (_, Some([1] | [3, 1..=4]), _) | (.., Some([9..=12])) => &[oid::EC],
        (.., Some([1..=8])) => &[oid::DSA],
        _ if kind == OIW_RSA_SHA1 => &[oid::RSA],
        _ if kind == DSA_SHA1 => &[oid::DSA],
        _ if kind == oid::ED25519 => &[oid::ED25519],
        _ if kind == oid::ED448 => &[oid::ED448],
        _ => &[],
    }
}

/// Whether every extension that something is asked of is in its form, and there once. One that is not spoils the certificate
/// (`EXFLAG_INVALID`): it has no issuer, and is nobody's.
pub(super) fn is_well_formed(certificate: &Certificate<'_>) -> bool {
    let extensions = &certificate.extensions;
    let is_list = |oid| {
        let list = |value| {
            let mut reader = Reader::new(value);
            reader.expect(tag::SEQUENCE).is_some() && reader.is_empty()
        };
        extensions.find(oid).is_none_or(|extension| list(extension.value))
    };
    let Ok(constraints) = extensions.basic_constraints() else { return false };
    let authority = constraints.is_some_and(|constraints| constraints.authority);
    let named =
        [oid::SUBJECT_ALT_NAME, oid::ISSUER_ALT_NAME].iter().any(|oid| extensions.find(oid).is_some());
    !extensions.has_duplicates()
        // RFC 5280 section 4.2.1.3: one of the bits is set.
        && extensions.key_usage().is_ok_and(|usage| usage != Some(0))
        && extensions.extended_key_usage().is_ok()
        && extensions.netscape_cert_type().is_ok()
        && extensions.subject_key_identifier().is_ok()
        && extensions.authority_key_identifier().is_ok()
        && extensions.subject_alt_names().is_ok()
        && names::are_well_formed(extensions)
        && [oid::CRL_DISTRIBUTION_POINTS, oid::IP_ADDRESS_BLOCKS, oid::AUTONOMOUS_SYSTEMS].into_iter().all(is_list)
        // RFC 3820 section 3.8: who stands for another is no authority, and has that one's name.
        && (extensions.find(oid::PROXY_CERT_INFO).is_none() || !(authority || named))
}
