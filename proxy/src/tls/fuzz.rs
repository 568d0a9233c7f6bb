//! Oracles for fuzzing, which tests run on generated input as well.

use amphora_model::{TlsSettings, TlsVersion};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    ClientCertificate, ciphers, identity,
    verify::{Authorities, List, Purpose},
    write_field_value,
};

/// Reads arbitrary bytes as `tls_versions` (the bits of the first) and `tls_ciphers`: what is offered is of these versions, each has
/// a suite, none comes twice, and a suite that is then taken out is not offered.
pub fn cipher_list(data: &[u8]) {
    let Some((versions, list)) = data.split_first() else { return };
    let Ok(list) = str::from_utf8(list) else { return };
    let versions: Vec<TlsVersion> = TlsVersion::ALL
        .iter()
        .enumerate()
        .filter(|(bit, _)| versions >> bit & 1 == 1)
        .map(|(_, version)| *version)
        .collect();
    let of = |list: String| {
        let ciphers = Some(list.into());
        ciphers::offer(&TlsSettings { versions: versions.clone(), ciphers, ..TlsSettings::default() })
    };
    let offer = match of(list.to_owned()) {
        Ok(offer) => offer,
        Err((_, reason)) => {
            assert!(!reason.is_empty());
            return;
        }
    };
    for (at, suite) in offer.suites.iter().enumerate() {
        assert!(!offer.suites[..at].contains(suite), "{suite:?} comes twice");
        assert!(offer.versions.contains(&suite.version()), "{suite:?} is of no version that is offered");
    }
    for version in &offer.versions {
        assert!(offer.suites.iter().any(|suite| suite.version() == *version), "{version:?} has no suite");
        assert!(
            versions.iter().any(|asked| format!("{:?}", version.version).replace('_', ".") == asked.as_str())
        );
    }
    for suite in offer.suites.iter().filter(|suite| suite.tls13().is_none()) {
        let name = ciphers::openssl_name(suite.suite());
        if let Ok(without) = of(format!("{list}:!{name}")) {
            // A list that says nothing of TLS 1.2 stands for all of it; this one does now, and has none.
            assert!(!without.suites.contains(suite), "{name} is taken out");
        }
    }
}

/// Judges arbitrary bytes as a certificate, an authority and a revocation list, which may be the same; the first octet says how
/// many bytes, of sixteenths, are the first.
pub fn certificate(data: &[u8]) {
    let Some((part, rest)) = data.split_first() else { return };
    let (leaf, other) = rest.split_at(rest.len() * usize::from(part % 17) / 16);
    let leaf = CertificateDer::from(leaf.to_vec());
    let other = CertificateDer::from(other.to_vec());
    let _ = identity::hosts(&leaf);
    let shown = ClientCertificate::new(leaf.clone());
    for text in [shown.subject(), shown.issuer(), shown.common_name()] {
        let mut value = Vec::new();
        write_field_value(&mut value, text);
        assert!(!value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'), "it is a field's value");
    }
    let _ = (shown.not_before(), shown.not_after(), shown.subject_field("O"));
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    let list = List::new(other.to_vec().into()).ok().into_iter().collect::<Vec<_>>();
    for lists in [None, Some(list)] {
        let Ok(authorities) = Authorities::new(vec![leaf.clone(), other.clone()], lists)
            .or_else(|_| Authorities::new(vec![leaf.clone()], None))
        else {
            return;
        };
        for purpose in [Purpose::Client, Purpose::Server] {
            let _ = authorities.verify(&leaf, std::slice::from_ref(&other), purpose, now);
            let _ = authorities.verify(&other, std::slice::from_ref(&leaf), purpose, now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};

    use super::*;
    use crate::tls::testing::{Authority, leaf_params};

    thread_local! {
        /// A certificate, its authority, and a list of that.
        static GOOD: [Vec<u8>; 3] = {
            let root = Authority::root("root");
            let leaf = root.issue(&leaf_params("leaf", &["a.example", "*.b.example"]));
            let list = root.list(&[1, 7, 300], 2020, 2090);
            [
                CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap().to_vec(),
                root.certificate.der().to_vec(),
                CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap().to_vec(),
            ]
        };
    }

    proptest! {
        #[test]
        fn any_list_of_ciphers(versions: u8, list in "([-+!@:]|ALL|HIGH|DEFAULT|ECDHE|AES128|AES256|AESGCM|CHACHA20|aRSA|\
            ECDSA|AES128-SHA|TLS_AES_128_GCM_SHA256|TLS_AES_128_CCM_SHA256|ECDHE-RSA-AES128-GCM-SHA256|STRENGTH|SECLEVEL=[0-6]|X){0,12}") {
            let mut data = vec![versions];
            data.extend(list.bytes());
            cipher_list(&data);
        }

        #[test]
        fn any_certificate(which in 0usize..6, at in 0usize..2000, value: u8, cut in 0usize..4000) {
            let mut parts = GOOD.with(Clone::clone);
            let changed = &mut parts[which % 3];
            let at = at % changed.len();
            changed[at] = value;
            changed.truncate(cut);
            let (one, other) = ([(0, 1), (0, 2), (1, 2), (1, 0), (0, 0), (1, 1)])[which];
            // Padded, so that the parts meet at a sixteenth.
            let mut data = vec![0];
            data.extend(&parts[one]);
            data.extend(&parts[other]);
            for part in 0..17 {
                data[0] = part;
                certificate(&data);
            }
            certificate(&[&[16], &parts[one][..]].concat());
        }
    }
}
