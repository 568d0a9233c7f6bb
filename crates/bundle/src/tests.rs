#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{fs, path::Path, process::Command};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str, above: Option<&Authority>) -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = match above {
        Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
}

/// Certificate and key of a host.
fn host(name: &str, above: &Authority, key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, " Ex, \"Ü\" + #1 ");
    params.not_before = date_time_ymd(2026, 1, 2);
    params.not_after = date_time_ymd(2051, 2, 28);
    params.serial_number = Some(SerialNumber::from(0x01_02_ab_u64));
    params.signed_by(key, &above.issuer).unwrap().pem()
}

fn revocations(above: &Authority) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2027, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&above.issuer).unwrap().pem().unwrap()
}

#[test]
fn revocation_lists_are_of_who_has_signed_them() {
    let bundle = |text: &str| Bundle::from_pem(text.as_bytes()).unwrap();
    let [ca, same_name, other] = ["ca", "ca", "other"].map(|name| authority(name, None));
    let (own, both) = (bundle(&ca.pem), bundle(&format!("{}{}{}", other.pem, same_name.pem, ca.pem)));
    let list = bundle(&revocations(&ca));
    assert_eq!(list.is_of(&own), Ok(()));
    assert_eq!(list.is_of(&both), Ok(()), "one of those that have its name has signed it");
    for (authorities, reason) in
        [(&other.pem, "a list is of none of these authorities"), (&same_name.pem, "that has not signed it")]
    {
        let found = list.is_of(&bundle(authorities)).unwrap_err();
        assert!(found.contains(reason), "{found}");
    }
    let two = bundle(&format!("{}{}", revocations(&ca), revocations(&other)));
    assert!(two.is_of(&own).is_err() && two.is_of(&both).is_ok(), "each of them");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(ca.issuer.key()).unwrap();
    assert!(list.is_of(&bundle(&certificate.pem())).is_err(), "its key may not sign lists");
}

#[test]
fn a_list_that_nobody_can_verify_says_by_what_it_is_signed() {
    let ca = authority("ca", None);
    let list = Bundle::from_pem(revocations(&ca).as_bytes()).unwrap();
    // ecdsa-with-SHA256 becomes one that there is not, in both places.
    let (known, weak) =
        ([0x2a_u8, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], [0x2a_u8, 0x86, 0x48, 0xce, 0x3d, 4, 3, 9]);
    let mut der = list.lists()[0].to_vec();
    let places: Vec<_> = (0..der.len() - known.len()).filter(|&at| der[at..].starts_with(&known)).collect();
    assert_eq!(places.len(), 2);
    places.iter().for_each(|&at| der[at..at + weak.len()].copy_from_slice(&weak));
    let text = pem::write(None, &[], &[der.into()]);
    let found = Bundle::from_pem(&text).unwrap().is_of(&Bundle::from_pem(ca.pem.as_bytes()).unwrap());
    assert!(found.as_ref().is_err_and(|reason| reason.contains("1.2.840.10045.4.3.9")), "{found:?}");
}

#[track_caller]
fn refused(text: &str, reason: &str) {
    let found = Bundle::from_pem(text.as_bytes()).unwrap_err();
    assert!(found.contains(reason), "{found}");
}

fn openssl(directory: &Path, arguments: &[&str]) -> bool {
    let done = Command::new("openssl").args(arguments).current_dir(directory).output();
    match done {
        Ok(done) => done.status.success(),
        Err(_) => false,
    }
}

/// A directory, where there is openssl to work in it.
fn for_openssl() -> Option<TempDir> {
    let directory = tempfile::tempdir().unwrap();
    if openssl(directory.path(), &["version"]) {
        return Some(directory);
    }
    eprintln!("SKIPPED: no openssl");
    None
}

