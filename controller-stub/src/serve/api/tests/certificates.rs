//! What certificates must be.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

use super::{LISTENERS, POOLS, POST, PUT, Stage};

pub(super) fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(super) fn list(of: &CertifiedIssuer<'static, KeyPair>) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2036, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(of).unwrap().pem().unwrap()
}

/// A certificate with its key.
pub(super) fn identity() -> String {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    certificate.pem() + &key.serialize_pem()
}

/// Files of all kinds.
fn write(stage: &Stage) {
    let names = || vec!["shop.example".to_owned()];
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(names()).unwrap().self_signed(&key).unwrap().pem();
    let [ca, same_name, stranger] = ["ca", "ca", "stranger"].map(authority);
    for (name, text) in [
        ("shop", certificate.clone() + &key.serialize_pem()),
        ("mismatch", certificate.clone() + &other.serialize_pem()),
        ("keyless", certificate),
        ("empty", String::new()),
        ("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
        ("ca", ca.pem()),
        ("crl", list(&ca)),
        ("strange-crl", list(&stranger)),
        ("forged-crl", list(&same_name)),
    ] {
        fs::write(stage.certificates().join(format!("{name}.pem")), text).unwrap();
    }
    fs::write(stage.certificates().join("archive.p12"), "PKCS12?").unwrap();
}

#[tokio::test]
async fn a_certificate_that_no_amphora_could_use_is_refused() {
    let stage = Stage::new("");
    write(&stage);
    let balancer = stage.load_balancer("one").await;
    let listener = |more: Value| {
        let mut listener = json!({"loadbalancer_id": balancer, "protocol": "TERMINATED_HTTPS", "protocol_port": 443,
            "default_tls_container_ref": "shop"});
        listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "listener": listener })
    };
    for (attribute, reference) in [
        ("default_tls_container_ref", "mismatch"),
        ("default_tls_container_ref", "keyless"),
        ("default_tls_container_ref", "empty"),
        ("default_tls_container_ref", "garbage"),
        ("default_tls_container_ref", "archive"),
        ("default_tls_container_ref", "ca"),
        ("client_ca_tls_container_ref", "shop"),
        ("client_ca_tls_container_ref", "crl"),
    ] {
        let text = format!("The certificate {reference} is invalid. Error: ");
        let body = listener(json!({attribute: reference}));
        stage.refused(POST, LISTENERS, body, 400, &text).await;
    }
    let body = listener(json!({"sni_container_refs": ["shop", "keyless"]}));
    stage.refused(POST, LISTENERS, body, 400, "The certificate keyless is invalid.").await;
    let client = |crl: &str| json!({"client_ca_tls_container_ref": "ca", "client_crl_container_ref": crl});
    stage.refused(POST, LISTENERS, listener(client("ca")), 400, "The certificate ca is invalid.").await;
    let text = "The CRL specified is not valid for client certificate authority reference supplied.";
    stage.refused(POST, LISTENERS, listener(client("strange-crl")), 400, text).await;
    stage.refused(POST, LISTENERS, listener(client("forged-crl")), 400, "has not signed it").await;
    let made = stage.must(POST, LISTENERS, listener(client("crl"))).await;
    let path = format!("{LISTENERS}/{}", made["listener"]["id"].as_str().unwrap());
    let body = json!({"listener": {"client_crl_container_ref": "strange-crl"}});
    stage.refused(PUT, &path, body, 400, text).await;
    stage
        .refused(PUT, &path, json!({"listener": {"default_tls_container_ref": "keyless"}}), 400, "keyless")
        .await;
    // What has become unusable since is no obstacle to other changes.
    fs::write(stage.certificates().join("shop.pem"), "").unwrap();
    stage.must(PUT, &path, json!({"listener": {"name": "renamed"}})).await;
    // However often one is named, it is one.
    let many: Vec<_> = (0..100_000).map(|number| ["ca", "crl"][number % 2]).collect();
    let body = json!({"listener": {"sni_container_refs": many}});
    stage.refused(PUT, &path, body, 400, "The certificate ca is invalid.").await;
    let many: Vec<_> = (0..1001).map(|number| format!("none-{number}")).collect();
    let body = json!({"listener": {"sni_container_refs": many}});
    stage.refused(PUT, &path, body, 400, "A request may name 1000 certificates.").await;
}

#[tokio::test]
async fn so_are_those_of_pools() {
    let stage = Stage::new("");
    write(&stage);
    let balancer = stage.load_balancer("one").await;
    let pool = |more: Value| {
        let mut pool = json!({"loadbalancer_id": balancer, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
            "tls_enabled": true});
        pool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "pool": pool })
    };
    for (said, text) in [
        (json!({"tls_container_ref": "keyless"}), "The certificate keyless is invalid."),
        (json!({"ca_tls_container_ref": "shop"}), "The certificate shop is invalid."),
        (
            json!({"ca_tls_container_ref": "ca", "crl_container_ref": "strange-crl"}),
            "The CRL specified is not valid",
        ),
    ] {
        stage.refused(POST, POOLS, pool(said), 400, text).await;
    }
    let all = json!({"tls_container_ref": "shop", "ca_tls_container_ref": "ca", "crl_container_ref": "crl"});
    stage.must(POST, POOLS, pool(all)).await;
}
