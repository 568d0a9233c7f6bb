//! Chains as nobody would think of them, made from seeds.
//!
//! A seed is a world: authorities that have signed each other or themselves, some with the name or the key of another, listeners that
//! trust some of them and have lists of some, and clients that show whatever. `AMPHORA_CHAINS_SEED` is the first seed (1),
//! `AMPHORA_CHAINS_WORLDS` how many there are (6, which are 384 clients; 150 take a minute).

use amphora_model::arbitrary::Generator;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use super::*;
use crate::tls::testing::authority_params;

/// Serial numbers, so few that those of several issuers are the same.
const SERIALS: std::ops::RangeInclusive<usize> = 1..=12;
const HOSTS: [&str; 5] = ["good.example", "a.good.example", "bad.example", "x.bad.good.example", "other"];
const CLIENTS: usize = 16;

struct Signer {
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
    /// Where who has signed it is; itself for a root.
    above: usize,
    pem: String,
}

struct Dice(Generator);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0.within(0..=bound - 1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.0.one_in(n)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn serial(&mut self) -> SerialNumber {
        SerialNumber::from(self.0.within(SERIALS) as u64)
    }

    fn key(&mut self) -> KeyPair {
        let algorithm: &SignatureAlgorithm = match self.below(8) {
            0 => &rcgen::PKCS_ECDSA_P384_SHA384,
            1 => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        KeyPair::generate_for(algorithm).unwrap()
    }

    /// Something that matters to who verifies it, or should not.
    fn change(&mut self, params: &mut CertificateParams) {
        let custom = |oid: &[u64], content: &[u8], critical| {
            let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
            extension.set_criticality(critical);
            extension
        };
        match self.below(20) {
            0 => params.not_after = date_time_ymd(2024, 1, 1),
            1 => params.not_before = date_time_ymd(2090, 1, 1),
            2 => params.is_ca = IsCa::NoCa,
            3 => params.is_ca = IsCa::ExplicitNoCa,
            4 | 5 => params.is_ca = IsCa::Ca(BasicConstraints::Constrained(self.below(2) as u8)),
            6 => params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            7 => params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            8 => params.key_usages.clear(),
            9 => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            10 => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            11 => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            12 => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            13 | 14 => {
                let subtree = |dice: &mut Self| match dice.below(3) {
                    0 => GeneralSubtree::Rfc822Name(dice.pick(&HOSTS).to_owned()),
                    _ => GeneralSubtree::DnsName(dice.pick(&HOSTS).to_owned()),
                };
                let mut constraints =
                    NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: Vec::new() };
                match self.below(3) {
                    0 => constraints.excluded_subtrees.push(subtree(self)),
                    1 => constraints.permitted_subtrees.push(subtree(self)),
                    _ => {
                        constraints.excluded_subtrees.push(subtree(self));
                        constraints.permitted_subtrees.push(subtree(self));
                    }
                }
                params.name_constraints = Some(constraints);
            }
            15 => params.use_authority_key_identifier_extension = false,
            16 => {
                params.use_authority_key_identifier_extension = false;
                // The identifier of no key.
                params.custom_extensions = vec![custom(&[2, 5, 29, 35], &[0x30, 4, 0x80, 2, 1, 2], false)];
            }
            17 => {
                let critical = self.one_in(2);
                params.custom_extensions = vec![custom(&[1, 2, 3, 4, 5], &[5, 0], critical)];
            }
            18 => {
                // What is not in its form: points of distribution, identifier of the key, address blocks, policies.
                let spoilt: [&[u64]; 4] =
                    [&[2, 5, 29, 31], &[2, 5, 29, 14], &[1, 3, 6, 1, 5, 5, 7, 1, 7], &[2, 5, 29, 32]];
                params.custom_extensions = vec![custom(self.pick(&spoilt), &[5, 0], false)];
            }
            _ => {
                params.key_usages.clear();
                params.custom_extensions = vec![custom(&[2, 5, 29, 15], &[3, 2, 0, 0], false)];
            }
        }
    }

    fn signer(&mut self, others: &[Signer], roots: usize) -> Signer {
        let number = others.len();
        let is_root = number < roots;
        let mut params = authority_params(&format!("Authority {number}"));
        let mut key = self.key();
        if number > 0 && self.one_in(4) {
            // Another certificate for who is there already, or one that only says so.
            let twin = &others[self.below(number)];
            params.distinguished_name = twin.params.distinguished_name.clone();
            if self.one_in(2) {
                key = KeyPair::from_pem(&twin.issuer.key().serialize_pem()).unwrap();
            }
        }
        params.serial_number = Some(self.serial());
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 1, 1, 2]) {
            self.change(&mut params);
        }
        let above = if is_root { number } else { self.below(number) };
        let certificate = match others.get(above) {
            None => params.self_signed(&key),
            Some(above) => params.signed_by(&key, &above.issuer),
        };
        let pem = certificate.unwrap().pem();
        Signer { params: params.clone(), issuer: Issuer::new(params, key), above, pem }
    }

    fn client(&mut self, signers: &[Signer]) -> Shown {
        let above = self.below(signers.len());
        let mut params = leaf_params(self.pick(&HOSTS), &[]);
        if self.one_in(2) {
            let name = self.pick(&HOSTS);
            params.subject_alt_names.push(match self.below(3) {
                0 => SanType::Rfc822Name(format!("me@{name}").try_into().unwrap()),
                _ => SanType::DnsName(name.try_into().unwrap()),
            });
        }
        if self.one_in(16) {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "no common name");
        }
        params.serial_number = Some(self.serial());
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 1, 2]) {
            self.change(&mut params);
        }
        let key = self.key();
        let leaf = params.signed_by(&key, &signers[above].issuer).unwrap();
        // Those above it, in order, without a root or with it; then somebody meddles with them.
        let (mut others, mut at) = (Vec::new(), above);
        while signers[at].above != at {
            others.push(at);
            at = signers[at].above;
        }
        if self.one_in(3) {
            others.push(at);
        }
        while self.one_in(3) {
            match self.below(3) {
                0 if !others.is_empty() => {
                    others.remove(self.below(others.len()));
                }
                1 if others.len() > 1 => {
                    let (a, b) = (self.below(others.len()), self.below(others.len()));
                    others.swap(a, b);
                }
                _ if others.len() < 8 => {
                    others.insert(self.below(others.len() + 1), self.below(signers.len()))
                }
                _ => {}
            }
        }
        let between: Vec<&str> = others.iter().map(|at| signers[*at].pem.as_str()).collect();
        let name = format!("of {above}, showing {others:?}");
        Shown::new(name, leaf.pem() + &between.concat(), key.serialize_pem())
    }

    fn list(&mut self, signer: &Signer) -> Option<String> {
        // Who may not sign lists makes none with rcgen; some have no key usages at all.
        let usages = &signer.params.key_usages;
        if !usages.is_empty() && !usages.contains(&KeyUsagePurpose::CrlSign) {
            return None;
        }
        let revoked = (0..self.below(4)).map(|_| RevokedCertParams {
            serial_number: self.serial(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let revoked_certs = revoked.collect();
        let (from, until) =
            self.pick(&[(2020, 2090), (2020, 2090), (2020, 2090), (2020, 2024), (2088, 2090)]);
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Some(params.signed_by(&signer.issuer).unwrap().pem().unwrap())
    }

    fn listener(&mut self, signers: &[Signer], roots: usize) -> Listening {
        let mut authorities = String::new();
        while authorities.is_empty() {
            for (at, signer) in signers.iter().enumerate() {
                if self.below(4) < if at < roots { 3 } else { 2 } {
                    authorities += &signer.pem;
                }
            }
        }
        let mut lists = String::new();
        if self.one_in(2) {
            for signer in signers {
                if !self.one_in(3) {
                    lists += &self.list(signer).unwrap_or_default();
                }
            }
        }
        let lists = (!lists.is_empty()).then_some(lists);
        Listening { name: "random", mandatory: self.one_in(2), authorities, lists }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn random_chains_are_taken_or_refused_as_by_haproxy() {
    if !is_there() {
        return;
    }
    let first = number("AMPHORA_CHAINS_SEED", 1);
    // Now and then HAProxy 2.6 shakes hands, and closes without an answer; it has one for the same client that comes again.
    let nothing = Outcome::In(BTreeMap::new());
    let (mut cases, mut taken, mut differences) = (0, 0, Vec::new());
    for seed in first..first + number("AMPHORA_CHAINS_WORLDS", 6) {
        let mut dice = Dice(Generator::new(seed));
        let roots = 2 + dice.below(2);
        let mut signers = Vec::new();
        for _ in 0..roots + 3 + dice.below(4) {
            let signer = dice.signer(&signers, roots);
            signers.push(signer);
        }
        let listeners: Vec<Listening> = (0..4).map(|_| dice.listener(&signers, roots)).collect();
        let clients: Vec<Shown> = (0..CLIENTS).map(|_| dice.client(&signers)).collect();
        let server = Authority::root("Server").issue(&leaf_params("server", &["a.example"]));
        let certificates = [("server", server)];
        let directory = tempfile::tempdir().unwrap();
        let (_running, addresses) = haproxy(directory.path(), &listeners, &certificates);
        let ours = ours(&mut Files::default(), &listeners, &certificates);
        for at in 0..listeners.len() {
            for client in &clients {
                let version = dice.pick(&VERSIONS);
                let mut theirs =
                    (0..3).map(|_| come(addresses[at], version, Some(client), Some("a.example")));
                let theirs = theirs.find(|outcome| *outcome != nothing).unwrap_or_else(|| nothing.clone());
                let ours = come(ours[at], version, Some(client), Some("a.example"));
                cases += 1;
                taken += usize::from(matches!(theirs, Outcome::In(_)));
                if theirs != ours {
                    let (theirs, ours) = (theirs.beside(&ours), ours.beside(&theirs));
                    let lists = listeners[at].lists.is_some();
                    differences.push(format!(
                        "seed {seed}, listener {at} (lists: {lists}), {version}, {}:\n  HAProxy {theirs}\n  here    {ours}",
                        client.name
                    ));
                }
            }
        }
    }
    println!(
        "seeds from {first}: {cases} handshakes, {taken} taken by HAProxy, {} differences",
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
