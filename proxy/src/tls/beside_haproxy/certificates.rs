//! Certificates that somebody might have, and some that nobody should.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use super::served::ClientKind;
use crate::tls::{
    testing::{Authority, authority_params, leaf_params},
    unverified,
};

/// What a client shows.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) name: String,
    /// The leaf first.
    certificates: String,
    pub(super) key: String,
}

impl Shown {
    pub(super) fn new(name: String, certificates: String, key: String) -> Self {
        Self { name, certificates, key }
    }

    /// The leaf's certificate.
    pub(super) fn pem(&self) -> String {
        self.certificates.clone()
    }

    /// Whether who is asked about it may matter, and not only what it is.
    pub(super) fn is_of_interest(&self) -> bool {
        let names = ["plain", "serial", "self-signed", "middle", "stranger", "mimic", "old", "version"];
        names.iter().any(|name| self.name.contains(name))
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificates.as_bytes()).map(Result::unwrap).collect()
    }
}

/// Takes any server's certificate.
#[derive(Debug)]
pub(super) struct AnyServer(pub(super) ClientKind);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = unverified::schemes();
        let is = |scheme: &SignatureScheme, name: &str| format!("{scheme:?}").starts_with(name);
        match self.0 {
            ClientKind::RsaSchemes => schemes.retain(|scheme| is(scheme, "RSA")),
            ClientKind::EcdsaSchemes => schemes.retain(|scheme| is(scheme, "ECDSA")),
            _ => {}
        }
        schemes
    }
}

/// Authorities and what they have signed.
pub(super) struct World {
    pub(super) root: Authority,
    pub(super) middle: Authority,
    pub(super) stranger: Authority,
    pub(super) old_root: Authority,
    /// In files, for openssl.
    pub(super) v1_root: String,
    pub(super) mimic: Authority,
    pub(super) shown: Vec<Shown>,
}

/// `keyUsage` without any bit, which RFC 5280 section 4.2.1.3 forbids.
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const NO_USAGE: &[u8] = &[3, 2, 0, 0];