#[test]
fn an_identity_in_any_order_comes_out_in_one() {
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let key = KeyPair::generate().unwrap();
    let leaf = host("www.example.com", &middle, &key);
    let key = key.serialize_pem();
    let mut first = None;
    for parts in [
        [&leaf, &middle.pem, &root.pem, &key],
        [&key, &root.pem, &middle.pem, &leaf],
        [&middle.pem, &leaf, &key, &root.pem],
    ] {
        let text = parts.map(|part| format!("Bag Attributes: x\r\n{}", part.replace('\n', "\r\n"))).concat();
        let text = format!("\u{feff}{text}{leaf}");
        let bundle = Bundle::from_pem(text.as_bytes()).unwrap();
        assert_eq!(bundle.kind(), Kind::Identity);
        let subjects: Vec<_> = bundle.describe().certificates.into_iter().map(|one| one.subject).collect();
        assert_eq!(subjects[1..], ["CN=middle", "CN=root"]);
        let written = bundle.to_pem();
        assert_eq!(*first.get_or_insert(written.clone()), written);
        assert_eq!(Bundle::from_pem(&written).unwrap().to_pem(), written);
    }
}

#[test]
fn what_is_told_is_everything_but_the_key() {
    let root = authority("root", None);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let text = host("www.example.com", &root, &key) + &key.serialize_pem();
    let bundle = Bundle::from_pem(text.as_bytes()).unwrap();
    let Description { kind, certificates, revocation_lists, .. } = bundle.describe();
    assert_eq!((kind, certificates.len(), revocation_lists.len()), ("identity", 1, 0));
    let facts = &certificates[0];
    assert_eq!(facts.subject, "O=\\ Ex\\, \\\"Ü\\\" \\+ #1\\ ,CN=www.example.com");
    assert_eq!((facts.issuer.as_str(), facts.serial.as_str()), ("CN=root", "0102ab"));
    assert_eq!(facts.not_before.as_deref(), Some("2026-01-02T00:00:00Z"));
    assert_eq!(facts.not_after.as_deref(), Some("2051-02-28T00:00:00Z"));
    assert_eq!(
        (facts.names.clone(), facts.key.as_str()),
        (vec!["DNS:www.example.com".to_owned()], "ECDSA P-384")
    );
    assert_eq!(bundle.expiry(), Some(date_time_ymd(2051, 2, 28).unix_timestamp()));
    let secret = key.serialize_pem();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!format!("{bundle:?} {facts:?}").contains(secret));
}

#[test]
fn what_is_told_of_the_largest_is_bounded_and_the_rest_is_counted() {
    let (root, key) = (authority("root", None), KeyPair::generate().unwrap());
    let of = |hosts: Vec<String>, name: &str| {
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&key, &root.issuer).unwrap().pem()
    };
    // The names of one leave room for its issuers.
    let leaf = of((0..20_000).map(|n| format!("{n}.example.com")).collect(), "leaf");
    let told =
        Bundle::from_pem((leaf.clone() + &root.pem + &key.serialize_pem()).as_bytes()).unwrap().describe();
    assert_eq!((told.certificates.len(), told.certificates_omitted), (2, 0));
    let facts = &told.certificates[0];
    assert!(facts.names.len() > 200, "{}", facts.names.len());
    assert_eq!((facts.names.len() + facts.names_omitted, &*facts.names[7]), (20_000, "DNS:7.example.com"));
    assert_eq!(told.certificates[1].names_omitted, 0);
    // Many with few names, many with many, and empty names, each of two octets in the certificate.
    for (text, number) in
        [(root.pem.repeat(900), 900), (leaf.repeat(3), 3), (of(vec![String::new(); 100_000], "empty"), 1)]
    {
        let told = Bundle::from_pem(text.as_bytes()).unwrap().describe();
        assert_eq!(told.certificates.len() + told.certificates_omitted, number);
        assert!(!told.certificates.is_empty());
        let texts = told.certificates.iter().flat_map(|one| {
            let times = one.not_before.iter().chain(&one.not_after);
            [&one.subject, &one.issuer, &one.serial, &one.key, &one.sha256]
                .into_iter()
                .chain(&one.names)
                .chain(times)
        });
        let bytes = texts.map(|text| text.len() + size_of::<String>()).sum::<usize>();
        assert!((MAX_DESCRIPTION / 4..MAX_DESCRIPTION).contains(&bytes), "{bytes}");
    }
    // A name that no authority would give.
    let told = Bundle::from_pem(of(vec!["a".repeat(2000)], &"x".repeat(3000)).as_bytes()).unwrap().describe();
    assert!(told.certificates[0].subject.ends_with(" octets)"), "{}", told.certificates[0].subject);
    assert_eq!(told.certificates[0].names, ["DNS:(2000 octets)"]);
}

