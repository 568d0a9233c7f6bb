#![allow(clippy::unwrap_used)]

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};

use super::*;
use crate::tls::testing::{Authority, authority_params, leaf_params};

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

/// The first of June of a year.
fn in_year(year: i32) -> UnixTime {
    let seconds = date_time_ymd(year, 6, 1).unix_timestamp();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.try_into().unwrap()))
}

struct Case {
    authorities: String,
    lists: Option<String>,
    shown: String,
    purpose: Purpose,
    year: i32,
}

impl Case {
    fn new(authorities: &[&Authority], shown: String) -> Self {
        let authorities = authorities.iter().map(|authority| authority.pem()).collect();
        Self { authorities, lists: None, shown, purpose: Purpose::Client, year: 2026 }
    }

    fn lists(self, lists: &[String]) -> Self {
        Self { lists: Some(lists.concat()), ..self }
    }

    fn verify(&self) -> Result<(), VerifyError> {
        self.verify_with(&self.authorities())
    }

    fn authorities(&self) -> Authorities {
        let lists = self.lists.as_ref().map(|lists| {
            CertificateRevocationListDer::pem_slice_iter(lists.as_bytes())
                .map(|list| List::new(list.unwrap()).unwrap())
                .collect()
        });
        Authorities::new(certificates(&self.authorities), lists).unwrap()
    }

    fn verify_with(&self, authorities: &Authorities) -> Result<(), VerifyError> {
        let shown = certificates(&self.shown);
        let (leaf, others) = shown.split_first().unwrap();
        authorities.verify(leaf, others, self.purpose, in_year(self.year))
    }
}