fn changed(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

impl World {
    pub(super) fn new(directory: &Path) -> Self {
        let root = Authority::root("Root A");
        let middle = root.below("Middle A");
        let mut world = Self {
            stranger: Authority::root("Stranger"),
            old_root: Authority::with(
                changed(authority_params("Old root"), |p| p.not_after = date_time_ymd(2024, 1, 1)),
                None,
            ),
            mimic: Authority::root("Root A"),
            v1_root: String::new(),
            root,
            middle,
            shown: Vec::new(),
        };
        world.by_rcgen();
        world.by_openssl(directory);
        world
    }

    fn show(&mut self, name: &str, pem: String, others: &[&str]) {
        let (certificates, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
        let certificates = certificates.to_owned() + &others.concat();
        self.shown.push(Shown { name: name.to_owned(), certificates, key: key.to_owned() });
    }

    fn by_rcgen(&mut self) {
        let plain = || leaf_params("plain", &[]);
        let mut of_root: Vec<(&str, CertificateParams)> = vec![
            ("plain", plain()),
            ("expired", changed(plain(), |p| p.not_after = date_time_ymd(2024, 1, 1))),
            ("not yet", changed(plain(), |p| p.not_before = date_time_ymd(2090, 1, 1))),
            ("until 2049", changed(plain(), |p| p.not_after = date_time_ymd(2049, 12, 31))),
            ("until 2050", changed(plain(), |p| p.not_after = date_time_ymd(2050, 1, 1))),
            ("until 9999", changed(plain(), |p| p.not_after = date_time_ymd(9999, 12, 31))),
            ("since 1990", changed(plain(), |p| p.not_before = date_time_ymd(1990, 1, 1))),
            (
                "for servers",
                changed(plain(), |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            ),
            (
                "for anything",
                changed(plain(), |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
            ),
            ("without purposes", changed(plain(), |p| p.extended_key_usages.clear())),
            ("signs", changed(plain(), |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature])),
            ("agrees on keys", changed(plain(), |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement])),
            ("enciphers keys", changed(plain(), |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
            ("serial 7", changed(plain(), |p| p.serial_number = Some(SerialNumber::from(7u64)))),
            ("serial 200", changed(plain(), |p| p.serial_number = Some(SerialNumber::from(200u64)))),
            ("an authority", changed(plain(), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            ("explicitly none", changed(plain(), |p| p.is_ca = IsCa::ExplicitNoCa)),
        ];
        for (name, critical) in [("unknown extension", false), ("unknown critical extension", true)] {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]);
            extension.set_criticality(critical);
            of_root.push((name, changed(plain(), |p| p.custom_extensions.push(extension))));
        }
        // What is not in its form spoils the certificate, whether or not anybody asks for it.
        let with = |oid: &[u64], content: &[u8]| {
            let extension = CustomExtension::from_oid_content(oid, content.to_vec());
            move |p: &mut CertificateParams| p.custom_extensions.push(extension)
        };
        let no_usage = with(KEY_USAGE, NO_USAGE);
        of_root.extend([
            ("no usage at all", changed(plain(), no_usage.clone())),
            ("spoilt points of distribution", changed(plain(), with(&[2, 5, 29, 31], &[5, 0]))),
            ("spoilt identifier", changed(plain(), with(&[2, 5, 29, 14], &[5, 0]))),
            ("spoilt address blocks", changed(plain(), with(&[1, 3, 6, 1, 5, 5, 7, 1, 7], &[5, 0]))),
            ("spoilt policies", changed(plain(), with(&[2, 5, 29, 32], &[5, 0]))),
        ]);
        let subject = |entries: &[(DnType, DnValue)]| {
            changed(plain(), |p| {
                p.distinguished_name = DistinguishedName::new();
                for (kind, value) in entries {
                    p.distinguished_name.push(kind.clone(), value.clone());
                }
            })
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let odd = || DnType::CustomDnType(vec![1, 2, 3, 4]);
        of_root.extend([
            ("empty subject", subject(&[])),
            ("no common name", subject(&[(DnType::OrganizationName, utf8("only"))])),
            (
                "utf8",
                subject(&[
                    (DnType::CommonName, utf8("J\u{fc}rgen \u{4e2d}\u{6587}")),
                    (DnType::OrganizationName, utf8("\u{20ac}")),
                ]),
            ),
            (
                "t61",
                subject(&[(DnType::CommonName, DnValue::TeletexString("plain t61".try_into().unwrap()))]),
            ),
            (
                "printable",
                subject(&[(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()))]),
            ),
            (
                "slashes",
                subject(&[(DnType::OrganizationName, utf8("a/CN=b")), (DnType::CommonName, utf8("c/O=d"))]),
            ),
            ("quotes", subject(&[(DnType::CommonName, utf8("say \"hi\" \\ 100%"))])),
            ("spaces", subject(&[(DnType::CommonName, utf8("  two  spaces  "))])),
            ("unknown attribute", subject(&[(odd(), utf8("odd")), (DnType::CommonName, utf8("x"))])),
            (
                "two octets a character",
                subject(&[
                    (DnType::CommonName, DnValue::BmpString("ab".try_into().unwrap())),
                    (DnType::OrganizationName, utf8("o")),
                ]),
            ),
            (
                "a NUL inside",
                subject(&[(DnType::CommonName, utf8("a\0b")), (DnType::OrganizationName, utf8("o"))]),
            ),
            (
                "NULs at the end",
                subject(&[(DnType::CommonName, utf8("a\0\0")), (DnType::OrganizationName, utf8("o"))]),
            ),
            ("a line break inside", subject(&[(DnType::CommonName, utf8("a\r\nx-evil: 1"))])),
            (
                "empty value",
                subject(&[(DnType::CommonName, utf8("")), (DnType::OrganizationName, utf8("o"))]),
            ),
            (
                "long",
                subject(&[
                    (DnType::OrganizationName, utf8(&"o".repeat(2000))),
                    (DnType::CommonName, utf8("x")),
                ]),
            ),
            (
                "many kinds",
                subject(&[
                    (DnType::CountryName, utf8("CH")),
                    (DnType::StateOrProvinceName, utf8("ZH")),
                    (DnType::LocalityName, utf8("Winterthur")),
                    (DnType::OrganizationalUnitName, utf8("unit")),
                    (DnType::CustomDnType(vec![2, 5, 4, 5]), utf8("serial")),
                    (DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]), utf8("dc")),
                    (DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), utf8("uid")),
                    (DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), utf8("a@b.example")),
                    (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3]), utf8("jurisdiction")),
                    (DnType::CustomDnType(vec![2, 5, 4, 97]), utf8("organization")),
                ]),
            ),
        ]);
        for (name, params) in of_root {
            let pem = self.root.issue(&params);
            self.show(name, pem, &[]);
        }
        for (name, algorithm) in [
            ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("p521", &rcgen::PKCS_ECDSA_P521_SHA512),
            ("rsa", &rcgen::PKCS_RSA_SHA256),
            ("ed25519", &rcgen::PKCS_ED25519),
        ] {
            let pem = self.root.issue_with(&leaf_params(name, &[]), algorithm);
            self.show(name, pem, &[]);
        }

        let (root_pem, middle_pem) = (self.root.pem(), self.middle.pem());
        let leaf = || leaf_params("below", &[]);
        let below_middle =
            self.middle.issue(&changed(leaf(), |p| p.serial_number = Some(SerialNumber::from(9u64))));
        self.show("below middle", below_middle.clone(), &[&middle_pem]);
        self.show("below middle, with root", below_middle.clone(), &[&middle_pem, &root_pem]);
        self.show(
            "below middle, others between",
            below_middle.clone(),
            &[&root_pem, &self.stranger.pem(), &middle_pem],
        );
        self.show("below middle, without it", below_middle, &[]);
        self.show("stranger's", self.stranger.issue(&leaf()), &[]);
        self.show("stranger's, with root", self.stranger.issue(&leaf()), &[&self.stranger.pem()]);
        self.show("mimic's", self.mimic.issue(&leaf()), &[]);
        self.show("mimic's, with root", self.mimic.issue(&leaf()), &[&self.mimic.pem()]);
        let nameless = changed(leaf(), |p| p.use_authority_key_identifier_extension = false);
        self.show("mimic's, without key identifier", self.mimic.issue(&nameless), &[]);
        self.show("old root's", self.old_root.issue(&leaf()), &[]);
        let key = KeyPair::generate().unwrap();
        let own = leaf_params("own", &[]).self_signed(&key).unwrap().pem() + &key.serialize_pem();
        self.show("self-signed", own, &[]);

        let no_authority_key = |p: &mut CertificateParams| p.key_usages.clear();
        let middles: Vec<(&str, CertificateParams)> = vec![
            ("without a usage", changed(changed(authority_params("M"), no_authority_key), no_usage)),
            ("spoilt", changed(authority_params("M"), with(&[2, 5, 29, 31], &[5, 0]))),
            (
                "of no mailboxes of a host",
                changed(authority_params("M"), |p| {
                    let excluded_subtrees = vec![GeneralSubtree::Rfc822Name("bad.example".to_owned())];
                    p.name_constraints =
                        Some(NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
                }),
            ),
            ("no authority", changed(authority_params("M"), |p| p.is_ca = IsCa::ExplicitNoCa)),
            (
                "no constraints",
                changed(authority_params("M"), |p| {
                    p.is_ca = IsCa::NoCa;
                    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                }),
            ),
            (
                "may not sign",
                changed(authority_params("M"), |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            ),
            ("any usage", changed(authority_params("M"), |p| p.key_usages.clear())),
            (
                "for servers",
                changed(authority_params("M"), |p| {
                    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
                }),
            ),
            (
                "for clients",
                changed(authority_params("M"), |p| {
                    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
                }),
            ),
            ("expired", changed(authority_params("M"), |p| p.not_after = date_time_ymd(2024, 1, 1))),
            ("not yet", changed(authority_params("M"), |p| p.not_before = date_time_ymd(2090, 1, 1))),
            (
                "length 0",
                changed(authority_params("M"), |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            ),
            (
                "of names",
                changed(authority_params("M"), |p| {
                    let permitted_subtrees = vec![GeneralSubtree::DnsName("good.example".to_owned())];
                    let excluded_subtrees = vec![GeneralSubtree::DnsName("bad.good.example".to_owned())];
                    p.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
                }),
            ),
        ];
        for (name, params) in middles {
            let middle = Authority::with(params, Some(&self.root));
            let pem = middle.pem();
            self.show(&format!("below one {name}"), middle.issue(&leaf()), &[&pem]);
            match name {
                "length 0" => {
                    let low = middle.below("Low");
                    self.show("two below length 0", low.issue(&leaf()), &[&low.pem(), &pem]);
                }
                "of no mailboxes of a host" => {
                    for mailbox in ["a@good.example", "a@bad.example", "bad.example", ""] {
                        let named = changed(leaf(), |p| {
                            p.subject_alt_names.push(SanType::Rfc822Name(mailbox.try_into().unwrap()));
                        });
                        self.show(&format!("constrained mailbox {mailbox}"), middle.issue(&named), &[&pem]);
                    }
                }
                "of names" => {
                    for host in ["a.good.example", "good.example", "bad.example", "x.bad.good.example"] {
                        self.show(
                            &format!("constrained {host}"),
                            middle.issue(&leaf_params("x", &[host])),
                            &[&pem],
                        );
                        self.show(
                            &format!("constrained name {host}"),
                            middle.issue(&leaf_params(host, &[])),
                            &[&pem],
                        );
                    }
                    let address = changed(leaf(), |p| {
                        p.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
                    });
                    self.show("constrained address", middle.issue(&address), &[&pem]);
                }
                _ => {}
            }
        }
        let (mut above, mut pems) = (self.root.below("L0"), Vec::new());
        for depth in 1..6 {
            pems.insert(0, above.pem());
            let others: Vec<&str> = pems.iter().map(String::as_str).collect();
            self.show(&format!("{depth} between"), above.issue(&leaf()), &others);
            above = above.below(&format!("L{depth}"));
        }
    }

    /// What rcgen does not make: certificates of version 1, names that come twice, sets of several attributes, SHA-1.
    fn by_openssl(&mut self, directory: &Path) {
        let file = |name: &str, content: &str| {
            let path = directory.join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let ca = file("signer.pem", &self.root.pem());
        let ca_key = file("signer.key", &self.root.issuer.key().serialize_pem());
        let key = KeyPair::generate().unwrap().serialize_pem();
        let key_file = file("odd.key", &key);
        for (name, subject, more) in [
            ("version 1", "/CN=version one", &[][..]),
            ("several in one set", "/C=CH+O=one+CN=two/OU=three", &[]),
            ("names that come twice", "/CN=first/OU=x/CN=second/OU=y", &[]),
            ("over SHA-1", "/CN=sha1", &["-sha1"]),
        ] {
            let request = openssl(&["req", "-new", "-key", &key_file, "-subj", subject]);
            let request = file("odd.csr", &request);
            let mut arguments = vec!["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
            arguments.extend(["-set_serial", "77", "-days", "30"]);
            arguments.extend(more);
            let certificate = openssl(&arguments);
            self.show(name, certificate + &key, &[]);
        }
        // A root of version 1, and what it has signed.
        let v1_key = file("v1.key", &KeyPair::generate().unwrap().serialize_pem());
        let request =
            file("v1.csr", &openssl(&["req", "-new", "-key", &v1_key, "-subj", "/CN=Root of version 1"]));
        self.v1_root = openssl(&["x509", "-req", "-in", &request, "-signkey", &v1_key, "-days", "30"]);
        let v1_root = file("v1.pem", &self.v1_root);
        let request =
            file("odd.csr", &openssl(&["req", "-new", "-key", &key_file, "-subj", "/CN=below version 1"]));
        let arguments = [
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &v1_root,
            "-CAkey",
            &v1_key,
            "-set_serial",
            "5",
            "-days",
            "30",
        ];
        self.show("below a root of version 1", openssl(&arguments) + &key, &[]);
    }
}