#[test]
fn what_is_taken_can_be_read_again_as_it_is_kept() {
    let key = KeyPair::generate().unwrap();
    let hosts = (0..200).map(|n| format!("{n}.example.com")).collect::<Vec<_>>();
    let pem = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap().pem();
    // In one long line it is shorter than with a line end after 64 characters.
    let long = pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let long = format!("-----BEGIN CERTIFICATE-----\n{long}\n-----END CERTIFICATE-----\n");
    let fits = MAX_BYTES / long.len();
    assert!(fits < MAX_ENTRIES && MAX_BYTES / pem.len() < fits);
    refused(&long.repeat(fits), "is larger than 4 MiB in PEM");
    let bundle = Bundle::from_pem(long.repeat(MAX_BYTES / pem.len()).as_bytes()).unwrap();
    assert_eq!(Bundle::from_pem(&bundle.to_pem()).unwrap().certificates(), bundle.certificates());
}

#[test]
fn authorities_and_revocations() {
    let (one, other) = (authority("one", None), authority("other", None));
    let bundle = Bundle::from_pem((one.pem.clone() + &other.pem).as_bytes()).unwrap();
    assert_eq!((bundle.kind(), bundle.describe().certificates.len()), (Kind::Authorities, 2));
    let lists = Bundle::from_pem((revocations(&one) + &revocations(&other)).as_bytes()).unwrap();
    let description = lists.describe();
    assert_eq!(lists.expiry(), Some(date_time_ymd(2027, 1, 1).unix_timestamp()));
    assert_eq!((lists.kind(), description.revocation_lists.len()), (Kind::Revocations, 2));
    assert_eq!(description.revocation_lists[1].issuer, "CN=other");
    assert_eq!(description.revocation_lists[1].next_update.as_deref(), Some("2027-01-01T00:00:00Z"));
    refused(&(one.pem.clone() + &revocations(&one)), "needs an id of its own");
}

#[test]
fn keys_that_no_certificate_is_of_are_passed_over() {
    let root = authority("root", None);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (leaf, other) = (host("a.example.com", &root, &key), KeyPair::generate().unwrap().serialize_pem());
    let key = key.serialize_pem();
    let alone = Bundle::from_pem((leaf.clone() + &key).as_bytes()).unwrap().to_pem();
    for text in [
        leaf.clone() + &key + &key,
        leaf.clone() + &key + &other,
        other.clone() + &key + &leaf,
        leaf + &other + &other + &key + &other,
    ] {
        assert!(Bundle::from_pem(text.as_bytes()).unwrap().to_pem() == alone);
    }
}

/// A certificate may have its key in the short form; the private key has the long one.
#[test]
fn a_certificate_with_a_point_in_its_short_form_has_its_key() {
    let Some(directory) = for_openssl() else { return };
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (key, short, certificate) = (file("key"), file("short"), file("certificate"));
    for arguments in [
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key][..],
        &["ec", "-in", &key, "-conv_form", "compressed", "-out", &short],
        &["req", "-x509", "-new", "-key", &short, "-subj", "/CN=a", "-out", &certificate],
    ] {
        assert!(openssl(directory.path(), arguments), "{arguments:?}");
    }
    let read = |name: &str| fs::read_to_string(name).unwrap();
    let bundle = Bundle::from_pem((read(&certificate) + &read(&key)).as_bytes()).unwrap();
    assert_eq!(bundle.kind(), Kind::Identity);
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    refused(&(read(&certificate) + &other), "is not that of any certificate in it");
}