fn changed(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn serial(name: &str, serial: u64) -> CertificateParams {
    changed(leaf_params(name, &[]), |params| params.serial_number = Some(SerialNumber::from(serial)))
}

#[test]
fn chains_end_in_a_root_that_is_known() {
    let (root, stranger) = (Authority::root("root"), Authority::root("stranger"));
    let (middle, low) = (root.below("middle"), root.below("middle").below("low"));
    let of_root = root.issue(&leaf_params("a", &[]));
    let of_middle = middle.issue(&leaf_params("a", &[]));
    for (authorities, shown, expected) in [
        (&[&root][..], of_root.clone(), Ok(())),
        (&[&stranger, &root], of_root.clone(), Ok(())),
        (&[&stranger], of_root.clone(), Err(VerifyError::UnknownIssuer)),
        (&[&root], of_middle.clone() + &middle.pem(), Ok(())),
        (&[&root], of_middle.clone() + &stranger.pem() + &root.pem() + &middle.pem(), Ok(())),
        (&[&root, &middle], of_middle.clone(), Ok(())),
        (&[&root], of_middle.clone(), Err(VerifyError::UnknownIssuer)),
        (&[&middle], of_middle.clone(), Err(VerifyError::UnableToGetIssuer)),
        (&[&stranger], of_middle.clone() + &middle.pem() + &root.pem(), Err(VerifyError::SelfSignedInChain)),
        (&[&root], low.issue(&leaf_params("a", &[])) + &low.pem(), Err(VerifyError::UnknownIssuer)),
        (&[&root], stranger.pem(), Err(VerifyError::SelfSigned)),
    ] {
        assert_eq!(Case::new(authorities, shown).verify(), expected);
    }
}

#[test]
fn a_root_that_cannot_have_signed_itself_is_none() {
    // By its name it has; but its own key makes no signatures of that kind.
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let other = Authority {
        certificate: authority_params("root").self_signed(&key).unwrap(),
        issuer: Issuer::new(authority_params("root"), key),
    };
    let mut params = authority_params("root");
    params.use_authority_key_identifier_extension = false;
    let odd = Authority::with(params, Some(&other));
    let shown = || odd.issue(&leaf_params("a", &[]));
    assert_eq!(Case::new(&[&odd], shown()).verify(), Err(VerifyError::UnableToGetIssuer));
    assert_eq!(Case::new(&[&Authority::root("other"), &odd, &other], shown()).verify(), Ok(()));
}

#[test]
fn times_and_purposes() {
    let root = Authority::root("root");
    let until = |year| changed(leaf_params("a", &[]), |params| params.not_after = date_time_ymd(year, 1, 1));
    let from = |year| changed(leaf_params("a", &[]), |params| params.not_before = date_time_ymd(year, 1, 1));
    let mut for_servers = leaf_params("a", &[]);
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (params, expected) in [
        (until(2025), Err(VerifyError::Expired)),
        (from(2027), Err(VerifyError::NotYetValid)),
        (for_servers.clone(), Err(VerifyError::InvalidPurpose)),
    ] {
        assert_eq!(Case::new(&[&root], root.issue(&params)).verify(), expected);
    }
    let servers = Case { purpose: Purpose::Server, ..Case::new(&[&root], root.issue(&for_servers)) };
    assert_eq!(servers.verify(), Ok(()));
    let old = Authority::with(
        changed(authority_params("old"), |params| params.not_after = date_time_ymd(2025, 1, 1)),
        None,
    );
    assert_eq!(Case::new(&[&old], old.issue(&leaf_params("a", &[]))).verify(), Err(VerifyError::Expired));
}

#[test]
fn an_authority_with_a_new_key_may_go_on_with_lists_of_its_old_one() {
    let old = Authority::root("root");
    let new = Authority::with(authority_params("root"), Some(&old));
    let other = Authority::with(authority_params("root"), None);
    let shown = || new.issue(&serial("a", 7)) + &new.pem();
    let now = |authority: &Authority, revoked: &[u64]| authority.list(revoked, 2020, 2030);
    for (lists, expected) in [
        (vec![now(&old, &[])], Ok(())),
        (vec![now(&old, &[7])], Err(VerifyError::Revoked)),
        // That of who has issued it is asked before the other, unless it is out of date.
        (vec![now(&old, &[7]), now(&new, &[])], Ok(())),
        (vec![now(&old, &[]), now(&new, &[7])], Err(VerifyError::Revoked)),
        (vec![now(&old, &[7]), new.list(&[], 2020, 2025)], Err(VerifyError::Revoked)),
        // What has signed the new one is in no list of it, nor in one of somebody else of that name.
        (vec![now(&new, &[])], Err(VerifyError::UnableToGetCrl)),
        (vec![now(&other, &[])], Err(VerifyError::UnableToGetCrl)),
    ] {
        assert_eq!(Case { lists: Some(lists.concat()), ..Case::new(&[&old], shown()) }.verify(), expected);
    }
}

#[test]
fn every_certificate_of_the_chain_is_looked_for_in_a_list() {
    let root = Authority::root("root");
    let middle = root.below("middle");
    let shown = || middle.issue(&serial("a", 7)) + &middle.pem();
    for (lists, expected) in [
        (vec![root.list(&[], 2020, 2030), middle.list(&[], 2020, 2030)], Ok(())),
        (vec![root.list(&[], 2020, 2030), middle.list(&[1, 7, 300], 2020, 2030)], Err(VerifyError::Revoked)),
        (vec![root.list(&[], 2020, 2030)], Err(VerifyError::UnableToGetCrl)),
        (vec![middle.list(&[], 2020, 2030)], Err(VerifyError::UnableToGetCrl)),
        (vec![root.list(&[], 2020, 2030), middle.list(&[], 2020, 2025)], Err(VerifyError::CrlExpired)),
        (vec![root.list(&[], 2020, 2030), middle.list(&[], 2027, 2030)], Err(VerifyError::CrlNotYetValid)),
        // The newest that is good is asked.
        (
            vec![root.list(&[], 2020, 2030), middle.list(&[7], 2020, 2030), middle.list(&[], 2021, 2030)],
            Ok(()),
        ),
        (
            vec![root.list(&[], 2020, 2030), middle.list(&[], 2020, 2030), middle.list(&[7], 2021, 2030)],
            Err(VerifyError::Revoked),
        ),
    ] {
        assert_eq!(Case::new(&[&root], shown()).lists(&lists).verify(), expected);
    }
}

#[test]
fn a_stranger_cannot_make_a_list_be_digested() {
    let root = Authority::root("root");
    let middle = root.below("middle");
    // By names and key identifiers these are the two from above.
    let posing = |name: &str, as_this: &Authority| {
        let certificate = amphora_x509::Certificate::read(as_this.certificate.der()).unwrap();
        let key = certificate.extensions.subject_key_identifier().unwrap().unwrap().to_vec();
        changed(authority_params(name), |params| {
            params.key_identifier_method = KeyIdMethod::PreSpecified(key)
        })
    };
    let false_root = Authority::with(posing("root", &root), None);
    let false_middle = Authority::with(posing("middle", &middle), Some(&false_root));
    let lists = [root.list(&[], 2020, 2030), middle.list(&[], 2020, 2030)];
    let good = Case::new(&[&root], middle.issue(&serial("a", 7)) + &middle.pem()).lists(&lists);
    let bad = Case::new(&[&root], false_middle.issue(&serial("a", 7)) + &false_middle.pem());
    let authorities = good.authorities();
    let digested = || {
        let lists = authorities.lists.iter().flat_map(|lists| lists.values().flatten());
        lists.map(|list| list.digested.load(std::sync::atomic::Ordering::Relaxed)).sum::<usize>()
    };
    // The root's, when the authorities were read.
    assert_eq!(digested(), 1);
    assert_eq!(bad.verify_with(&authorities), Err(VerifyError::CrlSignatureFailure));
    assert_eq!(digested(), 1, "who has signed the list of the other is not known yet");
    // One whose key the authority has had besides is genuine: it is looked at once.
    let former = Authority::with(posing("middle", &middle), Some(&root));
    let other = Case::new(&[&root], former.issue(&serial("a", 7)) + &former.pem());
    for _ in 0..2 {
        assert_eq!(other.verify_with(&authorities), Err(VerifyError::CrlSignatureFailure));
        assert_eq!(digested(), 2);
    }
    assert_eq!(good.verify_with(&authorities), Ok(()));
    assert_eq!(digested(), 3);
    assert_eq!(bad.verify_with(&authorities), Err(VerifyError::CrlSignatureFailure));
    assert_eq!(good.verify_with(&authorities), Ok(()));
    assert_eq!(digested(), 3, "now it is");
}
