//! Object identifiers, as the content of an OBJECT IDENTIFIER has them.

use std::fmt::Write;

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $bytes:expr;)*) => {
        $($(#[$doc])* pub const $name: &[u8] = &$bytes;)*
    };
}

oids! {
    /// `commonName`, 2.5.4.3.
    COMMON_NAME = [0x55, 4, 3];
    /// `emailAddress` of PKCS #9, 1.2.840.113549.1.9.1.
    EMAIL_ADDRESS = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
    /// `subjectKeyIdentifier`, 2.5.29.14.
    SUBJECT_KEY_IDENTIFIER = [0x55, 0x1d, 14];
    /// `keyUsage`, 2.5.29.15.
    KEY_USAGE = [0x55, 0x1d, 15];
    /// `subjectAltName`, 2.5.29.17.
    SUBJECT_ALT_NAME = [0x55, 0x1d, 17];
    /// `issuerAltName`, 2.5.29.18.
    ISSUER_ALT_NAME = [0x55, 0x1d, 18];
    /// `basicConstraints`, 2.5.29.19.
    BASIC_CONSTRAINTS = [0x55, 0x1d, 19];
    /// `cRLReason`, 2.5.29.21.
    CRL_REASON = [0x55, 0x1d, 21];
    /// `invalidityDate`, 2.5.29.24.
    INVALIDITY_DATE = [0x55, 0x1d, 24];
    /// `deltaCRLIndicator`, 2.5.29.27.
    DELTA_CRL_INDICATOR = [0x55, 0x1d, 27];
    /// `issuingDistributionPoint`, 2.5.29.28.
    ISSUING_DISTRIBUTION_POINT = [0x55, 0x1d, 28];
    /// `certificateIssuer`, 2.5.29.29.
    CERTIFICATE_ISSUER = [0x55, 0x1d, 29];
    /// `nameConstraints`, 2.5.29.30.
    NAME_CONSTRAINTS = [0x55, 0x1d, 30];
    /// `cRLDistributionPoints`, 2.5.29.31.
    CRL_DISTRIBUTION_POINTS = [0x55, 0x1d, 31];
    /// `certificatePolicies`, 2.5.29.32.
    CERTIFICATE_POLICIES = [0x55, 0x1d, 32];
    /// `policyMappings`, 2.5.29.33.
    POLICY_MAPPINGS = [0x55, 0x1d, 33];
    /// `authorityKeyIdentifier`, 2.5.29.35.
    AUTHORITY_KEY_IDENTIFIER = [0x55, 0x1d, 35];
    /// `policyConstraints`, 2.5.29.36.
    POLICY_CONSTRAINTS = [0x55, 0x1d, 36];
    /// `extKeyUsage`, 2.5.29.37.
    EXTENDED_KEY_USAGE = [0x55, 0x1d, 37];
    /// `inhibitAnyPolicy`, 2.5.29.54.
    INHIBIT_ANY_POLICY = [0x55, 0x1d, 54];
    /// `nsCertType` of Netscape, 2.16.840.1.113730.1.1.
    NETSCAPE_CERT_TYPE = [0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 1, 1];
    /// `id-pkix-ocsp-nocheck`, 1.3.6.1.5.5.7.48.1.5.
    OCSP_NO_CHECK = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 5];
    /// `id-pe-proxyCertInfo`, 1.3.6.1.5.5.7.1.14.
    PROXY_CERT_INFO = [0x2b, 6, 1, 5, 5, 7, 1, 14];
    /// `id-pe-ipAddrBlocks`, 1.3.6.1.5.5.7.1.7.
    IP_ADDRESS_BLOCKS = [0x2b, 6, 1, 5, 5, 7, 1, 7];
    /// `id-pe-autonomousSysIds`, 1.3.6.1.5.5.7.1.8.
    AUTONOMOUS_SYSTEMS = [0x2b, 6, 1, 5, 5, 7, 1, 8];
    /// `id-kp-serverAuth`, 1.3.6.1.5.5.7.3.1.
    SERVER_AUTH = [0x2b, 6, 1, 5, 5, 7, 3, 1];
    /// `id-kp-clientAuth`, 1.3.6.1.5.5.7.3.2.
    CLIENT_AUTH = [0x2b, 6, 1, 5, 5, 7, 3, 2];
    /// `nsSGC` of Netscape, 2.16.840.1.113730.4.1: server gated cryptography.
    NETSCAPE_SGC = [0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1];
    /// `msSGC` of Microsoft, 1.3.6.1.4.1.311.10.3.3.
    MICROSOFT_SGC = [0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3];
    /// `rsaEncryption`, 1.2.840.113549.1.1.1.
    RSA = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    /// `id-RSASSA-PSS`, 1.2.840.113549.1.1.10.
    RSA_PSS = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    /// `id-ecPublicKey`, 1.2.840.10045.2.1.
    EC = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    /// `id-Ed25519`, 1.3.101.112.
    ED25519 = [0x2b, 0x65, 0x70];
    /// `id-Ed448`, 1.3.101.113.
    ED448 = [0x2b, 0x65, 0x71];
    /// `id-dsa`, 1.2.840.10040.4.1.
    DSA = [0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1];
}

/// The dotted form: `2.5.4.3`. What is not an object identifier comes out as far as it is one.
pub fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut arc = 0u128;
    let mut first = true;
    for byte in oid {
        // An arc of more than 121 bits is cut; there is none (a UUID has 128 with its leading zeros).
        arc = arc << 7 | u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        let written = if first {
            let root = (arc / 40).min(2);
            write!(text, "{root}.{}", arc - 40 * root)
        } else {
            write!(text, ".{arc}")
        };
        written.expect("a String takes all that is written");
        (arc, first) = (0, false);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots() {
        assert_eq!(dotted(COMMON_NAME), "2.5.4.3");
        assert_eq!(dotted(RSA_PSS), "1.2.840.113549.1.1.10");
        assert_eq!(dotted(NETSCAPE_SGC), "2.16.840.1.113730.4.1");
        assert_eq!(dotted(&[0x88, 0x37, 3]), "2.999.3");
        assert_eq!(
            dotted(&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1]),
            "0.9.2342.19200300.100.1.1"
        );
        assert_eq!(dotted(&[]), "");
    }
}