#[test]
fn what_cannot_be_used_is_refused() {
    let root = authority("root", None);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = host("a.example.com", &root, &key);
    let (other, key) = (KeyPair::generate().unwrap().serialize_pem(), key.serialize_pem());
    refused("", "is empty");
    refused("hello", "has neither certificates nor revocation lists");
    refused("0", "has neither");
    let der = Bundle::from_pem(&[0x30, 0x82, 0x04, 0x00]).unwrap_err();
    assert!(der.contains("is DER and not PEM"), "{der}");
    refused(&key, "has a private key and no certificate");
    refused(&(leaf.clone() + &other), "is not that of any certificate in it");
    let mine = host("b.example.com", &root, &KeyPair::from_pem(&other).unwrap());
    refused(&(leaf.clone() + &key + &mine + &other), "has more than one private key with its certificate");
    refused(&(leaf.clone() + &other + &KeyPair::generate().unwrap().serialize_pem()), "none is that of any");
    refused(&(leaf.clone() + &key + &other.repeat(16)), "has more than 16 private keys");
    refused(&(leaf.clone() + &key + &revocations(&root)), "has a private key and revocation lists");
    refused(&leaf.replace("-----END CERTIFICATE-----", ""), "has a section \"CERTIFICATE\" without its end");
    refused(&leaf.replace("END CERT", "END PERT"), "that ends as another");
    refused(&leaf.replacen("MI", "M!", 1), "is not in base64");
    refused("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "form of RFC 5280");
    refused("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", "form of RFC 5280");
    refused(
        &(leaf.clone() + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "cannot be used",
    );
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        refused(&(leaf.clone() + encrypted), "is encrypted; send it without a passphrase");
    }
    refused(&root.pem.repeat(MAX_ENTRIES + 1), "has more than 1000 certificates");
    refused(&"x".repeat(MAX_BYTES + 1), "is larger than 4 MiB");
}

#[test]
fn keys_in_the_forms_that_openssl_writes() {
    let Some(directory) = for_openssl() else { return };
    let at = directory.path();
    for (make, forms, told) in [
        (&["genrsa", "-out", "key", "2048"][..], &["", "-traditional"][..], "RSA 2048"),
        (&["ecparam", "-name", "prime256v1", "-genkey", "-out", "key"], &["", "-traditional"], "ECDSA P-256"),
        (
            &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key"],
            &["", "-traditional"],
            "ECDSA P-384",
        ),
        (&["ecparam", "-name", "secp521r1", "-genkey", "-out", "key"], &["", "-traditional"], "ECDSA P-521"),
        (&["genpkey", "-algorithm", "ed25519", "-out", "key"], &[""], "Ed25519"),
    ] {
        assert!(openssl(at, make));
        assert!(openssl(at, &["req", "-x509", "-new", "-key", "key", "-subj", "/CN=x", "-out", "cert"]));
        let certificate = fs::read_to_string(at.join("cert")).unwrap();
        for form in forms {
            let mut arguments = vec!["pkey", "-in", "key", "-out", "form"];
            arguments.extend(Some(*form).filter(|form| !form.is_empty()));
            assert!(openssl(at, &arguments));
            for file in ["form", "key"] {
                let text = fs::read_to_string(at.join(file)).unwrap() + &certificate;
                let bundle = Bundle::from_pem(text.as_bytes())
                    .unwrap_or_else(|reason| panic!("{make:?} {form}: {reason}"));
                assert_eq!(bundle.describe().certificates[0].key, told);
                assert_eq!(Bundle::from_pem(&bundle.to_pem()).unwrap().describe(), bundle.describe());
            }
        }
    }
}

#[test]
fn pkcs12_as_openssl_writes_it() {
    let Some(directory) = for_openssl() else { return };
    let at = directory.path();
    let root = authority("root", None);
    let key = KeyPair::generate().unwrap();
    let pem = host("www.example.com", &root, &key) + &root.pem + &key.serialize_pem();
    fs::write(at.join("all.pem"), &pem).unwrap();
    let expected = Bundle::from_pem(pem.as_bytes()).unwrap();
    let mut known = 0;
    for (arguments, required) in [
        (&[][..], true),
        (&["-legacy"], false),
        (&["-legacy", "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES"], false),
        (&["-legacy", "-keypbe", "PBE-SHA1-2DES", "-certpbe", "PBE-SHA1-RC2-128"], false),
        (&["-legacy", "-keypbe", "PBE-SHA1-RC2-40", "-certpbe", "PBE-SHA1-RC2-40", "-macalg", "sha1"], false),
        (&["-keypbe", "aes-128-cbc", "-certpbe", "aes-192-cbc", "-macalg", "sha512", "-iter", "1"], true),
        (&["-keypbe", "des-ede3-cbc", "-certpbe", "NONE", "-macalg", "sha384"], true),
        (&["-keypbe", "NONE", "-certpbe", "NONE", "-macalg", "sha224"], true),
        (&["-nomac"], true),
        (&["-pbmac1_pbkdf2"], false),
    ] {
        for password in ["", "secret", "pässwörd €"] {
            let pass = format!("pass:{password}");
            let mut command = vec!["pkcs12", "-export", "-in", "all.pem", "-out", "p12", "-passout", &pass];
            command.extend_from_slice(arguments);
            if !openssl(at, &command) {
                assert!(!required, "openssl does not do {arguments:?}");
                continue;
            }
            let der = fs::read(at.join("p12")).unwrap();
            let bundle = Bundle::from_pkcs12(&der, Some(password))
                .unwrap_or_else(|reason| panic!("{arguments:?} {password:?}: {reason}"));
            assert_eq!(bundle.describe(), expected.describe(), "{arguments:?}");
            assert_eq!(Bundle::from_pem(&bundle.to_pem()).unwrap().kind(), Kind::Identity);
            for piece in [1, 100, 100_000] {
                let ber = pkcs12::indefinite(&der, piece);
                assert_ne!(ber, der);
                let again = Bundle::from_pkcs12(&ber, Some(password)).unwrap();
                assert_eq!(again.describe(), expected.describe(), "{arguments:?}");
            }
            known += 1;
            let encrypted = !arguments.contains(&"-nomac");
            if password.is_empty() {
                assert!(Bundle::from_pkcs12(&der, None).is_ok(), "{arguments:?}");
            } else if encrypted {
                for wrong in [None, Some(""), Some("Secret")] {
                    let reason = Bundle::from_pkcs12(&der, wrong).unwrap_err();
                    assert!(reason.contains("another password"), "{arguments:?}: {reason}");
                }
            }
            let reason = Bundle::from_pkcs12(&der[..der.len() - 1], Some(password)).unwrap_err();
            assert!(reason.contains("is not PKCS #12"), "{reason}");
        }
    }
    assert!(known >= 15, "{known}");
}

#[test]
fn pkcs12_that_takes_too_long_or_is_of_another_kind_is_refused() {
    let Some(directory) = for_openssl() else { return };
    let at = directory.path();
    let root = authority("root", None);
    let key = KeyPair::generate().unwrap();
    fs::write(at.join("all.pem"), host("x", &root, &key) + &key.serialize_pem()).unwrap();
    let export = ["pkcs12", "-export", "-in", "all.pem", "-out", "p12", "-passout", "pass:x", "-iter"];
    assert!(openssl(at, &[&export[..], &["30000"]].concat()));
    let der = fs::read(at.join("p12")).unwrap();
    assert!(pkcs12::read(&der, Some("x"), 100_000).is_ok());
    let reason = pkcs12::read(&der, Some("x"), 50_000).err().unwrap();
    assert!(reason.contains("too many iterations"), "{reason}");
    for garbage in [&b"0"[..], b"0\x80", b"-----BEGIN", b"0\x03\x02\x01\x03"] {
        let reason = Bundle::from_pkcs12(garbage, None).unwrap_err();
        assert!(reason.contains("is not PKCS #12"), "{reason}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(kind: u8, bytes: Vec<u8>) {
        fuzz(&[&[kind], &bytes[..]].concat());
    }

    #[test]
    fn no_pem_panics(text in "(-----(BEGIN|END) (CERTIFICATE|X509 CRL|PRIVATE KEY)-----|[A-Z=:]{0,8}|\r|\n){0,20}") {
        fuzz(&[&[0], text.as_bytes()].concat());
    }
}
